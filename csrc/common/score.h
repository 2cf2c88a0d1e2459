// The reference score: float64 over eight fixed lanes, rounded once (llmrec_kernels/ops/score.py).
// Lane j adds the products of elements j, j + 8, ... in order; the lanes are added in the tree
// 4, 2, 1. Products of float32 are exact in float64, so every instruction set has the same bits.
//
// Internal linkage: each instruction set's file compiles a copy of its own.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/vectors.h"

namespace llmrec {
namespace {

using EightDoubles = DoublesOf<8>;

inline double sum_of_lanes(double* lanes) {
  for (int width = 4; width > 0; width /= 2)
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  return lanes[0];
}

inline double sum_of_lanes(const EightDoubles& sums) {
  double lanes[8];
  store(sums, lanes);
  return sum_of_lanes(lanes);
}

// Of float32 numbers, which may be held as float64. `meanwhile` is called with j every sixteen
// elements, to ask memory for what comes next.
template <class Left, class Meanwhile>
inline double lane_dot(const Left* a, const float* b, int64_t dim, const Meanwhile& meanwhile) {
  EightDoubles sums = {};
  int64_t j = 0;
  for (; j + 16 <= dim; j += 16) {
    meanwhile(j);
    sums.add_product(EightDoubles::from(a + j), EightDoubles::from(b + j));
    sums.add_product(EightDoubles::from(a + j + 8), EightDoubles::from(b + j + 8));
  }
  for (; j + 8 <= dim; j += 8)
    sums.add_product(EightDoubles::from(a + j), EightDoubles::from(b + j));
  double lanes[8];
  store(sums, lanes);
  for (int lane = 0; j < dim; ++j, ++lane)
    lanes[lane] += static_cast<double>(a[j]) * static_cast<double>(b[j]);
  return sum_of_lanes(lanes);
}

template <class Left>
inline double lane_dot(const Left* a, const float* b, int64_t dim) {
  return lane_dot(a, b, dim, [](int64_t) {});
}

// Finite exactly where every element is: a float64 sum of float32 squares cannot overflow.
inline double norm_of(const float* row, int64_t dim) { return std::sqrt(lane_dot(row, row, dim)); }

// 0 for a zero row, so that its cosine is 0.
inline double inverse_of(double norm) { return norm == 0.0 ? 0.0 : 1.0 / norm; }

}  // namespace
}  // namespace llmrec
