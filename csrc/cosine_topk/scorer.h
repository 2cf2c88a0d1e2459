// The reference score of items for one query: the definition of the result.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/score.h"
#include "common/widen.h"
#include "cosine_topk/scored.h"
#include "cosine_topk/topk.h"

namespace llmrec {
namespace {

class Scorer {
 public:
  explicit Scorer(const TopkArguments& args)
      : args_(args),
        query_(static_cast<size_t>(args.items.dim)),
        row_(static_cast<size_t>(args.items.dim)) {}

  // The query whose items are scored from now on.
  void take(int64_t query, double inverse_norm) {
    const float* from = args_.queries + query * args_.items.dim;
    std::copy_n(from, args_.items.dim, query_.begin());
    inverse_ = inverse_norm;
  }

  float score(int64_t item) { return score(item, item); }

  // Appends the scores of items item_at(0) .. item_at(count - 1). While one row is multiplied the
  // lines of a later one are asked for, one at a time: all at once would fill the queue of misses.
  template <class ItemAt>
  void scores(int64_t count, const ItemAt& item_at, std::vector<Scored>& found) {
    constexpr int64_t kAhead = 3;
    for (int64_t i = 0; i < std::min(count, kAhead); ++i) fetch(item_at(i));
    for (int64_t i = 0; i < count; ++i) {
      const int64_t item = item_at(i);
      const float value = score(item, item_at(std::min(i + kAhead, count - 1)));
      found.emplace_back(value, static_cast<uint32_t>(item));
    }
  }

 private:
  // Asks memory for a later item's row meanwhile.
  float score(int64_t item, int64_t later) {
    const Rows& rows = args_.items;
    const float* row = widen_row(rows, item, row_.data());
    const char* next = row_start(rows, later);
    const int64_t last = rows.stride - 1;
    if (rows.inverse_norms) __builtin_prefetch(rows.inverse_norms + later);
    double value = lane_dot(query_.data(), row, rows.dim,
                            [&](int64_t j) { __builtin_prefetch(next + std::min(4 * j, last)); });
    if (args_.cosine) {
      const double inverse =
          rows.inverse_norms ? rows.inverse_norms[item] : inverse_of(norm_of(row, rows.dim));
      value = value * inverse_ * inverse;
    }
    if (args_.item_scale) value = value * static_cast<double>(args_.item_scale[item]);
    value = value + (args_.item_bias ? static_cast<double>(args_.item_bias[item]) : 0.0);
    return static_cast<float>(value);
  }

  void fetch(int64_t item) const {
    const char* row = row_start(args_.items, item);
    const int64_t bytes = std::min<int64_t>(args_.items.stride, 4096);
    for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(row + byte);
    if (args_.items.inverse_norms != nullptr) __builtin_prefetch(args_.items.inverse_norms + item);
  }

  const TopkArguments& args_;
  std::vector<double> query_;  // in float64
  std::vector<float> row_;     // where the items are not float32
  double inverse_ = 0.0;
};

// Writes a row of results: the k best found, in order, and padding.
inline void write_best(const TopkArguments& args, int64_t row, std::vector<Scored>& found) {
  std::sort(found.begin(), found.end());
  const int64_t count = std::min(args.k, static_cast<int64_t>(found.size()));
  float* scores = args.scores + row * args.k;
  int64_t* ids = args.ids + row * args.k;
  for (int64_t place = 0; place < count; ++place) {
    scores[place] = found[place].score;
    ids[place] = found[place].id;
  }
  std::fill(scores + count, scores + args.k, -kInfinity);
  std::fill(ids + count, ids + args.k, int64_t{-1});
}

}  // namespace
}  // namespace llmrec
