// The reference score on a GPU, with the bits of common/score.h: eight lanes of a warp are a team
// that scores a pair, each the lane of the reference that it is.
#pragma once

#include "common/cuda.cuh"
#include "common/decode.cuh"

namespace llmrec::cuda {

constexpr int kTeam = 8;

// The sum of a team's lanes in the tree 4, 2, 1; all of them have it. Whole warps call this.
__device__ __forceinline__ double sum_of_team(double lane) {
#pragma unroll
  for (int other = kTeam / 2; other > 0; other /= 2)
    lane = rounded_sum(lane, __shfl_xor_sync(kEverybody, lane, other));
  return lane;
}

// 0 for a zero vector, so that its cosine is 0; NaN for one that is not finite.
__device__ __forceinline__ double inverse_of(double square) {
  if (!is_finite(square)) return square - square;
  return square == 0 ? 0.0 : divided(1.0, root(square));
}

struct Products {
  double dot = 0, square = 0;  // query with item, item with itself
};

// A lane's part. Products of float32 are exact in float64, so that fusing changes nothing.
template <Storage kStorage>
__device__ __forceinline__ void multiply(const float* query, const DeviceRows& items, int64_t item,
                                         bool squares, Products& sums) {
  const uint8_t* row = items.data + item * items.stride;
  const Affine affine = affine_of<kStorage>(items, item);
  const int64_t lane = static_cast<int>(threadIdx.x) % kTeam;
#pragma unroll 8
  for (int64_t j = lane; j < items.dim; j += kTeam) {
    const double x = widened<kStorage>(code_at<kStorage>(row, j), affine);
    sums.dot = fused(static_cast<double>(query[j]), x, sums.dot);
    if (squares) sums.square = fused(x, x, sums.square);
  }
}

// The similarity of a query and an item, or NaN where `there` is not. Whole warps call this.
template <Storage kStorage>
__device__ __forceinline__ double similarity_of(const float* query, double query_inverse,
                                                const DeviceRows& items, int64_t item, bool cosine,
                                                bool there) {
  Products sums;
  const bool squares = cosine && items.inverse_norms == nullptr;
  if (there) multiply<kStorage>(query, items, item, squares, sums);
  double similarity = sum_of_team(sums.dot);
  const double square = squares ? sum_of_team(sums.square) : 0;
  if (!there) return square - square + float_of_bits(0x7fc00000u);
  if (!cosine) return similarity;
  const double inverse = squares ? inverse_of(square) : items.inverse_norms[item];
  return rounded_product(rounded_product(similarity, query_inverse), inverse);
}

// The inverse length of a vector of float32. Whole warps call this.
__device__ __forceinline__ double inverse_length(const float* vector, int64_t dim, bool there) {
  double square = 0;
  for (int64_t j = static_cast<int>(threadIdx.x) % kTeam; there && j < dim; j += kTeam) {
    const double x = vector[j];
    square = fused(x, x, square);
  }
  return inverse_of(sum_of_team(square));
}

}  // namespace llmrec::cuda
