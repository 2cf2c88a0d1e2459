// The filters that differ from query to query.
#pragma once

#include <cstdint>

#include "cosine_topk/candidates.h"
#include "cosine_topk/topk.h"

namespace llmrec {
namespace {

// Which items a query may have, of those that are not ruled out for all queries.
class Permission {
 public:
  explicit Permission(const TopkArguments& args) : args_(args) {}

  bool any() const {
    const TopkFilters& filters = args_.filters;
    return filters.mask != nullptr || filters.exclude.ids != nullptr ||
           filters.allow.ids != nullptr;
  }

  // Items come in the order of their ids, so that a list is walked once.
  bool grants(int64_t query, int64_t item, Candidates& candidates) const {
    const TopkFilters& filters = args_.filters;
    if (filters.mask != nullptr && !filters.mask[query * args_.items.count + item]) return false;
    if (filters.exclude.ids != nullptr && listed(filters.exclude, query, item, candidates.excluded))
      return false;
    return filters.allow.ids == nullptr || listed(filters.allow, query, item, candidates.allowed);
  }

 private:
  static bool listed(const IdLists& lists, int64_t query, int64_t item, int64_t& walked) {
    const int64_t* list = lists.ids + lists.offsets[query];
    const int64_t length = lists.offsets[query + 1] - lists.offsets[query];
    while (walked < length && list[walked] < item) ++walked;
    return walked < length && list[walked] == item;
  }

  const TopkArguments& args_;
};

}  // namespace
}  // namespace llmrec
