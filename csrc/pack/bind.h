// pack for torch on any device: unpack, check, run. Only bind files include it.
#pragma once

#include <tuple>

#include "common/binding.h"
#include "pack/pack.h"

namespace llmrec {

// The arguments with the tensors that hold them.
struct HeldPack {
  PackArguments args;
  HeldRows items;
  Tensor data, inverse_norms, codes, unit_scale, residual;
};

// kRun checks the contents, where it can see them, and fills the outputs.
template <void (*kRun)(const HeldPack&)>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> pack(const Tensor& data,
                                                        const MaybeTensor& scale,
                                                        const MaybeTensor& bias, int64_t bits,
                                                        int64_t dim) {
  using torch::stable::new_empty;
  HeldPack held;
  held.items = hold_rows(data, scale, bias, std::nullopt, bits, dim);
  const int64_t count = held.items.rows.count, blocks = (count + 15) / 16, groups = (dim + 3) / 4;
  held.data = new_empty(data, {data.size(0), data.size(1)});
  held.inverse_norms = new_empty(data, {count}, ScalarType::Double);
  held.codes = new_empty(data, {blocks, groups, 16, 4}, ScalarType::Char);
  held.unit_scale = new_empty(data, {count}, ScalarType::Float);
  held.residual = new_empty(data, {count}, ScalarType::Float);
  PackArguments& args = held.args;
  args.rows = held.items.rows;
  args.row_bytes = data.size(1) * static_cast<int64_t>(data.element_size());
  args.data = mutable_pointer<char>(held.data);
  args.inverse_norms = mutable_pointer<double>(held.inverse_norms);
  args.sketch = {mutable_pointer<int8_t>(held.codes), mutable_pointer<float>(held.unit_scale),
                 mutable_pointer<float>(held.residual)};
  kRun(held);
  return {held.data, held.inverse_norms, held.codes, held.unit_scale, held.residual};
}

}  // namespace llmrec
