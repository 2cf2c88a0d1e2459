// Row-wise quantization over raw pointers; the contract is llmrec_kernels/ops/quantize.
#pragma once

#include <cstdint>

#include "common/check.h"
#include "common/parallel.h"
#include "common/rows.h"

namespace llmrec {

struct QuantizeArguments {
  Rows weight;             // [V, dim], floating point
  int bits = 8;            // 8 or 4
  bool symmetric = false;  // signed codes and no bias
  void* codes = nullptr;   // [V, dim] or [V, ceil(dim / 2)] bytes
  void* scale = nullptr;   // [V] float32 for 8 bits, float16 for 4
  void* bias = nullptr;    // [V] likewise; not written for the symmetric scheme
};

// Notes the first row that is not finite, and the first whose range does not fit.
using QuantizeKernel = void(const QuantizeArguments&, FirstBad& not_finite, FirstBad& too_wide,
                            const Parallel&);

QuantizeKernel quantize_scalar;

}  // namespace llmrec
