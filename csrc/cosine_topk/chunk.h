// A stretch of items as the scan reads them, small enough to stay in the cache while every query
// passes over it: strips of 32 items (two blocks of the sketch), each with where its codes are,
// what an item's sum of products is multiplied with, and the largest terms of the error bound.
//
// Items that nobody may have get NaN for a weight, which passes no comparison, and strips with
// none but those are left out. Items without a sketch are sketched here, and checked.
//
// Nothing behind the last item is read, its block's other lanes neither: another thread may be
// appending items there, which later searches are told of.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "common/check.h"
#include "common/score.h"
#include "common/sketch.h"
#include "cosine_topk/batch.h"
#include "cosine_topk/topk.h"

namespace llmrec {
namespace {

constexpr int64_t kStrip = 32;           // items
constexpr int64_t kPrefetch = 16384;     // bytes ahead of the scan, into the L2 cache
constexpr int64_t kSpare = 1024;         // bytes that a tile may read past a block
constexpr float kLargestBias = 0x1p40f;  // a larger one passes every test but the last

struct Strip {
  int64_t first;           // its first item
  const int8_t* codes[2];  // of its blocks
  // The largest |W|, |W| residual and |bias|, which bound the error of every item.
  float size, residual, bias;
  bool ordinary;  // no bias is too large to compute with
};

// One of a strip's items, at [kStrip] of each array.
struct Lanes {
  float* weight;    // w = t W, or NaN
  float* size;      // |W|
  float* residual;  // r
  float* test;      // the bias, or infinity where it is too large to compute with
};

template <class Isa>
class Chunk {
 public:
  static size_t bytes(const TopkArguments& args, int64_t strips) {
    return 4 * Workspace::bytes<float>(strips * kStrip) +
           Workspace::bytes<int8_t>(2 * strips * block_bytes(args.items.dim) + kSpare);
  }

  Chunk(const TopkArguments& args, int64_t strips, Workspace& space)
      : args_(args), sketcher_(args.items.dim), scratch_(static_cast<size_t>(args.items.dim)) {
    strips_.reserve(static_cast<size_t>(strips));
    slots_.reserve(static_cast<size_t>(strips));
    for (float** each : {&all_.weight, &all_.size, &all_.residual, &all_.test})
      *each = space.take<float>(strips * kStrip);
    codes_ = space.take<int8_t>(2 * strips * block_bytes(args.items.dim) + kSpare);
  }

  int64_t first() const { return first_; }
  int64_t last() const { return last_; }
  int64_t size() const { return static_cast<int64_t>(strips_.size()); }
  const Strip& strip(int64_t slot) const { return strips_[slot]; }

  // The slot of the strip that an item is in, or -1 where it was left out.
  int64_t slot_of(int64_t item) const { return slots_[(item - first_) / kStrip]; }

  Lanes lanes(int64_t slot) const {
    const int64_t skip = slot * kStrip;
    return {all_.weight + skip, all_.size + skip, all_.residual + skip, all_.test + skip};
  }

  // Items first .. last - 1, where first is a multiple of a strip.
  void read(int64_t first, int64_t last, FirstBad& bad) {
    first_ = first;
    last_ = last;
    strips_.clear();
    slots_.clear();
    for (int64_t item = first; item < last; item += kStrip) {
      const bool wanted = any_allowed(item, std::min(item + kStrip, last));
      slots_.push_back(wanted ? static_cast<int32_t>(size()) : -1);
      if (!wanted && args_.sketch.codes != nullptr) continue;
      add(item, bad);
      if (!wanted) strips_.pop_back();
    }
  }

 private:
  // What describes the items of a block, whether they come with a sketch or not.
  struct Block {
    alignas(64) float unit_scale[kBlock];
    alignas(64) float residual[kBlock];
    alignas(64) double inverse[kBlock];
  };

  bool any_allowed(int64_t first, int64_t last) const {
    const uint8_t* allowed = args_.filters.allowed;
    return allowed == nullptr ||
           std::any_of(allowed + first, allowed + last, [](uint8_t flag) { return flag != 0; });
  }

  void add(int64_t item, FirstBad& bad) {
    const auto slot = static_cast<int64_t>(strips_.size());
    Strip strip{item, {nullptr, nullptr}, 0.0f, 0.0f, 0.0f, true};
    const Lanes all = lanes(slot);
    for (int64_t half = 0; half < 2; ++half) {
      const int64_t first = item + half * kBlock;
      const int64_t skip = half * kBlock;
      const Lanes lanes{all.weight + skip, all.size + skip, all.residual + skip, all.test + skip};
      if (first >= args_.items.count) {  // any codes will do
        strip.codes[half] = strip.codes[0];
        std::fill_n(lanes.weight, kBlock, std::numeric_limits<float>::quiet_NaN());
        continue;
      }
      Block block;
      if (args_.sketch.codes != nullptr)
        strip.codes[half] = known(first, 2 * slot + half, block);
      else
        strip.codes[half] = sketched(first, 2 * slot + half, block, bad);
      weigh(first, block, lanes, strip);
    }
    strips_.push_back(strip);
  }

  // The block of a sketch, or a copy of it: of the last block where items do not fill it, and at
  // levels whose tiles read past a block's end, of any that too few full blocks follow.
  const int8_t* known(int64_t first, int64_t number, Block& block) {
    const int64_t count = std::min(kBlock, args_.items.count - first);
    if (count < kBlock) block = {};
    std::copy_n(args_.sketch.unit_scale + first, count, block.unit_scale);
    std::copy_n(args_.sketch.residual + first, count, block.residual);
    if (!args_.cosine) std::copy_n(args_.items.inverse_norms + first, count, block.inverse);
    const int64_t bytes = block_bytes(args_.items.dim);
    const int64_t begin = first / kBlock * bytes, full = args_.items.count / kBlock * bytes;
    const int64_t end = begin + (Isa::kDepth == 4 ? bytes : padded_to(bytes, kSpare));
    const int8_t* codes = args_.sketch.codes + begin;
    if (end <= full) return codes;
    int8_t* copy = codes_ + number * bytes;
    copy_lanes(codes, count, bytes, copy);
    return copy;
  }

  // A block's lanes below `count`, and zeros for the others.
  static void copy_lanes(const int8_t* codes, int64_t count, int64_t bytes, int8_t* copy) {
    constexpr int64_t kLane = 4, kGroup = kLane * kBlock;  // bytes
    for (int64_t group = 0; group < bytes; group += kGroup) {
      std::copy_n(codes + group, count * kLane, copy + group);
      std::fill_n(copy + group + count * kLane, (kBlock - count) * kLane, int8_t{0});
    }
  }

  const int8_t* sketched(int64_t first, int64_t number, Block& block, FirstBad& bad) {
    const Rows& rows = args_.items;
    int8_t* codes = codes_ + number * block_bytes(rows.dim);
    for (int64_t lane = 0; lane < kBlock; ++lane) {
      RowSketch sketch;
      if (first + lane < rows.count) {
        const float* row = widen_row(rows, first + lane, scratch_.data());
        const double norm = rows.inverse_norms ? 0.0 : norm_of(row, rows.dim);
        if (!std::isfinite(norm)) bad.note(first + lane);
        block.inverse[lane] =
            rows.inverse_norms ? rows.inverse_norms[first + lane] : inverse_of(norm);
        sketch = sketcher_.sketch(row, block.inverse[lane], codes, lane);
      } else {
        sketch = sketcher_.cleared(codes, lane, 0.0f);
      }
      block.unit_scale[lane] = sketch.unit_scale;
      block.residual[lane] = sketch.residual;
    }
    return codes;
  }

  // The numbers of sixteen items at once.
  void weigh(int64_t first, const Block& block, const Lanes& lanes, Strip& strip) {
    const int64_t count = std::min(kBlock, args_.items.count - first);
    Floats scale, residual, size, bias = {};
    load(block.unit_scale, scale);
    load(block.residual, residual);
    const Floats zeros = {}, huge = zeros + kInfinity;
    Ints absent = numbers_from(count);
    if (args_.filters.allowed != nullptr) absent |= forbidden(first, count);
    const Floats multiplier = multipliers(first, count, block);
    Ints bits;
    std::memcpy(&bits, &multiplier, sizeof bits);
    bits &= 0x7fffffff;
    std::memcpy(&size, &bits, sizeof bits);
    size = size == size ? size : huge;
    size = (scale == 0.0f) & (residual == 0.0f) ? zeros : size;  // a zero row
    const Ints unfit = ((size < 1 / kFitting) | (size > kFitting)) & (size != 0.0f);
    Floats weight = unfit ? zeros : scale * multiplier;
    residual = unfit ? zeros + 1.0f : residual;
    // Rounded up, for the bound's sake.
    size = size != 0.0f ? size * (1 + 0x1p-20f) + 0x1p-126f : size;
    weight = absent ? zeros + std::numeric_limits<float>::quiet_NaN() : weight;
    const Floats counted = absent ? zeros : size;
    Floats error = absent ? zeros : size * residual;
    error = error == error ? error : huge;
    store(weight, lanes.weight);
    store(size, lanes.size);
    store(residual, lanes.residual);
    strip.size = std::max(strip.size, largest(counted));
    strip.residual = std::max(strip.residual, largest(error));
    if (args_.item_bias == nullptr) return;
    std::copy_n(args_.item_bias + first, count, reinterpret_cast<float*>(&bias));
    const Floats magnitude = bias < 0.0f ? -bias : bias;
    const Ints large = magnitude > kLargestBias;
    const Floats test = large ? huge : bias;
    store(test, lanes.test);
    strip.bias = std::max(strip.bias, largest(absent | large ? zeros : magnitude));
    for (int lane = 0; lane < kWide; ++lane) strip.ordinary &= large[lane] == 0;
  }

  // W of sixteen items: what a unit similarity is multiplied with. One that is too small for a
  // float32 becomes one that is too small for an estimate, which bounds it from above.
  Floats multipliers(int64_t first, int64_t count, const Block& block) const {
    Floats result = Floats{} + 1.0f;
    if (args_.cosine && args_.item_scale == nullptr) return result;
    for (int64_t lane = 0; lane < count; ++lane) {
      const double norm = args_.cosine ? 1.0 : inverse_of(block.inverse[lane]);
      const double scale = args_.item_scale ? args_.item_scale[first + lane] : 1.0;
      const double exact = norm * scale;
      const bool vanishes = exact != 0.0 && std::abs(exact) < 0x1p-126;
      result[lane] = vanishes ? 0x1p-126f : static_cast<float>(exact);
    }
    return result;
  }

  // -1 in lanes `count` and above.
  static Ints numbers_from(int64_t count) {
    const Ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return lane >= static_cast<int32_t>(count);
  }

  Ints forbidden(int64_t first, int64_t count) const {
    Bytes flags = {};
    std::copy_n(args_.filters.allowed + first, count, reinterpret_cast<uint8_t*>(&flags));
    return __builtin_convertvector(flags, Ints) == 0;
  }

  static float largest(const Floats& values) {
    float lanes[kWide], result = 0.0f;
    store(values, lanes);
    for (float lane : lanes) result = lane > result ? lane : result;
    return result;
  }

  const TopkArguments& args_;
  Sketcher sketcher_;
  int64_t first_ = 0, last_ = 0;
  std::vector<Strip> strips_;
  std::vector<int32_t> slots_;
  Lanes all_;
  int8_t* codes_;  // of items that came without, or of the last blocks: known()
  std::vector<float> scratch_;
};

}  // namespace
}  // namespace llmrec
