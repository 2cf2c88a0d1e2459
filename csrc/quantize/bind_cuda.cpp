// quantize for torch on a GPU.
#include "common/binding_cuda.h"
#include "quantize/bind.h"

namespace llmrec {
namespace {

const CudaOp entered("quantize");

void run(const HeldWeight& held) {
  const Launch launch("quantize", "weight", held.weight.data);
  launch.check(quantize_cuda(held.args, launch.stream()));
}

}  // namespace
}  // namespace llmrec

STABLE_TORCH_LIBRARY_IMPL(llmrec, CUDA, m) {
  m.impl("quantize", TORCH_BOX(&llmrec::quantize<llmrec::run>));
}
