// What the levels' loops share. Include it behind LLMREC_TARGET_BEGIN, so that each level's file
// compiles it for its own registers; and what it includes itself before that.
//
// The sums are a parameter pack, not a loop over an array: GCC keeps an array of vectors in memory
// unless every index is a constant. Sums and factors pass through an empty asm: else the compiler
// would see that all sums are one and the same, and that no product changes from round to round.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "roofs/roofs.h"

namespace llmrec {
namespace {

#if defined(__x86_64__)
#define LLMREC_IN_REGISTER "v"
#elif defined(__aarch64__)
#define LLMREC_IN_REGISTER "w"
#else
#define LLMREC_IN_REGISTER "m"
#endif

template <class Vector>
inline void hide(Vector& vector) {
  __asm__ volatile("" : "+" LLMREC_IN_REGISTER(vector));
}

// Step::add(sum, a, b) for each sum, round after round.
template <class Step, size_t... sum>
inline void add_rounds(int64_t rounds, std::index_sequence<sum...>) {
  typename Step::Sum sums[] = {(static_cast<void>(sum), typename Step::Sum{})...};
  typename Step::Factor a = Step::factor(), b = Step::factor();
  (hide(sums[sum]), ...);
  hide(a);
  hide(b);
  for (; rounds > 0; --rounds) (Step::add(sums[sum], a, b), ...);
  (hide(sums[sum]), ...);
}

template <class Step>
void run_rounds(int64_t rounds) {
  add_rounds<Step>(rounds, std::make_index_sequence<Step::kSums>());
}

template <class Step>
PeakLoop peak_of() {
  return {run_rounds<Step>, static_cast<int64_t>(Step::kSums * Step::kProducts)};
}

constexpr int64_t kLine = 64;
constexpr int64_t kAhead = 4096;  // bytes; measured: less waits for memory, more gains nothing

inline void prefetch(const char* address) { __builtin_prefetch(address, 0, 3); }

// Loads each vector and drops it: no arithmetic, so that the memory alone decides.
template <class Vector>
void read_as(const char* data, int64_t bytes) {
  for (const char* end = data + bytes; data < end; data += kLine) {
    prefetch(data + kAhead);
    for (size_t j = 0; j < kLine; j += sizeof(Vector)) {
      Vector vector;
      std::memcpy(&vector, data + j, sizeof vector);
      hide(vector);
    }
  }
}

// Stream::store(target, vector) writes past the caches: a plain store would first read the line.
template <class Vector, class Stream>
void copy_as(const char* data, char* target, int64_t bytes) {
  for (const char* end = data + bytes; data < end; data += kLine, target += kLine) {
    prefetch(data + kAhead);
    for (size_t j = 0; j < kLine; j += sizeof(Vector)) {
      Vector vector;
      std::memcpy(&vector, data + j, sizeof vector);
      Stream::store(target + j, vector);
    }
  }
  Stream::fence();
}

}  // namespace
}  // namespace llmrec
