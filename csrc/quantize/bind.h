// quantize for torch on any device: unpack, check, run. Only bind files include it.
#pragma once

#include <tuple>

#include "common/binding.h"
#include "quantize/quantize.h"

namespace llmrec {

struct QuantizeFormat {
  const char* name;
  Storage affine, symmetric;
  ScalarType affine_code, symmetric_code;
  const char* limit;
};

// In the order of DTYPES in reference.py.
inline constexpr QuantizeFormat kQuantizeFormats[] = {
    {"int8", Storage::int8_affine, Storage::int8_symmetric, ScalarType::Byte, ScalarType::Char,
     "scale and bias up to 3.40282e+38"},
    {"int4", Storage::int4_affine, Storage::int4_symmetric, ScalarType::Byte, ScalarType::Byte,
     "scale and bias up to 65504"},
    {"fp8_e4m3", Storage::fp8_e4m3, Storage::fp8_e4m3, ScalarType::Float8_e4m3fn,
     ScalarType::Float8_e4m3fn, "any finite element"},
    {"float16", Storage::float16, Storage::float16, ScalarType::Half, ScalarType::Half,
     "elements up to 65504"},
    {"bfloat16", Storage::bfloat16, Storage::bfloat16, ScalarType::BFloat16, ScalarType::BFloat16,
     "elements up to 3.38953e+38"},
};

// The arguments with the tensors that hold them.
struct HeldWeight {
  QuantizeArguments args;
  const QuantizeFormat* format = nullptr;
  HeldRows weight;
  Tensor codes, numbers;
};

// kRun checks the contents, where it can see them, and fills the outputs.
template <void (*kRun)(const HeldWeight&)>
std::tuple<Tensor, Tensor> quantize(const Tensor& weight, int64_t format, bool symmetric) {
  constexpr int64_t kFormats = sizeof kQuantizeFormats / sizeof *kQuantizeFormats;
  check_value(format >= 0 && format < kFormats, "format is ", format, "; expected 0 to ",
              kFormats - 1);
  check_value(weight.dim() == 2, "weight has ", weight.dim(), " dimensions; expected 2");
  const QuantizeFormat& wanted = kQuantizeFormats[format];
  const Storage storage = symmetric ? wanted.symmetric : wanted.affine;
  const int64_t dim = weight.size(1);
  HeldWeight held;
  held.format = &wanted;
  held.weight = hold_rows(weight, std::nullopt, std::nullopt, std::nullopt, 0, dim);
  const int64_t rows = held.weight.rows.count;
  const int64_t width = is_nibbles(storage) ? (dim + 1) / 2 : dim;
  held.codes = torch::stable::new_empty(weight, {rows, width},
                                        symmetric ? wanted.symmetric_code : wanted.affine_code);
  held.numbers =
      torch::stable::new_empty(weight, {rows, numbers_of(storage)},
                               is_nibbles(storage) ? ScalarType::Half : ScalarType::Float);
  QuantizeArguments& args = held.args;
  args.weight = held.weight.rows;
  args.storage = storage;
  args.codes = held.codes.mutable_data_ptr();
  args.numbers = held.numbers.mutable_data_ptr();
  kRun(held);
  return {held.codes, held.numbers};
}

}  // namespace llmrec
