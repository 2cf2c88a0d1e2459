// What the CUDA bindings share: the device, the stream and the workspace of a call. Nothing here
// reads contents or waits for the GPU. Only bind_cuda.cpp files include it.
#pragma once

#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <stdexcept>

#include "common/binding.h"
#include "common/device.h"

namespace llmrec {

// The stable ABI tells it from torch 2.13 on. Before that it is told by the library of torch's CUDA
// kernels, which is loaded where there is a CUDA tensor.
inline void* current_stream(int32_t device) {
  using Getter = int32_t (*)(int32_t, void**);
  static const auto getter = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    return reinterpret_cast<Getter>(
        library == nullptr ? nullptr : dlsym(library, "aoti_torch_get_current_cuda_stream"));
  }();
  void* stream = nullptr;
  if (getter == nullptr || getter(device, &stream) != 0)
    throw std::runtime_error("this torch does not tell its current CUDA stream");
  return stream;
}

// Keys have room for so many ids (common/keys.cuh).
inline void check_ranked(const Rows& items) {
  constexpr int64_t kMost = (int64_t{1} << 31) - 1;
  check_value(items.count <= kMost, "items has ", items.count, " rows, and backend 'cuda' ranks ",
              kMost, "; backend='reference' ranks any number");
}

// A call on the device of its first tensor, which is current until the end.
class Launch {
 public:
  Launch(const char* op, const char* name, const Tensor& first)
      : op_(op), first_(first), device_(index_of(name, first)), guard_(device_) {}

  // The other tensors must be on the same device.
  void expect(const char* name, const MaybeTensor& tensor) const {
    if (!tensor) return;
    const int32_t found = index_of(name, *tensor);
    check_value(found == device_, name, " is on cuda:", found, "; expected cuda:", device_,
                ", as the others are");
  }

  void expect(const HeldRows& rows) const {
    expect("data", rows.data);
    expect("scale", rows.scale);
    expect("bias", rows.bias);
    expect("inverse_norms", rows.inverse_norms);
  }

  // From torch's allocator, which gives it to others only behind this call's kernels.
  Tensor workspace(int64_t bytes) const {
    try {
      return torch::stable::new_empty(first_, {bytes}, ScalarType::Byte);
    } catch (const std::exception& error) {
      throw std::runtime_error(sentence(
          op_, " found no ", bytes, " bytes of workspace on cuda:", device_, ": ", error.what()));
    }
  }

  void* stream() const { return current_stream(device_); }

  void check(int error) const {
    if (error != 0)
      throw std::runtime_error(sentence(op_, " failed on cuda:", device_, ": ", words_of(error)));
  }

 private:
  static int32_t index_of(const char* name, const Tensor& tensor) {
    check_value(tensor.is_cuda(), name, " is not on a GPU; expected all tensors on the same one");
    return tensor.get_device_index();
  }

  const char* op_;
  const Tensor& first_;
  int32_t device_;
  torch::stable::accelerator::DeviceGuard guard_;
};

}  // namespace llmrec
