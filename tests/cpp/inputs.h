// What the kernels are called with: rows of many kinds in every storage, biases, scales, filters.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/rows.h"

namespace llmrec::driver {

// IEEE half precision; GCC 12 has it under either name.
#if defined(__aarch64__)
using Half = __fp16;
#else
using Half = _Float16;
#endif

// The same numbers on every machine (splitmix64).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  int64_t below(int64_t count) {
    return static_cast<int64_t>(next() % static_cast<uint64_t>(count));
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  double between(double low, double high) { return low + (high - low) * uniform(); }
  bool chance(double share) { return uniform() < share; }
  float normal();        // nearly
  float power_of_ten();  // of either sign, from the smallest denormal to 1e37

  template <class List>
  auto pick(const List& list) {
    return list[below(static_cast<int64_t>(std::size(list)))];
  }

 private:
  uint64_t state_;
};

enum class Kind {
  normal,
  clustered,
  outlier,     // one dimension is a thousand times the others
  magnitudes,  // norms from the denormal to 1e38, mixed
  denormal,
  zeros,       // two rows of three
  duplicates,  // seven rows, again and again
  plateau,     // all rows closer to each other than an int8 code can tell
  ascending,   // by score, for queries along one axis: a sample sees the worst
  descending,
  huge,      // products overflow float32
  tiny,      // and vanish in it
  signs,     // elements -1 and 1: ties everywhere, and every code at its limit
  constant,  // all elements alike: sums at their limit
};
constexpr int kKinds = static_cast<int>(Kind::constant) + 1;
const char* name_of(Kind kind);

constexpr Storage kStorages[] = {
    Storage::float32,        Storage::float16,     Storage::bfloat16,      Storage::int8_affine,
    Storage::int8_symmetric, Storage::int4_affine, Storage::int4_symmetric};
const char* name_of(Storage storage);

// Rows in a storage, and what they are in float32. Memory ends where the last row does.
struct Items {
  Storage storage = Storage::float32;
  int64_t count = 0, dim = 0, stride = 0;
  std::vector<char> data;
  std::vector<char> scale, bias;  // float32 or float16, as the storage has it
  std::vector<float> wide;        // [count, dim]

  int64_t row_bytes() const;
  Rows rows() const;
};

// Directions that items and queries have in common.
struct Frame {
  std::vector<std::vector<float>> axes;
  Frame(int64_t dim, Random& random);
};

std::vector<float> vectors(Kind kind, int64_t count, int64_t dim, const Frame& frame,
                           Random& random);

// `padding` elements lie between two rows.
Items stored(const std::vector<float>& vectors, int64_t count, int64_t dim, Storage storage,
             int64_t padding);

// Queries of all sorts: along an axis, copies of items, of the items' kind, zeros.
std::vector<float> queries_for(const Items& items, Kind kind, int64_t count, const Frame& frame,
                               Random& random);

enum class Numbers { none, normal, equal, large, small, extreme, magnitudes, zeros, negative };
constexpr int kNumbers = static_cast<int>(Numbers::negative) + 1;
const char* name_of(Numbers numbers);
std::vector<float> numbers_of(Numbers numbers, int64_t count, Random& random);

// For each query a sorted list of ids, with an id now and then twice.
struct Lists {
  std::vector<int64_t> ids, offsets;
};

struct Filters {
  std::vector<uint8_t> allowed, mask;
  Lists exclude, allow;
};

enum class Filtering { none, half, few, nothing, mask, exclude, allow, all, best };
constexpr int kFilterings = static_cast<int>(Filtering::best) + 1;
const char* name_of(Filtering filtering);
Filters filters_of(Filtering filtering, int64_t queries, int64_t items, Random& random);

}  // namespace llmrec::driver
