// Runs CUDA kernels on the CPU from the sources that nvcc compiles, to prove what no GPU is here to
// show. A CUDA thread is a fiber; the threads of a block take turns, block after block.
//
//   any build               a barrier that some threads never reach, lanes of a warp that meet in
//                           different places, a lane outside its own mask, misaligned 16-byte loads
//                           and async copies: each ends the process with a sentence.
//   -fsanitize=address      shared and global memory out of bounds: a block's shared memory is an
//                           allocation of exactly the bytes that the launch asked for.
//   -fsanitize=thread       races within a warp (a missing __syncwarp), within a block (a missing
//                           __syncthreads), and between blocks. Fibers are told to ThreadSanitizer,
//                           and only barriers order them; blocks are not ordered at all.
//
// Shared memory begins as NaN, and in every other block as numbers. An async copy arrives as late
// as it may, when its thread waits for it, and until then its destination is NaN: what is read too
// early is wrong, and not only late.
//
// Kernels include csrc/common/cuda.cuh, which includes this where LLMREC_EMULATE_CUDA is defined.
// They write DYNAMIC_SHARED and LAUNCH for what is no C++; static __shared__ variables are not
// supported. What still differs from a GPU: warps are in step only where they meet, memory is
// sequentially consistent but for what ThreadSanitizer says, and atomics are relaxed.
#pragma once

#if !defined(__x86_64__)
#error "the emulator switches fibers in x86-64 assembly"
#endif

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define EMULATOR_TSAN(code) code
#else
#define EMULATOR_TSAN(code)
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define EMULATOR_ASAN(code) code
#else
#define EMULATOR_ASAN(code)
#endif

// The emulator's own state is no memory of a kernel: ThreadSanitizer does not watch it.
#define EMULATOR_UNWATCHED __attribute__((no_sanitize("thread"), noinline))
#define EMULATOR_WATCHED __attribute__((noinline))

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};
struct dim3 : uint3 {
  dim3(unsigned width = 1, unsigned height = 1, unsigned depth = 1) : uint3{width, height, depth} {}
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
using cudaStream_t = void*;

namespace emulator {

constexpr size_t kStack = 64 << 10;
constexpr unsigned kWarp = 32;
constexpr unsigned kEverybody = 0xffffffffu;

// ---- threads and blocks ----

struct AsyncCopy {
  char* to;
  const char* from;
  int size, read;  // bytes; those beyond `read` become zero
  int group;
};

constexpr int kCopies = 64;  // of a thread, on their way at a time

struct Fiber {
  void* stack_pointer = nullptr;
  std::unique_ptr<char[]> stack;
  const void* bottom = nullptr;  // of its stack, as AddressSanitizer knows it
  size_t stack_bytes = 0;
  void* tsan = nullptr;
  uint3 index;
  unsigned number = 0;  // in its block
  bool ended = false;
  const char* waits_at = "its beginning";
  AsyncCopy copies[kCopies];  // no container: its functions would be watched
  int pending = 0;            // of them
  int group = 0;
};

// Where lanes of one mask meet. Two slots take turns: a lane may be at the next meeting before the
// last one has read what was left for it at this one.
struct Meeting {
  unsigned mask = 0, arrived = 0, turn = 0;
  const char* name = "";
  uint32_t words[2][kWarp][8];
};
constexpr unsigned kMasks = 16;
struct Warp {
  unsigned masks = 0;  // that lanes have met under
  Meeting meetings[kMasks];
};

struct Block {
  uint3 index;
  dim3 size, grid;
  unsigned threads = 0, ended = 0;
  unsigned at_barrier = 0, barriers = 0;
  uint64_t progress = 0;
  Warp warps[1024 / kWarp];
  char* shared = nullptr;
  const std::function<void()>* kernel = nullptr;
};

inline thread_local Fiber* fiber = nullptr;
inline thread_local Block* block = nullptr;
inline thread_local Fiber scheduler;
inline thread_local uint64_t blocks_begun = 0;
inline char launch_token;  // ThreadSanitizer orders a launch and what comes after by it

EMULATOR_UNWATCHED [[noreturn]] inline void fail(const char* what) {
  if (block != nullptr)
    std::fprintf(stderr, "emulator: %s; block (%u, %u, %u), thread %u\n", what, block->index.x,
                 block->index.y, block->index.z, fiber->number);
  else
    std::fprintf(stderr, "emulator: %s\n", what);
  std::abort();
}

extern "C" void llmrec_emulator_switch(void** from, void* to);
asm(R"(.text
.weak llmrec_emulator_switch
llmrec_emulator_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
)");

EMULATOR_UNWATCHED inline void switch_to(Fiber* next) {
  Fiber* before = fiber;
  fiber = next;
  EMULATOR_ASAN(void* fake = nullptr;
                __sanitizer_start_switch_fiber(&fake, next->bottom, next->stack_bytes);)
  EMULATOR_TSAN(__tsan_switch_to_fiber(next->tsan, __tsan_switch_to_fiber_no_sync);)
  llmrec_emulator_switch(&before->stack_pointer, next->stack_pointer);
  EMULATOR_ASAN(__sanitizer_finish_switch_fiber(fake, nullptr, nullptr);)
}

template <class Done>
EMULATOR_UNWATCHED void wait_until(const char* where, Done done) {
  fiber->waits_at = where;
  while (!done()) switch_to(&scheduler);
}

// What a fiber runs: the kernel, once for each block.
EMULATOR_UNWATCHED inline void run_kernel() {
  EMULATOR_ASAN(
      __sanitizer_finish_switch_fiber(nullptr, &scheduler.bottom, &scheduler.stack_bytes);)
  for (;;) {
    (*block->kernel)();
    if (fiber->pending != 0) fail("a thread ends before its async copies have arrived");
    fiber->ended = true;
    ++block->ended;
    ++block->progress;
    EMULATOR_TSAN(__tsan_release(&launch_token);)
    switch_to(&scheduler);
  }
}

EMULATOR_UNWATCHED inline void prepare_stack(Fiber& one) {
  one.stack.reset();
  one.stack.reset(new char[kStack]);
  one.bottom = one.stack.get();
  one.stack_bytes = kStack;
  auto top = reinterpret_cast<uintptr_t>(one.stack.get() + kStack) & ~uintptr_t{15};
  auto* at = reinterpret_cast<void**>(top);
  *--at = nullptr;  // a function begins 8 bytes off a multiple of 16
  *--at = reinterpret_cast<void*>(&run_kernel);
  for (int registers = 0; registers < 6; ++registers) *--at = nullptr;
  one.stack_pointer = at;
}

EMULATOR_UNWATCHED inline void run_block(std::vector<Fiber>& fibers) {
  while (block->ended < block->threads) {
    const uint64_t before = block->progress;
    for (Fiber& one : fibers)
      if (!one.ended) switch_to(&one);
    if (block->progress != before) continue;
    for (const Fiber& one : fibers) {
      if (one.ended) continue;
      std::fprintf(stderr, "emulator: thread %u waits at %s; %u of %u threads have ended\n",
                   one.number, one.waits_at, block->ended, block->threads);
      break;
    }
    fail("nobody can go on: not all threads reach a barrier");
  }
}

EMULATOR_UNWATCHED inline void launch(dim3 grid, dim3 size, size_t shared_bytes,
                                      const std::function<void()>& kernel) {
  Block one;
  one.size = size;
  one.grid = grid;
  one.threads = size.x * size.y * size.z;
  one.kernel = &kernel;
  block = &one;
  fiber = &scheduler;
  if (one.threads == 0 || one.threads > 1024) fail("a block has 1 to 1024 threads");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) fail("a grid has at least one block");
  if (grid.y > 65535 || grid.z > 65535) fail("a grid has at most 65535 blocks in y and z");
  if (shared_bytes > 48 << 10) fail("a block has at most 48 KiB of shared memory unasked");
  EMULATOR_TSAN(scheduler.tsan = __tsan_get_current_fiber();)
  std::vector<Fiber> fibers(one.threads);
  for (unsigned number = 0; number < one.threads; ++number) {
    fibers[number].number = number;
    fibers[number].index = {number % size.x, number / size.x % size.y, number / (size.x * size.y)};
    prepare_stack(fibers[number]);
  }
  std::vector<std::unique_ptr<char[]>> kept;  // no block gets the addresses of another
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        one.index = {x, y, z};
        one.ended = one.at_barrier = 0;
        for (Warp& warp : one.warps) warp.masks = 0;
        kept.emplace_back(new char[shared_bytes]);
        one.shared = kept.back().get();
        std::memset(one.shared, ++blocks_begun % 2 == 0 ? 0x3f : 0xff, shared_bytes);
        for (Fiber& each : fibers) {
          each.ended = false;
          // What a block leaves on a stack would be a race with the next one that is there.
          EMULATOR_TSAN(prepare_stack(each); each.tsan = __tsan_create_fiber(0);)
        }
        run_block(fibers);
        EMULATOR_TSAN(for (Fiber& each : fibers) __tsan_destroy_fiber(each.tsan);)
      }
  EMULATOR_TSAN(__tsan_acquire(&launch_token);)
  block = nullptr;
}

// ---- barriers, and lanes that meet ----

EMULATOR_UNWATCHED inline void synchronize_block(const char* where) {
  EMULATOR_TSAN(__tsan_release(&block->at_barrier);)
  const unsigned turn = block->barriers;
  ++block->progress;
  if (++block->at_barrier == block->threads) {
    block->at_barrier = 0;
    ++block->barriers;
  }
  wait_until(where, [=] { return block->barriers != turn; });
  EMULATOR_TSAN(__tsan_acquire(&block->at_barrier);)
}

EMULATOR_UNWATCHED inline unsigned lane() { return fiber->number % kWarp; }

// The lanes of a mask give some words each and see those of all; memory is not ordered by it.
EMULATOR_UNWATCHED inline uint32_t (*meet(unsigned mask, const uint32_t* words, unsigned count,
                                          const char* name))[8] {
  if ((mask >> lane() & 1) == 0) fail("a lane calls with a mask that it is not in");
  Warp& warp = block->warps[fiber->number / kWarp];
  unsigned at = 0;
  while (at < warp.masks && warp.meetings[at].mask != mask) ++at;
  if (at == kMasks) fail("lanes of a warp meet under more than 16 masks");
  Meeting& here = warp.meetings[at];
  if (at == warp.masks) {
    ++warp.masks;
    here.mask = mask;
    here.arrived = here.turn = 0;
  }
  if (here.arrived != 0 && std::strcmp(here.name, name) != 0)
    fail("lanes of one mask meet in different operations");
  here.name = name;
  const unsigned turn = here.turn;
  for (unsigned word = 0; word < count; ++word) here.words[turn % 2][lane()][word] = words[word];
  ++block->progress;
  if (++here.arrived == static_cast<unsigned>(std::popcount(mask))) {
    here.arrived = 0;
    ++here.turn;
  }
  Meeting* const place = &here;
  wait_until(name, [=] { return place->turn != turn; });
  return here.words[turn % 2];
}

EMULATOR_UNWATCHED inline void synchronize_warp(unsigned mask, const char* where) {
  EMULATOR_TSAN(__tsan_release(&block->warps[fiber->number / kWarp]);)
  meet(mask, nullptr, 0, where);
  EMULATOR_TSAN(__tsan_acquire(&block->warps[fiber->number / kWarp]);)
}

template <class T>
EMULATOR_UNWATCHED T shuffle(unsigned mask, T value, unsigned source, const char* name) {
  static_assert(sizeof(T) % 4 == 0 && sizeof(T) <= 32);
  uint32_t mine[sizeof(T) / 4];
  __builtin_memcpy(mine, &value, sizeof(T));
  const auto seen = meet(mask, mine, sizeof(T) / 4, name);
  if ((mask >> source % kWarp & 1) == 0) fail("a lane asks for a value of a lane outside its mask");
  T result;
  __builtin_memcpy(&result, seen[source % kWarp], sizeof(T));
  return result;
}

EMULATOR_UNWATCHED inline unsigned ballot(unsigned mask, bool vote) {
  const uint32_t mine = vote;
  const auto seen = meet(mask, &mine, 1, "__ballot_sync");
  unsigned votes = 0;
  for (unsigned each = 0; each < kWarp; ++each)
    if (mask >> each & 1) votes |= seen[each][0] << each;
  return votes;
}

// ---- tensor cores ----

// mma.sync.m16n8k32 of int8 in the layouts of the PTX ISA: a[4], b[2], c[4] are a lane's registers.
EMULATOR_UNWATCHED inline void multiply_int8(int (&c)[4], const unsigned (&a)[4],
                                             const unsigned (&b)[2]) {
  const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  const auto seen = meet(kEverybody, mine, 6, "mma.sync");
  const auto element = [&](unsigned of_lane, unsigned word, unsigned byte) {
    return static_cast<int>(static_cast<int8_t>(seen[of_lane][word] >> (8 * byte)));
  };
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane() / 4 + i / 2 * 8, column = lane() % 4 * 2 + i % 2;
    for (unsigned k = 0; k < 32; ++k) {
      const unsigned quarter = k % 16 / 4, half = k / 16;
      c[i] += element(row % 8 * 4 + quarter, row / 8 + half * 2, k % 4) *
              element(column * 4 + quarter, 4 + half, k % 4);
    }
  }
}

// ---- async copies ----

// Watched, so that sanitizers see them as the thread's own accesses.
EMULATOR_WATCHED inline void fill(char* to, int value, int bytes) {
  for (int i = 0; i < bytes; ++i) static_cast<volatile char*>(to)[i] = static_cast<char>(value);
}
EMULATOR_WATCHED inline void copy(char* to, const char* from, int bytes) {
  for (int i = 0; i < bytes; ++i)
    static_cast<volatile char*>(to)[i] = static_cast<const volatile char*>(from)[i];
}

// `read` bytes of the 16 come from memory, the others are zero.
EMULATOR_UNWATCHED inline void copy_async_16(void* to, const void* from, int read) {
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % 16 != 0)
    fail("an async copy is not aligned to its 16 bytes");
  if (fiber->pending == kCopies) fail("a thread has more than 64 async copies on their way");
  fiber->copies[fiber->pending++] = {static_cast<char*>(to), static_cast<const char*>(from), 16,
                                     read, fiber->group};
  fill(static_cast<char*>(to), 0xff, 16);
}

EMULATOR_UNWATCHED inline void commit_copies() { ++fiber->group; }

// Waits for all groups but the last `pending`.
EMULATOR_UNWATCHED inline void wait_for_copies(int pending) {
  int later = 0;
  for (int i = 0; i < fiber->pending; ++i) {
    const AsyncCopy each = fiber->copies[i];
    if (each.group >= fiber->group - pending) {
      fiber->copies[later++] = each;
      continue;
    }
    copy(each.to, each.from, each.read);
    fill(each.to + each.read, 0, each.size - each.read);
  }
  fiber->pending = later;
}

// ---- memory ----

template <class T>
EMULATOR_WATCHED T load_aligned(const T* from) {
  if (reinterpret_cast<uintptr_t>(from) % sizeof(T) != 0) fail("a vector load is not aligned");
  return *from;
}

template <class T, class Change>
T update(T* at, Change change) {
  T before = __atomic_load_n(at, __ATOMIC_RELAXED), after;
  do after = change(before);
  while (
      !__atomic_compare_exchange(at, &before, &after, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return before;
}

}  // namespace emulator

#define EMULATOR_TEXT_OF(x) #x
#define EMULATOR_TEXT(x) EMULATOR_TEXT_OF(x)
#define EMULATOR_HERE(name) name " in line " EMULATOR_TEXT(__LINE__)

#define threadIdx (emulator::fiber->index)
#define blockIdx (emulator::block->index)
#define blockDim (emulator::block->size)
#define gridDim (emulator::block->grid)

#define __syncthreads() emulator::synchronize_block(EMULATOR_HERE("__syncthreads"))
#define __syncwarp() emulator::synchronize_warp(emulator::kEverybody, EMULATOR_HERE("__syncwarp"))
#define __ballot_sync(mask, vote) emulator::ballot(mask, vote)

template <class T>
T __shfl_sync(unsigned mask, T value, int source) {
  return emulator::shuffle(mask, value, static_cast<unsigned>(source), "__shfl_sync");
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int other) {
  return emulator::shuffle(mask, value, emulator::lane() ^ static_cast<unsigned>(other),
                           "__shfl_xor_sync");
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by) {
  const unsigned here = emulator::lane();
  return emulator::shuffle(mask, value, here >= by ? here - by : here, "__shfl_up_sync");
}

template <class T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  return emulator::update(at, [=](T before) { return static_cast<T>(before + value); });
}
template <class T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  return emulator::update(at, [=](T before) { return before > value ? before : value; });
}
template <class T>
T atomicOr(T* at, std::type_identity_t<T> value) {
  return emulator::update(at, [=](T before) { return static_cast<T>(before | value); });
}
template <class T>
T atomicAnd(T* at, std::type_identity_t<T> value) {
  return emulator::update(at, [=](T before) { return static_cast<T>(before & value); });
}
template <class T>
T __ldg(const T* from) {
  return emulator::load_aligned(from);
}

inline int __popc(unsigned bits) { return std::popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __float_as_int(float value) { return std::bit_cast<int>(value); }
inline float __int_as_float(int bits) { return std::bit_cast<float>(bits); }
