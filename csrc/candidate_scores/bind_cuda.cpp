// candidate_scores for torch on a GPU.
#include "candidate_scores/bind.h"
#include "common/binding_cuda.h"

namespace llmrec {
namespace {

const CudaOp entered("candidate_scores");

void run(const HeldPairs& held) {
  if (held.args.k > 0) check_ranked(held.args.items);
  const Launch launch("candidate_scores", "queries", held.queries);
  launch.expect(held.items);
  launch.expect("candidates", held.candidates);
  launch.expect("candidates offsets", held.offsets);
  launch.expect("query_bias", held.query_bias);
  launch.expect("item_bias", held.item_bias);
  launch.expect("query_scale", held.query_scale);
  launch.expect("item_scale", held.item_scale);
  const int64_t entries = held.candidates.numel();
  const Tensor workspace = launch.workspace(candidate_scores_cuda_workspace(held.args, entries));
  launch.check(
      candidate_scores_cuda(held.args, entries, workspace.mutable_data_ptr(), launch.stream()));
}

}  // namespace
}  // namespace llmrec

STABLE_TORCH_LIBRARY_IMPL(llmrec, CUDA, m) {
  m.impl("candidate_scores", TORCH_BOX(&llmrec::candidate_scores<llmrec::run>));
  m.impl("candidate_scores.topk", TORCH_BOX(&llmrec::candidate_topk<llmrec::run>));
}
