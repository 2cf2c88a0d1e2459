// Rows of vectors in any storage; common/widen.h makes float32 of them.
#pragma once

#if !defined(__CUDACC_RTC__)  // which has no such header; common/cuda.cuh has its types
#include <cstdint>
#endif

namespace llmrec {

enum class Storage {
  float32,
  float16,
  bfloat16,
  int8_affine,     // uint8 codes, float32 scale and bias per row
  int8_symmetric,  // int8 codes, float32 scale per row
  int4_affine,     // uint8 of two codes, low nibble first, float16 scale and bias per row
  int4_symmetric,  // the same with signed nibbles, float16 scale per row
  fp8_e4m3,        // four bits of exponent and three of mantissa, float32 scale per row
};

constexpr bool is_affine(Storage storage) {
  return storage == Storage::int8_affine || storage == Storage::int4_affine;
}

constexpr bool is_nibbles(Storage storage) {
  return storage == Storage::int4_affine || storage == Storage::int4_symmetric;
}

// Bits of an element.
constexpr int64_t bits_of(Storage storage) {
  if (storage == Storage::float32) return 32;
  if (storage == Storage::float16 || storage == Storage::bfloat16) return 16;
  return is_nibbles(storage) ? 4 : 8;
}

// Bytes of so many elements.
constexpr int64_t bytes_of(Storage storage, int64_t elements) {
  if (is_nibbles(storage)) return static_cast<int64_t>(static_cast<uint64_t>(elements + 1) / 2);
  return elements * (bits_of(storage) / 8);
}

struct Rows {
  const void* data = nullptr;
  int64_t count = 0;
  int64_t dim = 0;
  int64_t stride = 0;  // bytes from row to row
  Storage storage = Storage::float32;
  const void* scale = nullptr;
  const void* bias = nullptr;
  int64_t number_stride = 1;              // of scale and bias, in numbers: 2 where they alternate
  const double* inverse_norms = nullptr;  // optional
};

// The int8 sketch of rows (common/sketch.h); blocks of 16 items.
template <class Codes, class Numbers>
struct SketchOf {
  Codes* codes = nullptr;         // [ceil(N / 16), ceil(dim / 4), 16, 4]
  Numbers* unit_scale = nullptr;  // [N]
  Numbers* residual = nullptr;    // [N]
};

using Sketch = SketchOf<const int8_t, const float>;
using MutableSketch = SketchOf<int8_t, float>;

}  // namespace llmrec
