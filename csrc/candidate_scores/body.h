// Scores of given pairs that every instruction set's file compiles for itself, behind its target:
// the reference score itself, pair by pair.
//
// Work is split by entries, not by queries, because lists are uneven. The query stays in the cache;
// the items' rows are random reads, asked for while the rows before them are multiplied.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "candidate_scores/best.h"
#include "candidate_scores/candidates.h"
#include "common/decode.h"
#include "common/score.h"

namespace llmrec {
namespace {

template <class Isa>
class PairScorer {
 public:
  PairScorer(const CandidateArguments& args, FirstBad& bad_query, FirstBad& bad_item)
      : args_(args),
        bad_query_(bad_query),
        bad_item_(bad_item),
        distance_(
            std::clamp<int64_t>(kAheadBytes / std::max<int64_t>(1, args.items.stride), 3, 16)),
        query_(static_cast<size_t>(args.items.dim)),
        scratch_(static_cast<size_t>((args.items.dim + kWide - 1) / kWide * kWide)) {}

  // Entries first .. end - 1 of all lists, which lie one after the other.
  void score(int64_t first, int64_t end, float* scores) {
    const int64_t* after = std::upper_bound(args_.offsets, args_.offsets + args_.count + 1, first);
    int64_t query = after - args_.offsets - 1;
    take(query);
    for (int64_t entry = first; entry < end; ++entry) {
      if (args_.offsets[query + 1] <= entry) {
        while (args_.offsets[query + 1] <= entry) ++query;
        take(query);
      }
      const int64_t item = args_.candidates[entry];
      const int64_t later = args_.candidates[std::min(entry + distance_, end - 1)];
      scores[entry - first] = static_cast<float>(assemble(similarity(item, later), query, item));
    }
  }

 private:
  static constexpr int64_t kAheadBytes = 4096;

  // The query of the pairs that follow, in float64.
  void take(int64_t query) {
    const int64_t dim = args_.items.dim;
    const float* row = args_.queries + query * dim;
    std::copy_n(row, dim, query_.begin());
    if (!args_.cosine) return;
    const double norm = norm_of(row, dim);
    if (!std::isfinite(norm)) bad_query_.note(query);
    inverse_ = inverse_of(norm);
  }

  // Asks memory for a later row, a line at a time: all at once would fill the queue of misses.
  double similarity(int64_t item, int64_t later) {
    const Rows& rows = args_.items;
    const char* next = row_start(rows, later);
    const int64_t last = rows.stride - 1;
    const float* row = decode_row<Isa>(rows, item, scratch_.data());
    if (rows.scale != nullptr) fetch_number(rows.scale, later);
    if (rows.bias != nullptr) fetch_number(rows.bias, later);
    if (rows.inverse_norms != nullptr) __builtin_prefetch(rows.inverse_norms + later);
    const double product = lane_dot(query_.data(), row, rows.dim, [&](int64_t j) {
      if (4 * j <= last + kLine) __builtin_prefetch(next + std::min(4 * j, last));
    });
    if (!args_.cosine) {
      if (!std::isfinite(product)) bad_item_.note(item);
      return product;
    }
    if (rows.inverse_norms != nullptr) return product * inverse_ * rows.inverse_norms[item];
    const double norm = norm_of(row, rows.dim);
    if (!std::isfinite(norm)) bad_item_.note(item);
    return product * inverse_ * inverse_of(norm);
  }

  void fetch_number(const void* numbers, int64_t row) const {
    const int64_t bytes = is_nibbles(args_.items.storage) ? 2 : 4;
    __builtin_prefetch(static_cast<const char*>(numbers) + row * args_.items.number_stride * bytes);
  }

  double assemble(double value, int64_t query, int64_t item) const {
    if (args_.query_scale) value = value * static_cast<double>(args_.query_scale[query]);
    if (args_.item_scale) value = value * static_cast<double>(args_.item_scale[item]);
    if (args_.query_bias) value = value + static_cast<double>(args_.query_bias[query]);
    if (args_.item_bias) value = value + static_cast<double>(args_.item_bias[item]);
    return value + args_.offset;
  }

  const CandidateArguments& args_;
  FirstBad& bad_query_;
  FirstBad& bad_item_;
  const int64_t distance_;
  std::vector<double> query_;
  std::vector<float> scratch_;
  double inverse_ = 0.0;
};

template <class Isa>
void best_scores(const CandidateArguments& args, FirstBad& bad_query, FirstBad& bad_item,
                 const Parallel& parallel) {
  BestOfLists lists(args.offsets, args.count, args.k, parallel.threads, args.scores, args.ids);
  parallel.run(lists.pieces(), [&](TaskQueue& queue) {
    PairScorer<Isa> scorer(args, bad_query, bad_item);
    Best best(args.k);
    float scores[kEntriesOfBlock];
    for (int64_t task; queue.take(task);) {
      const Piece& piece = lists.piece(task);
      int64_t first = piece.first, end = first;
      do {
        first = end;
        end = std::min(piece.end, first + kEntriesOfBlock);
        if (first < end) scorer.score(first, end, scores);  // there may be empty lists alone
        lists.take(task, first, end, scores, args.candidates + first, best);
      } while (end < piece.end);
    }
  });
  lists.finish(parallel);
}

template <class Isa>
void candidate_scores(const CandidateArguments& args, FirstBad& bad_query, FirstBad& bad_item,
                      const Parallel& parallel) {
  const int64_t dim = args.items.dim;
  for (int64_t q = 0; q < args.count; ++q)
    if (!std::isfinite(norm_of(args.queries + q * dim, dim))) bad_query.note(q);
  if (args.k > 0) return best_scores<Isa>(args, bad_query, bad_item, parallel);
  const int64_t entries = args.offsets[args.count];
  parallel.run((entries + kEntriesOfBlock - 1) / kEntriesOfBlock, [&](TaskQueue& queue) {
    PairScorer<Isa> scorer(args, bad_query, bad_item);
    for (int64_t task; queue.take(task);) {
      const int64_t first = task * kEntriesOfBlock;
      scorer.score(first, std::min(entries, first + kEntriesOfBlock), args.scores + first);
    }
  });
}

}  // namespace
}  // namespace llmrec
