// The filters that differ from query to query.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cosine_topk/candidates.h"
#include "cosine_topk/chunk.h"
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

  // One bit for each item of a strip. Strips come in order, so that a list is walked once.
  uint32_t bits(int64_t query, int64_t first, Candidates& candidates) const {
    const TopkFilters& filters = args_.filters;
    uint32_t bits = ~uint32_t{0};
    if (filters.mask != nullptr)
      bits = shown(filters.mask + query * args_.items.count + first,
                   std::min(kStrip, args_.items.count - first));
    if (filters.exclude.ids != nullptr)
      bits &= ~listed(filters.exclude, query, first, candidates.excluded);
    if (filters.allow.ids != nullptr)
      bits &= listed(filters.allow, query, first, candidates.allowed);
    return bits;
  }

 private:
  static uint32_t shown(const uint8_t* mask, int64_t count) {
    uint32_t bits = 0;
    for (int64_t lane = 0; lane < count; ++lane)
      bits |= static_cast<uint32_t>(mask[lane] != 0) << lane;
    return bits;
  }

  static uint32_t listed(const IdLists& lists, int64_t query, int64_t first, int64_t& walked) {
    const int64_t* list = lists.ids + lists.offsets[query];
    const int64_t length = lists.offsets[query + 1] - lists.offsets[query];
    while (walked < length && list[walked] < first) ++walked;
    uint32_t bits = 0;
    for (int64_t i = walked; i < length && list[i] < first + kStrip; ++i)
      bits |= 1u << (list[i] - first);
    return bits;
  }

  const TopkArguments& args_;
};

}  // namespace
}  // namespace llmrec
