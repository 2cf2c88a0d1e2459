// Certified exact top-K: scan low, prove, rescore. Each level's file includes this behind its
// target and calls search<Isa>.
//
// 1. Queries and items have int8 codes (common/sketch.h). Sums of products of codes estimate every
//    score; a bound says how far from the score an estimate can be (batch.h).
// 2. Items are read in chunks that fit the cache, and every query passes over a chunk. What an
//    estimate plus its bound cannot lift to the query's cut is dropped by one comparison; the few
//    others become candidates, which raise the cut (candidates.h).
// 3. At the end the candidates are scored with the reference score, which alone decides ids,
//    scores and ties. The certificate: no cut was ever above the k-th best score. Cuts are bets
//    that hold for all but freak data; a query whose bet was lost is searched again with certain
//    cuts.
//
// Several workers share a batch of queries: each in a lane, with candidates of its own, and with
// the best cut of all. Where candidates for every thread would take too much memory the batch is
// split into teams. Neither changes a result.
//
// An Isa has
//   Code, kTile, kRows, kDepth   the layout of the queries' codes (batch.h)
//   kGroup                       tiles whose codes stay in the L1 cache beside a strip
//   kItemOffset                  what it adds to the items' codes
//   Session                      what a thread holds while it scans; its sums(...) are the
//                                [kTile][kStrip] products of a tile of queries with a strip, told
//                                whether it is the first to read that strip
//   parts(...)                   how often sums(...) lets something else go on in between
//   passing(...)                 one bit for each item of a strip that may be a candidate, and a
//                                copy of the sums
//   raise_to(...)                raises sixteen lows to what two blocks of items should score
//   keep(...)                    drops the candidates whose high is below a cut
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "common/check.h"
#include "common/workspace.h"
#include "cosine_topk/batch.h"
#include "cosine_topk/plan.h"
#include "cosine_topk/scan.h"
#include "cosine_topk/shared.h"
#include "cosine_topk/topk.h"

namespace llmrec {
namespace {

constexpr int64_t kSparse = 16;  // one pair of a query and an item in so many is few

// Searches some of the queries; returns those that could not be certified.
template <class Isa>
std::vector<int64_t> search_round(const TopkArguments& args, const Plan& plan,
                                  const std::vector<int64_t>& rows, double caution,
                                  const Parallel& parallel) {
  const auto count = static_cast<int64_t>(rows.size());
  Workspace space(Batch<Isa>::bytes(count, args.items.dim) + Search<Isa>::bytes(plan, count));
  const Batch<Isa> batch(rows.data(), count, args.items.dim, space);
  FirstBad bad_query, bad_item;
  parallel.run(batch.tiles, [&](TaskQueue& queue) {
    Preparer<Isa> preparer(args, batch);
    for (int64_t tile; queue.take(tile);) preparer.tile(tile, bad_query);
  });
  check_finite_rows("queries", bad_query);

  Search<Isa> search(args, plan, batch, caution, space);
  search.run(parallel, bad_item);
  check_finite_rows("items", bad_item);

  constexpr int64_t kQueriesPerTask = 4;
  std::vector<uint8_t> certified(static_cast<size_t>(count));
  parallel.run((count + kQueriesPerTask - 1) / kQueriesPerTask, [&](TaskQueue& queue) {
    Scratch scratch(args.items.dim);
    for (int64_t task; queue.take(task);)
      for (int64_t q = task * kQueriesPerTask; q < std::min(count, (task + 1) * kQueriesPerTask);
           ++q)
        certified[q] = search.finish(q, scratch);
  });
  std::vector<int64_t> lost;
  for (int64_t q = 0; q < count; ++q)
    if (!certified[q]) lost.push_back(rows[q]);
  return lost;
}

template <class Isa>
void search_all(const TopkArguments& args, const Parallel& parallel) {
  const Plan cut = plan<Isa>(args, parallel.threads);
  for (int64_t first = 0; first < args.count; first += cut.round) {
    std::vector<int64_t> rows(static_cast<size_t>(std::min(cut.round, args.count - first)));
    std::iota(rows.begin(), rows.end(), first);
    rows = search_round<Isa>(args, cut, rows, args.exact ? args.tuning.caution : 0.0, parallel);
    if (!rows.empty()) search_round<Isa>(args, cut, rows, 1.0, parallel);
  }
}

// The part of a call that is about one query.
inline TopkArguments query_of(const TopkArguments& args, int64_t query) {
  TopkArguments one = args;
  one.queries += query * args.items.dim;
  one.count = 1;
  one.scores += query * args.k;
  one.ids += query * args.k;
  if (one.filters.mask != nullptr) one.filters.mask += query * args.items.count;
  if (one.filters.exclude.ids != nullptr) one.filters.exclude.offsets += query;
  if (one.filters.allow.ids != nullptr) one.filters.allow.offsets += query;
  return one;
}

// One in how many (query, item) pairs a mask allows, from a look at some.
inline bool mostly_hidden(const uint8_t* mask, int64_t pairs) {
  constexpr int64_t kLooks = 1 << 14;
  const int64_t step = std::max<int64_t>(1, pairs / kLooks) | 1;
  int64_t seen = 0, allowed = 0;
  for (int64_t i = 0; i < pairs; i += step, ++seen) allowed += mask[i] != 0;
  return allowed * kSparse < seen;
}

// Refuses queries that are not finite: a search of its own would not know their number.
inline void check_queries(const TopkArguments& args, const Parallel& parallel) {
  FirstBad bad;
  parallel.run(args.count, [&](TaskQueue& queue) {
    for (int64_t q; queue.take(q);)
      if (!std::isfinite(norm_of(args.queries + q * args.items.dim, args.items.dim))) bad.note(q);
  });
  check_finite_rows("queries", bad);
}

// Each query on its own, over the items that it may have: where those are few, the whole scan
// would mostly compare what nobody may get.
template <class Isa>
void search_each(const TopkArguments& args, const Parallel& parallel) {
  Parallel alone;
  alone.run = [](int64_t tasks, const Worker& worker) {
    TaskQueue queue(tasks);
    if (tasks > 0) worker(queue);
  };
  const bool together = args.count >= parallel.threads;  // or one after the other, on all threads
  const auto work = [&](TaskQueue& queue) {
    std::vector<int64_t> ids;
    for (int64_t q; queue.take(q);) {
      TopkArguments one = query_of(args, q);
      int64_t offsets[2] = {0, 0};
      if (one.filters.mask != nullptr) {
        ids.clear();
        for (int64_t item = 0; item < args.items.count; ++item)
          if (one.filters.mask[item]) ids.push_back(item);
        offsets[1] = static_cast<int64_t>(ids.size());
        ids.push_back(0);  // so that data() is not null where there are none
        one.filters.mask = nullptr;
        one.filters.allow = {ids.data(), offsets};
      }
      search_all<Isa>(one, together ? alone : parallel);
    }
  };
  if (together) return parallel.run(args.count, work);
  TaskQueue queue(args.count);
  work(queue);
}

template <class Isa>
void search(const TopkArguments& args, const Parallel& parallel) {
  check_value(args.items.count < int64_t{1} << 32, "items has ", args.items.count,
              " rows; expected fewer than 4,294,967,296");
  const TopkFilters& filters = args.filters;
  const int64_t pairs = args.count * args.items.count;
  const bool few_listed =
      filters.allow.ids != nullptr && filters.allow.offsets[args.count] * kSparse < pairs;
  const bool few_shown =
      filters.mask != nullptr && filters.allow.ids == nullptr && mostly_hidden(filters.mask, pairs);
  if (args.sketch.codes != nullptr && args.count > 0 && (few_listed || few_shown)) {
    check_queries(args, parallel);
    search_each<Isa>(args, parallel);
  } else {
    search_all<Isa>(args, parallel);
  }
}

}  // namespace
}  // namespace llmrec
