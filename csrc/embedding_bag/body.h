// The pooling that every instruction set's file compiles for itself, behind its target.
//
// Pooling is float32 in the order of the indices. A weighted row is added by fused multiply-adds,
// which round once. So is (scale x weight) x code of a quantized row; bias x weight has a sum of
// its own, which comes last: one addition less for each element. Nothing is reordered, so the
// result does not depend on the instruction set.
//
// The limit is random reads. A panel of columns, whose sums the registers hold, is pooled for all
// bags of a task before the next: then rows are asked for ahead of their use across the ends of
// bags, and a panel's cache lines are its own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "common/decode.h"
#include "common/score.h"
#include "embedding_bag/bag.h"

namespace llmrec {
namespace {

constexpr int64_t kBagsPerTask = 32;
constexpr int64_t kLinesAhead = 64;  // cache lines that are on their way

enum class Use { sum, weighted, max };

template <class Isa, Storage kStorage, Use kUse>
class Pool {
 public:
  explicit Pool(const BagArguments& args)
      : args_(args),
        dim_(args.table.dim),
        padded_((args.table.dim + kLanes - 1) / kLanes * kLanes),
        sums_(direct() ? 0 : static_cast<size_t>(kBagsPerTask * padded_)) {}

  // Notes the first entry whose index is out of range; then nothing is read.
  void bags(int64_t first, int64_t last, FirstBad& bad) {
    if (!in_range(args_.offsets[first], args_.offsets[last], bad)) return;
    int64_t j = 0;
    while (j + kLanes <= dim_) j += panels<Isa::kPanel>(first, last, j);
    if (j < dim_) panel<true>(first, last, j, std::make_integer_sequence<int, 1>());
    for (int64_t bag = first; bag < last && !direct(); ++bag) {
      float* sums = sums_.data() + (bag - first) * padded_;
      finish(bag - first, sums);
      write(bag, sums);
    }
  }

 private:
  bool in_range(int64_t first, int64_t last, FirstBad& bad) const {
    const auto rows = static_cast<uint64_t>(args_.table.count);
    uint64_t wrong = 0;
    for (int64_t entry = first; entry < last; ++entry)
      wrong |= static_cast<uint64_t>(static_cast<uint64_t>(args_.indices[entry]) >= rows);
    for (int64_t entry = first; wrong != 0 && entry < last; ++entry)
      if (static_cast<uint64_t>(args_.indices[entry]) >= rows) return bad.note(entry), false;
    return true;
  }

  // Whether sums are results: then they go where those belong.
  bool direct() const {
    return args_.out_storage == Storage::float32 && args_.mode != Pooling::mean && !args_.normalize;
  }

  using Row = Decoder<Isa, kStorage>;
  using Floats = typename Isa::Floats;
  static constexpr int64_t kLanes = Isa::kLanes;
  static constexpr int64_t kVectorBytes = bytes_of(kStorage, kLanes);
  static constexpr bool kScaled = bits_of(kStorage) <= 8;

  // The largest panel from column j on; returns how many columns it has.
  template <int kCount>
  int64_t panels(int64_t first, int64_t last, int64_t j) {
    if constexpr (kCount > 1)
      if (j + kCount * kLanes > dim_) return panels<kCount / 2>(first, last, j);
    panel<false>(first, last, j, std::make_integer_sequence<int, kCount>());
    return kCount * kLanes;
  }

  // A few vectors of columns, from column j on, of all bags; or the last, of which some are there.
  template <bool kRest, int... v>
  void panel(int64_t first, int64_t last, int64_t j, std::integer_sequence<int, v...>) {
    constexpr int64_t kBytes = sizeof...(v) * kVectorBytes;
    constexpr int64_t kDistance =
        std::clamp<int64_t>(kLinesAhead * kLine / (kBytes + kLine), 2, 32);
    constexpr float kStart = kUse == Use::max ? -std::numeric_limits<float>::infinity() : 0.0f;
    // Copies, which no store through a pointer can change.
    const Rows table = args_.table;
    const int64_t *const indices = args_.indices, *const offsets = args_.offsets;
    const int64_t padding = args_.padding_idx;
    const int64_t left = dim_ - j, skip = bytes_of(kStorage, j), final = offsets[last] - 1;
    // A part of a row that starts within a line ends in one more.
    const int64_t end = kRest || table.stride % kLine == 0 ? 0 : kBytes - 1;
    for (int64_t bag = first; bag < last; ++bag) {
      Floats sums[] = {(static_cast<void>(v), all<Floats>(kStart))...};
      float divisor = 0.0f, biases = 0.0f;
      int64_t absent = 0;
      for (int64_t entry = offsets[bag]; entry < offsets[bag + 1]; ++entry) {
        const int64_t later = indices[std::min(entry + kDistance, final)], index = indices[entry];
        const char* ahead = row_start(table, later) + skip;
        __builtin_prefetch(ahead + end);
        fetch_numbers(table, later);
        if (index == padding) {
          ++absent;
          continue;
        }
        const float weight = kUse == Use::weighted ? args_.weights[entry] : 1.0f;
        float scale = number_at<kStorage>(table, table.scale, index);
        const float bias = number_at<kStorage>(table, table.bias, index);
        if (kUse == Use::weighted) scale *= weight;
        const Row row(row_start(table, index) + skip, scale, bias);
        ((fetch_line<v>(ahead),
          combine<kRest>(row, all<Floats>(weight), v * kLanes, left, sums[v])),
         ...);
        if (kUse == Use::weighted) divisor += weight;
        biases = kUse == Use::weighted ? Isa::multiply_add(bias, weight, biases) : biases + bias;
      }
      const int64_t entries = offsets[bag + 1] - offsets[bag] - absent;
      if (kUse == Use::max && entries == 0) ((sums[v] = Floats{}), ...);
      if (is_affine(kStorage) && kUse != Use::max) ((sums[v] += biases), ...);
      if (direct()) {
        float* to = static_cast<float*>(args_.out) + bag * dim_ + j;
        if constexpr (kRest)
          std::memcpy(to, sums, static_cast<size_t>(left) * sizeof(float));
        else
          (store(sums[v], to + v * kLanes), ...);
      } else {
        float* to = sums_.data() + (bag - first) * padded_ + j;
        (store(sums[v], to + v * kLanes), ...);
      }
      // Counted as integers: float32 stops at 2^24.
      divisors_[bag - first] = kUse == Use::weighted ? divisor : static_cast<float>(entries);
    }
  }

  static void fetch_numbers(const Rows& table, int64_t row) {
    if constexpr (!kScaled) return;
    constexpr int64_t kBytes = is_nibbles(kStorage) ? 2 : 4;
    const int64_t skip = row * table.number_stride * kBytes;
    __builtin_prefetch(static_cast<const char*>(table.scale) + skip);
    if (is_affine(kStorage)) __builtin_prefetch(static_cast<const char*>(table.bias) + skip);
  }

  template <int v>
  static void fetch_line(const char* ahead) {
    if constexpr (v * kVectorBytes % kLine == 0) __builtin_prefetch(ahead + v * kVectorBytes);
  }

  template <bool kRest>
  static void combine(const Row& row, const Floats& weight, int64_t j, int64_t dim, Floats& sums) {
    if constexpr (kUse == Use::sum || (kUse == Use::weighted && kScaled)) {
      kRest ? row.add_rest(j, dim, sums) : row.add(j, sums);
    } else {
      Floats values;
      kRest ? row.rest(j, dim, values) : row.at(j, values);
      if constexpr (kUse == Use::weighted) {
        Isa::multiply_add(weight, values, sums);
      } else {
        // A NaN stays, as in torch.
        const typename Isa::Ints keep = (sums >= values) | (sums != sums);
        sums = keep ? sums : values;
      }
    }
  }

  void finish(int64_t place, float* sums) const {
    const float divisor = divisors_[place];
    if (args_.mode == Pooling::mean)
      for (int64_t j = 0; j < dim_; ++j) sums[j] = divisor == 0.0f ? 0.0f : sums[j] / divisor;
    if (!args_.normalize) return;
    const double inverse = inverse_of(norm_of(sums, dim_));
    for (int64_t j = 0; j < dim_; ++j) sums[j] = static_cast<float>(sums[j] * inverse);
  }

  void write(int64_t bag, const float* sums) const {
    if (args_.out_storage == Storage::float32) {
      std::copy_n(sums, dim_, static_cast<float*>(args_.out) + bag * dim_);
      return;
    }
    uint16_t* out = static_cast<uint16_t*>(args_.out) + bag * dim_;
    const bool half = args_.out_storage == Storage::float16;
    for (int64_t j = 0; j < dim_; ++j)
      out[j] = half ? half_of_float(sums[j]) : bfloat16_of_float(sums[j]);
  }

  const BagArguments& args_;
  const int64_t dim_, padded_;
  std::vector<float> sums_;       // [kBagsPerTask, padded_]
  float divisors_[kBagsPerTask];  // what a mean divides by: entries, or their weights
};

template <class Isa, Storage kStorage, Use kUse>
void pool_bags(const BagArguments& args, FirstBad& bad, const Parallel& parallel) {
  parallel.run((args.count + kBagsPerTask - 1) / kBagsPerTask, [&](TaskQueue& queue) {
    Pool<Isa, kStorage, kUse> pool(args);
    for (int64_t task; queue.take(task);)
      pool.bags(task * kBagsPerTask, std::min(args.count, (task + 1) * kBagsPerTask), bad);
  });
}

template <class Isa>
void embedding_bag(const BagArguments& args, FirstBad& bad, const Parallel& parallel) {
  with_storage(args.table.storage, [&](auto storage) {
    constexpr Storage kStorage = decltype(storage)::value;
    if (args.mode == Pooling::max)
      pool_bags<Isa, kStorage, Use::max>(args, bad, parallel);
    else if (args.weights != nullptr)
      pool_bags<Isa, kStorage, Use::weighted>(args, bad, parallel);
    else
      pool_bags<Isa, kStorage, Use::sum>(args, bad, parallel);
  });
}

}  // namespace
}  // namespace llmrec
