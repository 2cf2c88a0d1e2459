// The scan: one lane's passage over chunks of items, for the queries of one team.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "cosine_topk/shared.h"

namespace llmrec {
namespace {

template <class Isa>
template <bool kBias>
class Search<Isa>::Scan {
 public:
  Scan(Search& search, int64_t team, int64_t lane, Passed* log)
      : search_(search),
        batch_(search.batch_),
        lane_(lane),
        first_tile_(batch_.tiles * team / search.plan_.teams),
        last_tile_(batch_.tiles * (team + 1) / search.plan_.teams),
        permission_(search.args_, batch_.rows + first_tile_ * Isa::kTile,
                    std::min(batch_.count, last_tile_ * Isa::kTile) - first_tile_ * Isa::kTile),
        log_(log) {
    bias_error_ = search.args_.exact ? kBiasError : 0.0f;
    limits_.resize(static_cast<size_t>((last_tile_ - first_tile_) * Isa::kTile));
    const int64_t end = std::min(batch_.count, last_tile_ * Isa::kTile);
    for (int64_t q = first_tile_ * Isa::kTile; q < end; ++q) {
      Candidates& part = search_.candidates(lane_, q);
      part.reset();
      part.cut = search_.cuts_[q].load(std::memory_order_relaxed);
      part.next = static_cast<int32_t>(std::min(search.plan_.capacity, 2 * search.plan_.kept));
    }
  }

  void run(TaskQueue& queue, Chunk<Isa>& chunk, FirstBad& bad) {
    typename Isa::Session session;
    const int64_t items = search_.plan_.strips * kStrip;
    for (int64_t task; queue.take(task);) {
      const int64_t first = task * items;
      chunk.read(first, std::min(first + items, search_.args_.items.count), bad);
      for (int64_t tile = first_tile_; tile < last_tile_; tile += Isa::kGroup)
        pass(tile, std::min(tile + Isa::kGroup, last_tile_), chunk, session);
    }
  }

  // Leaves in each query's lows what the best item of each lane of a stretch should score.
  void sample(TaskQueue& queue, Chunk<Isa>& chunk, FirstBad& bad) {
    typename Isa::Session session;
    const int64_t items = search_.args_.items.count;
    const int64_t step = search_.plan_.strips * kStrip;
    for (int64_t number; queue.take(number);) {
      const int64_t first = search_.plan_.stretch_start(number, items);
      const int64_t last = std::min(items, first + search_.plan_.stretch * kStrip);
      for (int64_t tile = first_tile_; tile < last_tile_; ++tile)
        for (int q = 0; q < batch_.queries_of(tile); ++q) {
          Candidates& part = search_.candidates(lane_, tile * Isa::kTile + q);
          std::fill_n(part.low + part.count, kWide, -kInfinity);
          part.count += kWide;
        }
      for (int64_t item = first; item < last; item += step) {
        chunk.read(item, std::min(item + step, last), bad);
        for (int64_t tile = first_tile_; tile < last_tile_; ++tile) sample(tile, chunk, session);
      }
    }
  }

 private:
  // The sums of a tile of queries with a strip, on their way from the products to the candidates.
  struct Sums {
    alignas(64) int32_t values[Isa::kTile * kStrip];
    alignas(64) float least[Isa::kTile];  // what an item must reach, in units of a
    int64_t tile, slot;
    const uint32_t* permitted;  // [kTile], which of the strip's items a query may have
    int count = 0;              // queries of the tile
  };

  // A few tiles of queries over all strips. While the products of one pair of them are on their
  // way, the sums of the pair before it are compared.
  void pass(int64_t first, int64_t last, const Chunk<Isa>& chunk, typename Isa::Session& session) {
    for (int64_t tile = first; tile < last; ++tile)
      for (int q = 0; q < batch_.queries_of(tile); ++q) refresh(tile, q);
    const int64_t end = std::min(batch_.count, last * Isa::kTile);
    permission_.read(chunk, (first - first_tile_) * Isa::kTile, end - first * Isa::kTile);
    const int64_t dim = search_.args_.items.dim;
    Sums* now = &sums_[0];
    Sums* before = &sums_[1];
    before->count = 0;
    const int parts = Isa::parts(dim), share = static_cast<int>(Isa::kTile + parts - 1) / parts;
    for (int64_t slot = 0; slot < chunk.size(); ++slot) {
      for (int64_t tile = first; tile < last; ++tile) {
        now->tile = tile;
        now->slot = slot;
        now->permitted = permission_.bits(slot, tile - first);
        now->count = batch_.queries_of(tile);
        session.sums(batch_.codes + tile * batch_.tile_codes, batch_.start + tile * Isa::kTile,
                     now->count, chunk.strip(slot).codes, dim, tile == first_tile_, now->values,
                     [&](int part) { compare(chunk, *before, part * share, (part + 1) * share); });
        if (logged_ > kLogged - 2 * Isa::kTile) drain(chunk);
        demand(chunk.strip(slot), *now);
        std::swap(now, before);
      }
    }
    compare(chunk, *before, 0, Isa::kTile);
    drain(chunk);
  }

  void sample(int64_t tile, const Chunk<Isa>& chunk, typename Isa::Session& session) {
    Sums& sums = sums_[0];
    sums.tile = tile;
    const int count = batch_.queries_of(tile);
    const int64_t first = tile * Isa::kTile;
    for (int q = 0; q < Isa::kTile; ++q) limits(tile)[q] = 0.0f;
    for (int64_t slot = 0; slot < chunk.size(); ++slot) {
      const Strip& strip = chunk.strip(slot);
      if (!strip.ordinary) continue;
      session.sums(batch_.codes + tile * batch_.tile_codes, batch_.start + first, count,
                   strip.codes, search_.args_.items.dim, tile == first_tile_, sums.values,
                   [](int) {});
      demand(strip, sums);  // minus the error
      const Lanes lanes = chunk.lanes(slot);
      for (int q = 0; q < count; ++q) {
        const Candidates& part = search_.candidates(lane_, first + q);
        const float error = static_cast<float>(search_.caution_) * -sums.least[q];
        Isa::template raise_to<kBias>(part.low + part.count - kWide, sums.values + q * kStrip,
                                      lanes.weight, lanes.test, batch_.scale[first + q],
                                      batch_.inverse_scale[first + q], error);
      }
    }
  }

  float* limits(int64_t tile) { return limits_.data() + (tile - first_tile_) * Isa::kTile; }

  // Takes over what other lanes know of a query's cut.
  void refresh(int64_t tile, int q) {
    const int64_t query = tile * Isa::kTile + q;
    Candidates& part = search_.candidates(lane_, query);
    part.cut = std::max(part.cut, search_.cuts_[query].load(std::memory_order_relaxed));
    limit(tile, q, part);
  }

  // The cut in units of 1 / a, a little lower for its rounding.
  void limit(int64_t tile, int q, const Candidates& part) {
    const int64_t query = tile * Isa::kTile + q;
    const float cut = (part.cut - batch_.tiny[query]) * batch_.inverse_scale[query];
    limits(tile)[q] = cut - std::abs(cut) * 0x1p-20f;
  }

  // What the items of a strip must reach at least: the cut, less the largest error among them.
  void demand(const Strip& strip, Sums& sums) {
    const float* limit = limits(sums.tile);
    const int64_t first = sums.tile * Isa::kTile;
    const float* offset = batch_.offset + first;
    const float* spread = batch_.spread + first;
    const float* inverse = batch_.inverse_scale + first;
    const float bias = kBias ? strip.bias * kBiasError : 0.0f;
    for (int q = 0; q < Isa::kTile; ++q) {
      const float error = strip.size * offset[q] + strip.residual * spread[q] + bias;
      const float least = limit[q] - error * inverse[q] * (1 + 0x1p-20f);
      sums.least[q] = least == least ? least : -kInfinity;
    }
  }

  void compare(const Chunk<Isa>& chunk, const Sums& sums, int first, int last) {
    last = std::min(last, sums.count);
    if (first >= last) return;
    const Lanes lanes = chunk.lanes(sums.slot);
    const auto query = static_cast<int32_t>(sums.tile * Isa::kTile);
    const float* inverse = batch_.inverse_scale + query;
    Passed* entry = log_ + logged_;
    for (int q = std::max(first, 0); q < last; ++q) {
      // Written for each query and kept where an item passed: a branch would often be guessed
      // wrong, and stop the products that are on their way.
      entry->query = query + q;
      entry->slot = static_cast<int32_t>(sums.slot);
      entry->items =
          Isa::template passing<kBias>(sums.values + q * kStrip, lanes.weight, lanes.test,
                                       inverse[q], sums.least[q], entry->values) &
          sums.permitted[q];
      entry += entry->items != 0;
    }
    logged_ = static_cast<int>(entry - log_);
  }

  // Looks at what passed, now that there is time: a query's candidates are far apart in memory.
  void drain(const Chunk<Isa>& chunk) {
    constexpr int kAhead = 8;
    for (int i = 0; i < logged_; ++i) {
      if (i + kAhead < logged_) {
        const Candidates& later = search_.candidates(lane_, log_[i + kAhead].query);
        __builtin_prefetch(later.low + later.count, 1);
        __builtin_prefetch(later.high + later.count, 1);
        __builtin_prefetch(later.id + later.count, 1);
      }
      const Passed& entry = log_[i];
      Candidates& part = search_.candidates(lane_, entry.query);
      admit(entry, chunk, part);
      if (part.count >= part.next) search_.make_room(entry.query, part);
    }
    logged_ = 0;
  }

  // Looks closer at the items of a strip that passed, and takes those that can win.
  void admit(const Passed& entry, const Chunk<Isa>& chunk, Candidates& part) {
    const int64_t query = entry.query;
    const Lanes lanes = chunk.lanes(entry.slot);
    const int64_t first = chunk.strip(entry.slot).first;
    const double scale = batch_.scale[query], offset = batch_.offset[query];
    const double spread = batch_.spread[query], tiny = batch_.tiny[query];
    const float* bias = search_.args_.item_bias;
    uint32_t items = entry.items;
    for (; items != 0; items &= items - 1) {
      const int lane = std::countr_zero(items);
      double estimate = entry.values[lane] * static_cast<double>(lanes.weight[lane]) * scale;
      double error = lanes.size[lane] * (offset + lanes.residual[lane] * spread) + tiny;
      if (kBias) {
        estimate += bias[first + lane];
        error += std::abs(static_cast<double>(bias[first + lane])) * bias_error_;
      }
      auto high = static_cast<float>(estimate + error);
      if (high < part.cut) continue;
      auto low = static_cast<float>(estimate - search_.caution_ * error);
      if (!(low == low)) low = -kInfinity;
      if (!(high == high)) high = kInfinity;
      part.append(low, high, static_cast<uint32_t>(first + lane));
    }
  }

  Sums sums_[2];
  Search& search_;
  const Batch<Isa>& batch_;
  int64_t lane_, first_tile_, last_tile_;
  float bias_error_;
  std::vector<float> limits_;  // [tiles, kTile]
  Permission<Isa> permission_;
  Passed* log_;  // [kLogged]
  int logged_ = 0;
};

}  // namespace
}  // namespace llmrec
