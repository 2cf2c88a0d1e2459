// Vectors of the compiler's own making: written once, compiled by each instruction set's file for
// its own registers. They are named, not left to the optimiser, because GCC keeps an array of
// sums in memory, which is several times slower.
//
// Include it, and whatever uses it, behind LLMREC_TARGET_BEGIN: GCC splits wide vectors for the
// target of the function that they are written in.
#pragma once

#include <cstdint>
#include <cstring>

namespace llmrec {
namespace {

constexpr int kWide = 16;

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef double Doubles __attribute__((vector_size(64)));
typedef float HalfFloats __attribute__((vector_size(32)));
typedef int8_t Bytes __attribute__((vector_size(16)));
typedef uint8_t UnsignedBytes __attribute__((vector_size(16)));
typedef uint16_t UnsignedShorts __attribute__((vector_size(32)));
typedef uint16_t EightShorts __attribute__((vector_size(16)));
typedef uint8_t EightBytes __attribute__((vector_size(8)));

template <class Vector>
inline void load(const void* from, Vector& vector) {
  std::memcpy(&vector, from, sizeof vector);
}

template <class Vector>
inline void store(const Vector& vector, void* to) {
  std::memcpy(to, &vector, sizeof vector);
}

// Spelt out because GCC turns this into one conversion, and __builtin_convertvector into two and
// a shuffle.
inline Doubles widened(const HalfFloats& x) {
  Doubles y;
  for (int lane = 0; lane < 8; ++lane) y[lane] = x[lane];
  return y;
}

}  // namespace
}  // namespace llmrec
