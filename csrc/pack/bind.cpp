// pack for torch: unpack, check, call.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "common/binding.h"
#include "common/dispatch.h"
#include "pack/pack.h"

namespace llmrec {
namespace {

const Table<InverseNormsKernel> table("pack", {{Level::scalar, inverse_norms_scalar}});

std::tuple<Tensor, Tensor> pack_cpu(const Tensor& data, const MaybeTensor& scale,
                                    const MaybeTensor& bias, int64_t bits, int64_t dim) {
  const HeldRows items = hold_rows(data, scale, bias, std::nullopt, bits, dim);
  const Tensor norms = torch::stable::new_empty(data, {items.rows.count}, ScalarType::Double);
  FirstBad bad;
  table.pick()(items.rows, mutable_pointer<double>(norms), bad, torch_threads());
  check_finite_rows("items", bad);
  Tensor copy = torch::stable::new_empty(data, {data.size(0), data.size(1)});
  torch::stable::copy_(copy, data);
  return {copy, norms};
}

}  // namespace
}  // namespace llmrec

STABLE_TORCH_LIBRARY_IMPL(llmrec, CPU, m) { m.impl("pack", TORCH_BOX(&llmrec::pack_cpu)); }
