// Sortable keys: a score and an id in one integer, the better pair the larger one.
#pragma once

#include "common/cuda.cuh"

namespace llmrec::cuda {

// The order of floats as unsigned integers, and back; no float has 0. -0 is 0.
__device__ __forceinline__ uint32_t order_of(float value) {
  const uint32_t bits = bits_of_float(value + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float value_of(uint32_t order) {
  return float_of_bits(order >> 31 ? order & 0x7fffffffu : ~order);
}

constexpr uint64_t kNoKey = 0;  // below every key

// Score descending, then id ascending; none for NaN.
__device__ __forceinline__ uint64_t key_of(float score, int64_t id) {
  if (score != score) return kNoKey;
  return static_cast<uint64_t>(order_of(score)) << 32 | ~static_cast<uint32_t>(id);
}

__device__ __forceinline__ float score_of(uint64_t key) {
  return value_of(static_cast<uint32_t>(key >> 32));
}

__device__ __forceinline__ int64_t id_of(uint64_t key) { return ~static_cast<uint32_t>(key); }

}  // namespace llmrec::cuda
