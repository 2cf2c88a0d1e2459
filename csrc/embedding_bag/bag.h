// Pooled embedding lookup over raw pointers; the contract is llmrec_kernels/ops/embedding_bag.
#pragma once

#include <cstdint>

#include "common/check.h"
#include "common/parallel.h"
#include "common/rows.h"

namespace llmrec {

enum class Pooling { sum = 0, mean = 1, max = 2 };

struct BagArguments {
  Rows table;
  const int64_t* indices = nullptr;  // [nnz]
  const int64_t* offsets = nullptr;  // [B + 1], monotone
  int64_t count = 0;                 // B
  Pooling mode = Pooling::sum;
  const float* weights = nullptr;  // [nnz] or null
  int64_t padding_idx = -1;        // -1 for none
  bool normalize = false;
  Storage out_storage = Storage::float32;  // or float16, bfloat16
  void* out = nullptr;                     // [B, dim]
};

// Notes the first entry whose index is out of range.
using BagKernel = void(const BagArguments&, FirstBad& indices, const Parallel&);

BagKernel embedding_bag_scalar, embedding_bag_avx2, embedding_bag_avx512, embedding_bag_neon;

// On a GPU: 0, or the cudaError_t of the first launch that failed. All pointers are the device's.
// `entries` is the number of indices: offsets are not read by the host, and are not trusted.
int64_t embedding_bag_cuda_workspace(const BagArguments& args);  // bytes
int embedding_bag_cuda(const BagArguments& args, int64_t entries, void* workspace, void* stream);

}  // namespace llmrec
