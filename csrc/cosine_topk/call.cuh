// What the kernels of cosine_topk on a GPU share: the call, and what bounds a score.
//
// A score is f c w + b, with the cosine c, the query's factor f (1, or its length), the item's
// weight w (its scale, times its length for dot products) and its bias b. The sketches of query and
// item (common/sketch.h) give an estimate of c that is off by at most
//
//   r_q + (1 + r_q) r_x,
//
// their residuals. Products of codes are exact in int32. What float32 arithmetic adds is far below
// 2^-18 f |w| + 2^-20 |b|, as long as lengths and weights are within 2^-60 to 2^60; where they are
// not, nothing is known of the score, and the bound is infinite.
#pragma once

#include "common/cuda.cuh"
#include "common/decode.cuh"

namespace llmrec::cuda {

constexpr int kTileItems = 128;  // that are scanned by a warp of `scan_few`, or a block of `scan`
constexpr int kGroup = 32;       // items: a warp's, or a word of filter bits
constexpr int kBlockItems = 16;  // of the sketch
constexpr int kStep = 32;        // dimensions that one instruction multiplies
constexpr int kStepGroups = kStep / 4;
constexpr float kLargestFit = 0x1p60f, kSmallestFit = 0x1p-60f;
constexpr float kLargestBias = 0x1p100f;

// What is known of a query on the way.
enum State : uint32_t {
  kSearching = 0,
  kOverflowing = 1,  // more items passed than there is room for: those of this chunk pass again
  kUncertain = 2,    // the reference score of every item decides
};

struct alignas(16) QueryTerms {
  float step;   // what a product of codes and an item's `multiple` is multiplied with
  float own;    // f r_q
  float other;  // f (1 + r_q)
  float unused;
};

struct TopkCall {
  DeviceRows items;         // all of them
  const float* item_bias;   // [N] or null
  const float* item_scale;  // [N] or null
  const int8_t* codes;      // the sketch of the items from `first` to `end`
  const float* unit_scale;
  const float* residual;
  const double* lengths;  // their inverse lengths
  int64_t first, end;     // multiples of kTileItems, but for the last end
  int64_t tile_step;      // every so many tiles is scanned: 1 for all
  int64_t sampling;       // whether groups are told, and not items
  int64_t again;          // whether this is for overflowing queries only
  const uint32_t* words;  // filter bits, or null
  int64_t words_stride;   // words from query to query: 0 where they share them
  const float* queries;   // [count, dim]
  int64_t count;
  int64_t most_code;
  int64_t cosine, exact;
  int64_t k;
  uint32_t* query_codes;    // [count, padded to 128][dim, padded to kStep] as `scan` loads them
  QueryTerms* query_terms;  // [count]
  double* query_inverse;    // [count]
  uint32_t* state;          // [count]
  float* threshold;         // [count]: no lower score is among the k best
  uint32_t* found;          // [count]: entries; more than `capacity` where they overflow
  uint32_t* kept;           // [count]: entries that were there before this chunk
  int64_t sampled;          // groups of a sample
  float* lows;              // [count, sampled]: what a group's best score is at least
  int64_t capacity;         // entries of a query
  float* estimates;         // [count, capacity]
  float* slacks;            // [count, capacity]: how far the score may be from the estimate
  uint32_t* entries;        // [count, capacity]: items
  uint64_t* keys;           // [count, capacity]
  uint64_t* group_keys;     // [count, ceil(N / kGroup)]
  float* scores;            // [count, k]
  int64_t* ids;             // [count, k]
  // Filters, for kernels that make the bits.
  uint32_t* marked;     // the bits to be changed: `words`
  int64_t marked_rows;  // 1 or count
  const uint8_t* mask;  // [mask_rows, N]
  int64_t mask_rows;
  const int64_t* marks;            // ids
  const int64_t* mark_offsets;     // [count + 1], or null for one list
  int64_t mark_count, mark_total;  // ids of that one list, and in all
  int64_t allowing;                // whether marks become 1
};

// What an item's estimates and bounds are made of.
struct ItemTerms {
  float multiple, bias;       // estimate = step * codes * multiple + bias
  float weight, error, blur;  // slack = own * weight + other * error + blur
};

// Whether float32 has room for products with a length or a weight.
__device__ __forceinline__ bool is_fit(float size) {
  return size <= kLargestFit && size >= kSmallestFit;
}

// An item that nobody may have: its estimate is below every other.
__device__ __forceinline__ ItemTerms no_item() { return {0.0f, -kInfinity, 0.0f, 0.0f, 0.0f}; }

__device__ __forceinline__ ItemTerms terms_of(const TopkCall& call, int64_t item) {
  if (item >= call.end) return no_item();
  const int64_t here = item - call.first;
  const double inverse = call.lengths[here];
  const float bias = call.item_bias == nullptr ? 0.0f : call.item_bias[item];
  float length = 1.0f, scale = 1.0f;
  if (call.cosine == 0) length = inverse == 0 ? 0.0f : 1.0f / static_cast<float>(inverse);
  if (call.item_scale != nullptr) scale = call.item_scale[item];
  if (!is_finite(inverse) || bias != bias || scale != scale) return no_item();
  const float weight = length * scale, size = fabsf(weight);
  // Both: a length that float32 has no room for may come back as a fitting weight, or as none.
  const bool fits = inverse == 0 || scale == 0 || (is_fit(length) && is_fit(size));
  if (!fits || !(fabsf(bias) <= kLargestBias))
    return {0.0f, fabsf(bias) <= kLargestBias ? bias : 0.0f, 0.0f, kInfinity, 0.0f};
  return {call.unit_scale[here] * weight, bias, size, size * (call.residual[here] + 0x1p-18f),
          fabsf(bias) * 0x1p-20f};
}

// How far a score of these may be from its estimate, at most; of a group, from its largest terms.
__device__ __forceinline__ float slack_of(const TopkCall& call, const QueryTerms& query,
                                          float weight, float error, float blur) {
  if (call.exact == 0) return 0.0f;
  return (query.own * weight + query.other * error + blur) * (1 + 0x1p-20f) + 0x1p-140f;
}

// What an estimate must reach; +inf for a query that wants nothing. -inf is no item.
__device__ __forceinline__ float needed(float threshold, float slack) {
  if (threshold == kInfinity) return kInfinity;
  const float least = threshold - slack;
  return least > -0x1.fffffep127f ? least : -0x1.fffffep127f;
}

// A query's threshold, or +inf where it wants nothing now.
__device__ __forceinline__ float threshold_of(const TopkCall& call, int64_t query) {
  if (query >= call.count || (call.again != 0 && call.state[query] != kOverflowing))
    return kInfinity;
  return call.threshold[query];
}

// The terms of a query, or of any other where it is not there.
__device__ __forceinline__ QueryTerms query_terms(const TopkCall& call, int64_t query) {
  const uint4 words = load_16(call.query_terms + (query < call.count ? query : 0));
  return {float_of_bits(words.x), float_of_bits(words.y), float_of_bits(words.z), 0.0f};
}

// Whether a query may have an item.
__device__ __forceinline__ bool permits(const TopkCall& call, int64_t query, int64_t item) {
  if (call.words == nullptr) return true;
  return __ldg(call.words + query * call.words_stride + item / kGroup) >> item % kGroup & 1;
}

__device__ __forceinline__ void append(const TopkCall& call, int64_t query, int64_t item,
                                       float estimate, float slack) {
  const int64_t place = atomicAdd(call.found + query, 1u);
  if (place >= call.capacity) return;
  const int64_t at = query * call.capacity + place;
  call.estimates[at] = estimate;
  call.slacks[at] = slack;
  call.entries[at] = static_cast<uint32_t>(item);
}

// The largest of a warp's numbers, among lanes that differ by `from` to `until`.
__device__ __forceinline__ float largest_of_lanes(float value, int from, int until) {
  for (int other = from; other < until; other *= 2)
    value = fmaxf(value, __shfl_xor_sync(kEverybody, value, other));
  return value;
}

// Where a word of four codes is among a query's: as a lane of `scan` loads two of them.
__device__ __forceinline__ int64_t code_place(int64_t query, int64_t group, int64_t steps) {
  const int64_t fragment = query / 8 * steps + group / kStepGroups;
  const int64_t lane = query % 8 * 4 + group % 4;
  return fragment * 64 + lane * 2 + group % kStepGroups / 4;
}

}  // namespace llmrec::cuda
