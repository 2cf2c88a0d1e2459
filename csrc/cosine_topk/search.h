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
#include <cstdint>
#include <numeric>
#include <vector>

#include "common/check.h"
#include "common/workspace.h"
#include "cosine_topk/batch.h"
#include "cosine_topk/listed.h"
#include "cosine_topk/plan.h"
#include "cosine_topk/scan.h"
#include "cosine_topk/shared.h"
#include "cosine_topk/topk.h"

namespace llmrec {
namespace {

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
    Scratch scratch(args);
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
void search(const TopkArguments& args, const Parallel& parallel) {
  check_value(args.items.count < int64_t{1} << 32, "items has ", args.items.count,
              " rows; expected fewer than 4,294,967,296");
  if (few_listed(args)) return search_listed(args, parallel);
  const Plan cut = plan<Isa>(args, parallel.threads);
  for (int64_t first = 0; first < args.count; first += cut.round) {
    std::vector<int64_t> rows(static_cast<size_t>(std::min(cut.round, args.count - first)));
    std::iota(rows.begin(), rows.end(), first);
    rows = search_round<Isa>(args, cut, rows, args.exact ? args.tuning.caution : 0.0, parallel);
    if (!rows.empty()) search_round<Isa>(args, cut, rows, 1.0, parallel);
  }
}

}  // namespace
}  // namespace llmrec
