// The largest of many keys, found by one block: selection by digits, and sorting.
//
// All threads of the block call these together. What they read may lie in shared or in global
// memory, as the block's own writes to either are visible after a barrier.
#pragma once

#include "common/cuda.cuh"
#include "common/keys.cuh"

namespace llmrec::cuda {

constexpr int kDigits = 256;  // of 8 bits

// Shared memory of a selection.
struct Selection {
  uint32_t counts[kDigits];
  uint32_t digit, wanted, taken, equal;
};

// Counts a digit of each lane that has one. Lanes mostly agree: then one adds for all.
__device__ __forceinline__ void count_digit(uint32_t* counts, uint32_t digit, bool there) {
  const unsigned having = __ballot_sync(kEverybody, there);
  if (having == 0) return;
  const int leader = __ffs(static_cast<int>(having)) - 1;
  const uint32_t most = __shfl_sync(kEverybody, digit, leader);
  const unsigned agreeing = __ballot_sync(kEverybody, there && digit == most);
  if (static_cast<int>(threadIdx.x) % kWarp == leader)
    atomicAdd(counts + most, static_cast<uint32_t>(__popc(agreeing)));
  else if (there && digit != most)
    atomicAdd(counts + digit, 1u);
}

// One warp finds the digit that the wanted-th largest key has, and which of those keys it is.
__device__ __forceinline__ void choose_digit(Selection& shared) {
  constexpr int kEach = kDigits / kWarp;
  const int lane = static_cast<int>(threadIdx.x);
  const int top = kDigits - 1 - lane * kEach;  // this lane has the digits from here down
  uint32_t here = 0;
  for (int i = 0; i < kEach; ++i) here += shared.counts[top - i];
  uint32_t until = here;
  for (int by = 1; by < kWarp; by *= 2) {
    const uint32_t before = __shfl_up_sync(kEverybody, until, static_cast<unsigned>(by));
    if (lane >= by) until += before;
  }
  const uint32_t wanted = shared.wanted;
  __syncwarp();
  uint32_t passed = until - here;
  if (passed >= wanted || until < wanted) return;
  int digit = top;
  while (passed + shared.counts[digit] < wanted) passed += shared.counts[digit--];
  shared.digit = static_cast<uint32_t>(digit);
  shared.wanted = wanted - passed;
}

// The k-th largest of key_at(0), ..., key_at(count - 1), k from 1 to count. shared.wanted tells
// how many of the keys that equal it are among the k.
template <class Key, class KeyAt>
__device__ Key kth_largest(int64_t count, int64_t k, Selection& shared, const KeyAt& key_at) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  constexpr int kBits = 8 * sizeof(Key);
  Key found = 0;
  if (thread == 0) shared.wanted = static_cast<uint32_t>(k);
  for (int shift = kBits - 8; shift >= 0; shift -= 8) {
    for (int i = thread; i < kDigits; i += threads) shared.counts[i] = 0;
    __syncthreads();
    const Key above = shift + 8 < kBits ? ~Key{0} << (shift + 8) % kBits : Key{0};
    for (int64_t start = 0; start < count; start += threads) {
      const int64_t i = start + thread;
      const Key key = i < count ? key_at(i) : Key{0};
      count_digit(shared.counts, static_cast<uint32_t>(key >> shift) & (kDigits - 1),
                  i < count && (key & above) == found);
    }
    __syncthreads();
    if (thread < kWarp) choose_digit(shared);
    __syncthreads();
    found |= static_cast<Key>(shared.digit) << shift;  // which nobody writes for two barriers
  }
  return found;
}

// Keeps what read(i, value) says, by write(place, value) at places from 0 on, in any order. What is
// read and written may be the same memory: no place lies behind what all have read at a barrier.
// How many are kept.
template <class Value, class Read, class Write>
__device__ int64_t compact(int64_t count, Selection& shared, const Read& read, const Write& write) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  if (thread == 0) shared.taken = 0;
  for (int64_t start = 0; start < count; start += threads) {
    Value value;
    const int64_t i = start + thread;
    const bool kept = i < count && read(i, value);
    __syncthreads();  // nobody writes before all have read
    if (kept) write(static_cast<int64_t>(atomicAdd(&shared.taken, 1u)), value);
  }
  __syncthreads();
  const int64_t taken = shared.taken;
  __syncthreads();
  return taken;
}

// Sorts keys, the largest first, by a bitonic network whose comparators all point one way, so that
// it needs no power of two.
__device__ inline void sort_descending(uint64_t* keys, int64_t count) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const auto compare = [&](int64_t low, int64_t high) {
    if (high >= count) return;
    const uint64_t first = keys[low], second = keys[high];
    if (first >= second) return;
    keys[low] = second;
    keys[high] = first;
  };
  __syncthreads();
  for (int64_t size = 2; size / 2 < count; size *= 2) {
    for (int64_t i = thread; i < (count + 1) / 2 + size / 2; i += threads) {
      const int64_t low = i / (size / 2) * size + i % (size / 2);
      compare(low, low ^ (size - 1));
    }
    __syncthreads();
    for (int64_t stride = size / 4; stride > 0; stride /= 2) {
      for (int64_t i = thread; i < (count + 1) / 2 + stride; i += threads) {
        const int64_t low = 2 * i - i % stride;
        compare(low, low + stride);
      }
      __syncthreads();
    }
  }
}

// Writes the k best of the keys, which are overwritten: scores and ids, -inf and -1 for those that
// are not there. `sorting` is shared memory for kSorting keys.
constexpr int kSorting = 2048;
__device__ inline void write_best(uint64_t* keys, int64_t count, int64_t k, Selection& shared,
                                  uint64_t* sorting, float* scores, int64_t* ids) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  if (count > k && count > kSorting) {
    const uint64_t last =
        kth_largest<uint64_t>(count, k, shared, [&](int64_t i) { return keys[i]; });
    const uint32_t wanted = shared.wanted;  // of those that equal the last: a list may repeat an id
    if (thread == 0) shared.equal = 0;
    __syncthreads();
    count = compact<uint64_t>(
        count, shared,
        [&](int64_t i, uint64_t& key) {
          key = keys[i];
          return key > last || (key == last && atomicAdd(&shared.equal, 1u) < wanted);
        },
        [&](int64_t place, uint64_t key) { keys[place] = key; });
  }
  uint64_t* ranked = keys;
  if (count <= kSorting) {
    for (int64_t i = thread; i < count; i += threads) sorting[i] = keys[i];
    ranked = sorting;
  }
  sort_descending(ranked, count);
  for (int64_t i = thread; i < k; i += threads) {
    const uint64_t key = i < count ? ranked[i] : kNoKey;
    scores[i] = key == kNoKey ? -kInfinity : score_of(key);
    ids[i] = key == kNoKey ? -1 : id_of(key);
  }
}

}  // namespace llmrec::cuda
