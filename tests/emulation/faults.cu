// Faults that the emulator must find, one for each name, and beside each the kernel without it.
#include <cstdio>
#include <string>
#include <vector>

#include "common/cuda.cuh"

using namespace llmrec::cuda;

namespace {

// Each thread reads what its neighbour wrote.
template <bool kBarrier>
__global__ void neighbours(int* out) {
  DYNAMIC_SHARED(int, shared);
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (kBarrier) __syncthreads();
  out[threadIdx.x] = shared[(threadIdx.x + 32) % blockDim.x];
}

template <bool kBarrier>
__global__ void neighbours_in_warp(int* out) {
  DYNAMIC_SHARED(int, shared);
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (kBarrier) __syncwarp();
  const int other = shared[threadIdx.x ^ 1];
  out[threadIdx.x] = other + __shfl_xor_sync(kEverybody, other, 2);
}

template <bool kAll>
__global__ void barrier_for(int* out) {
  if (kAll || threadIdx.x < 40) __syncthreads();
  out[threadIdx.x] = 1;
}

template <bool kAll>
__global__ void shuffle_for(int* out) {
  const unsigned mask = kAll ? kEverybody : 0xffffu;
  out[threadIdx.x] = __shfl_xor_sync(mask, static_cast<int>(threadIdx.x), 1);
}

template <int kBeyond>
__global__ void shared_store(int* out) {
  DYNAMIC_SHARED(int, shared);
  shared[threadIdx.x + kBeyond] = 1;
  __syncthreads();
  out[threadIdx.x] = shared[threadIdx.x + kBeyond];
}

template <int kOffset>
__global__ void vector_load(int* out, const int* in) {
  out[threadIdx.x] = static_cast<int>(load_16(in + 4 * threadIdx.x + kOffset).x);
}

template <bool kAtomic>
__global__ void sum_of_blocks(int* out) {
  if (threadIdx.x != 0) return;
  if (kAtomic)
    atomicAdd(out, 1);
  else
    *out += 1;
}

template <bool kWait>
__global__ void copied(int* out, const int* in) {
  DYNAMIC_SHARED(int, shared);
  copy_async_16(shared + 4 * threadIdx.x, in + 4 * threadIdx.x, 16);
  commit_copies();
  if (kWait) wait_for_copies<0>();
  out[threadIdx.x] = shared[4 * threadIdx.x];
  wait_for_copies<0>();
}

template <bool kAligned>
__global__ void copied_to(int* out, const int* in) {
  DYNAMIC_SHARED(int, shared);
  copy_async_16(shared + 4 * threadIdx.x + (kAligned ? 0 : 2), in, 16);
  commit_copies();
  wait_for_copies<0>();
  out[threadIdx.x] = shared[4 * threadIdx.x];
}

template <class Kernel, class... Arguments>
void run(Kernel kernel, int blocks, int threads, size_t shared, Arguments... arguments) {
  LAUNCH(kernel, blocks, threads, shared, nullptr, arguments...);
}

}  // namespace

int main(int, char** words) {
  const std::string name = words[1];
  const bool faulty = words[2] == std::string("faulty");
  std::vector<int> out(256, -1), in(512, 7);
  int* const to = out.data();
  const int* from = in.data();
  while (reinterpret_cast<uintptr_t>(from) % 16 != 0) ++from;
  if (name == "missing barrier")
    run(faulty ? neighbours<false> : neighbours<true>, 1, 64, 64 * 4, to);
  if (name == "missing warp barrier")
    run(faulty ? neighbours_in_warp<false> : neighbours_in_warp<true>, 1, 32, 32 * 4, to);
  if (name == "divergent barrier")
    run(faulty ? barrier_for<false> : barrier_for<true>, 1, 64, 0, to);
  if (name == "lane outside its mask")
    run(faulty ? shuffle_for<false> : shuffle_for<true>, 1, 32, 0, to);
  if (name == "shared memory overrun")
    run(faulty ? shared_store<1> : shared_store<0>, 1, 32, 32 * 4, to);
  if (name == "misaligned vector load")
    run(faulty ? vector_load<1> : vector_load<0>, 1, 32, 0, to, from);
  if (name == "race of blocks") {
    *to = 0;
    run(faulty ? sum_of_blocks<false> : sum_of_blocks<true>, 4, 32, 0, to);
  }
  if (name == "copy read too early")
    run(faulty ? copied<false> : copied<true>, 1, 32, 32 * 16, to, from);
  if (name == "misaligned copy")
    run(faulty ? copied_to<false> : copied_to<true>, 1, 16, 32 * 16 + 16, to, from);
  for (int i = 0; i < 16; ++i) std::printf("%d ", out[i]);
  std::printf("\n");
}
