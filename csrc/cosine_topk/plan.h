// How one call is cut up: for the caches, for the threads, and for a bounded workspace.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/sketch.h"
#include "common/workspace.h"
#include "cosine_topk/candidates.h"
#include "cosine_topk/chunk.h"
#include "cosine_topk/topk.h"

namespace llmrec {
namespace {

constexpr int64_t kChunkBytes = 512 << 10;  // of codes: they and the queries share the L2 cache
constexpr int64_t kRoundQueries = 1024;     // whose codes stay in the L2 cache
constexpr int64_t kSmallBudget = 16 << 20;  // bytes of candidates that any search may use
constexpr int64_t kLeastCapacity = 64;
constexpr int64_t kSampled = 16;     // one strip in so many is sampled for a first cut
constexpr int64_t kFewQueries = 17;  // for fewer, memory is the limit and a sample costs

// How one call is cut up.
struct Plan {
  int64_t kept;      // min(k, N)
  int64_t capacity;  // candidates of a query in a lane
  int64_t round;     // queries at a time
  int64_t lanes;     // workers on one query
  int64_t teams;     // parts of a round
  int64_t strips;    // of a chunk
  int64_t chunks;
  // Stretches of items that are sampled for a first cut, the strips of each, and from where to
  // where; none where a sample would not pay.
  int64_t stretches = 0, stretch = 0;

  int64_t stretch_start(int64_t number, int64_t items) const {
    const int64_t strips = (items + kStrip - 1) / kStrip;
    return strips * number / stretches * kStrip;
  }

  bool samples(int64_t item, int64_t items) const {
    const int64_t strips = (items + kStrip - 1) / kStrip;
    const int64_t number = item / kStrip * stretches / std::max<int64_t>(1, strips);
    for (int64_t each = number; each <= std::min(number + 1, stretches - 1); ++each) {
      const int64_t from = item - stretch_start(each, items);
      if (from >= 0 && from < stretch * kStrip) return true;
    }
    return false;
  }

  static size_t candidate_bytes(int64_t capacity) {
    return 2 * Workspace::bytes<float>(capacity + kStrip + kWide) +
           Workspace::bytes<uint32_t>(capacity + kStrip + kWide);
  }
};

template <class Isa>
Plan plan(const TopkArguments& args, int64_t threads) {
  const TopkTuning& tuning = args.tuning;
  const int64_t items = args.items.count;
  Plan plan;
  plan.kept = std::min(args.k, items);
  plan.capacity = tuning.capacity > 0
                      ? tuning.capacity
                      : std::max(kLeastCapacity, std::min(4 * plan.kept + 256, items));
  plan.capacity = padded_to(plan.capacity, kWide);
  const auto each = static_cast<int64_t>(Plan::candidate_bytes(plan.capacity));
  const int64_t budget = std::max<int64_t>(kSmallBudget, args.count * items / 100 * 4);
  const int64_t most = tuning.round_queries > 0 ? tuning.round_queries : kRoundQueries;
  plan.round = std::clamp<int64_t>(budget / each, std::min<int64_t>(Isa::kTile, most), most);
  plan.round = std::min(plan.round, args.count);
  plan.lanes = std::clamp<int64_t>(budget / (each * std::max<int64_t>(1, plan.round)), 1, threads);
  const int64_t tiles = (plan.round + Isa::kTile - 1) / Isa::kTile;
  plan.teams = std::min((threads + plan.lanes - 1) / plan.lanes, tiles);

  const int64_t strips = (items + kStrip - 1) / kStrip;
  const int64_t strip_bytes = 2 * block_bytes(args.items.dim) + kStrip * 16;
  const int64_t bytes = tuning.chunk_bytes > 0 ? tuning.chunk_bytes : kChunkBytes;
  const int64_t even = std::max<int64_t>(1, strips / (8 * threads));  // work for everyone
  plan.strips = std::clamp<int64_t>(bytes / strip_bytes, 1, even);
  plan.chunks = (strips + plan.strips - 1) / plan.strips;

  // Each of a stretch's 16 lanes gives one number: enough of them for the k-th largest to tell.
  const int64_t sampled = strips / kSampled;
  const int64_t stretches = std::min(plan.capacity / kWide, sampled);
  const bool listed = args.filters.mask != nullptr || args.filters.allow.ids != nullptr;
  const bool rounded = !args.exact && args.item_bias != nullptr;  // by more than a low allows for
  if (stretches > 0 && plan.round >= kFewQueries && !listed && !rounded &&
      2 * stretches * kWide >= 3 * plan.kept) {
    plan.stretches = stretches;
    plan.stretch = sampled / stretches;
  }
  return plan;
}

}  // namespace
}  // namespace llmrec
