// The int8 sketch of rows: what the scan of cosine_topk reads in their place.
//
// Items come in blocks of 16, element j of lane l at [j / 4][l][j % 4]: four elements of each of
// 16 items fill 64 bytes, which is one AVX-512 register of the dot product instruction, and 16 of
// those are one AMX tile. A row x is step * codes plus an error whose length is at most
// residual * |x|, so that by the inequality of Cauchy and Schwarz for any q
//
//   |q x - step (q codes)| <= |q| residual |x|.
//
// The same bits at every level (llmrec_kernels/ops/pack/reference.py): float32 steps, float64
// errors over the eight lanes of the reference score.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "common/rows.h"
#include "common/score.h"
#include "common/vectors.h"
#include "common/widen.h"

namespace llmrec {
namespace {

constexpr int64_t kBlock = 16;          // items
constexpr float kSmallest = 0x1p-100f;  // of the largest element of a row that has codes:
constexpr float kLargest = 0x1p100f;    // beyond, a step or its inverse might not be a float32
constexpr float kRounder = 0x1.8p23f;   // adding it leaves the nearest even integer at the end

// The largest code: sums of products with unsigned bytes must fit into 32 bits.
inline int32_t largest_code(int64_t dim) {
  const int64_t most = std::numeric_limits<int32_t>::max() / (255 * std::max<int64_t>(1, dim));
  return static_cast<int32_t>(std::min<int64_t>(127, most));
}

inline int64_t padded_to(int64_t count, int64_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

inline int64_t block_bytes(int64_t dim) { return (dim + 3) / 4 * 4 * kBlock; }

// The largest magnitude among elements [dim padded to 16].
inline float largest_of(const float* elements, int64_t dim) {
  Floats largest = {};
  for (int64_t j = 0; j < dim; j += kWide) {
    Ints bits;
    load(elements + j, bits);
    bits &= 0x7fffffff;
    Floats magnitude;
    std::memcpy(&magnitude, &bits, sizeof bits);
    largest = magnitude > largest ? magnitude : largest;
  }
  float lanes[kWide], result = 0.0f;
  store(largest, lanes);
  for (float lane : lanes) result = std::max(result, lane);
  return result;
}

// Codes of 16 elements, and the squares of their errors added to `errors` in the order of lanes.
inline Bytes encode(const float* elements, float factor, double step, EightDoubles& errors) {
  Floats x;
  load(elements, x);
  const Floats rounded = (x * factor + kRounder) - kRounder;
  float values[kWide];
  store(rounded, values);
  for (int half = 0; half < 2; ++half) {
    EightDoubles error = EightDoubles::from(elements + 8 * half);
    error.take_product(EightDoubles::from(values + 8 * half), step);
    errors.add_product(error, error);
  }
  return __builtin_convertvector(__builtin_convertvector(rounded, Ints), Bytes);
}

inline float rounded_up(double value) {
  const float nearest = static_cast<float>(value);
  return nearest < value ? std::nextafter(nearest, std::numeric_limits<float>::infinity())
                         : nearest;
}

struct RowSketch {
  float unit_scale = 0.0f;  // step / |x|
  float residual = 0.0f;
};

// Sketches rows one after the other; holds what one row needs on the way.
class Sketcher {
 public:
  explicit Sketcher(int64_t dim)
      : dim_(dim),
        groups_((dim + 3) / 4),
        limit_(static_cast<float>(largest_code(dim))),
        row_(static_cast<size_t>(padded_to(dim, kWide) + kWide)),
        codes_(row_.size()) {}

  // Writes the codes of lane `lane` of a block.
  RowSketch sketch(const float* row, double inverse_norm, int8_t* block, int64_t lane) {
    if (dim_ > 0) std::memcpy(row_.data(), row, static_cast<size_t>(dim_) * sizeof *row);
    const float largest = largest_of(row_.data(), dim_);
    if (largest == 0.0f) return cleared(block, lane, 0.0f);
    if (!(largest >= kSmallest && largest <= kLargest) || limit_ == 0.0f)
      return cleared(block, lane, 1.0f);
    const float step = largest / limit_, factor = limit_ / largest;
    EightDoubles errors = {};
    for (int64_t j = 0; j < dim_; j += kWide)
      store(encode(row_.data() + j, factor, step, errors), codes_.data() + j);
    place(block, lane);
    const double error = std::sqrt(sum_of_lanes(errors));
    return {static_cast<float>(static_cast<double>(step) * inverse_norm),
            rounded_up(error * inverse_norm * (1 + 0x1p-40))};
  }

  // The codes of a lane with no row behind it, or with none that codes could describe.
  RowSketch cleared(int8_t* block, int64_t lane, float residual) {
    std::fill(codes_.begin(), codes_.end(), int8_t{0});
    place(block, lane);
    return {0.0f, residual};
  }

 private:
  void place(int8_t* block, int64_t lane) const {
    for (int64_t group = 0; group < groups_; ++group)
      std::memcpy(block + (group * kBlock + lane) * 4, codes_.data() + group * 4, 4);
  }

  int64_t dim_, groups_;
  float limit_;
  std::vector<float> row_;  // padded with zeros
  std::vector<int8_t> codes_;
};

}  // namespace
}  // namespace llmrec
