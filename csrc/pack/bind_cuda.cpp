// pack for torch on a GPU.
#include "common/binding_cuda.h"
#include "pack/bind.h"

namespace llmrec {
namespace {

const CudaOp entered("pack");

void run(const HeldPack& held) {
  const Launch launch("pack", "data", held.items.data);
  launch.expect(held.items);
  launch.check(pack_cuda(held.args, launch.stream()));
}

}  // namespace
}  // namespace llmrec

STABLE_TORCH_LIBRARY_IMPL(llmrec, CUDA, m) {
  m.impl("pack", TORCH_BOX(&llmrec::pack<llmrec::run>));
}
