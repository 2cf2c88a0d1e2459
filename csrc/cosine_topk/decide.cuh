// What comes before and after the scans of cosine_topk on a GPU: the sketch of the queries, filter
// bits, thresholds, the reference scores that decide, and the best of them.
#pragma once

#include "common/keys.cuh"
#include "common/score.cuh"
#include "common/select.cuh"
#include "cosine_topk/call.cuh"

namespace llmrec::cuda {

constexpr int kDeciders = 256;  // threads of kernels that share all queries
// Threads that a query has to itself: many where there are few queries, for they wait for memory.
// In the emulator each costs a millisecond.
#if defined(LLMREC_EMULATE_CUDA)
constexpr int kMostDeciders = 64;
#else
constexpr int kMostDeciders = 1024;
#endif

// ---- filters: a bit for each item, for all queries or for each ----

// marked = all bits, or none where ids are allowed.
__global__ void __launch_bounds__(kDeciders) begin_filter(TopkCall call) {
  const int64_t words = (call.items.count + kGroup - 1) / kGroup * call.marked_rows;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kDeciders + threadIdx.x;
  if (at < words) call.marked[at] = call.allowing != 0 ? 0u : ~0u;
}

// Clears the bits of items that a mask rules out: a warp makes a word.
__global__ void __launch_bounds__(kDeciders) apply_mask(TopkCall call) {
  const int64_t words = (call.items.count + kGroup - 1) / kGroup;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * (kDeciders / kWarp) + threadIdx.x / kWarp;
  const int64_t row = blockIdx.y, item = at * kGroup + threadIdx.x % kWarp;
  const int64_t mask_row = call.mask_rows == 1 ? 0 : row;
  const bool permitted =
      item < call.items.count && call.mask[mask_row * call.items.count + item] != 0;
  const unsigned bits = __ballot_sync(kEverybody, permitted);
  if (at < words && threadIdx.x % kWarp == 0) call.marked[row * words + at] &= bits;
}

// Sets, or clears, the bits of listed ids; others' ids are passed over.
__global__ void __launch_bounds__(kDeciders) mark_ids(TopkCall call) {
  const int64_t words = (call.items.count + kGroup - 1) / kGroup, row = blockIdx.y;
  int64_t first = 0, last = call.mark_count;
  if (call.mark_offsets != nullptr) {
    first = call.mark_offsets[row];
    last = call.mark_offsets[row + 1];
    if (first < 0) first = 0;
    if (last > call.mark_total) last = call.mark_total;
  }
  const int64_t step = static_cast<int64_t>(gridDim.x) * kDeciders;
  for (int64_t i = first + static_cast<int64_t>(blockIdx.x) * kDeciders + threadIdx.x; i < last;
       i += step) {
    const int64_t item = call.marks[i];
    if (item < 0 || item >= call.items.count) continue;
    const uint32_t bit = 1u << item % kGroup;
    uint32_t* word = call.marked + row * words + item / kGroup;
    if (call.allowing != 0)
      atomicOr(word, bit);
    else
      atomicAnd(word, ~bit);
  }
}

// ---- queries ----

__device__ __forceinline__ double sum_of_warp(double lane) {
#pragma unroll
  for (int other = kWarp / 2; other > 0; other /= 2)
    lane += __shfl_xor_sync(kEverybody, lane, other);
  return lane;
}

// A warp sketches a query as common/sketch.h sketches items, and begins its search.
__global__ void __launch_bounds__(kDeciders) sketch_queries(TopkCall call) {
  const int64_t query =
      static_cast<int64_t>(blockIdx.x) * (kDeciders / kWarp) + threadIdx.x / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t dim = call.items.dim, steps = (dim + kStep - 1) / kStep;
  const bool there = query < call.count;
  const float* vector = call.queries + (there ? query * dim : 0);
  const double inverse = inverse_length(vector, dim, there);
  float largest = 0;
  for (int64_t j = lane; there && j < dim; j += kWarp) largest = fmaxf(largest, fabsf(vector[j]));
  largest = largest_of_lanes(largest, 1, kWarp);

  const auto most = static_cast<float>(call.most_code);
  const bool coded = is_finite(inverse) && largest >= 0x1p-100f && largest <= 0x1p100f && most > 0;
  const float step = coded ? divided(largest, most) : 0.0f;
  const float factor = coded ? divided(most, largest) : 0.0f;
  double errors = 0;
  for (int64_t group = lane; group < steps * kStepGroups; group += kWarp) {
    uint32_t word = 0;
    for (int i = 0; i < 4; ++i) {
      const int64_t j = group * 4 + i;
      if (!there || j >= dim || !coded) continue;
      const float code = rintf(vector[j] * factor);
      const double error = static_cast<double>(vector[j]) - static_cast<double>(step) * code;
      errors += error * error;
      word |= (static_cast<uint32_t>(static_cast<int>(code)) & 0xff) << 8 * i;
    }
    call.query_codes[code_place(query, group, steps)] = word;
  }
  errors = sum_of_warp(errors);
  if (!there || lane != 0) return;

  float residual = largest == 0 ? 0.0f : 1.0f;
  if (coded) residual = rounded_up(root(errors) * inverse * (1 + 0x1p-40));
  float length = inverse == 0 ? 0.0f : 1.0f;
  if (call.cosine == 0) length = inverse == 0 ? 0.0f : static_cast<float>(1.0 / inverse);
  const bool fits = is_fit(length) || length == 0;
  if (!fits) length = 0;
  const auto unit = static_cast<float>(static_cast<double>(step) * inverse);
  call.query_terms[query] = {coded ? length * unit : 0.0f, length * residual,
                             length * (1 + residual) + 0x1p-120f, 0.0f};
  call.query_inverse[query] = inverse;
  call.found[query] = call.kept[query] = 0;
  const bool uncertain = !fits && call.exact != 0;
  call.state[query] = uncertain ? kUncertain : kSearching;
  call.threshold[query] = uncertain || !is_finite(inverse) ? kInfinity : -kInfinity;
}

// ---- thresholds, a block for each query ----

// From a sample: k of its groups have an item that is no worse.
__global__ void __launch_bounds__(kMostDeciders) set_threshold(TopkCall call) {
  DYNAMIC_SHARED(Selection, shared);
  const int64_t query = blockIdx.x;
  if (call.threshold[query] == kInfinity) return;
  const float* lows = call.lows + query * call.sampled;
  const uint32_t found = kth_largest<uint32_t>(call.sampled, call.k, *shared,
                                               [&](int64_t i) { return order_of(lows[i]); });
  if (threadIdx.x == 0) call.threshold[query] = value_of(found);
}

struct Entry {
  float estimate, slack;
  uint32_t item;
};

// After a scan: raises the threshold by what was found, and drops what is below it.
__global__ void __launch_bounds__(kMostDeciders) narrow(TopkCall call) {
  DYNAMIC_SHARED(Selection, shared);
  const int64_t query = blockIdx.x;
  float threshold = threshold_of(call, query);
  if (threshold == kInfinity) return;
  const int64_t found = call.found[query], start = query * call.capacity;
  const bool overflows = found > call.capacity;
  const int64_t count = overflows ? call.capacity : found;
  if (count >= call.k) {
    const uint32_t low = kth_largest<uint32_t>(count, call.k, *shared, [&](int64_t i) {
      return order_of(call.estimates[start + i] - call.slacks[start + i]);
    });
    threshold = fmaxf(threshold, value_of(low));
  }
  // Of a chunk that overflows nothing is kept: its items pass again, by the higher threshold.
  const int64_t left = compact<Entry>(
      overflows ? call.kept[query] : count, *shared,
      [&](int64_t i, Entry& entry) {
        entry = {call.estimates[start + i], call.slacks[start + i], call.entries[start + i]};
        return entry.estimate >= needed(threshold, entry.slack);
      },
      [&](int64_t place, const Entry& entry) {
        call.estimates[start + place] = entry.estimate;
        call.slacks[start + place] = entry.slack;
        call.entries[start + place] = entry.item;
      });
  if (threadIdx.x != 0) return;
  const bool lost = overflows && call.again != 0;
  call.state[query] = lost ? kUncertain : overflows ? kOverflowing : kSearching;
  call.threshold[query] = lost ? kInfinity : threshold;
  call.found[query] = call.kept[query] = static_cast<uint32_t>(left);
}

// ---- the reference score decides ----

template <Storage kStorage>
__device__ __forceinline__ uint64_t exact_key(const TopkCall& call, int64_t query, int64_t item,
                                              bool there) {
  there = there && permits(call, query, item);
  double score =
      similarity_of<kStorage>(call.queries + query * call.items.dim, call.query_inverse[query],
                              call.items, item, call.cosine != 0, there);
  if (!there) return kNoKey;
  if (call.item_scale != nullptr)
    score = rounded_product(score, static_cast<double>(call.item_scale[item]));
  const float bias = call.item_bias == nullptr ? 0.0f : call.item_bias[item];
  score = rounded_sum(score, static_cast<double>(bias));
  return key_of(static_cast<float>(score), item);
}

// For queries that the bounds cannot decide: the best key of each group of all items. The k best
// groups have the k best items.
template <Storage kStorage>
__global__ void __launch_bounds__(kDeciders) score_groups(TopkCall call) {
  const int64_t query = blockIdx.y, groups = (call.items.count + kGroup - 1) / kGroup;
  if (call.state[query] != kUncertain) return;
  const int64_t step = static_cast<int64_t>(gridDim.x) * (kDeciders / kWarp);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int64_t group = static_cast<int64_t>(blockIdx.x) * (kDeciders / kWarp) + threadIdx.x / kWarp;
       group < groups; group += step) {
    uint64_t best = kNoKey;
    for (int i = lane / kTeam; i < kGroup; i += kWarp / kTeam) {
      const int64_t item = group * kGroup + i;
      const uint64_t key = exact_key<kStorage>(call, query, item, item < call.items.count);
      best = key > best ? key : best;
    }
    for (int other = kTeam; other < kWarp; other *= 2) {
      const uint64_t theirs = __shfl_xor_sync(kEverybody, best, other);
      best = theirs > best ? theirs : best;
    }
    if (lane == 0) call.group_keys[query * groups + group] = best;
  }
}

// The items of the k best groups become the query's entries.
__global__ void __launch_bounds__(kMostDeciders) choose_groups(TopkCall call) {
  DYNAMIC_SHARED(Selection, shared);
  const int64_t query = blockIdx.x, groups = (call.items.count + kGroup - 1) / kGroup;
  if (call.state[query] != kUncertain) return;
  const uint64_t* keys = call.group_keys + query * groups;
  uint64_t least = kNoKey + 1;
  if (groups > call.k) {
    const uint64_t last =
        kth_largest<uint64_t>(groups, call.k, *shared, [&](int64_t i) { return keys[i]; });
    least = last > least ? last : least;
  }
  uint32_t* entries = call.entries + query * call.capacity;
  const int64_t chosen = compact<int64_t>(
      groups, *shared,
      [&](int64_t i, int64_t& group) {
        group = i;
        return keys[i] >= least;
      },
      [&](int64_t place, int64_t group) {
        for (int i = 0; i < kGroup; ++i)
          entries[place * kGroup + i] = static_cast<uint32_t>(group * kGroup + i);
      });
  if (threadIdx.x == 0) call.found[query] = static_cast<uint32_t>(chosen * kGroup);
}

// The key of each entry, by the reference score; or by its estimate.
template <Storage kStorage>
__global__ void __launch_bounds__(kDeciders) rescore(TopkCall call) {
  constexpr int kPairs = kDeciders / kTeam;
  const int64_t query = blockIdx.y, count = call.found[query], start = query * call.capacity;
  const bool exact = call.exact != 0 || call.state[query] == kUncertain;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kPairs;
  // Whole warps go on together.
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kPairs; first < count; first += step) {
    const int64_t i = first + threadIdx.x / kTeam;
    const int64_t item = i < count ? call.entries[start + i] : 0;
    const bool there = i < count && item < call.items.count;
    uint64_t key = kNoKey;
    if (exact)
      key = exact_key<kStorage>(call, query, item, there);
    else if (there)
      key = key_of(call.estimates[start + i], item);
    if (i < count && threadIdx.x % kTeam == 0) call.keys[start + i] = key;
  }
}

// Scores and ids, by a block for each query.
__global__ void __launch_bounds__(kMostDeciders) write_results(TopkCall call) {
  DYNAMIC_SHARED(uint64_t, sorting);
  Selection& shared = *reinterpret_cast<Selection*>(sorting + kSorting);
  const int64_t query = blockIdx.x;
  write_best(call.keys + query * call.capacity, call.found[query], call.k, shared, sorting,
             call.scores + query * call.k, call.ids + query * call.k);
}

}  // namespace llmrec::cuda
