// Row-wise quantization over raw pointers; the contract is llmrec_kernels/ops/quantize.
#pragma once

#include <cstdint>

#include "common/check.h"
#include "common/parallel.h"
#include "common/rows.h"

namespace llmrec {

struct QuantizeArguments {
  Rows weight;              // [V, dim], floating point
  Storage storage;          // what becomes of it
  void* codes = nullptr;    // [V, bytes_of(storage, dim)]
  void* numbers = nullptr;  // [V, numbers_of(storage)]: scale, then bias; float16 for 4 bits
};

// How many numbers come with a row.
constexpr int64_t numbers_of(Storage storage) {
  return bits_of(storage) > 8 ? 0 : is_affine(storage) ? 2 : 1;
}

// The largest code; of fp8, what it stands for.
constexpr int largest_code_of(Storage storage) {
  switch (storage) {
    case Storage::int8_affine:
      return 255;
    case Storage::int8_symmetric:
      return 127;
    case Storage::int4_affine:
      return 15;
    case Storage::int4_symmetric:
      return 7;
    default:
      return 448;
  }
}

// Notes the first row that is not finite, and the first whose range does not fit.
using QuantizeKernel = void(const QuantizeArguments&, FirstBad& not_finite, FirstBad& too_wide,
                            const Parallel&);

QuantizeKernel quantize_scalar, quantize_avx2, quantize_avx512, quantize_neon;

// On a GPU: 0, or the cudaError_t of the first launch that failed. All pointers are the device's;
// rows that are not finite or do not fit are not told.
int quantize_cuda(const QuantizeArguments& args, void* stream);

}  // namespace llmrec
