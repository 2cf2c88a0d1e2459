// Which GPUs the kernels of this build can run on. setup.py compiles a binary for each architecture
// and PTX for the newest: a binary runs on its own major version from its minor version on, and PTX
// is compiled by the driver for all that is newer.
#include <cuda_runtime.h>

#include <algorithm>

#include "common/check.h"
#include "common/device.h"

namespace llmrec {
namespace {

std::string release(int version) { return sentence(version / 1000, '.', version % 1000 / 10); }

std::string dotted(int capability) { return sentence(capability / 10, '.', capability % 10); }

bool is_built_for(int capability) {
  const std::vector<int>& built = cuda_build().architectures;
  return capability > built.back() || std::any_of(built.begin(), built.end(), [&](int each) {
           return each / 10 == capability / 10 && each <= capability;
         });
}

std::string no_device_reason(int device) {
  int driver = 0, devices = 0, major = 0, minor = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
    return "there is no NVIDIA driver";
  cudaError_t error = cudaGetDeviceCount(&devices);
  if (error == cudaErrorInsufficientDriver)
    return sentence("the NVIDIA driver is for CUDA ", release(driver),
                    " and the kernels were built with CUDA ", release(CUDART_VERSION),
                    "; update the driver, or build with an older nvcc");
  if (error == cudaErrorNoDevice) return "the NVIDIA driver finds no GPU";
  if (error == cudaSuccess && device >= devices)
    return sentence("there is no GPU ", device, ", only ", devices);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  if (error != cudaSuccess) return sentence("CUDA does not start: ", words_of(error));
  const int capability = 10 * major + minor;
  if (is_built_for(capability)) return "";
  std::string built;
  for (int each : cuda_build().architectures)
    built += sentence(built.empty() ? "" : ", ", dotted(each));
  return sentence("GPU ", device, " has compute capability ", dotted(capability),
                  " and the kernels were built for ", built,
                  "; build with LLMREC_CUDA_ARCHS=", capability);
}

[[maybe_unused]] const bool entered = [] {
  CudaBuild& build = cuda_build();
  build.version = CUDART_VERSION;
  for (int each : {__CUDA_ARCH_LIST__}) build.architectures.push_back(each / 10);
  build.no_device_reason = no_device_reason;
  return true;
}();

}  // namespace

const char* words_of(int cuda_error) {
  return cudaGetErrorString(static_cast<cudaError_t>(cuda_error));
}

}  // namespace llmrec
