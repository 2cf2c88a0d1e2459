// embedding_bag for torch: unpack, check, call.
#include <torch/csrc/stable/library.h>

#include "common/binding.h"
#include "common/dispatch.h"
#include "embedding_bag/bag.h"

namespace llmrec {
namespace {

const Table<BagKernel> table("embedding_bag", {
#if defined(__x86_64__)
                                                  {Level::avx512, embedding_bag_avx512},
                                                  {Level::avx2, embedding_bag_avx2},
#elif defined(__aarch64__)
                                                  {Level::neon, embedding_bag_neon},
#endif
                                                  {Level::scalar, embedding_bag_scalar}});

// In the order of OUT_DTYPES in reference.py.
constexpr ScalarType kOutTypes[] = {ScalarType::Float, ScalarType::Half, ScalarType::BFloat16};
constexpr Storage kOutStorages[] = {Storage::float32, Storage::float16, Storage::bfloat16};

Tensor embedding_bag_cpu(const Tensor& data, const MaybeTensor& scale, const MaybeTensor& bias,
                         int64_t bits, int64_t dim, const Tensor& indices, const Tensor& offsets,
                         int64_t mode, const MaybeTensor& per_sample_weights, int64_t padding_idx,
                         bool normalize, int64_t out_dtype) {
  const HeldRows rows = hold_rows(data, scale, bias, std::nullopt, bits, dim);
  const Tensor flat = checked("indices", indices, ScalarType::Long, 1);
  const Tensor bounds = checked("offsets", offsets, ScalarType::Long, 1);
  check_value(bounds.numel() >= 1, "offsets is empty; expected [B + 1] entries");
  check_value(mode >= 0 && mode <= 2, "mode is ", mode, "; expected 0, 1 or 2");
  check_value(out_dtype >= 0 && out_dtype <= 2, "out_dtype is ", out_dtype, "; expected 0 to 2");
  const MaybeTensor weights =
      checked_vector("per_sample_weights", per_sample_weights, ScalarType::Float, flat.numel());

  BagArguments args;
  args.table = rows.rows;
  args.indices = flat.const_data_ptr<int64_t>();
  args.offsets = bounds.const_data_ptr<int64_t>();
  args.count = bounds.numel() - 1;
  check_offsets("offsets", args.offsets, args.count, flat.numel());
  args.mode = static_cast<Pooling>(mode);
  args.weights = pointer<float>(weights);
  args.padding_idx = padding_idx;
  args.normalize = normalize;
  args.out_storage = kOutStorages[out_dtype];
  const Tensor out = torch::stable::new_empty(data, {args.count, dim}, kOutTypes[out_dtype]);
  args.out = out.mutable_data_ptr();
  FirstBad out_of_range;
  table.pick()(args, out_of_range, torch_threads());
  if (out_of_range.any())
    check_in_range("indices", args.indices, flat.numel(), rows.rows.count);  // says which
  return out;
}

}  // namespace
}  // namespace llmrec

STABLE_TORCH_LIBRARY_IMPL(llmrec, CPU, m) {
  m.impl("embedding_bag", TORCH_BOX(&llmrec::embedding_bag_cpu));
}
