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

constexpr uint64_t kNoKey = 0;            // below every key
constexpr uint32_t kLastId = 0x7fffffff;  // that a key has room for

// Ids the other way round, and back.
__device__ __forceinline__ uint32_t turned(uint32_t id) { return kLastId - id; }

// Score descending, then id ascending; none for NaN. The lowest bit tells -0 from 0.
__device__ __forceinline__ uint64_t key_of(float score, int64_t id) {
  if (score != score) return kNoKey;
  const uint32_t low = turned(static_cast<uint32_t>(id)) << 1 | bits_of_float(score) >> 31;
  return static_cast<uint64_t>(order_of(score)) << 32 | low;
}

__device__ __forceinline__ float score_of(uint64_t key) {
  const uint32_t magnitude = bits_of_float(value_of(static_cast<uint32_t>(key >> 32))) & 0x7fffffff;
  return float_of_bits(magnitude | static_cast<uint32_t>(key) << 31);
}

__device__ __forceinline__ int64_t id_of(uint64_t key) {
  return turned(static_cast<uint32_t>(key) >> 1);
}

}  // namespace llmrec::cuda
