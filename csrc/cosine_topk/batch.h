// Queries as the scan reads them: int8 codes in the layout that the level's instructions want, and
// the numbers that turn a sum of products of codes into a score and its error bound.
//
// With u = q / |q|, step s and codes c of u, and an item's unit scale t, residual r and codes d:
//
//   |u x / |x| - s t (c d)| <= |u - s c| + r (1 + |u - s c|)
//
// and a score is G W (u x / |x|) + bias, where G = 1 and W = item_scale for the cosine, G = |q|
// and W = |x| item_scale for the dot product. So the estimate is (c d) w a + bias with a = s G and
// w = t W, and its error at most |W| (offset + r spread) + 2^-22 |bias| + tiny, with offset and
// spread of the query. 2^-18 in the offset covers every rounding of a float32 on the way.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "common/check.h"
#include "common/score.h"
#include "common/sketch.h"
#include "cosine_topk/topk.h"

namespace llmrec {
namespace {

constexpr double kRoundings = 0x1p-18;
constexpr float kTiny = 0x1p-120f;   // what underflow may cost
constexpr float kFitting = 0x1p60f;  // G and |W| outside 1 / kFitting .. kFitting have no estimate
constexpr float kBiasError = 0x1p-22f;

template <class Isa>
struct Batch {
  using Code = typename Isa::Code;

  const int64_t* rows = nullptr;  // [count], which of the caller's queries these are
  int64_t count = 0;
  int64_t tiles = 0;
  int64_t tile_codes = 0;  // codes of a tile: [kTile / kRows][depths][kRows][kDepth]

  Code* codes = nullptr;           // [tiles, tile_codes]
  int32_t* start = nullptr;        // [tiles * kTile], what a sum begins with
  float* scale = nullptr;          // a
  float* inverse_scale = nullptr;  // 1 / a
  float* offset = nullptr;
  float* spread = nullptr;
  float* tiny = nullptr;
  double* inverse = nullptr;  // 1 / |q|

  static int64_t codes_of_a_tile(int64_t dim) {
    return Isa::kTile * padded_to(std::max<int64_t>(dim, 1), Isa::kDepth);
  }

  static size_t bytes(int64_t count, int64_t dim) {
    const int64_t slots = padded_to(count, Isa::kTile);
    return Workspace::bytes<Code>(slots / Isa::kTile * codes_of_a_tile(dim)) +
           Workspace::bytes<int32_t>(slots) + 5 * Workspace::bytes<float>(slots) +
           Workspace::bytes<double>(slots);
  }

  Batch(const int64_t* members, int64_t size, int64_t dim, Workspace& space)
      : rows(members),
        count(size),
        tiles((size + Isa::kTile - 1) / Isa::kTile),
        tile_codes(codes_of_a_tile(dim)) {
    const int64_t slots = tiles * Isa::kTile;
    codes = space.take<Code>(tiles * tile_codes);
    start = space.take<int32_t>(slots);
    scale = space.take<float>(slots);
    inverse_scale = space.take<float>(slots);
    offset = space.take<float>(slots);
    spread = space.take<float>(slots);
    tiny = space.take<float>(slots);
    inverse = space.take<double>(slots);
  }

  Code* place(int64_t query, int64_t element) const {
    constexpr int64_t kRows = Isa::kRows, kDepth = Isa::kDepth;
    const int64_t tile = query / Isa::kTile, row = query % Isa::kTile;
    const int64_t depths = tile_codes / (Isa::kTile * kDepth);
    return codes + tile * tile_codes +
           ((row / kRows * depths + element / kDepth) * kRows + row % kRows) * kDepth +
           element % kDepth;
  }

  int queries_of(int64_t tile) const {
    return static_cast<int>(std::min<int64_t>(Isa::kTile, count - tile * Isa::kTile));
  }
};

// Prepares the queries of one tile; what a thread needs on the way is here.
template <class Isa>
class Preparer {
 public:
  Preparer(const TopkArguments& args, const Batch<Isa>& batch)
      : args_(args),
        batch_(batch),
        unit_(static_cast<size_t>(padded_to(args.items.dim, kWide) + kWide)),
        codes_(unit_.size()) {}

  void tile(int64_t tile, FirstBad& bad) {
    std::fill_n(batch_.codes + tile * batch_.tile_codes, batch_.tile_codes, typename Isa::Code{0});
    for (int64_t q = tile * Isa::kTile; q < (tile + 1) * Isa::kTile; ++q) {
      batch_.start[q] = 0;
      batch_.scale[q] = batch_.inverse_scale[q] = 1.0f;
      batch_.offset[q] = batch_.spread[q] = batch_.tiny[q] = 0.0f;
      if (q < batch_.count) query(q, bad);
    }
  }

 private:
  void query(int64_t q, FirstBad& bad) {
    const int64_t dim = args_.items.dim;
    const float* row = args_.queries + batch_.rows[q] * dim;
    const double norm = norm_of(row, dim), inverse = inverse_of(norm);
    if (!std::isfinite(norm)) bad.note(batch_.rows[q]);
    batch_.inverse[q] = inverse;
    if (inverse == 0.0 || !std::isfinite(norm)) return;  // every product is 0, without an error
    const double length = args_.cosine ? 1.0 : norm;
    batch_.tiny[q] = kTiny;
    const bool fits = length >= 1 / kFitting && length <= kFitting && largest_code(dim) > 0;
    const double error = fits ? encode_unit(q, row, inverse, length) : 0.0;
    const double slack = kRoundings * (1 + error);
    batch_.offset[q] = rounded_up(length * (fits ? error + slack : 1 + slack));
    batch_.spread[q] = rounded_up(length * (fits ? 1 + error + slack : 1 + slack));
    if (!args_.exact) batch_.offset[q] = batch_.spread[q] = batch_.tiny[q] = 0.0f;
  }

  // Writes the codes of the unit query and its scale; returns the length of what they miss.
  double encode_unit(int64_t q, const float* row, double inverse, double length) {
    const int64_t dim = args_.items.dim;
    for (int64_t j = 0; j < dim; ++j) unit_[j] = static_cast<float>(row[j] * inverse);
    const float limit = static_cast<float>(largest_code(dim));
    const float largest = largest_of(unit_.data(), dim);
    const float step = largest / limit, factor = limit / largest;
    EightDoubles errors = {};
    for (int64_t j = 0; j < dim; j += kWide)
      store(encode(unit_.data() + j, factor, step, errors), codes_.data() + j);
    int32_t sum = 0;
    for (int64_t j = 0; j < dim; ++j) {
      *batch_.place(q, j) = static_cast<typename Isa::Code>(+codes_[j]);
      sum += codes_[j];
    }
    batch_.start[q] = Isa::kItemOffset * -sum;
    batch_.scale[q] = static_cast<float>(static_cast<double>(step) * length);
    batch_.inverse_scale[q] = 1.0f / batch_.scale[q];
    return std::sqrt(sum_of_lanes(errors)) + 0x1p-22;  // and the rounding of the unit query
  }

  const TopkArguments& args_;
  const Batch<Isa>& batch_;
  std::vector<float> unit_;  // padded with zeros
  std::vector<int8_t> codes_;
};

}  // namespace
}  // namespace llmrec
