// Top-K where each query may have a few items only: they are scored one by one, which reads less
// than a scan of everything would.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <vector>

#include "common/check.h"
#include "common/score.h"
#include "cosine_topk/permission.h"
#include "cosine_topk/scorer.h"
#include "cosine_topk/topk.h"

namespace llmrec {
namespace {

// About how many items all queries together may have by their own lists or masks.
inline int64_t shown_to_all(const TopkArguments& args) {
  const TopkFilters& filters = args.filters;
  const int64_t pairs = args.count * args.items.count;
  if (filters.allow.ids != nullptr) return filters.allow.offsets[args.count];
  constexpr int64_t kLooks = 1 << 14;
  const int64_t step = std::max<int64_t>(1, pairs / kLooks) | 1;
  int64_t seen = 0, shown = 0;
  for (int64_t i = 0; i < pairs; i += step, ++seen) shown += filters.mask[i] != 0;
  return seen == 0 ? 0 : pairs / seen * shown;
}

// Whether scoring what is shown reads less than a scan. A scan reads every code, for 64 queries at
// a time at the least cost; a row is read at random, for one query. A fast search is a scan by
// definition, and items that come without a sketch are checked on the way.
inline bool few_listed(const TopkArguments& args) {
  const bool listed = args.filters.allow.ids != nullptr || args.filters.mask != nullptr;
  if (!listed || !args.exact || args.sketch.codes == nullptr || args.count == 0) return false;
  const auto codes = static_cast<double>(args.items.count * args.items.dim);
  const double rounds = std::max(1.0, static_cast<double>(args.count) / 64);
  return static_cast<double>(shown_to_all(args)) * static_cast<double>(args.items.stride) <
         codes * rounds / 2;
}

// A part of a query's items.
struct Share {
  int64_t query, part, parts;
};

// Scores what a share of a list, or of all items, leaves to a query; the k best stay in `found`.
class ListedShare {
 public:
  explicit ListedShare(const TopkArguments& args) : args_(args), scorer_(args) {}

  void score(const Share& share, double inverse_norm, std::vector<Scored>& found) {
    const TopkFilters& filters = args_.filters;
    ids_.clear();
    const int64_t begin = filters.allow.ids ? filters.allow.offsets[share.query] : 0;
    const int64_t end =
        filters.allow.ids ? filters.allow.offsets[share.query + 1] : args_.items.count;
    const int64_t first = begin + (end - begin) * share.part / share.parts;
    const int64_t last = begin + (end - begin) * (share.part + 1) / share.parts;
    if (filters.allow.ids != nullptr)
      std::unique_copy(filters.allow.ids + first, filters.allow.ids + last,
                       std::back_inserter(ids_));
    else
      take_shown(share.query, first, last);
    if (filters.allowed != nullptr)
      std::erase_if(ids_, [&](int64_t item) { return !filters.allowed[item]; });
    if (filters.exclude.ids != nullptr) {
      Walk excluded(filters.exclude, share.query);
      std::erase_if(ids_, [&](int64_t item) { return excluded.has(item); });
    }
    scorer_.take(share.query, inverse_norm);
    scorer_.scores(static_cast<int64_t>(ids_.size()), [&](int64_t i) { return ids_[i]; }, found);
    if (static_cast<int64_t>(found.size()) <= args_.k) return;
    std::nth_element(found.begin(), found.begin() + args_.k - 1, found.end());
    found.erase(found.begin() + args_.k, found.end());
  }

 private:
  void take_shown(int64_t query, int64_t first, int64_t last) {
    const uint8_t* flags = args_.filters.mask + query * args_.items.count;
    for (int64_t item = first; item < last; item += kStrip) {
      uint32_t bits = bits_of_flags(flags + item, std::min(kStrip, last - item));
      for (; bits != 0; bits &= bits - 1) ids_.push_back(item + std::countr_zero(bits));
    }
  }

  const TopkArguments& args_;
  Scorer scorer_;
  std::vector<int64_t> ids_;
};

inline void search_listed(const TopkArguments& args, const Parallel& parallel) {
  std::vector<double> inverse(static_cast<size_t>(args.count));
  FirstBad bad;
  for (int64_t q = 0; q < args.count; ++q) {
    const double norm = norm_of(args.queries + q * args.items.dim, args.items.dim);
    if (!std::isfinite(norm)) bad.note(q);
    inverse[q] = inverse_of(norm);
  }
  check_finite_rows("queries", bad);
  // Few queries are cut into shares, so that every thread has work. A share cuts no run of equal
  // ids, which are one item: the merge drops the second.
  const int64_t parts = std::max<int64_t>(1, 4 * parallel.threads / args.count);
  std::vector<std::vector<Scored>> found(static_cast<size_t>(args.count * parts));
  parallel.run(args.count * parts, [&](TaskQueue& queue) {
    ListedShare share(args);
    for (int64_t task; queue.take(task);)
      share.score({task / parts, task % parts, parts}, inverse[task / parts], found[task]);
  });
  parallel.run(args.count, [&](TaskQueue& queue) {
    for (int64_t q; queue.take(q);) {
      std::vector<Scored>& all = found[q * parts];
      for (int64_t part = 1; part < parts; ++part) {
        const std::vector<Scored>& more = found[q * parts + part];
        all.insert(all.end(), more.begin(), more.end());
      }
      std::sort(all.begin(), all.end());
      const auto same = [](const Scored& a, const Scored& b) { return a.id == b.id; };
      all.erase(std::unique(all.begin(), all.end(), same), all.end());
      write_best(args, q, all);
    }
  });
}

}  // namespace
}  // namespace llmrec
