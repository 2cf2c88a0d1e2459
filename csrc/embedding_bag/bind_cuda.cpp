// embedding_bag for torch on a GPU.
#include "common/binding_cuda.h"
#include "embedding_bag/bind.h"

namespace llmrec {
namespace {

const CudaOp entered("embedding_bag");

void run(const HeldBag& held) {
  const Launch launch("embedding_bag", "data", held.table.data);
  launch.expect(held.table);
  launch.expect("indices", held.indices);
  launch.expect("offsets", held.offsets);
  launch.expect("per_sample_weights", held.weights);
  const Tensor workspace = launch.workspace(embedding_bag_cuda_workspace(held.args));
  launch.check(embedding_bag_cuda(held.args, held.indices.numel(), workspace.mutable_data_ptr(),
                                  launch.stream()));
}

}  // namespace
}  // namespace llmrec

STABLE_TORCH_LIBRARY_IMPL(llmrec, CUDA, m) {
  m.impl("embedding_bag", TORCH_BOX(&llmrec::embedding_bag<llmrec::run>));
}
