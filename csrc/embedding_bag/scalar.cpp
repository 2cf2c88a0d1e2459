// Pooled embedding lookup in portable C++.
//
// Pooling is float32 in the order of the indices: a row is widened, multiplied by its weight,
// rounded, and added, rounded. No sum is reordered and no multiply-add fused, so the result does
// not depend on the instruction set. Limited by random row reads.
#include <algorithm>
#include <limits>
#include <vector>

#include "common/score.h"
#include "common/widen.h"
#include "embedding_bag/bag.h"

namespace llmrec {
namespace {

constexpr int64_t kBagsPerTask = 32;

// Pools one bag into `sums` and returns what a mean divides by: its entries, or their weights.
float pool(const BagArguments& args, int64_t bag, float* sums, float* scratch) {
  const int64_t dim = args.table.dim;
  const bool max = args.mode == Pooling::max;
  const float start = max ? -std::numeric_limits<float>::infinity() : 0.0f;
  std::fill(sums, sums + dim, start);
  float divisor = 0.0f;  // the weights' sum
  int64_t entries = 0;   // an integer: float32 stops counting at 2^24
  for (int64_t entry = args.offsets[bag]; entry < args.offsets[bag + 1]; ++entry) {
    const int64_t index = args.indices[entry];
    if (index == args.padding_idx) continue;
    const float* row = widen_row(args.table, index, scratch);
    const float weight = args.weights ? args.weights[entry] : 1.0f;
    divisor += weight;
    ++entries;
    if (max) {
      // A NaN stays, as in torch: `!(a >= b)` is true for one.
      for (int64_t j = 0; j < dim; ++j)
        sums[j] = sums[j] >= row[j] || sums[j] != sums[j] ? sums[j] : row[j];
    } else if (args.weights) {
      for (int64_t j = 0; j < dim; ++j) sums[j] += weight * row[j];
    } else {
      for (int64_t j = 0; j < dim; ++j) sums[j] += row[j];
    }
  }
  if (max && entries == 0) std::fill(sums, sums + dim, 0.0f);
  return args.weights ? divisor : static_cast<float>(entries);
}

void finish(const BagArguments& args, float divisor, float* sums) {
  const int64_t dim = args.table.dim;
  if (args.mode == Pooling::mean)
    for (int64_t j = 0; j < dim; ++j) sums[j] = divisor == 0.0f ? 0.0f : sums[j] / divisor;
  if (!args.normalize) return;
  const double inverse = inverse_of(norm_of(sums, dim));
  for (int64_t j = 0; j < dim; ++j) sums[j] = static_cast<float>(sums[j] * inverse);
}

void store(const BagArguments& args, int64_t bag, const float* sums) {
  const int64_t dim = args.table.dim;
  if (args.out_storage == Storage::float32) {
    std::copy(sums, sums + dim, static_cast<float*>(args.out) + bag * dim);
    return;
  }
  uint16_t* out = static_cast<uint16_t*>(args.out) + bag * dim;
  const bool half = args.out_storage == Storage::float16;
  for (int64_t j = 0; j < dim; ++j)
    out[j] = half ? half_of_float(sums[j]) : bfloat16_of_float(sums[j]);
}

}  // namespace

void embedding_bag_scalar(const BagArguments& args, const Parallel& parallel) {
  const auto dim = static_cast<size_t>(args.table.dim);
  parallel.run((args.count + kBagsPerTask - 1) / kBagsPerTask, [&](TaskQueue& queue) {
    std::vector<float> sums(dim), scratch(dim);
    for (int64_t task; queue.take(task);) {
      const int64_t end = std::min(args.count, (task + 1) * kBagsPerTask);
      for (int64_t bag = task * kBagsPerTask; bag < end; ++bag) {
        const float divisor = pool(args, bag, sums.data(), scratch.data());
        finish(args, divisor, sums.data());
        store(args, bag, sums.data());
      }
    }
  });
}

}  // namespace llmrec
