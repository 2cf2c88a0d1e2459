// quantize for torch: unpack, check, call.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "common/binding.h"
#include "common/dispatch.h"
#include "quantize/quantize.h"

namespace llmrec {
namespace {

const Table<QuantizeKernel> table("quantize", {{Level::scalar, quantize_scalar}});

std::tuple<Tensor, Tensor, Tensor> quantize_cpu(const Tensor& weight, int64_t bits,
                                                bool symmetric) {
  check_value(bits == 8 || bits == 4, "bits is ", bits, "; expected 8 or 4");
  check_value(weight.dim() == 2, "weight has ", weight.dim(), " dimensions; expected 2");
  const int64_t dim = weight.size(1);
  const HeldRows held = hold_rows(weight, std::nullopt, std::nullopt, std::nullopt, 0, dim);
  const int64_t rows = held.rows.count, width = bits == 8 ? dim : (dim + 1) / 2;
  const ScalarType code = symmetric && bits == 8 ? ScalarType::Char : ScalarType::Byte;
  const ScalarType stored = bits == 8 ? ScalarType::Float : ScalarType::Half;
  const Tensor codes = torch::stable::new_empty(weight, {rows, width}, code);
  const Tensor scale = torch::stable::new_empty(weight, {rows}, stored);
  const Tensor bias = torch::stable::new_empty(weight, {symmetric ? 0 : rows}, stored);

  QuantizeArguments args;
  args.weight = held.rows;
  args.bits = static_cast<int>(bits);
  args.symmetric = symmetric;
  args.codes = codes.mutable_data_ptr();
  args.scale = scale.mutable_data_ptr();
  args.bias = bias.mutable_data_ptr();
  FirstBad not_finite, too_wide;
  table.pick()(args, not_finite, too_wide, torch_threads());
  check_finite_rows("weight", not_finite);
  check_value(!too_wide.any(), "weight spans more in row ", too_wide.position(), " than an int",
              bits, " row can hold (scale and bias up to ", bits == 8 ? "3.40282e+38" : "65504",
              "); scale the weights down");
  return {codes, scale, bias};
}

}  // namespace
}  // namespace llmrec

STABLE_TORCH_LIBRARY_IMPL(llmrec, CPU, m) { m.impl("quantize", TORCH_BOX(&llmrec::quantize_cpu)); }
