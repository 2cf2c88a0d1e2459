// Scores of given pairs over raw pointers; the contract is llmrec_kernels/ops/candidate_scores.
#pragma once

#include <cstdint>

#include "common/check.h"
#include "common/parallel.h"
#include "common/rows.h"

namespace llmrec {

struct CandidateArguments {
  const float* queries = nullptr;  // [B, dim], contiguous
  int64_t count = 0;               // B
  Rows items;
  const int64_t* candidates = nullptr;  // [nnz]
  const int64_t* offsets = nullptr;     // [B + 1]
  bool cosine = true;
  const float* query_bias = nullptr;  // [B] or null
  const float* item_bias = nullptr;   // [N] or null
  double offset = 0.0;
  const float* query_scale = nullptr;  // [B] or null
  const float* item_scale = nullptr;   // [N] or null
  float* scores = nullptr;             // [nnz]; or with a k, [B, k]
  int64_t k = 0;                       // 0 for all scores
  int64_t* ids = nullptr;              // with a k, [B, k]
};

// The scores of all entries, or the k best of each list in (score down, id) order, padded with
// -inf and -1. Notes the first query and the first item, of those that are read, that is not
// finite.
using CandidateKernel = void(const CandidateArguments&, FirstBad& queries, FirstBad& items,
                             const Parallel&);

CandidateKernel candidate_scores_scalar, candidate_scores_avx2, candidate_scores_avx512,
    candidate_scores_neon;

// On a GPU: 0, or the cudaError_t of the first launch that failed. All pointers are the device's.
// `entries` is the number of candidates: offsets are not read by the host, and are not trusted.
// With a k, ids are less than 2^31.
int64_t candidate_scores_cuda_workspace(const CandidateArguments& args, int64_t entries);  // bytes
int candidate_scores_cuda(const CandidateArguments& args, int64_t entries, void* workspace,
                          void* stream);

}  // namespace llmrec
