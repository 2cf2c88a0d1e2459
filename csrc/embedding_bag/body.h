// The pooling that every instruction set's file compiles for itself, behind its target.
//
// Pooling is float32 in the order of the indices: a row is widened, multiplied by its weight,
// rounded, and added, rounded. No sum is reordered and no multiply-add fused, so the result does
// not depend on the instruction set.
//
// The limit is random reads. The entries of all bags lie one after the other, so that rows are
// asked for across the ends of bags. A bag's sums stay in the L1 cache: adding to them there costs
// no more than in registers, because each row takes longer than a store and its load.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "common/decode.h"
#include "common/score.h"
#include "embedding_bag/bag.h"

namespace llmrec {
namespace {

constexpr int64_t kBagsPerTask = 32;

enum class Use { sum, weighted, max };

template <class Isa, Storage kStorage, Use kUse>
class Pool {
 public:
  explicit Pool(const BagArguments& args)
      : args_(args),
        dim_(args.table.dim),
        ahead_(args.table),
        space_(static_cast<size_t>(dim_ + 2 * kWide)) {
    // A vector of Floats would be a function of the standard library's, compiled for one level.
    void* start = space_.data();
    size_t bytes = space_.size() * sizeof(float);
    sums_ = static_cast<float*>(std::align(sizeof(Floats), sizeof(Floats), start, bytes));
  }

  void bags(int64_t first, int64_t last) {
    const int64_t end = args_.offsets[last];
    for (int64_t bag = first; bag < last; ++bag) {
      const float divisor = pool(bag, end);
      finish(divisor);
      write(bag);
    }
  }

 private:
  // Pools a bag and returns what a mean divides by: its entries, or their weights.
  float pool(int64_t bag, int64_t end) {
    constexpr float kStart = kUse == Use::max ? -std::numeric_limits<float>::infinity() : 0.0f;
    start(kStart);
    float divisor = 0.0f;  // the weights' sum
    int64_t entries = 0;   // an integer: float32 stops counting at 2^24
    const int64_t distance = ahead_.distance();
    for (int64_t entry = args_.offsets[bag]; entry < args_.offsets[bag + 1]; ++entry) {
      ahead_.begin(args_.indices[std::min(entry + distance, end - 1)]);
      const int64_t index = args_.indices[entry];
      if (index == args_.padding_idx) continue;
      const float weight = kUse == Use::weighted ? args_.weights[entry] : 1.0f;
      add(Decoder<Isa, kStorage>(args_.table, index), all(weight));
      divisor += weight;
      ++entries;
    }
    if (kUse == Use::max && entries == 0) start(0.0f);
    return kUse == Use::weighted ? divisor : static_cast<float>(entries);
  }

  void start(float value) { std::fill_n(sums_, dim_, value); }

  void add(const Decoder<Isa, kStorage>& row, const Floats& weight) {
    constexpr int64_t kPerLine = Decoder<Isa, kStorage>::kPerLine;
    Floats values;
    int64_t j = 0;
    for (; j + kPerLine <= dim_; j += kPerLine) {
      ahead_.line(j * bits_of(kStorage) / 8);
      for (int64_t i = 0; i < kPerLine; i += kWide) {
        row.at(j + i, values);
        combine(values, weight, sums_ + j + i);
      }
    }
    for (; j + kWide <= dim_; j += kWide) {
      row.at(j, values);
      combine(values, weight, sums_ + j);
    }
    if (j == dim_) return;
    row.rest(j, dim_, values);
    combine(values, weight, sums_ + j);
  }

  // `place` is that of sixteen sums.
  static void combine(const Floats& values, const Floats& weight, float* place) {
    Floats sums;
    load(place, sums);
    if constexpr (kUse == Use::max) {
      // A NaN stays, as in torch.
      const Ints keep = (sums >= values) | (sums != sums);
      sums = keep ? sums : values;
    } else if constexpr (kUse == Use::weighted) {
      sums += weight * values;
    } else {
      sums += values;
    }
    store(sums, place);
  }

  void finish(float divisor) {
    if (args_.mode == Pooling::mean)
      for (int64_t j = 0; j < dim_; ++j) sums_[j] = divisor == 0.0f ? 0.0f : sums_[j] / divisor;
    if (!args_.normalize) return;
    const double inverse = inverse_of(norm_of(sums_, dim_));
    for (int64_t j = 0; j < dim_; ++j) sums_[j] = static_cast<float>(sums_[j] * inverse);
  }

  void write(int64_t bag) {
    if (args_.out_storage == Storage::float32) {
      std::copy_n(sums_, dim_, static_cast<float*>(args_.out) + bag * dim_);
      return;
    }
    uint16_t* out = static_cast<uint16_t*>(args_.out) + bag * dim_;
    const bool half = args_.out_storage == Storage::float16;
    for (int64_t j = 0; j < dim_; ++j)
      out[j] = half ? half_of_float(sums_[j]) : bfloat16_of_float(sums_[j]);
  }

  const BagArguments& args_;
  const int64_t dim_;
  RowsAhead ahead_;
  std::vector<float> space_;
  float* sums_ = nullptr;  // [dim_], aligned, with room for a vector of which some lanes count
};

template <class Isa, Storage kStorage, Use kUse>
void pool_bags(const BagArguments& args, const Parallel& parallel) {
  parallel.run((args.count + kBagsPerTask - 1) / kBagsPerTask, [&](TaskQueue& queue) {
    Pool<Isa, kStorage, kUse> pool(args);
    for (int64_t task; queue.take(task);)
      pool.bags(task * kBagsPerTask, std::min(args.count, (task + 1) * kBagsPerTask));
  });
}

template <class Isa>
void embedding_bag(const BagArguments& args, const Parallel& parallel) {
  with_storage(args.table.storage, [&](auto storage) {
    constexpr Storage kStorage = decltype(storage)::value;
    if (args.mode == Pooling::max)
      pool_bags<Isa, kStorage, Use::max>(args, parallel);
    else if (args.weights != nullptr)
      pool_bags<Isa, kStorage, Use::weighted>(args, parallel);
    else
      pool_bags<Isa, kStorage, Use::sum>(args, parallel);
  });
}

}  // namespace
}  // namespace llmrec
