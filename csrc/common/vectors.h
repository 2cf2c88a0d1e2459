// Vectors of the compiler's own making: written once, compiled by each instruction set's file for
// its own registers. They are named, not left to the optimiser, because GCC keeps an array of
// sums in memory, which is several times slower. So it keeps a vector that is wider than a
// register: what matters for speed is written in vectors of the register's own size.
//
// Include it, and whatever uses it, behind LLMREC_TARGET_BEGIN: its registers are those of the
// target there.
#pragma once

#include <cstdint>
#include <cstring>

namespace llmrec {
namespace {

// So many numbers of each type.
template <int kLanes>
struct Vectors {
  typedef double Doubles __attribute__((vector_size(8 * kLanes)));
  typedef float Floats __attribute__((vector_size(4 * kLanes)));
  typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
  typedef uint16_t Shorts __attribute__((vector_size(2 * kLanes)));
  typedef int8_t Bytes __attribute__((vector_size(kLanes)));
};

constexpr int kWide = 16;
using Floats = Vectors<kWide>::Floats;
using Ints = Vectors<kWide>::Ints;
using Bytes = Vectors<kWide>::Bytes;

// A file that sets a target says how wide its registers are: GCC has no macro for that there.
#ifndef LLMREC_REGISTER_BYTES
#define LLMREC_REGISTER_BYTES 16
#endif

template <class Vector>
inline void load(const void* from, Vector& vector) {
  std::memcpy(&vector, from, sizeof vector);
}

template <class Vector>
inline void store(const Vector& vector, void* to) {
  std::memcpy(to, &vector, sizeof vector);
}

// kLanes numbers in float64, as vectors that registers hold.
template <int kLanes, bool kFits = 8 * kLanes <= LLMREC_REGISTER_BYTES>
struct DoublesOf {
  typename Vectors<kLanes>::Doubles lanes;

  static DoublesOf from(const double* numbers) {
    DoublesOf result;
    load(numbers, result.lanes);
    return result;
  }

  // Spelt out because GCC turns this into one conversion, and __builtin_convertvector into two and
  // a shuffle.
  static DoublesOf from(const float* numbers) {
    typename Vectors<kLanes>::Floats narrow;
    load(numbers, narrow);
    DoublesOf result;
    for (int lane = 0; lane < kLanes; ++lane) result.lanes[lane] = narrow[lane];
    return result;
  }

  // Adds x * y, the product rounded before.
  void add_product(const DoublesOf& x, const DoublesOf& y) { lanes += x.lanes * y.lanes; }

  // Takes off x * y, the product rounded before.
  void take_product(const DoublesOf& x, double y) { lanes -= x.lanes * y; }
};

template <int kLanes>
struct DoublesOf<kLanes, false> {
  DoublesOf<kLanes / 2> low, high;

  template <class Number>
  static DoublesOf from(const Number* numbers) {
    return {DoublesOf<kLanes / 2>::from(numbers),
            DoublesOf<kLanes / 2>::from(numbers + kLanes / 2)};
  }

  void add_product(const DoublesOf& x, const DoublesOf& y) {
    low.add_product(x.low, y.low);
    high.add_product(x.high, y.high);
  }

  void take_product(const DoublesOf& x, double y) {
    low.take_product(x.low, y);
    high.take_product(x.high, y);
  }
};

}  // namespace
}  // namespace llmrec
