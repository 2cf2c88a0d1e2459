// Comparisons for levels that have no instruction of their own to turn one into bits.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/vectors.h"

namespace llmrec {
namespace {

// What sixteen items reach; NaN where they are not there.
template <bool kBias>
inline Floats reached_by_block(const int32_t* values, const float* weight, const float* test,
                               float inverse_scale) {
  Ints sums;
  Floats weights;
  load(values, sums);
  load(weight, weights);
  Floats reached = __builtin_convertvector(sums, Floats) * weights;
  if (kBias) {
    Floats bias;
    load(test, bias);
    reached += bias * inverse_scale;
  }
  return reached;
}

// Which of sixteen items reach `least`, one bit each.
template <bool kBias>
inline uint32_t passing_of_block(const int32_t* values, const float* weight, const float* test,
                                 float inverse_scale, float least) {
  const Floats reached = reached_by_block<kBias>(values, weight, test, inverse_scale);
  const Ints passed = reached >= least;
  uint64_t pairs[8], some = 0;
  store(passed, pairs);
  for (uint64_t pair : pairs) some |= pair;
  if (some == 0) return 0;
  uint32_t bits = 0;
  for (int lane = 0; lane < kWide; ++lane) bits |= static_cast<uint32_t>(passed[lane] & 1) << lane;
  return bits;
}

struct Portable {
  static int parts(int64_t) { return 1; }

  template <bool kBias>
  static uint32_t passing(const int32_t* values, const float* weight, const float* test,
                          float inverse_scale, float least, int32_t* copy) {
    std::memcpy(copy, values, 2 * kWide * sizeof *copy);
    return passing_of_block<kBias>(values, weight, test, inverse_scale, least) |
           passing_of_block<kBias>(values + kWide, weight + kWide, test + kWide, inverse_scale,
                                   least)
               << kWide;
  }

  template <bool kBias>
  static void raise_to(float* lows, const int32_t* values, const float* weight, const float* test,
                       float scale, float inverse_scale, float error) {
    Floats best;
    load(lows, best);
    for (int64_t half = 0; half < 2 * kWide; half += kWide) {
      const Floats reached =
          (reached_by_block<kBias>(values + half, weight + half, test + half, inverse_scale) -
           error) *
          scale;
      best = reached > best ? reached : best;
    }
    store(best, lows);
  }

  static int32_t keep(float* low, float* high, uint32_t* id, int32_t count, float cut) {
    int32_t kept = 0;
    for (int32_t i = 0; i < count; ++i) {
      low[kept] = low[i];
      high[kept] = high[i];
      id[kept] = id[i];
      kept += high[i] >= cut;
    }
    return kept;
  }
};

}  // namespace
}  // namespace llmrec
