// What this build has of CUDA, and why it cannot run here. No header of CUDA or torch.
#pragma once

#include <string>
#include <vector>

namespace llmrec {

// Empty without CUDA: device.cu and the bindings enter themselves, so that no list is edited.
struct CudaBuild {
  int version = 0;                 // of the runtime: 13000 is 13.0
  std::vector<int> architectures;  // 90 is 9.0; the last one is also there as PTX
  std::vector<std::string> ops;    // that have kernels
  // Why the kernels cannot run on a GPU; empty where they can. The first to ask CUDA anything.
  std::string (*no_device_reason)(int device) = nullptr;
};

inline CudaBuild& cuda_build() {
  static CudaBuild build;
  return build;
}

struct CudaOp {
  explicit CudaOp(const char* name) { cuda_build().ops.emplace_back(name); }
};

const char* words_of(int cuda_error);

}  // namespace llmrec
