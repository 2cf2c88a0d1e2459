// The items that can still be among the k best of one query, while its scan goes on.
//
// Each has a `high`, which its score cannot exceed, and a `low`, which its score should reach. The
// k-th largest low is the cut: what stays below it with its high is dropped. A low may be a bet
// (it allows for a part of the error bound only, which halves what is kept); the end of the search
// checks that no cut was above the k-th best score, and searches again, with certain lows, where
// one was.
//
// Room is bounded. Where too many stay (a plateau of scores closer to each other than the bound)
// they are settled: scored exactly, and the k best kept apart.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "common/vectors.h"
#include "cosine_topk/scored.h"

namespace llmrec {
namespace {

// How many of values [count padded to 16] are at least `floor`.
inline int64_t count_from(const float* values, int64_t count, float floor) {
  Ints total = {};
  for (int64_t i = 0; i < count; i += kWide) {
    Floats each;
    load(values + i, each);
    total -= each >= floor;
  }
  int32_t lanes[kWide];
  store(total, lanes);
  int64_t sum = 0;
  for (int32_t lane : lanes) sum += lane;
  return sum;
}

// A number that at least k of the values reach, and few more than k: the k-th largest, or just
// below. Found by bisection, whose passes a processor counts 16 values at a time.
// `values` has room for 16 more, which are overwritten.
inline float floor_of_best(float* values, int64_t count, int64_t k) {
  if (count < k) return -kInfinity;
  for (int64_t i = count; i < count + kWide; ++i) values[i] = -kInfinity;
  Floats most, least;
  load(values, most);
  least = most;
  for (int64_t i = kWide; i + kWide <= count; i += kWide) {
    Floats each;
    load(values + i, each);
    most = each > most ? each : most;
    least = each < least ? each : least;
  }
  float high[kWide], low[kWide];
  store(most, high);
  store(least, low);
  int32_t above = order_of(*std::max_element(high, high + kWide));
  int32_t below = order_of(*std::min_element(low, low + kWide));
  for (int64_t i = count / kWide * kWide; i < count; ++i) {
    above = std::max(above, order_of(values[i]));
    below = std::min(below, order_of(values[i]));
  }
  // k values reach `below`, and fewer than k reach `above + 1`.
  const int64_t enough = k + k / 16;
  while (below < above) {
    const int32_t middle = static_cast<int32_t>((int64_t{below} + above + 1) >> 1);
    const int64_t reached = count_from(values, count, value_of(middle));
    if (reached >= k) {
      below = middle;
      if (reached <= enough) break;
    } else {
      above = middle - 1;
    }
  }
  return value_of(below);
}

// The candidates of one query in one lane of workers.
struct Candidates {
  float cut = -kInfinity;  // what a newcomer's high must reach
  int32_t count = 0;
  int32_t next = 0;             // the count at which to raise the cut
  float* low = nullptr;         // [capacity + 16]
  float* high = nullptr;        // [capacity + 16]
  uint32_t* id = nullptr;       // [capacity + 16]
  std::vector<Scored> settled;  // at most k, in order

  void reset() {
    cut = -kInfinity;
    count = next = 0;
    settled.clear();
  }

  void append(float lowest, float highest, uint32_t item) {
    low[count] = lowest;
    high[count] = highest;
    id[count] = item;
    ++count;
  }
};

}  // namespace
}  // namespace llmrec
