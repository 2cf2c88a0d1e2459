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

inline const char* row_start(const Rows& rows, int64_t row) {
  return static_cast<const char*>(rows.data) + row * rows.stride;
}

inline float float_at(const void* values, int64_t i) {
  return static_cast<const float*>(values)[i];
}

inline float half_at(const void* values, int64_t i) {
  return float_of_half(static_cast<const uint16_t*>(values)[i]);
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
  switch (rows.storage) {
    case Storage::float32:
      return reinterpret_cast<const float*>(start);
    case Storage::float16:
      for (int64_t j = 0; j < rows.dim; ++j) scratch[j] = float_of_half(halves[j]);
      return scratch;
    case Storage::bfloat16:
      for (int64_t j = 0; j < rows.dim; ++j) scratch[j] = float_of_bfloat16(halves[j]);
      return scratch;
    case Storage::int8_affine:
      widen_bytes(bytes, rows.dim, float_at(rows.scale, row), float_at(rows.bias, row), scratch);
      return scratch;
    case Storage::int8_symmetric: {
      const float scale = float_at(rows.scale, row);
      const auto* codes = reinterpret_cast<const int8_t*>(start);
      for (int64_t j = 0; j < rows.dim; ++j) scratch[j] = scale * static_cast<float>(codes[j]);
      return scratch;
    }
    case Storage::int4_affine: {
      const float scale = half_at(rows.scale, row), bias = half_at(rows.bias, row);
      for (int64_t j = 0; j < rows.dim; ++j)
        scratch[j] = scale * static_cast<float>(nibble_at(bytes, j)) + bias;
      return scratch;
    }
    case Storage::int4_symmetric: {
      const float scale = half_at(rows.scale, row);
      for (int64_t j = 0; j < rows.dim; ++j)
        scratch[j] = scale * static_cast<float>((nibble_at(bytes, j) ^ 8) - 8);
      return scratch;
    }
  }
  return scratch;
}

}  // namespace
}  // namespace llmrec
