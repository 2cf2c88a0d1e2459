// Elements of rows in any storage (common/rows.h): one at a time, or 16 bytes at a time.
#pragma once

#include "common/cuda.cuh"
#include "common/rows.h"
#if !defined(__CUDACC_RTC__)
#include <type_traits>
#endif

namespace llmrec::cuda {

// Rows as kernels take them: fields of 8 bytes, so that every caller lays them out alike. The
// storage is a parameter of the kernels.
struct DeviceRows {
  const uint8_t* data;
  const void* scale;
  const void* bias;
  const double* inverse_norms;  // may be null
  int64_t count, dim;
  int64_t stride;         // bytes from row to row
  int64_t number_stride;  // of scale and bias, in numbers
};

constexpr bool has_scale(Storage storage) {
  return storage != Storage::float32 && storage != Storage::float16 && storage != Storage::bfloat16;
}

// A row's scale or bias: float16 beside codes of 4 bits, else float32.
template <Storage kStorage>
__device__ __forceinline__ float number_of(const void* numbers, int64_t at) {
  if constexpr (is_nibbles(kStorage))
    return float_of_half(static_cast<const uint16_t*>(numbers)[at]);
  else
    return static_cast<const float*>(numbers)[at];
}

// What the codes of a row are multiplied with, and what is added to them.
struct Affine {
  float scale, bias;
};

template <Storage kStorage>
__device__ __forceinline__ Affine affine_of(const DeviceRows& rows, int64_t row) {
  Affine found = {1.0f, 0.0f};
  if constexpr (has_scale(kStorage))
    found.scale = number_of<kStorage>(rows.scale, row * rows.number_stride);
  if constexpr (is_affine(kStorage))
    found.bias = number_of<kStorage>(rows.bias, row * rows.number_stride);
  return found;
}

// A code as the float32 that it stands for: scale * code, rounded, + bias, rounded.
template <Storage kStorage>
__device__ __forceinline__ float widened(float code, const Affine& affine) {
  float value = code;
  if constexpr (has_scale(kStorage)) value = rounded_product(affine.scale, value);
  if constexpr (is_affine(kStorage)) value = rounded_sum(value, affine.bias);
  return value;
}

// The low bits of a word as a code or float, without scale and bias.
template <Storage kStorage>
__device__ __forceinline__ float code_of(uint32_t bits) {
  if constexpr (kStorage == Storage::float32) return float_of_bits(bits);
  if constexpr (kStorage == Storage::float16) return float_of_half(static_cast<uint16_t>(bits));
  if constexpr (kStorage == Storage::bfloat16)
    return float_of_bfloat16(static_cast<uint16_t>(bits));
  if constexpr (kStorage == Storage::int8_affine) return static_cast<float>(bits & 0xff);
  if constexpr (kStorage == Storage::int8_symmetric)
    return static_cast<float>(static_cast<int8_t>(bits & 0xff));
  if constexpr (kStorage == Storage::int4_affine) return static_cast<float>(bits & 0xf);
  if constexpr (kStorage == Storage::int4_symmetric)
    return static_cast<float>(static_cast<int>(bits << 28) >> 28);
  if constexpr (kStorage == Storage::fp8_e4m3) return float_of_fp8(bits & 0xff);
}

// Element j of a row, which begins at any multiple of its elements' size.
template <Storage kStorage>
__device__ __forceinline__ float code_at(const uint8_t* row, int64_t j) {
  uint32_t bits;
  if constexpr (bits_of(kStorage) == 32)
    bits = __ldg(reinterpret_cast<const uint32_t*>(row) + j);
  else if constexpr (bits_of(kStorage) == 16)
    bits = __ldg(reinterpret_cast<const uint16_t*>(row) + j);
  else if constexpr (bits_of(kStorage) == 8)
    bits = __ldg(row + j);
  else
    bits = static_cast<uint32_t>(__ldg(row + j / 2)) >> (j % 2 * 4);
  return code_of<kStorage>(bits);
}

// ---- 16 bytes at a time ----

constexpr int kBytes = 16;  // that a thread loads of a row

template <Storage kStorage>
constexpr int kElements = 8 * kBytes / bits_of(kStorage);

// Codes or floats as float32, without scale and bias.
template <Storage kStorage>
__device__ __forceinline__ void decode(const uint4& part, float (&values)[kElements<kStorage>]) {
  const uint32_t words[4] = {part.x, part.y, part.z, part.w};
  constexpr int kBits = static_cast<int>(bits_of(kStorage));
#pragma unroll
  for (int i = 0; i < kElements<kStorage>; ++i)
    values[i] = code_of<kStorage>(words[i * kBits / 32] >> (i * kBits % 32));
}

// ---- for the host ----

#if !defined(__CUDACC_RTC__)
inline DeviceRows on_device(const Rows& rows) {
  return {static_cast<const uint8_t*>(rows.data),
          rows.scale,
          rows.bias,
          rows.inverse_norms,
          rows.count,
          rows.dim,
          rows.stride,
          rows.number_stride};
}

// Calls with a constant of the storage, for templates.
template <class Call>
void with_storage(Storage storage, const Call& call) {
  const auto is = [&]<Storage kStorage>() {
    if (storage == kStorage) call(std::integral_constant<Storage, kStorage>());
  };
  is.template operator()<Storage::float32>();
  is.template operator()<Storage::float16>();
  is.template operator()<Storage::bfloat16>();
  is.template operator()<Storage::int8_affine>();
  is.template operator()<Storage::int8_symmetric>();
  is.template operator()<Storage::int4_affine>();
  is.template operator()<Storage::int4_symmetric>();
  is.template operator()<Storage::fp8_e4m3>();
}
#endif

}  // namespace llmrec::cuda
