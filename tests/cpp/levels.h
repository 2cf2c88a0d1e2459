// The kernels of each level that was compiled in and that this machine can run.
#pragma once

#include <vector>

#include "cosine_topk/topk.h"
#include "pack/pack.h"

namespace llmrec::driver {

struct TestedLevel {
  const char* name;
  TopkKernel* topk;
  PackKernel* pack;
};

// Scalar first. What the machine refuses is said, with the reason.
std::vector<TestedLevel> levels_here();

}  // namespace llmrec::driver
