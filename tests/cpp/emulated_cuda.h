// The CUDA kernels as a level of the driver: csrc/*/*.cu compiled by g++, with tests/emulation in
// the place of a GPU. They tell no bad input.
#pragma once

#include "check.h"

namespace llmrec {

PackKernel pack_emulated_cuda;
BagKernel embedding_bag_emulated_cuda;
QuantizeKernel quantize_emulated_cuda;
CandidateKernel candidate_scores_emulated_cuda;
TopkKernel cosine_topk_emulated_cuda;

namespace driver {

// What is wrong with the contents of a call counts for nothing, or comes out as the header says.
void check_emulated_cuda(Checker& checker);
void check_selection(Checker& checker);  // selection.cu

}  // namespace driver
}  // namespace llmrec
