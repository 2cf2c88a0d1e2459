// Inverse norms in portable C++. One pass over the rows, which also tells whether they are finite.
#include <algorithm>
#include <cmath>
#include <vector>

#include "common/score.h"
#include "pack/pack.h"

namespace llmrec {
namespace {

constexpr int64_t kRowsPerTask = 512;

}  // namespace

void inverse_norms_scalar(const Rows& rows, double* inverse_norms, FirstBad& bad,
                          const Parallel& parallel) {
  parallel.run((rows.count + kRowsPerTask - 1) / kRowsPerTask, [&](TaskQueue& queue) {
    std::vector<float> scratch(static_cast<size_t>(rows.dim));
    for (int64_t task; queue.take(task);) {
      const int64_t end = std::min(rows.count, (task + 1) * kRowsPerTask);
      for (int64_t row = task * kRowsPerTask; row < end; ++row) {
        const double norm = norm_of(widen_row(rows, row, scratch.data()), rows.dim);
        if (!std::isfinite(norm)) bad.note(row);
        inverse_norms[row] = inverse_of(norm);
      }
    }
  });
}

}  // namespace llmrec
