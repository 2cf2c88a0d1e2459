// quantize for torch: unpack, check, call.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "common/binding.h"
#include "common/dispatch.h"
#include "common/pages.h"
#include "quantize/quantize.h"

namespace llmrec {
namespace {

const Table<QuantizeKernel> table("quantize", {
#if defined(__x86_64__)
                                                  {Level::avx512, quantize_avx512},
                                                  {Level::avx2, quantize_avx2},
#elif defined(__aarch64__)
                                                  {Level::neon, quantize_neon},
#endif
                                                  {Level::scalar, quantize_scalar}});

// In the order of DTYPES in reference.py.
struct Format {
  const char* name;
  Storage affine, symmetric;
  ScalarType affine_code, symmetric_code;
  const char* limit;
};
constexpr Format kFormats[] = {
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
constexpr int64_t kFormatCount = sizeof kFormats / sizeof *kFormats;

std::tuple<Tensor, Tensor> quantize_cpu(const Tensor& weight, int64_t format, bool symmetric) {
  check_value(format >= 0 && format < kFormatCount, "format is ", format, "; expected 0 to ",
              kFormatCount - 1);
  check_value(weight.dim() == 2, "weight has ", weight.dim(), " dimensions; expected 2");
  const Format& wanted = kFormats[format];
  const Storage storage = symmetric ? wanted.symmetric : wanted.affine;
  const int64_t dim = weight.size(1);
  const HeldRows held = hold_rows(weight, std::nullopt, std::nullopt, std::nullopt, 0, dim);
  const int64_t rows = held.rows.count;
  const int64_t width = is_nibbles(storage) ? (dim + 1) / 2 : dim;
  const Tensor codes = torch::stable::new_empty(
      weight, {rows, width}, symmetric ? wanted.symmetric_code : wanted.affine_code);
  const Tensor numbers =
      torch::stable::new_empty(weight, {rows, numbers_of(storage)},
                               is_nibbles(storage) ? ScalarType::Half : ScalarType::Float);
  // Lookups read rows at random.
  prefer_large_pages(codes.mutable_data_ptr(), static_cast<size_t>(rows * bytes_of(storage, dim)));

  QuantizeArguments args;
  args.weight = held.rows;
  args.storage = storage;
  args.codes = codes.mutable_data_ptr();
  args.numbers = numbers.mutable_data_ptr();
  FirstBad not_finite, too_wide;
  table.pick()(args, not_finite, too_wide, torch_threads());
  check_finite_rows("weight", not_finite);
  check_value(!too_wide.any(), "weight spans more in row ", too_wide.position(), " than ",
              wanted.name, " can hold (", wanted.limit, "); scale the weights down");
  return {codes, numbers};
}

}  // namespace
}  // namespace llmrec

STABLE_TORCH_LIBRARY_IMPL(llmrec, CPU, m) { m.impl("quantize", TORCH_BOX(&llmrec::quantize_cpu)); }
