// How one row of any storage becomes float32, exactly; and the narrow floats' own rounding.
//
// Internal linkage: each instruction set's file compiles a copy of its own.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/rows.h"

namespace llmrec {
namespace {

inline float float_of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t bits_of_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float float_of_bfloat16(uint16_t half) { return float_of_bits(uint32_t{half} << 16); }

// No branches, so that a loop over it is vectorised.
inline float float_of_half(uint16_t half) {
  const uint32_t magnitude = half & 0x7fffu;
  const float subnormal = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f;
  const uint32_t infinite = magnitude >= 0x7c00u ? 0x7f800000u : 0;
  const uint32_t normal = ((magnitude << 13) + 0x38000000u) | infinite;
  const uint32_t bits = magnitude < 0x400u ? bits_of_float(subnormal) : normal;
  return float_of_bits(bits | (uint32_t{half & 0x8000u} << 16));
}

// Round to nearest even.
inline uint16_t half_of_float(float value) {
  const uint32_t bits = bits_of_float(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00u;
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u;  // 65520 and above round to infinity
  if (magnitude < 0x38800000u) {
    // Subnormal: adding 0.5 leaves the fraction's bits, rounded, at the bottom of the sum.
    const float sum = float_of_bits(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (bits_of_float(sum) - 0x3f000000u));
  }
  const uint32_t odd = (magnitude >> 13) & 1;
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

inline uint16_t bfloat16_of_float(float value) {
  const uint32_t bits = bits_of_float(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

// The finite e4m3 with the infinities' codes: S.1111.111 alone is no number.
inline float float_of_fp8(uint8_t code) {
  const uint32_t magnitude = code & 0x7fu;
  const float subnormal = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-9f;
  const uint32_t missing = magnitude == 0x7fu ? 0x7f800000u : 0;
  const uint32_t normal = ((magnitude << 20) + 0x3c000000u) | missing;
  const uint32_t bits = magnitude < 8 ? bits_of_float(subnormal) : normal;
  return float_of_bits(bits | (uint32_t{code & 0x80u} << 24));
}

// Round to nearest even; of a finite number, which becomes a finite one.
inline uint8_t fp8_of_float(float value) {
  const uint32_t bits = bits_of_float(value);
  const auto sign = static_cast<uint8_t>((bits >> 24) & 0x80u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x43e00000u) return sign | 0x7eu;  // above 448
  if (magnitude < 0x3c800000u) {
    // Subnormal: adding 2^14 leaves multiples of 2^-9, rounded, at the bottom of the sum.
    const float sum = float_of_bits(magnitude) + 0x1p14f;
    return static_cast<uint8_t>(sign | (bits_of_float(sum) - 0x46800000u));
  }
  const uint32_t odd = (magnitude >> 20) & 1;
  return static_cast<uint8_t>(sign | ((magnitude - 0x3c000000u + 0x7ffffu + odd) >> 20));
}

inline const char* row_start(const Rows& rows, int64_t row) {
  return static_cast<const char*>(rows.data) + row * rows.stride;
}

// A row's scale or bias; 0 where rows have none.
template <Storage kStorage>
inline float number_at(const Rows& rows, const void* numbers, int64_t row) {
  const int64_t i = row * rows.number_stride;
  if constexpr (bits_of(kStorage) > 8) return 0.0f;
  if (!is_affine(kStorage) && numbers == nullptr) return 0.0f;
  return is_nibbles(kStorage) ? float_of_half(static_cast<const uint16_t*>(numbers)[i])
                              : static_cast<const float*>(numbers)[i];
}

inline float number_at(const Rows& rows, const void* numbers, int64_t row) {
  if (numbers == nullptr) return 0.0f;
  return is_nibbles(rows.storage) ? number_at<Storage::int4_affine>(rows, numbers, row)
                                  : number_at<Storage::int8_affine>(rows, numbers, row);
}

// Codes are widened as scale * code, rounded, + bias, rounded.
template <class Code>
inline void widen_bytes(const Code* codes, int64_t dim, float scale, float bias, float* out) {
  for (int64_t j = 0; j < dim; ++j) out[j] = scale * static_cast<float>(codes[j]) + bias;
}

inline int nibble_at(const uint8_t* codes, int64_t j) {
  return (codes[j / 2] >> (4 * (j % 2))) & 15;
}

// Exactly this row in float32: a pointer into the rows where they are float32, or `scratch`.
inline const float* widen_row(const Rows& rows, int64_t row, float* scratch) {
  const char* start = row_start(rows, row);
  const auto* bytes = reinterpret_cast<const uint8_t*>(start);
  const auto* halves = reinterpret_cast<const uint16_t*>(start);
  const float scale = number_at(rows, rows.scale, row), bias = number_at(rows, rows.bias, row);
  switch (rows.storage) {
    case Storage::float32:
      return reinterpret_cast<const float*>(start);
    case Storage::float16:
      for (int64_t j = 0; j < rows.dim; ++j) scratch[j] = float_of_half(halves[j]);
      break;
    case Storage::bfloat16:
      for (int64_t j = 0; j < rows.dim; ++j) scratch[j] = float_of_bfloat16(halves[j]);
      break;
    case Storage::int8_affine:
      widen_bytes(bytes, rows.dim, scale, bias, scratch);
      break;
    case Storage::int8_symmetric: {
      const auto* codes = reinterpret_cast<const int8_t*>(start);
      for (int64_t j = 0; j < rows.dim; ++j) scratch[j] = scale * static_cast<float>(codes[j]);
      break;
    }
    case Storage::int4_affine:
      for (int64_t j = 0; j < rows.dim; ++j)
        scratch[j] = scale * static_cast<float>(nibble_at(bytes, j)) + bias;
      break;
    case Storage::int4_symmetric:
      for (int64_t j = 0; j < rows.dim; ++j)
        scratch[j] = scale * static_cast<float>((nibble_at(bytes, j) ^ 8) - 8);
      break;
    case Storage::fp8_e4m3:
      for (int64_t j = 0; j < rows.dim; ++j) scratch[j] = scale * float_of_fp8(bytes[j]);
      break;
  }
  return scratch;
}

}  // namespace
}  // namespace llmrec
