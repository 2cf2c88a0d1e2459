// Pooled embedding lookup: a thread pools 16 bytes of the columns of a bag, and the threads beside
// it the next ones.
//
// The rows of a bag are added in the order of its indices by fused multiply-adds, with the bits of
// the CPU levels that have them: a long bag cannot be shared out by its entries. Several rows are
// on their way at a time, and the indices of the next. The limit is memory: the 32-byte sectors
// that the rows touch. Indices and offsets are not trusted: an entry out of range counts for
// nothing.
#include "common/cuda.cuh"
#include "common/decode.cuh"
#include "common/score.cuh"
#if !defined(__CUDACC_RTC__)
#include "embedding_bag/bag.h"
#endif

namespace llmrec::cuda {

constexpr int kPoolThreads = 128;
constexpr int kRowsAhead = 4;  // on their way

struct PoolCall {
  DeviceRows table;
  const int64_t* indices;  // [entries]
  const int64_t* offsets;  // [bags + 1]
  const float* weights;    // [entries], or null
  int64_t entries, bags;
  int64_t padding_idx;  // -1 for none
  int64_t mean;         // whether sums are divided
  int64_t out_storage;  // float32, float16 or bfloat16
  void* out;            // [bags, dim]
};

struct NormalizeCall {
  const float* pooled;  // [bags, dim]; may be `out`
  int64_t bags, dim;
  int64_t out_storage;
  void* out;  // [bags, dim]
};

__device__ __forceinline__ uint16_t narrowed(float value, int64_t storage) {
  return storage == static_cast<int64_t>(Storage::float16) ? half_of_float(value)
                                                           : bfloat16_of_float(value);
}

__device__ __forceinline__ void write(void* out, int64_t storage, int64_t at, float value) {
  if (storage == static_cast<int64_t>(Storage::float32))
    static_cast<float*>(out)[at] = value;
  else
    static_cast<uint16_t*>(out)[at] = narrowed(value, storage);
}

// Four numbers from a multiple of four on.
__device__ __forceinline__ void write_four(void* out, int64_t storage, int64_t at,
                                           const float* values) {
  if (storage == static_cast<int64_t>(Storage::float32)) {
    store_16(static_cast<float*>(out) + at, {bits_of_float(values[0]), bits_of_float(values[1]),
                                             bits_of_float(values[2]), bits_of_float(values[3])});
    return;
  }
  uint32_t words[2];
#pragma unroll
  for (int i = 0; i < 2; ++i)
    words[i] = narrowed(values[2 * i], storage) |
               static_cast<uint32_t>(narrowed(values[2 * i + 1], storage)) << 16;
  store_8(static_cast<uint16_t*>(out) + at, {words[0], words[1]});
}

// A part of a bag.
template <Storage kStorage, bool kMax>
struct Pooled {
  static constexpr int kCount = kElements<kStorage>;
  float sums[kCount];
  float biases = 0, divisor = 0;
  int64_t entries = 0;

  __device__ __forceinline__ Pooled() {
#pragma unroll
    for (int i = 0; i < kCount; ++i) sums[i] = kMax ? -kInfinity : 0.0f;
  }

  __device__ __forceinline__ void add(const uint4& part, const Affine& affine, float weight) {
    float codes[kCount];
    decode<kStorage>(part, codes);
    ++entries;
    if constexpr (kMax) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const float value = widened<kStorage>(codes[i], affine);
        const bool keep = sums[i] >= value || sums[i] != sums[i];  // a NaN stays
        sums[i] = keep ? sums[i] : value;
      }
    } else {
      divisor = rounded_sum(divisor, weight);
      if constexpr (is_affine(kStorage)) biases = fused(affine.bias, weight, biases);
      if constexpr (has_scale(kStorage)) weight = rounded_product(affine.scale, weight);
#pragma unroll
      for (int i = 0; i < kCount; ++i) sums[i] = fused(weight, codes[i], sums[i]);
    }
  }

  __device__ __forceinline__ void finish(bool mean, bool weighted) {
    const float by = weighted ? divisor : static_cast<float>(entries);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if constexpr (kMax) {
        if (entries == 0) sums[i] = 0;
      } else {
        if constexpr (is_affine(kStorage)) sums[i] = rounded_sum(sums[i], biases);
        if (mean) sums[i] = by == 0 ? 0.0f : divided(sums[i], by);
      }
    }
  }

  // The first `left` of them, from element `at` of `out` on; `in_fours` that many at a time.
  __device__ __forceinline__ void store(void* out, int64_t storage, int64_t at, int64_t left,
                                        bool in_fours) const {
    if (in_fours) {
#pragma unroll
      for (int i = 0; i < kCount; i += 4)
        if (i < left) write_four(out, storage, at + i, sums + i);
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i)
        if (i < left) write(out, storage, at + i, sums[i]);
    }
  }
};

// Some entries of a bag; -1 stands for those after its end.
template <bool kWeighted, int kCount>
struct Entries {
  int64_t indices[kCount];
  float weights[kWeighted ? kCount : 1];

  __device__ __forceinline__ void load(const PoolCall& call, int64_t first, int64_t end) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const bool inside = first + i < end;
      indices[i] = inside ? __ldg(call.indices + first + i) : -1;
      if constexpr (kWeighted)
        weights[i] = inside && call.weights != nullptr ? __ldg(call.weights + first + i) : 1.0f;
    }
  }

  __device__ __forceinline__ float weight(int i) const { return kWeighted ? weights[i] : 1.0f; }
};

// Adds the rows of entries: `bytes` of them from a column on, with kAhead of them on their way.
template <int kAlignment, int kAhead, Storage kStorage, bool kMax>
__device__ __forceinline__ void add_rows(const PoolCall& call, const uint8_t* column, int bytes,
                                         int64_t first, int64_t end,
                                         Pooled<kStorage, kMax>& pooled) {
  const DeviceRows& table = call.table;
  Entries<!kMax, kAhead> next;
  next.load(call, first, end);
  for (; first < end; first += kAhead) {
    const Entries<!kMax, kAhead> now = next;
    uint4 words[kAhead];
    Affine affine[kAhead];
    bool counts[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int64_t row = now.indices[i];
      counts[i] = row >= 0 && row < table.count && row != call.padding_idx;
      if (!counts[i]) continue;
      words[i] = load_bytes<kAlignment>(column + row * table.stride, bytes);
      affine[i] = affine_of<kStorage>(table, row);
    }
    next.load(call, first + kAhead, end);
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (counts[i]) pooled.add(words[i], affine[i], now.weight(i));
  }
}

__device__ __forceinline__ int64_t clamped(int64_t value, int64_t most) {
  return value < 0 ? 0 : value > most ? most : value;
}

// out[bag] = the sum, mean or maximum over a bag.
template <Storage kStorage, bool kMax>
__global__ void __launch_bounds__(kPoolThreads) pool(PoolCall call) {
  const DeviceRows& table = call.table;
  const int64_t row_bytes = (table.dim * bits_of(kStorage) + 7) / 8;
  const int64_t parts = (row_bytes + kBytes - 1) / kBytes;
  const int64_t task = static_cast<int64_t>(blockIdx.x) * kPoolThreads + threadIdx.x;
  if (task >= call.bags * parts) return;
  const int64_t bag = task / parts, part = task - bag * parts;
  const int64_t first = clamped(call.offsets[bag], call.entries);
  const int64_t end = clamped(call.offsets[bag + 1], call.entries);
  const uint8_t* column = table.data + part * kBytes;
  const int64_t bytes_left = row_bytes - part * kBytes;
  const int bytes = static_cast<int>(bytes_left < kBytes ? bytes_left : kBytes);
  const int alignment = alignment_of(table.data, table.stride);
  Pooled<kStorage, kMax> pooled;
  if (alignment >= 16 && bytes == kBytes)
    add_rows<16, kRowsAhead>(call, column, bytes, first, end, pooled);
  else if (alignment >= 4 && bytes % 4 == 0)
    add_rows<4, kRowsAhead>(call, column, bytes, first, end, pooled);
  else
    add_rows<1, 1>(call, column, bytes, first, end, pooled);
  pooled.finish(call.mean != 0, call.weights != nullptr);
  const int64_t four = call.out_storage == static_cast<int64_t>(Storage::float32) ? 16 : 8;
  const bool in_fours = table.dim % 4 == 0 && alignment_of(call.out, four) >= four;
  const int64_t at = part * kElements<kStorage>;
  pooled.store(call.out, call.out_storage, bag * table.dim + at, table.dim - at, in_fours);
}

// out[bag] = pooled[bag] / |pooled[bag]|, the length in float64 as the reference score has it. Zero
// rows stay.
__global__ void __launch_bounds__(kPoolThreads) normalize(NormalizeCall call) {
  constexpr int kRows = kPoolThreads / kTeam;
  const int64_t lane = threadIdx.x % kTeam;
  const int64_t bag = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kTeam;
  const int64_t dim = bag < call.bags ? call.dim : 0;  // all lanes meet below
  const float* row = call.pooled + bag * call.dim;
  double square = 0;
#pragma unroll 4
  for (int64_t j = lane; j < dim; j += kTeam) {
    const double x = row[j];
    square = fused(x, x, square);
  }
  square = sum_of_team(square);
  const double inverse = square == 0 ? 0.0 : divided(1.0, root(square));
#pragma unroll 4
  for (int64_t j = lane; j < dim; j += kTeam)
    write(call.out, call.out_storage, bag * call.dim + j,
          static_cast<float>(rounded_product(static_cast<double>(row[j]), inverse)));
}

}  // namespace llmrec::cuda

// ---- for the host ----

#if !defined(__CUDACC_RTC__)
namespace llmrec {

// Sums of bags whose rows are divided by their lengths; those of float32 are so in place.
int64_t embedding_bag_cuda_workspace(const BagArguments& args) {
  const bool in_place = !args.normalize || args.out_storage == Storage::float32;
  return in_place ? 0 : args.count * args.table.dim * static_cast<int64_t>(sizeof(float));
}

int embedding_bag_cuda(const BagArguments& args, int64_t entries, void* workspace, void* stream) {
  using namespace cuda;
  const int64_t dim = args.table.dim;
  if (args.count == 0 || dim == 0) return 0;
  const auto on = static_cast<cudaStream_t>(stream);
  const bool apart = embedding_bag_cuda_workspace(args) > 0;
  const Storage pooled = args.normalize ? Storage::float32 : args.out_storage;
  const PoolCall call = {on_device(args.table),
                         args.indices,
                         args.offsets,
                         args.weights,
                         entries,
                         args.count,
                         args.padding_idx,
                         args.mode == Pooling::mean,
                         static_cast<int64_t>(pooled),
                         apart ? workspace : args.out};
  with_storage(args.table.storage, [&](auto storage) {
    constexpr Storage kStorage = decltype(storage)::value;
    const int64_t parts = (bytes_of(kStorage, dim) + kBytes - 1) / kBytes;
    const unsigned blocks = blocks_for(args.count * parts, kPoolThreads);
    if (args.mode == Pooling::max)
      LAUNCH((pool<kStorage, true>), blocks, kPoolThreads, 0, on, call);
    else
      LAUNCH((pool<kStorage, false>), blocks, kPoolThreads, 0, on, call);
  });
  if (args.normalize) {
    const NormalizeCall rest = {static_cast<const float*>(call.out), args.count, dim,
                                static_cast<int64_t>(args.out_storage), args.out};
    LAUNCH(normalize, blocks_for(args.count, kPoolThreads / kTeam), kPoolThreads, 0, on, rest);
  }
  return launched();
}

}  // namespace llmrec
#endif
