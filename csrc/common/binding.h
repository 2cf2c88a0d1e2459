// What the bindings share: from stable-ABI tensors to raw pointers. Only bind.cpp files include it.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstdint>
#include <optional>

#include "common/check.h"
#include "common/parallel.h"
#include "common/rows.h"

namespace llmrec {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

// A worker's arithmetic with denormal numbers, whatever torch.set_flush_denormal said: it sets a
// flag of one thread, and a result must not depend on which thread found it.
class WithDenormals {
 public:
#if defined(__SSE2__)
  WithDenormals() : before_(__builtin_ia32_stmxcsr()) {
    __builtin_ia32_ldmxcsr(before_ & ~0x8040u);  // flush to zero, denormals are zero
  }
  ~WithDenormals() { __builtin_ia32_ldmxcsr(before_); }
#else
  WithDenormals() = default;
#endif
  WithDenormals(const WithDenormals&) = delete;
  WithDenormals& operator=(const WithDenormals&) = delete;

 private:
  unsigned before_ = 0;
};

inline Parallel torch_threads() {
  Parallel parallel;
  parallel.threads = torch::stable::get_num_threads();
  parallel.run = [threads = parallel.threads](int64_t tasks, const Worker& worker) {
    TaskQueue queue(tasks);
    torch::stable::parallel_for(0, std::min(tasks, threads), 1, [&](int64_t, int64_t) {
      const WithDenormals kept;
      worker(queue);
    });
  };
  return parallel;
}

// A contiguous tensor of one dtype and a number of dimensions; the caller keeps it alive.
inline Tensor checked(const char* name, const Tensor& tensor, ScalarType dtype, int64_t dims) {
  check_value(tensor.dim() == dims, name, " has ", tensor.dim(), " dimensions; expected ", dims);
  check_value(tensor.scalar_type() == dtype, name, " has dtype number ",
              static_cast<int>(tensor.scalar_type()), "; expected ", static_cast<int>(dtype));
  return torch::stable::contiguous(tensor);
}

// An optional vector of one number per item or query.
inline MaybeTensor checked_vector(const char* name, const MaybeTensor& tensor, ScalarType dtype,
                                  int64_t length) {
  if (!tensor) return std::nullopt;
  Tensor vector = checked(name, *tensor, dtype, 1);
  check_value(vector.numel() == length, name, " has ", vector.numel(), " entries; expected ",
              length);
  return vector;
}

template <class T>
const T* pointer(const MaybeTensor& tensor) {
  return tensor ? static_cast<const T*>(tensor->const_data_ptr()) : nullptr;
}

template <class T>
T* mutable_pointer(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// Rows with the tensors that hold them: rows keep their stride, and are copied only where the
// elements of one row are not side by side.
struct HeldRows {
  Rows rows;
  Tensor data;
  MaybeTensor scale, bias, inverse_norms;
};

inline Storage storage_of(ScalarType dtype, int64_t bits, bool has_bias) {
  if (bits == 8 && dtype == ScalarType::Float8_e4m3fn) {
    check_value(!has_bias, "float8 rows have no bias");
    return Storage::fp8_e4m3;
  }
  if (bits == 8) return has_bias ? Storage::int8_affine : Storage::int8_symmetric;
  if (bits == 4) return has_bias ? Storage::int4_affine : Storage::int4_symmetric;
  check_value(bits == 0, "bits is ", bits, "; expected 0, 4 or 8");
  if (dtype == ScalarType::Half) return Storage::float16;
  if (dtype == ScalarType::BFloat16) return Storage::bfloat16;
  check_value(dtype == ScalarType::Float, "data has dtype number ", static_cast<int>(dtype),
              "; expected float32, float16 or bfloat16");
  return Storage::float32;
}

// Scales or biases, which keep their stride: where they alternate, a row's are in one cache line.
inline MaybeTensor checked_numbers(const char* name, const MaybeTensor& tensor, ScalarType dtype,
                                   int64_t length) {
  if (!tensor) return std::nullopt;
  check_value(tensor->dim() == 1 && tensor->numel() == length, name, " has ", tensor->numel(),
              " entries in ", tensor->dim(), " dimensions; expected ", length, " in one");
  check_value(tensor->scalar_type() == dtype, name, " has dtype number ",
              static_cast<int>(tensor->scalar_type()), "; expected ", static_cast<int>(dtype));
  return tensor;
}

inline HeldRows hold_rows(const Tensor& data, const MaybeTensor& scale, const MaybeTensor& bias,
                          const MaybeTensor& inverse_norms, int64_t bits, int64_t dim) {
  check_value(data.dim() == 2, "data has ", data.dim(), " dimensions; expected 2");
  HeldRows held;
  held.rows.storage = storage_of(data.scalar_type(), bits, bias.has_value());
  const int64_t width = bits == 4 ? (dim + 1) / 2 : dim;
  check_value(data.size(1) == width, "data has ", data.size(1), " columns; expected ", width);
  check_value((bits == 0) == !scale.has_value(), "scale and bits disagree");
  if (bits != 0 && held.rows.storage != Storage::fp8_e4m3) {
    const bool signed_bytes = held.rows.storage == Storage::int8_symmetric;
    check_value(data.scalar_type() == (signed_bytes ? ScalarType::Char : ScalarType::Byte),
                "data has dtype number ", static_cast<int>(data.scalar_type()),
                "; expected uint8 codes, or int8 or float8_e4m3fn without a bias");
  }
  const bool side_by_side = data.size(1) <= 1 || data.stride(1) == 1;
  held.data = side_by_side ? data : torch::stable::contiguous(data);
  const ScalarType metadata = bits == 4 ? ScalarType::Half : ScalarType::Float;
  held.rows.count = held.data.size(0);
  held.scale = checked_numbers("scale", scale, metadata, held.rows.count);
  held.bias = checked_numbers("bias", bias, metadata, held.rows.count);
  if (held.scale.has_value()) {
    if (held.bias.has_value() && held.bias->stride(0) != held.scale->stride(0)) {
      held.scale = torch::stable::contiguous(*held.scale);
      held.bias = torch::stable::contiguous(*held.bias);
    }
    held.rows.number_stride = held.scale->stride(0);
  }
  held.inverse_norms =
      checked_vector("inverse_norms", inverse_norms, ScalarType::Double, held.rows.count);
  held.rows.data = held.data.const_data_ptr();
  held.rows.dim = dim;
  held.rows.stride = held.data.stride(0) * static_cast<int64_t>(held.data.element_size());
  held.rows.scale = pointer<void>(held.scale);
  held.rows.bias = pointer<void>(held.bias);
  held.rows.inverse_norms = pointer<double>(held.inverse_norms);
  return held;
}

}  // namespace llmrec
