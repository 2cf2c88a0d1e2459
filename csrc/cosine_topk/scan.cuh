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
  static constexpr int kShared = kStages * kStage + kTileItems * 8 + kTileItems / kGroup * 16;
};
using FewTile = Shape<2, 4, 1>;   // 32 queries
using ManyTile = Shape<4, 8, 2>;  // 128 queries

// The tile of items and of queries that a block of `scan` has, and where its operands lie.
template <int kBlocks, int kColumns, int kSides>
struct Tile {
  using Made = Shape<kBlocks, kColumns, kSides>;

  const TopkCall& call;
  uint8_t* shared;
  int64_t first_block, blocks, groups, steps, first_fragment;

  // Begins to copy a step into its stage; what is beyond the sketch becomes zero.
  __device__ __forceinline__ void copy(int64_t step) const {
    uint8_t* stage = shared + step % kStages * Made::kStage;
    if (step < steps) {
      for (int i = static_cast<int>(threadIdx.x); i < kItemBytes / 16; i += Made::kThreads) {
        const int block = i / (kBlockStep / 16), group = i / 4 % kStepGroups, part = i % 4;
        const int64_t at = step * kStepGroups + group;
        const bool there = at < groups && first_block + block < blocks;
        const int64_t from = there ? ((first_block + block) * groups + at) * 64 + part * 16 : 0;
        copy_async_16(stage + block * kBlockStep + place_of(group, part), call.codes + from,
                      there ? 16 : 0);
      }
      const auto* codes = reinterpret_cast<const uint8_t*>(call.query_codes);
      constexpr int kParts = kFragment / 16;
      for (int i = static_cast<int>(threadIdx.x); i < Made::kFragments * kParts;
           i += Made::kThreads) {
        const int64_t fragment = (first_fragment + i / kParts) * steps + step;
        copy_async_16(stage + kItemBytes + i * 16, codes + fragment * kFragment + i % kParts * 16,
                      16);
      }
    }
    commit_copies();
  }

  // Multiplies a step: of each block a lane has two items, its rows of the instruction.
  __device__ __forceinline__ void multiply(int64_t step, int (&sums)[kBlocks][kColumns][4]) const {
    const uint8_t* stage = shared + step % kStages * Made::kStage;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int lane = static_cast<int>(threadIdx.x) % kWarp, row = lane / 4, quarter = lane % 4;
    const auto pair = [&](int block, int group) {
      const uint8_t* start = stage + (warp % Made::kAlong * kBlocks + block) * kBlockStep;
      return *reinterpret_cast<const uint2*>(start + place_of(group, row / 2) + row % 2 * 8);
    };
    unsigned items[kBlocks][4];
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
      const uint2 low = pair(block, quarter), high = pair(block, quarter + 4);
      items[block][0] = low.x;
      items[block][1] = low.y;
      items[block][2] = high.x;
      items[block][3] = high.y;
    }
    const uint8_t* fragments = stage + kItemBytes + warp / Made::kAlong * kColumns * kFragment;
#pragma unroll
    for (int column = 0; column < kColumns; ++column) {
      const uint2 both = *reinterpret_cast<const uint2*>(fragments + column * kFragment + lane * 8);
      const unsigned queries[2] = {both.x, both.y};
#pragma unroll
      for (int block = 0; block < kBlocks; ++block)
        multiply_int8(sums[block][column], items[block], queries);
    }
  }
};

// Every query with every item: 128 items and Shape::kQueries queries in a block.
template <int kBlocks, int kColumns, int kSides>
__global__ void __launch_bounds__(Shape<kBlocks, kColumns, kSides>::kThreads) scan(TopkCall call) {
  using Made = Shape<kBlocks, kColumns, kSides>;
  DYNAMIC_SHARED(uint8_t, shared);
  auto* terms = reinterpret_cast<float*>(shared + kStages * Made::kStage);
  float* groups = terms + 2 * kTileItems;  // of each: weight, error, blur, unused
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp;
  const int64_t query_tiles = (call.count + Made::kQueries - 1) / Made::kQueries;
  const int64_t tile = blockIdx.x / query_tiles;
  const int64_t first_query = blockIdx.x % query_tiles * Made::kQueries;
  const int64_t start = tile * call.tile_step * kTileItems;  // from call.first
  if (nobody_asks(call, first_query, Made::kQueries)) return;

  const int64_t all = (call.items.dim + 3) / 4;
  const Tile<kBlocks, kColumns, kSides> here = {
      call,
      shared,
      start / kBlockItems,
      (call.end - call.first + kBlockItems - 1) / kBlockItems,
      all,
      (all + kStepGroups - 1) / kStepGroups,
      first_query / 8};
  for (int step = 0; step < kStages - 1; ++step) here.copy(step);
  for (int i = thread; i < kTileItems; i += Made::kThreads) {  // whole warps, each a group
    const ItemTerms own = terms_of(call, call.first + start + i);
    terms[2 * i] = own.multiple;
    terms[2 * i + 1] = own.bias;
    const float weight = largest_of_lanes(own.weight, 1, kWarp);
    const float error = largest_of_lanes(own.error, 1, kWarp);
    const float blur = largest_of_lanes(own.blur, 1, kWarp);
    if (i % kGroup == 0) {
      groups[i / kGroup * 4] = weight;
      groups[i / kGroup * 4 + 1] = error;
      groups[i / kGroup * 4 + 2] = blur;
    }
  }
  __syncthreads();  // the terms are there
  int sums[kBlocks][kColumns][4] = {};
  for (int64_t step = 0; step < here.steps; ++step) {
    wait_for_copies<kStages - 2>();
    __syncthreads();  // the step is there, and nobody reads the stage of the last one any more
    here.copy(step + kStages - 1);
    here.multiply(step, sums);
  }

  const int row = thread % kWarp / 4, quarter = thread % 4;
#pragma unroll
  for (int half = 0; half < kBlocks / 2; ++half) {
    const int group = warp % Made::kAlong * (kBlocks / 2) + half;
    const int64_t first_item = call.first + start + group * kGroup;
    float multiples[4], biases[4];  // of a lane's items: two in each block of the group
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int place = group * kGroup + i / 2 * kBlockItems + row * 2 + i % 2;
      multiples[i] = terms[2 * place];
      biases[i] = terms[2 * place + 1];
    }
#pragma unroll
    for (int column = 0; column < kColumns; ++column)
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        const int64_t query =
            first_query + (warp / Made::kAlong * kColumns + column) * 8 + quarter * 2 + odd;
        const bool asked = query < call.count;
        const QueryTerms own = query_terms(call, query);
        const float slack =
            slack_of(call, own, groups[4 * group], groups[4 * group + 1], groups[4 * group + 2]);
        const float least = needed(threshold_of(call, query), slack);
        float best = -kInfinity;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int sum = sums[2 * half + i / 2][column][i % 2 * 2 + odd];
          const float product = own.step * static_cast<float>(sum);
          const float estimate = fused(product, multiples[i], biases[i]);
          const int64_t item = first_item + i / 2 * kBlockItems + row * 2 + i % 2;
          if (call.sampling != 0) {
            if (asked && estimate > -kInfinity && permits(call, query, item))
              best = fmaxf(best, estimate);
          } else if (estimate >= least && permits(call, query, item)) {
            append(call, query, item, estimate, slack);
          }
        }
        if (call.sampling == 0) continue;
        best = largest_of_lanes(best, 4, kWarp);
        const int64_t at = tile * (kTileItems / kGroup) + group;
        if (asked && row == 0) call.lows[query * call.sampled + at] = best - slack;
      }
  }
}

}  // namespace llmrec::cuda
