// Scored items and their order. Included before a level's target begins, so that the standard
// library's sort, which has none, can take it in.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

namespace llmrec {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The order of floats as integers, and back.
inline int32_t order_of(float value) {
  int32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

inline float value_of(int32_t order) {
  const int32_t bits = order ^ ((order >> 31) & 0x7fffffff);
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// An item and its score; sorts by score down, then id up.
struct Scored {
  uint64_t place;
  float score;
  uint32_t id;

  Scored(float known, uint32_t item) : score(known), id(item) {
    const auto down = static_cast<uint32_t>(order_of(known + 0.0f)) ^ 0x7fffffffu;  // -0 is 0
    place = uint64_t{down} << 32 | item;
  }
};

inline bool operator<(const Scored& a, const Scored& b) { return a.place < b.place; }

}  // namespace
}  // namespace llmrec
