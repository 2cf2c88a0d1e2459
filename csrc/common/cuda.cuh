// One spelling of CUDA for nvcc, for NVRTC and for the emulator of tests/emulation.
//
// Kernels see no header of torch and none of the standard library: NVRTC has none. Host code, which
// launches them, is left out there.
#pragma once

#if defined(__CUDACC_RTC__)
using int8_t = signed char;
using uint8_t = unsigned char;
using int16_t = short;
using uint16_t = unsigned short;
using int32_t = int;
using uint32_t = unsigned int;
using int64_t = long long;
using uint64_t = unsigned long long;
#else
#include <cstdint>
#endif

#if defined(LLMREC_EMULATE_CUDA)
#include "cuda_emulator.h"
#elif !defined(__CUDACC_RTC__)
#include <cuda_runtime.h>
#endif

#if defined(LLMREC_EMULATE_CUDA)
// The block's shared memory, all of it, aligned to 16 bytes.
#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(emulator::block->shared)
#define LAUNCH(kernel, grid, threads, shared, stream, ...) \
  (static_cast<void>(stream), emulator::launch(grid, threads, shared, [&] { kernel(__VA_ARGS__); }))
#else
#define DYNAMIC_SHARED(type, name)                            \
  extern __shared__ __align__(16) unsigned char llmrec_raw[]; \
  type* name = reinterpret_cast<type*>(llmrec_raw)
#define LAUNCH(kernel, grid, threads, shared, stream, ...) \
  kernel<<<grid, threads, shared, stream>>>(__VA_ARGS__)
#endif

namespace llmrec::cuda {

constexpr int kWarp = 32;
constexpr unsigned kEverybody = 0xffffffffu;

// ---- narrow floats, from their bits ----

__device__ __forceinline__ float float_of_bits(uint32_t bits) {
#if defined(LLMREC_EMULATE_CUDA)
  return std::bit_cast<float>(bits);
#else
  return __uint_as_float(bits);
#endif
}

__device__ __forceinline__ uint32_t bits_of_float(float value) {
#if defined(LLMREC_EMULATE_CUDA)
  return std::bit_cast<uint32_t>(value);
#else
  return __float_as_uint(value);
#endif
}

__device__ __forceinline__ float float_of_half(uint16_t bits) {
#if defined(LLMREC_EMULATE_CUDA)
  return static_cast<float>(std::bit_cast<_Float16>(bits));
#else
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
#endif
}

__device__ __forceinline__ uint16_t half_of_float(float value) {
#if defined(LLMREC_EMULATE_CUDA)
  return std::bit_cast<uint16_t>(static_cast<_Float16>(value));
#else
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
#endif
}

__device__ __forceinline__ float float_of_bfloat16(uint16_t bits) {
  return float_of_bits(static_cast<uint32_t>(bits) << 16);
}

// To the nearest even; a NaN stays one.
__device__ __forceinline__ uint16_t bfloat16_of_float(float value) {
  const uint32_t bits = bits_of_float(value);
  if (value != value) return 0x7fc0;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// E4M3: four bits of exponent, bias 7, three of mantissa; no infinities.
__device__ __forceinline__ float float_of_fp8(uint32_t bits) {
  const uint32_t magnitude = bits & 0x7f;
  float value = static_cast<float>(magnitude) * 0x1p-9f;  // subnormal
  if (magnitude >= 8) value = float_of_bits((magnitude << 20) + 0x3c000000u);
  if (magnitude == 0x7f) value = float_of_bits(0x7fc00000u);
  return bits & 0x80 ? -value : value;
}

// To the nearest even; of a number from -448 to 448.
__device__ __forceinline__ uint32_t fp8_of_float(float value) {
  const uint32_t bits = bits_of_float(value), magnitude = bits & 0x7fffffff;
  // Adding 2^14 leaves multiples of 2^-9, rounded, at the bottom of the sum.
  const uint32_t subnormal = bits_of_float(float_of_bits(magnitude) + 0x1p14f) - 0x46800000u;
  const uint32_t normal = (magnitude - 0x3c000000u + 0x7ffffu + (magnitude >> 20 & 1)) >> 20;
  return (magnitude < 0x3c800000u ? subnormal : normal) | (bits >> 24 & 0x80);
}

// ---- arithmetic that no compiler may fuse or reorder ----

__device__ __forceinline__ float rounded_product(float a, float b) {
#if defined(LLMREC_EMULATE_CUDA)
  return a * b;  // with -ffp-contract=off
#else
  return __fmul_rn(a, b);
#endif
}

__device__ __forceinline__ float rounded_sum(float a, float b) {
#if defined(LLMREC_EMULATE_CUDA)
  return a + b;
#else
  return __fadd_rn(a, b);
#endif
}

__device__ __forceinline__ double rounded_product(double a, double b) {
#if defined(LLMREC_EMULATE_CUDA)
  return a * b;
#else
  return __dmul_rn(a, b);
#endif
}

__device__ __forceinline__ double rounded_sum(double a, double b) {
#if defined(LLMREC_EMULATE_CUDA)
  return a + b;
#else
  return __dadd_rn(a, b);
#endif
}

__device__ __forceinline__ float fused(float a, float b, float c) {
#if defined(LLMREC_EMULATE_CUDA)
  return std::fma(a, b, c);
#else
  return __fmaf_rn(a, b, c);
#endif
}

__device__ __forceinline__ double fused(double a, double b, double c) {
#if defined(LLMREC_EMULATE_CUDA)
  return std::fma(a, b, c);
#else
  return __fma_rn(a, b, c);
#endif
}

__device__ __forceinline__ float divided(float a, float b) {
#if defined(LLMREC_EMULATE_CUDA)
  return a / b;
#else
  return __fdiv_rn(a, b);
#endif
}

__device__ __forceinline__ double divided(double a, double b) {
#if defined(LLMREC_EMULATE_CUDA)
  return a / b;
#else
  return __ddiv_rn(a, b);
#endif
}

__device__ __forceinline__ double root(double a) {
#if defined(LLMREC_EMULATE_CUDA)
  return std::sqrt(a);
#else
  return __dsqrt_rn(a);
#endif
}

// The float32 that is not below it.
__device__ __forceinline__ float rounded_up(double a) {
#if defined(LLMREC_EMULATE_CUDA)
  const float nearest = static_cast<float>(a);
  return nearest < a ? std::nextafter(nearest, std::numeric_limits<float>::infinity()) : nearest;
#else
  return __double2float_ru(a);
#endif
}

__device__ __forceinline__ bool is_finite(double a) { return a - a == 0; }

// c + the product of four int8 in each word.
__device__ __forceinline__ int dot_of_four(int a, int b, int c) {
#if defined(LLMREC_EMULATE_CUDA)
  for (int shift = 0; shift < 32; shift += 8)
    c += static_cast<int8_t>(a >> shift) * static_cast<int8_t>(b >> shift);
  return c;
#else
  return __dp4a(a, b, c);
#endif
}

constexpr float kInfinity = __builtin_bit_cast(float, 0x7f800000);  // in NVRTC too

// ---- memory ----

// 16 bytes at a multiple of 16, read through the cache that is not coherent.
__device__ __forceinline__ uint4 load_16(const void* from) {
  return __ldg(static_cast<const uint4*>(from));
}

// Words to global memory, together: the compiler splits up some stores of a struct.
__device__ __forceinline__ void store_16(void* to, const uint4& words) {
#if defined(LLMREC_EMULATE_CUDA)
  *static_cast<uint4*>(to) = words;
#else
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(words.x), "r"(words.y),
               "r"(words.z), "r"(words.w)
               : "memory");
#endif
}

__device__ __forceinline__ void store_8(void* to, const uint2& words) {
#if defined(LLMREC_EMULATE_CUDA)
  *static_cast<uint2*>(to) = words;
#else
  asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(words.x), "r"(words.y) : "memory");
#endif
}

// What rows of a stride begin at a multiple of: 16 bytes, 8, 4 or 1.
__device__ __forceinline__ int alignment_of(const void* start, int64_t stride) {
  const uint64_t bits = reinterpret_cast<uint64_t>(start) | static_cast<uint64_t>(stride);
  return bits % 16 == 0 ? 16 : bits % 8 == 0 ? 8 : bits % 4 == 0 ? 4 : 1;
}

// The first `count` of 16 bytes, the others zero: 16 of them, a multiple of 4, or any number, as
// aligned as that.
template <int kAlignment>
__device__ __forceinline__ uint4 load_bytes(const uint8_t* from, int count) {
  static_assert(kAlignment == 16 || kAlignment == 4 || kAlignment == 1);
  if constexpr (kAlignment == 16) return load_16(from);
  uint32_t words[4] = {0, 0, 0, 0};
  if constexpr (kAlignment == 4) {
    for (int i = 0; i < 4; ++i)
      if (4 * i < count) words[i] = __ldg(reinterpret_cast<const uint32_t*>(from) + i);
  } else {
    // From the last to the first, each in front of the others: few registers, for a rare case.
    for (int i = count < 16 ? count - 1 : 15; i >= 0; --i) {
      words[3] = words[3] << 8 | words[2] >> 24;
      words[2] = words[2] << 8 | words[1] >> 24;
      words[1] = words[1] << 8 | words[0] >> 24;
      words[0] = words[0] << 8 | __ldg(from + i);
    }
  }
  return {words[0], words[1], words[2], words[3]};
}

__device__ __forceinline__ uint4 load_bytes(const uint8_t* from, int count, int alignment) {
  if (alignment >= 16 && count >= 16) return load_bytes<16>(from, count);
  if (alignment >= 4 && (count >= 16 || count % 4 == 0)) return load_bytes<4>(from, count);
  return load_bytes<1>(from, count);
}

// Stores the first `count` of 16 bytes.
__device__ __forceinline__ void store_bytes(uint8_t* to, const uint4& part, int count,
                                            int alignment) {
  if (alignment >= 16 && count >= 16) {
    store_16(to, part);
    return;
  }
  const uint32_t words[4] = {part.x, part.y, part.z, part.w};
  for (int i = 0; i < 4; i += 2) {
    if (alignment >= 8 && count - 4 * i >= 8) {
      store_8(to + 4 * i, {words[i], words[i + 1]});
      continue;
    }
    for (int word = i; word < i + 2; ++word) {
      if (alignment >= 4 && count - 4 * word >= 4) {
        *reinterpret_cast<uint32_t*>(to + 4 * word) = words[word];
        continue;
      }
      for (int byte = 0; byte < 4; ++byte)
        if (4 * word + byte < count)
          to[4 * word + byte] = static_cast<uint8_t>(words[word] >> (8 * byte));
    }
  }
}

// An async copy of 16 bytes from global to shared memory, of which `read` come from memory and the
// others are zero; on sm_75, which has none, a load and a store.
__device__ __forceinline__ void copy_async_16(void* to, const void* from, int read) {
#if defined(LLMREC_EMULATE_CUDA)
  emulator::copy_async_16(to, from, read);
#elif __CUDA_ARCH__ >= 800
  const unsigned shared = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(read));
#else
  uint4 words = {0, 0, 0, 0};
  if (read == 16)
    words = load_16(from);
  else
    for (int i = 0; i < read; ++i)
      reinterpret_cast<uint8_t*>(&words)[i] = static_cast<const uint8_t*>(from)[i];
  *static_cast<uint4*>(to) = words;
#endif
}

__device__ __forceinline__ void commit_copies() {
#if defined(LLMREC_EMULATE_CUDA)
  emulator::commit_copies();
#elif __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;");
#endif
}

// Waits for all of this thread's groups but the last kPending; a barrier makes others see them.
template <int kPending>
__device__ __forceinline__ void wait_for_copies() {
#if defined(LLMREC_EMULATE_CUDA)
  emulator::wait_for_copies(kPending);
#elif __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

// ---- tensor cores ----

// c += a b^T of int8: mma.sync.m16n8k32 in the layouts of the PTX ISA. Lane l has of a the rows l /
// 4 and l / 4 + 8, of b the column l / 4, of c the columns 2 (l % 4) and that + 1. sm_75 has the
// same layouts in quarters.
__device__ __forceinline__ void multiply_int8(int (&c)[4], const unsigned (&a)[4],
                                              const unsigned (&b)[2]) {
#if defined(LLMREC_EMULATE_CUDA)
  emulator::multiply_int8(c, a, b);
#elif __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int rows = 0; rows < 2; ++rows)
      asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
                   : "+r"(c[2 * rows]), "+r"(c[2 * rows + 1])
                   : "r"(a[2 * half + rows]), "r"(b[half]));
#endif
}

// ---- for the host ----

#if !defined(__CUDACC_RTC__)
// 0, or the cudaError_t of the first launch that failed since this was asked.
inline int launched() {
#if defined(LLMREC_EMULATE_CUDA)
  return 0;
#else
  return static_cast<int>(cudaGetLastError());
#endif
}

// The blocks that work takes; it comes from memory, which cannot hold more than a grid has.
inline unsigned blocks_for(int64_t work, int64_t of_a_block) {
  return static_cast<unsigned>(work / of_a_block + (work % of_a_block != 0));
}
#endif

}  // namespace llmrec::cuda
