// pack for torch: unpack, check, call.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "common/binding.h"
#include "common/dispatch.h"
#include "common/pages.h"
#include "pack/pack.h"

namespace llmrec {
namespace {

const Table<PackKernel> table("pack", {
#if defined(__x86_64__)
                                          {Level::avx512, pack_avx512},
                                          {Level::avx2, pack_avx2},
#endif
                                          {Level::scalar, pack_scalar}});

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> pack_cpu(const Tensor& data,
                                                            const MaybeTensor& scale,
                                                            const MaybeTensor& bias, int64_t bits,
                                                            int64_t dim) {
  using torch::stable::new_empty;
  const HeldRows items = hold_rows(data, scale, bias, std::nullopt, bits, dim);
  const int64_t count = items.rows.count, blocks = (count + 15) / 16, groups = (dim + 3) / 4;
  const int64_t row_bytes = data.size(1) * static_cast<int64_t>(data.element_size());
  const Tensor copy = new_empty(data, {data.size(0), data.size(1)});
  const Tensor norms = new_empty(data, {count}, ScalarType::Double);
  const Tensor codes = new_empty(data, {blocks, groups, 16, 4}, ScalarType::Char);
  const Tensor unit_scale = new_empty(data, {count}, ScalarType::Float);
  const Tensor residual = new_empty(data, {count}, ScalarType::Float);

  // Searches read codes from end to end, and rows at random.
  prefer_large_pages(copy.mutable_data_ptr(), static_cast<size_t>(count * row_bytes));
  prefer_large_pages(codes.mutable_data_ptr(), static_cast<size_t>(codes.numel()));

  PackArguments args;
  args.rows = items.rows;
  args.row_bytes = row_bytes;
  args.data = mutable_pointer<char>(copy);
  args.inverse_norms = mutable_pointer<double>(norms);
  args.sketch = {mutable_pointer<int8_t>(codes), mutable_pointer<float>(unit_scale),
                 mutable_pointer<float>(residual)};
  FirstBad bad;
  table.pick()(args, bad, torch_threads());
  check_finite_rows("items", bad);
  return {copy, norms, codes, unit_scale, residual};
}

}  // namespace
}  // namespace llmrec

STABLE_TORCH_LIBRARY_IMPL(llmrec, CPU, m) { m.impl("pack", TORCH_BOX(&llmrec::pack_cpu)); }
