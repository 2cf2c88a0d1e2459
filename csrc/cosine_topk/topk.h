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

// An item must pass every filter that there is.
struct TopkFilters {
  const uint8_t* allowed = nullptr;  // [N], for all queries
  const uint8_t* mask = nullptr;     // [B, N], contiguous
  IdLists exclude;
  IdLists allow;
};

struct TopkArguments {
  const float* queries = nullptr;  // [B, dim], contiguous
  int64_t count = 0;               // B
  Rows items;                      // [N, dim]
  int64_t k = 0;
  bool cosine = true;
  const float* item_bias = nullptr;   // [N] or null
  const float* item_scale = nullptr;  // [N] or null
  TopkFilters filters;
  float* scores = nullptr;  // [B, k]
  int64_t* ids = nullptr;   // [B, k]
};

using TopkKernel = void(const TopkArguments&, const Parallel&);

TopkKernel cosine_topk_scalar;

}  // namespace llmrec
