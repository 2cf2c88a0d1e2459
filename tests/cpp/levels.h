// The kernels of each level that was compiled in and that this machine can run.
#pragma once

#include <vector>

#include "candidate_scores/candidates.h"
#include "cosine_topk/topk.h"
#include "embedding_bag/bag.h"
#include "pack/pack.h"
#include "quantize/quantize.h"

namespace llmrec::driver {

struct TestedLevel {
  const char* name;
  TopkKernel* topk;
  PackKernel* pack;
  BagKernel* bag;
  CandidateKernel* candidates;
  QuantizeKernel* quantize;
  bool emulated_gpu = false;  // slow, and tells no bad input
};

// Scalar first. What the machine refuses is said, with the reason.
std::vector<TestedLevel> levels_here();

// Scalar, and the kernels of a GPU in its emulator.
std::vector<TestedLevel> emulated_levels();

}  // namespace llmrec::driver
