// embedding_bag for torch on any device: unpack, check, run. Only bind files include it.
#pragma once

#include "common/binding.h"
#include "embedding_bag/bag.h"

namespace llmrec {

// The arguments with the tensors that hold them.
struct HeldBag {
  BagArguments args;
  HeldRows table;
  Tensor indices, offsets, out;
  MaybeTensor weights;
};

// kRun checks the contents, where it can see them, and fills `out`.
template <void (*kRun)(const HeldBag&)>
Tensor embedding_bag(const Tensor& data, const MaybeTensor& scale, const MaybeTensor& bias,
                     int64_t bits, int64_t dim, const Tensor& indices, const Tensor& offsets,
                     int64_t mode, const MaybeTensor& per_sample_weights, int64_t padding_idx,
                     bool normalize, int64_t out_dtype) {
  // In the order of OUT_DTYPES in reference.py.
  constexpr ScalarType kOutTypes[] = {ScalarType::Float, ScalarType::Half, ScalarType::BFloat16};
  constexpr Storage kOutStorages[] = {Storage::float32, Storage::float16, Storage::bfloat16};
  HeldBag held;
  held.table = hold_rows(data, scale, bias, std::nullopt, bits, dim);
  held.indices = checked("indices", indices, ScalarType::Long, 1);
  held.offsets = checked("offsets", offsets, ScalarType::Long, 1);
  check_value(held.offsets.numel() >= 1, "offsets is empty; expected [B + 1] entries");
  check_value(mode >= 0 && mode <= 2, "mode is ", mode, "; expected 0, 1 or 2");
  check_value(out_dtype >= 0 && out_dtype <= 2, "out_dtype is ", out_dtype, "; expected 0 to 2");
  held.weights = checked_vector("per_sample_weights", per_sample_weights, ScalarType::Float,
                                held.indices.numel());
  BagArguments& args = held.args;
  args.table = held.table.rows;
  args.indices = held.indices.const_data_ptr<int64_t>();
  args.offsets = held.offsets.const_data_ptr<int64_t>();
  args.count = held.offsets.numel() - 1;
  args.mode = static_cast<Pooling>(mode);
  args.weights = pointer<float>(held.weights);
  args.padding_idx = padding_idx;
  args.normalize = normalize;
  args.out_storage = kOutStorages[out_dtype];
  held.out = torch::stable::new_empty(data, {args.count, dim}, kOutTypes[out_dtype]);
  args.out = held.out.mutable_data_ptr();
  kRun(held);
  return held.out;
}

}  // namespace llmrec
