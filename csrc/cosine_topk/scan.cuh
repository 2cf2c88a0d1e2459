// The scans of cosine_topk on a GPU: estimates of all scores, of which few leave the chip.
//
// Each tells, per query, the items that can be among the best (`append`); or, sampling, what the
// best score of each 32 items is at least (`lows`), from which thresholds are made.
#pragma once

#include "cosine_topk/call.cuh"

namespace llmrec::cuda {

constexpr int kScanners = 128;  // threads of scan_few

// Whether these queries want nothing: the same answer in every warp.
__device__ __forceinline__ bool nobody_asks(const TopkCall& call, int64_t first, int count) {
  bool asked = false;
  for (int i = static_cast<int>(threadIdx.x) % kWarp; i < count; i += kWarp)
    asked |= threshold_of(call, first + i) != kInfinity;
  return __ballot_sync(kEverybody, asked) == 0;
}

// ---- few queries: every thread has four items, every load 16 bytes of their codes ----

constexpr int kChunkGroups = 256;  // of a query's codes that are held at a time

// Adds the products of four items with kQueries queries over the groups in `words`.
template <int kQueries>
__device__ __forceinline__ void multiply_few(const uint4* codes, int groups, const int* words,
                                             int (&sums)[4][kQueries]) {
#pragma unroll 8
  for (int group = 0; group < groups; ++group) {
    const uint4 four = __ldg(codes + group * 4);
#pragma unroll
    for (int query = 0; query < kQueries; ++query) {
      const int word = words[group * kQueries + query];
      sums[0][query] = dot_of_four(static_cast<int>(four.x), word, sums[0][query]);
      sums[1][query] = dot_of_four(static_cast<int>(four.y), word, sums[1][query]);
      sums[2][query] = dot_of_four(static_cast<int>(four.z), word, sums[2][query]);
      sums[3][query] = dot_of_four(static_cast<int>(four.w), word, sums[3][query]);
    }
  }
}

template <int kQueries>
__global__ void __launch_bounds__(kScanners) scan_few(TopkCall call) {
  DYNAMIC_SHARED(int, words);  // [kChunkGroups][kQueries]
  if (nobody_asks(call, 0, kQueries)) return;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t tile = static_cast<int64_t>(blockIdx.x) * (kScanners / kWarp) + thread / kWarp;
  const int64_t item = call.first + tile * call.tile_step * kTileItems + thread % kWarp * 4;
  const int64_t groups = (call.items.dim + 3) / 4, steps = (groups + kStepGroups - 1) / kStepGroups;
  const int64_t blocks = (call.end - call.first + kBlockItems - 1) / kBlockItems;
  const int64_t block = (item - call.first) / kBlockItems;
  const auto* codes = reinterpret_cast<const uint4*>(call.codes) + block * groups * 4 + thread % 4;

  int sums[4][kQueries] = {};
  for (int64_t start = 0; start < groups; start += kChunkGroups) {
    const int here =
        static_cast<int>(groups - start < kChunkGroups ? groups - start : kChunkGroups);
    __syncthreads();
    for (int i = thread; i < here * kQueries; i += kScanners)
      words[i] =
          static_cast<int>(call.query_codes[code_place(i % kQueries, start + i / kQueries, steps)]);
    __syncthreads();
    if (block < blocks) multiply_few<kQueries>(codes + start * 4, here, words, sums);
  }

  ItemTerms terms[4];
  float weight = 0, error = 0, blur = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    terms[i] = terms_of(call, item + i);
    weight = fmaxf(weight, terms[i].weight);
    error = fmaxf(error, terms[i].error);
    blur = fmaxf(blur, terms[i].blur);
  }
  constexpr int kSharing = kGroup / 4;  // lanes that have a group
  weight = largest_of_lanes(weight, 1, kSharing);
  error = largest_of_lanes(error, 1, kSharing);
  blur = largest_of_lanes(blur, 1, kSharing);
#pragma unroll
  for (int query = 0; query < kQueries; ++query) {
    const bool asked = query < call.count;
    const QueryTerms own = query_terms(call, query);
    const float slack = slack_of(call, own, weight, error, blur);
    const float least = needed(asked ? threshold_of(call, query) : kInfinity, slack);
    float best = -kInfinity;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float product = own.step * static_cast<float>(sums[i][query]);
      const float estimate = fused(product, terms[i].multiple, terms[i].bias);
      if (call.sampling != 0) {
        if (asked && estimate > -kInfinity && permits(call, query, item + i))
          best = fmaxf(best, estimate);
      } else if (estimate >= least && permits(call, query, item + i)) {
        append(call, query, item + i, estimate, slack);
      }
    }
    if (call.sampling == 0) continue;
    best = largest_of_lanes(best, 1, kSharing);
    const int64_t group = tile * (kTileItems / kGroup) + thread % kWarp / kSharing;
    if (asked && thread % kSharing == 0) call.lows[query * call.sampled + group] = best - slack;
  }
}

// ---- many queries: tiles of int8 products on tensor cores ----

constexpr int kStages = 4;                             // steps on their way to shared memory
constexpr int kTileBlocks = kTileItems / kBlockItems;  // of the sketch
constexpr int kBlockStep = kBlockItems * kStep;        // bytes of a block in a step
constexpr int kFragment = 8 * kStep;                   // bytes of eight queries in a step
constexpr int kItemBytes = kTileItems * kStep;         // of a stage

// Where 16 bytes of a block's step lie in shared memory, so that the lanes of a warp which load
// eight bytes each meet in no bank: group by group of four dimensions, the odd pairs turned round.
__device__ __forceinline__ int place_of(int group, int part) {
  return group * 64 + (part ^ (group / 2 % 2 * 2)) * 16;
}

// How a block of `scan` is made: a warp has kBlocks blocks of 16 items and kColumns times eight
// queries, and kSides warps share its items. The more a warp has, the less it loads for a product.
template <int kBlocks, int kColumns, int kSides>
struct Shape {
  static constexpr int kAlong = kTileBlocks / kBlocks;  // warps along the items
  static constexpr int kThreads = kAlong * kSides * kWarp;
  static constexpr int kFragments = kColumns * kSides;
  static constexpr int kQueries = 8 * kFragments;
  static constexpr int kStage = kItemBytes + kFragments * kFragment;  // bytes
  static constexpr int kKnown = kStages * kStage;                     // where Knows begins
  static constexpr int kShared =
      kKnown + (kTileItems * 2 + kTileItems / kGroup * (4 + kQueries) + kQueries) * 4;
};
using FewTile = Shape<2, 4, 1>;   // 32 queries
using ManyTile = Shape<4, 8, 2>;  // 128 queries

// The operands of a block of `scan`: what each thread copies of them, and how they are multiplied.
template <int kBlocks, int kColumns, int kSides>
class Operands {
  using Made = Shape<kBlocks, kColumns, kSides>;
  static constexpr int kItemParts = kItemBytes / 16 / Made::kThreads;  // that a thread copies
  static constexpr int kEach = kFragment / 16;
  static constexpr int kQueryAll = Made::kFragments * kEach;
  static constexpr int kQueryParts = (kQueryAll + Made::kThreads - 1) / Made::kThreads;

 public:
  __device__ __forceinline__ Operands(const TopkCall& call, uint8_t* shared, int64_t start,
                                      int64_t first_query)
      : shared_(shared) {
    const int groups = static_cast<int>((call.items.dim + 3) / 4);
    const int64_t blocks = (call.end - call.first + kBlockItems - 1) / kBlockItems;
    steps_ = (groups + kStepGroups - 1) / kStepGroups;
#pragma unroll
    for (int i = 0; i < kItemParts; ++i) {
      const int at = i * Made::kThreads + static_cast<int>(threadIdx.x);
      const int64_t block = start / kBlockItems + at / (kBlockStep / 16);
      const int group = at / 4 % kStepGroups, part = at % 4;
      const bool there = block < blocks;
      items_[i] = call.codes + ((there ? block : 0) * groups + group) * 64 + part * 16;
      steps_there_[i] = there ? (groups - group + kStepGroups - 1) / kStepGroups : 0;
      item_places_[i] = at / (kBlockStep / 16) * kBlockStep + place_of(group, part);
    }
    const auto* codes = reinterpret_cast<const uint8_t*>(call.query_codes);
#pragma unroll
    for (int i = 0; i < kQueryParts; ++i) {
      const int at = i * Made::kThreads + static_cast<int>(threadIdx.x);
      queries_[i] = codes + (first_query / 8 + at / kEach) * steps_ * kFragment + at % kEach * 16;
    }
  }

  __device__ __forceinline__ int steps() const { return steps_; }

  // Begins to copy a step into its stage, and goes on to the next; what is beyond the sketch
  // becomes zero.
  __device__ __forceinline__ void copy(int step) {
    uint8_t* stage = shared_ + step % kStages * Made::kStage;
    if (step < steps_) {
#pragma unroll
      for (int i = 0; i < kItemParts; ++i) {
        copy_async_16(stage + item_places_[i], items_[i], step < steps_there_[i] ? 16 : 0);
        items_[i] += kStepGroups * 64;
      }
#pragma unroll
      for (int i = 0; i < kQueryParts; ++i) {
        const int at = i * Made::kThreads + static_cast<int>(threadIdx.x);
        if (at < kQueryAll) copy_async_16(stage + kItemBytes + at * 16, queries_[i], 16);
        queries_[i] += kFragment;
      }
    }
    commit_copies();
  }

  // Multiplies a step: of each block a lane has two items, its rows of the instruction.
  __device__ __forceinline__ void multiply(int step, int (&sums)[kBlocks][kColumns][4]) const {
    const uint8_t* stage = shared_ + step % kStages * Made::kStage;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int lane = static_cast<int>(threadIdx.x) % kWarp, row = lane / 4, quarter = lane % 4;
    const uint8_t* start = stage + warp % Made::kAlong * kBlocks * kBlockStep;
    const int low_place = place_of(quarter, row / 2) + row % 2 * 8;
    const int high_place = place_of(quarter + 4, row / 2) + row % 2 * 8;
    unsigned items[kBlocks][4];
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
      const auto low = *reinterpret_cast<const uint2*>(start + block * kBlockStep + low_place);
      const auto high = *reinterpret_cast<const uint2*>(start + block * kBlockStep + high_place);
      items[block][0] = low.x;
      items[block][1] = low.y;
      items[block][2] = high.x;
      items[block][3] = high.y;
    }
    const uint8_t* fragments =
        stage + kItemBytes + warp / Made::kAlong * kColumns * kFragment + lane * 8;
#pragma unroll
    for (int column = 0; column < kColumns; ++column) {
      const auto both = *reinterpret_cast<const uint2*>(fragments + column * kFragment);
      const unsigned queries[2] = {both.x, both.y};
#pragma unroll
      for (int block = 0; block < kBlocks; ++block)
        multiply_int8(sums[block][column], items[block], queries);
    }
  }

 private:
  uint8_t* shared_;
  int steps_;
  const int8_t* items_[kItemParts];
  int steps_there_[kItemParts], item_places_[kItemParts];
  const uint8_t* queries_[kQueryParts];
};

// What a block of `scan` knows beside its operands, in shared memory.
template <int kQueries>
struct Knows {
  float terms[kTileItems][2];                  // multiple, bias
  float groups[kTileItems / kGroup][4];        // weight, error, blur, unused
  float least[kTileItems / kGroup][kQueries];  // what an estimate must reach
  float steps[kQueries];
};

template <int kQueries, int kThreads>
__device__ __forceinline__ void prepare(const TopkCall& call, int64_t start, int64_t first_query,
                                        Knows<kQueries>& known) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < kTileItems; i += kThreads) {  // whole warps, each a group
    const ItemTerms own = terms_of(call, call.first + start + i);
    known.terms[i][0] = own.multiple;
    known.terms[i][1] = own.bias;
    float* group = known.groups[i / kGroup];
    const float weight = largest_of_lanes(own.weight, 1, kWarp);
    const float error = largest_of_lanes(own.error, 1, kWarp);
    const float blur = largest_of_lanes(own.blur, 1, kWarp);
    if (i % kGroup == 0) {
      group[0] = weight;
      group[1] = error;
      group[2] = blur;
    }
  }
  __syncthreads();
  for (int i = thread; i < kQueries; i += kThreads) {
    const QueryTerms own = query_terms(call, first_query + i);
    const float threshold = threshold_of(call, first_query + i);
    known.steps[i] = own.step;
    for (int j = 0; j < kTileItems / kGroup; ++j) {
      const float* group = known.groups[j];
      known.least[j][i] = needed(threshold, slack_of(call, own, group[0], group[1], group[2]));
    }
  }
  __syncthreads();
}

// Of the four items that a lane of `scan` has in a group.
__device__ __forceinline__ int64_t item_of(int64_t first, int i) {
  return first + i / 2 * kBlockItems + i % 2;
}

// Sampling: what the best score of a group is at least. Whole warps call this.
__device__ __forceinline__ void tell_group(const TopkCall& call, int64_t query, int64_t first,
                                           const float (&estimates)[4], const float* terms,
                                           int64_t group) {
  const bool asked = query < call.count;
  float best = -kInfinity;
  for (int i = 0; i < 4; ++i)
    if (asked && estimates[i] > -kInfinity && permits(call, query, item_of(first, i)))
      best = fmaxf(best, estimates[i]);
  best = largest_of_lanes(best, 4, kWarp);
  if (!asked || static_cast<int>(threadIdx.x) % kWarp / 4 != 0) return;
  const float slack = slack_of(call, query_terms(call, query), terms[0], terms[1], terms[2]);
  call.lows[query * call.sampled + group] = best - slack;
}

// The items among them that can be among the best.
__device__ __forceinline__ void tell_items(const TopkCall& call, int64_t query, int64_t first,
                                           const float (&estimates)[4], const float* terms,
                                           float least) {
  const float slack = slack_of(call, query_terms(call, query), terms[0], terms[1], terms[2]);
  for (int i = 0; i < 4; ++i)
    if (estimates[i] >= least && permits(call, query, item_of(first, i)))
      append(call, query, item_of(first, i), estimates[i], slack);
}

// Every query with every item: 128 items and Shape::kQueries queries in a block.
template <int kBlocks, int kColumns, int kSides>
__global__ void __launch_bounds__(Shape<kBlocks, kColumns, kSides>::kThreads) scan(TopkCall call) {
  using Made = Shape<kBlocks, kColumns, kSides>;
  DYNAMIC_SHARED(uint8_t, shared);
  auto& known = *reinterpret_cast<Knows<Made::kQueries>*>(shared + Made::kKnown);
  static_assert(Made::kKnown + sizeof(known) == Made::kShared);
  const int64_t query_tiles = (call.count + Made::kQueries - 1) / Made::kQueries;
  const int64_t tile = blockIdx.x / query_tiles;
  const int64_t first_query = blockIdx.x % query_tiles * Made::kQueries;
  const int64_t start = tile * call.tile_step * kTileItems;  // from call.first
  if (nobody_asks(call, first_query, Made::kQueries)) return;

  Operands<kBlocks, kColumns, kSides> operands(call, shared, start, first_query);
  for (int step = 0; step < kStages - 1; ++step) operands.copy(step);
  prepare<Made::kQueries, Made::kThreads>(call, start, first_query, known);
  int sums[kBlocks][kColumns][4] = {};
  for (int step = 0; step < operands.steps(); ++step) {
    wait_for_copies<kStages - 2>();
    __syncthreads();  // the step is there, and nobody reads the stage of the last one any more
    operands.copy(step + kStages - 1);
    operands.multiply(step, sums);
  }

  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp;
  const int row = thread % kWarp / 4, quarter = thread % 4;
#pragma unroll
  for (int half = 0; half < kBlocks / 2; ++half) {
    const int group = warp % Made::kAlong * (kBlocks / 2) + half;
    const int64_t first_item = call.first + start + group * kGroup + row * 2;
    float terms[4][2];  // of a lane's items: two in each block of the group
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* item = known.terms[group * kGroup + i / 2 * kBlockItems + row * 2 + i % 2];
      terms[i][0] = item[0];
      terms[i][1] = item[1];
    }
#pragma unroll
    for (int column = 0; column < kColumns; ++column)
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        const int place = (warp / Made::kAlong * kColumns + column) * 8 + quarter * 2 + odd;
        float estimates[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int sum = sums[2 * half + i / 2][column][i % 2 * 2 + odd];
          estimates[i] =
              fused(known.steps[place] * static_cast<float>(sum), terms[i][0], terms[i][1]);
        }
        const float best =
            fmaxf(fmaxf(estimates[0], estimates[1]), fmaxf(estimates[2], estimates[3]));
        if (call.sampling != 0)
          tell_group(call, first_query + place, first_item, estimates, known.groups[group],
                     tile * (kTileItems / kGroup) + group);
        else if (best >= known.least[group][place])
          tell_items(call, first_query + place, first_item, estimates, known.groups[group],
                     known.least[group][place]);
      }
  }
}

}  // namespace llmrec::cuda
