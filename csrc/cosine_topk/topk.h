// Exact top-K over raw pointers; the contract is llmrec_kernels/ops/cosine_topk/__init__.py.
#pragma once

#include <cstdint>

#include "common/parallel.h"
#include "common/rows.h"

namespace llmrec {

// Lists of ids, one for each query, each sorted; null where there is no such filter.
struct IdLists {
  const int64_t* ids = nullptr;
  const int64_t* offsets = nullptr;
};

// An item must pass every filter that there is. A mask and allow lists do not come together.
struct TopkFilters {
  const uint8_t* allowed = nullptr;  // [N], for all queries
  const uint8_t* mask = nullptr;     // [B, N], contiguous
  IdLists exclude;
  IdLists allow;
};

// How the search goes about it. No result depends on it; tests press on it.
struct TopkTuning {
  int64_t capacity = 0;       // candidates that a query may hold in a lane; 0 chooses
  int64_t chunk_bytes = 0;    // codes of the items that are scanned at a time; 0 chooses
  int64_t round_queries = 0;  // queries searched at a time; 0 chooses
  double caution = 0.35;      // share of the error bound that a first cut allows for
};

struct TopkArguments {
  const float* queries = nullptr;  // [B, dim], contiguous
  int64_t count = 0;               // B
  Rows items;                      // [N, dim]
  Sketch sketch;                   // of the items, or null: sketched on the way
  int64_t k = 0;
  bool cosine = true;
  bool exact = true;
  const float* item_bias = nullptr;   // [N] or null
  const float* item_scale = nullptr;  // [N] or null
  TopkFilters filters;
  float* scores = nullptr;  // [B, k]
  int64_t* ids = nullptr;   // [B, k]
  TopkTuning tuning;
};

using TopkKernel = void(const TopkArguments&, const Parallel&);

TopkKernel cosine_topk_scalar, cosine_topk_avx2, cosine_topk_avx2_vnni, cosine_topk_avx512,
    cosine_topk_amx, cosine_topk_neon;

// For kernels on a GPU, which read no contents on the host: what may be read is told in numbers.
struct CudaFilters {
  const uint8_t* masks[2] = {nullptr, nullptr};  // [mask_rows, N]: for all queries, or for each
  int64_t mask_rows[2] = {0, 0};                 // 1 or B
  IdLists exclude, allow;                        // without offsets one list, for all queries
  int64_t exclude_count = 0, allow_count = 0;    // ids
};

// On a GPU: 0, or the cudaError_t of the first launch that failed. All pointers are the device's;
// `args.filters` is not read. Ids are less than 2^31.
int64_t cosine_topk_cuda_workspace(const TopkArguments& args, const CudaFilters& filters);  // bytes
int cosine_topk_cuda(const TopkArguments& args, const CudaFilters& filters, void* workspace,
                     void* stream);

}  // namespace llmrec
