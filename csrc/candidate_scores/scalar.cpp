// Scores of given pairs in portable C++: the reference score itself, pair by pair.
//
// Work is split by entries, not by queries, because lists are uneven. The query stays in cache;
// the item rows are random reads.
#include <algorithm>
#include <cmath>
#include <vector>

#include "candidate_scores/candidates.h"
#include "common/score.h"
#include "common/widen.h"

namespace llmrec {
namespace {

constexpr int64_t kEntriesPerTask = 512;

double assemble(const CandidateArguments& args, double similarity, int64_t query, int64_t item) {
  double value = similarity;
  if (args.query_scale) value = value * static_cast<double>(args.query_scale[query]);
  if (args.item_scale) value = value * static_cast<double>(args.item_scale[item]);
  if (args.query_bias) value = value + static_cast<double>(args.query_bias[query]);
  if (args.item_bias) value = value + static_cast<double>(args.item_bias[item]);
  return value + args.offset;
}

}  // namespace

void candidate_scores_scalar(const CandidateArguments& args, FirstBad& bad_query,
                             FirstBad& bad_item, const Parallel& parallel) {
  const int64_t dim = args.items.dim;
  std::vector<double> inverse(static_cast<size_t>(args.count));
  for (int64_t q = 0; q < args.count; ++q) {
    const double norm = norm_of(args.queries + q * dim, dim);
    if (!std::isfinite(norm)) bad_query.note(q);
    inverse[q] = inverse_of(norm);
  }
  const int64_t entries = args.offsets[args.count];
  parallel.run((entries + kEntriesPerTask - 1) / kEntriesPerTask, [&](TaskQueue& queue) {
    std::vector<float> scratch(static_cast<size_t>(dim));
    for (int64_t task; queue.take(task);) {
      const int64_t first = task * kEntriesPerTask;
      const int64_t end = std::min(entries, first + kEntriesPerTask);
      const int64_t* after = std::upper_bound(args.offsets, args.offsets + args.count + 1, first);
      int64_t query = after - args.offsets - 1;
      for (int64_t entry = first; entry < end; ++entry) {
        while (args.offsets[query + 1] <= entry) ++query;
        const int64_t item = args.candidates[entry];
        const float* row = widen_row(args.items, item, scratch.data());
        double value = lane_dot(args.queries + query * dim, row, dim);
        if (args.cosine) {
          double item_inverse;
          if (args.items.inverse_norms != nullptr) {
            item_inverse = args.items.inverse_norms[item];
          } else {
            const double norm = norm_of(row, dim);
            if (!std::isfinite(norm)) bad_item.note(item);
            item_inverse = inverse_of(norm);
          }
          value = value * inverse[query] * item_inverse;
        } else if (!std::isfinite(value)) {
          bad_item.note(item);
        }
        args.scores[entry] = static_cast<float>(assemble(args, value, query, item));
      }
    }
  });
}

}  // namespace llmrec
