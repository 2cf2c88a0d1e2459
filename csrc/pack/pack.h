// Packing over raw pointers: a checked copy of the rows, their inverse norms and their sketch.
#pragma once

#include <cstdint>

#include "common/check.h"
#include "common/parallel.h"
#include "common/rows.h"

namespace llmrec {

struct PackArguments {
  Rows rows;
  int64_t row_bytes = 0;  // of one row, side by side
  char* data = nullptr;   // [N, row_bytes]
  double* inverse_norms = nullptr;
  MutableSketch sketch;
};

// Notes the first row that is not finite.
using PackKernel = void(const PackArguments&, FirstBad&, const Parallel&);

PackKernel pack_scalar, pack_avx2, pack_avx512;

// On a GPU: 0, or the cudaError_t of the first launch that failed. All pointers are the device's.
// Rows that are not finite get a NaN for their inverse norm. Without `data` nothing is copied.
int pack_cuda(const PackArguments& args, void* stream);

}  // namespace llmrec
