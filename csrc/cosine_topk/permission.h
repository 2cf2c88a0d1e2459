// The filters that differ from query to query, as bits: one for each item of a strip.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "cosine_topk/chunk.h"
#include "cosine_topk/topk.h"

namespace llmrec {
namespace {

// Which of up to 32 flags are set.
inline uint32_t bits_of_flags(const uint8_t* flags, int64_t count) {
  uint32_t bits = 0;
  int64_t lane = 0;
  for (; lane + 8 <= count; lane += 8) {
    uint64_t eight;
    std::memcpy(&eight, flags + lane, sizeof eight);
    constexpr uint64_t kLow = 0x7f7f7f7f7f7f7f7f, kGather = 0x0102040810204080;
    const uint64_t set = ((((eight & kLow) + kLow) | eight) & ~kLow) >> 7;
    bits |= static_cast<uint32_t>((set * kGather) >> 56) << lane;
  }
  for (; lane < count; ++lane) bits |= static_cast<uint32_t>(flags[lane] != 0) << lane;
  return bits;
}

inline bool filtered_by_query(const TopkFilters& filters) {
  return filters.mask != nullptr || filters.exclude.ids != nullptr || filters.allow.ids != nullptr;
}

// A list of ids in order, which is walked once.
class Walk {
 public:
  Walk(const IdLists& lists, int64_t query)
      : ids_(lists.ids), place_(lists.offsets[query]), end_(lists.offsets[query + 1]) {
    look();
  }

  // Calls mark(id) for the ids from `first` to before `last` that no earlier call has passed.
  template <class Mark>
  void to(int64_t first, int64_t last, const Mark& mark) {
    while (next_ < last) {
      if (next_ >= first) mark(next_);
      ++place_;
      look();
    }
  }

  // Whether an id is in the list. Ids must come in order.
  bool has(int64_t id) {
    to(id, id, [](int64_t) {});
    return next_ == id;
  }

 private:
  void look() { next_ = place_ < end_ ? ids_[place_] : std::numeric_limits<int64_t>::max(); }

  const int64_t* ids_;
  int64_t place_, end_;
  int64_t next_;  // kept here: most chunks have none of a list, which is then not read
};

// What the queries of a team may have of a chunk, for a few tiles of them at a time.
template <class Isa>
class Permission {
 public:
  static constexpr int64_t kWidth = Isa::kGroup * Isa::kTile;

  Permission(const TopkArguments& args, const int64_t* rows, int64_t count)
      : args_(args), rows_(rows) {
    const TopkFilters& filters = args.filters;
    std::fill_n(everything_, Isa::kTile, ~uint32_t{0});
    for (int64_t q = 0; q < count; ++q) {
      if (filters.exclude.ids != nullptr) excluded_.emplace_back(filters.exclude, rows[q]);
      if (filters.allow.ids != nullptr) allowed_.emplace_back(filters.allow, rows[q]);
    }
  }

  // For `count` of the team's queries, from the first on. Chunks come in order.
  void read(const Chunk<Isa>& chunk, int64_t first, int64_t count) {
    const TopkFilters& filters = args_.filters;
    if (!filtered_by_query(filters)) return;
    bits_.assign(static_cast<size_t>(chunk.size() * kWidth), allowed_.empty() ? ~uint32_t{0} : 0);
    for (int64_t q = 0; q < count; ++q) {
      uint32_t* column = bits_.data() + q;
      if (filters.mask != nullptr) show(chunk, rows_[first + q], column);
      if (!allowed_.empty())
        allowed_[first + q].to(chunk.first(), chunk.last(), [&](int64_t item) {
          const int64_t slot = chunk.slot_of(item);
          if (slot >= 0) column[slot * kWidth] |= 1u << (item % kStrip);
        });
      if (!excluded_.empty())
        excluded_[first + q].to(chunk.first(), chunk.last(), [&](int64_t item) {
          const int64_t slot = chunk.slot_of(item);
          if (slot >= 0) column[slot * kWidth] &= ~(1u << (item % kStrip));
        });
    }
  }

  // [kTile], of the tile that is so many after the first that was read.
  const uint32_t* bits(int64_t slot, int64_t tile) const {
    return bits_.empty() ? everything_ : bits_.data() + slot * kWidth + tile * Isa::kTile;
  }

 private:
  void show(const Chunk<Isa>& chunk, int64_t row, uint32_t* column) const {
    const uint8_t* flags = args_.filters.mask + row * args_.items.count;
    for (int64_t slot = 0; slot < chunk.size(); ++slot) {
      const int64_t item = chunk.strip(slot).first;
      column[slot * kWidth] =
          bits_of_flags(flags + item, std::min(kStrip, args_.items.count - item));
    }
  }

  const TopkArguments& args_;
  const int64_t* rows_;  // which of the caller's queries the team has
  uint32_t everything_[Isa::kTile];
  std::vector<Walk> excluded_, allowed_;  // of each of them, where there are such lists
  std::vector<uint32_t> bits_;            // [strips, kWidth]
};

}  // namespace
}  // namespace llmrec
