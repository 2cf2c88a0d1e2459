// The reference score: float64 over eight fixed lanes, rounded once (llmrec_kernels/ops/score.py).
// Lane j adds the products of elements j, j + 8, ... in order; the lanes are added in the tree
// 4, 2, 1. Products of float32 are exact in float64, so every instruction set has the same bits.
//
// Internal linkage: each instruction set's file compiles a copy of its own.
#pragma once

#include <cmath>
#include <cstdint>

namespace llmrec {
namespace {

inline double lane_dot(const float* a, const float* b, int64_t dim) {
  double lanes[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  int64_t j = 0;
  for (; j + 8 <= dim; j += 8)
    for (int lane = 0; lane < 8; ++lane)
      lanes[lane] += static_cast<double>(a[j + lane]) * static_cast<double>(b[j + lane]);
  for (int lane = 0; j < dim; ++j, ++lane)
    lanes[lane] += static_cast<double>(a[j]) * static_cast<double>(b[j]);
  for (int width = 4; width > 0; width /= 2)
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  return lanes[0];
}

// Finite exactly where every element is: a float64 sum of float32 squares cannot overflow.
inline double norm_of(const float* row, int64_t dim) { return std::sqrt(lane_dot(row, row, dim)); }

// 0 for a zero row, so that its cosine is 0.
inline double inverse_of(double norm) { return norm == 0.0 ? 0.0 : 1.0 / norm; }

}  // namespace
}  // namespace llmrec
