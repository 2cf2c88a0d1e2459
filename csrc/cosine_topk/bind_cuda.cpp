// cosine_topk for torch on a GPU.
#include "common/binding_cuda.h"
#include "cosine_topk/bind.h"

namespace llmrec {
namespace {

const CudaOp entered("cosine_topk");

// Ids as kernels take them: null stands for no filter, so that no ids are not null.
IdLists lists_of(HeldIds& held, const Launch& launch) {
  if (!held.ids) return {};
  if (held.ids->numel() == 0) held.ids = launch.workspace(sizeof(int64_t));
  return {static_cast<const int64_t*>(held.ids->const_data_ptr()), pointer<int64_t>(held.offsets)};
}

CudaFilters filters_of(HeldSearch& held, const Launch& launch) {
  CudaFilters filters;
  if (held.mask) {
    filters.masks[0] = pointer<uint8_t>(held.mask);
    filters.mask_rows[0] = held.mask->dim() == 1 ? 1 : held.mask->size(0);
  }
  filters.exclude_count = held.exclude.ids ? held.exclude.ids->numel() : 0;
  filters.allow_count = held.allow.ids ? held.allow.ids->numel() : 0;
  filters.exclude = lists_of(held.exclude, launch);
  filters.allow = lists_of(held.allow, launch);
  return filters;
}

void run(HeldSearch& held) {
  TopkArguments& args = held.args;
  check_ranked(args.items);
  const Launch launch("cosine_topk", "queries", held.queries);
  launch.expect(held.items);
  launch.expect("codes", held.sketch.codes);
  launch.expect("unit_scale", held.sketch.unit_scale);
  launch.expect("residual", held.sketch.residual);
  launch.expect("item_bias", held.item_bias);
  launch.expect("item_scale", held.item_scale);
  launch.expect("exclude", held.exclude.ids);
  launch.expect("exclude offsets", held.exclude.offsets);
  launch.expect("allow", held.allow.ids);
  launch.expect("allow offsets", held.allow.offsets);
  launch.expect("allow", held.mask);
  // Kernels read 16 bytes of codes at a time; without codes they make their own.
  if (reinterpret_cast<uintptr_t>(args.sketch.codes) % 16 != 0) args.sketch = {};
  const CudaFilters filters = filters_of(held, launch);
  const Tensor workspace = launch.workspace(cosine_topk_cuda_workspace(args, filters));
  launch.check(cosine_topk_cuda(args, filters, workspace.mutable_data_ptr(), launch.stream()));
}

}  // namespace
}  // namespace llmrec

STABLE_TORCH_LIBRARY_IMPL(llmrec, CUDA, m) {
  m.impl("cosine_topk", TORCH_BOX(&llmrec::cosine_topk<llmrec::run>));
}
