// Packing: a block of threads packs 16 items, eight lanes each. Rows are read 16 bytes at a time
// into shared memory, and copied on the way; a row that fits is read once, a longer one twice.
//
// Lane j of the eight has the elements j, j + 8, ... as the reference score and the sketch have
// them (common/score.h, common/sketch.h, whose bits these are): norms and errors are sums in
// float64 over eight lanes. Codes are gathered in shared memory and leave 16 bytes at a time.
#include "common/cuda.cuh"
#include "common/decode.cuh"
#include "common/score.cuh"
#if !defined(__CUDACC_RTC__)
#include "pack/pack.h"
#endif

namespace llmrec::cuda {

constexpr int kItems = 16;  // of a block
constexpr int kPackThreads = kItems * kTeam;
constexpr int kChunk = 128;                   // elements whose codes leave at a time
constexpr int kChunkBytes = kItems * kChunk;  // of their codes
constexpr int kPartsAhead = 4;                // loads of a lane that are on their way
constexpr int kShared = 48 << 10;             // bytes that every GPU gives a block

constexpr float kSmallest = 0x1p-100f;  // as in common/sketch.h
constexpr float kLargest = 0x1p100f;
constexpr float kRounder = 0x1.8p23f;
constexpr double kMargin = 1 + 0x1p-40;

struct PackCall {
  DeviceRows rows;
  int64_t tile;           // elements of a row that are in shared memory: a multiple of kChunk
  uint8_t* data;          // [N, bytes of a row], or null for no copy
  double* inverse_norms;  // [N]
  int8_t* codes;          // [ceil(N / 16), ceil(dim / 4), 16, 4], at a multiple of 16 bytes
  float* unit_scale;      // [N]
  float* residual;        // [N]
};

// Bytes from row to row in shared memory: elements that four rows' lanes read together are in
// different banks.
__host__ __device__ __forceinline__ int64_t pitch_of(int64_t tile, int64_t bits) {
  return tile * bits / 8 + 32;
}

// An item's row, of which a tile is in shared memory; its eight lanes share it.
template <Storage kStorage>
class Row {
 public:
  __device__ __forceinline__ Row(const PackCall& call, int64_t item, uint8_t* tile)
      : call_(call), there_(item < call.rows.count), item_(item), tile_(tile) {
    affine_ = there_ ? affine_of<kStorage>(call.rows, item) : Affine{0, 0};
  }

  // Reads the elements from `first` on, a multiple of kChunk. Whole warps call this.
  __device__ __forceinline__ void load(int64_t first, bool copies) {
    const DeviceRows& rows = call_.rows;
    const int64_t skip = first * kBits / 8, width = (rows.dim * kBits + 7) / 8;
    const int64_t left = width - skip, whole = call_.tile * kBits / 8;
    const int bytes = !there_ ? 0 : static_cast<int>(left < whole ? left : whole);
    const uint8_t* from = rows.data + item_ * rows.stride + skip;
    uint8_t* to = call_.data + item_ * width + skip;
    const int in = alignment_of(rows.data, rows.stride), out = alignment_of(call_.data, width);
    __syncwarp();
    for (int at = lane() * kBytes; at < bytes; at += kPartsAhead * kTeam * kBytes) {
      uint4 parts[kPartsAhead];
#pragma unroll
      for (int i = 0; i < kPartsAhead; ++i) {
        const int place = at + i * kTeam * kBytes;
        if (place < bytes) parts[i] = load_bytes(from + place, bytes - place, in);
      }
#pragma unroll
      for (int i = 0; i < kPartsAhead; ++i) {
        const int place = at + i * kTeam * kBytes;
        if (place >= bytes) continue;
        *reinterpret_cast<uint4*>(tile_ + place) = parts[i];
        if (copies) store_bytes(to + place, parts[i], bytes - place, out);
      }
    }
    __syncwarp();
  }

  // Element j of the tile.
  __device__ __forceinline__ float at(int j) const {
    uint32_t bits;
    if constexpr (kBits == 32)
      bits = reinterpret_cast<const uint32_t*>(tile_)[j];
    else if constexpr (kBits == 16)
      bits = reinterpret_cast<const uint16_t*>(tile_)[j];
    else if constexpr (kBits == 8)
      bits = tile_[j];
    else
      bits = static_cast<uint32_t>(tile_[j / 2]) >> (j % 2 * 4);
    return widened<kStorage>(code_of<kStorage>(bits), affine_);
  }

  __device__ __forceinline__ bool there() const { return there_; }
  __device__ __forceinline__ static int lane() { return static_cast<int>(threadIdx.x) % kTeam; }

 private:
  static constexpr int kBits = static_cast<int>(bits_of(kStorage));
  const PackCall& call_;
  bool there_;
  int64_t item_;
  uint8_t* tile_;
  Affine affine_;
};

// How the elements of a row become codes.
struct Codes {
  double inverse_norm = 0;  // NaN for a row that is not finite
  float step = 0, factor = 0;
  float residual = 0;  // of a row without codes: all of it is left out, or nothing
  bool known = false;  // whether there are any but zeros
};

__device__ __forceinline__ Codes codes_for(double square, float largest, int64_t dim) {
  const int64_t most = 2147483647 / (255 * (dim > 1 ? dim : 1));
  const float limit = static_cast<float>(most < 127 ? most : 127);
  Codes codes;
  codes.inverse_norm = inverse_of(square);
  if (square == 0) return codes;
  codes.residual = 1;
  codes.known = is_finite(square) && largest >= kSmallest && largest <= kLargest && limit > 0;
  if (!codes.known) return codes;
  codes.step = divided(largest, limit);
  codes.factor = divided(limit, largest);
  return codes;
}

// The item's inverse norm, and what its largest element says of its codes. Whole warps call this.
template <Storage kStorage>
__device__ __forceinline__ Codes measured(const PackCall& call, Row<kStorage>& row) {
  const int64_t dim = call.rows.dim;
  double square = 0;
  float largest = 0;
  for (int64_t first = 0; first < dim; first += call.tile) {
    row.load(first, call.data != nullptr);
    const int count = static_cast<int>(dim - first < call.tile ? dim - first : call.tile);
#pragma unroll 4
    for (int j = Row<kStorage>::lane(); row.there() && j < count; j += kTeam) {
      const float x = row.at(j), magnitude = x < 0 ? -x : x;
      square = fused(static_cast<double>(x), static_cast<double>(x), square);
      largest = magnitude > largest ? magnitude : largest;
    }
  }
#pragma unroll
  for (int other = kTeam / 2; other > 0; other /= 2) {
    const float theirs = __shfl_xor_sync(kEverybody, largest, other);
    largest = theirs > largest ? theirs : largest;
  }
  return codes_for(sum_of_team(square), largest, dim);
}

// The codes of a chunk, into shared memory; returns the errors' squares added to `errors`.
template <Storage kStorage>
__device__ __forceinline__ double encode(const Row<kStorage>& row, const Codes& codes, int in_tile,
                                         int count, int8_t* to, double errors) {
  const int padded = (count + 3) / 4 * 4;
  for (int j = Row<kStorage>::lane(); j < padded; j += kTeam) {
    int code = 0;
    if (codes.known && j < count) {
      const float x = row.at(in_tile + j);
      const float rounded =
          rounded_sum(rounded_sum(rounded_product(x, codes.factor), kRounder), -kRounder);
      const double error = fused(-static_cast<double>(rounded), static_cast<double>(codes.step),
                                 static_cast<double>(x));
      errors = rounded_sum(errors, rounded_product(error, error));
      code = static_cast<int>(rounded);
    }
    to[j / 4 * (4 * kItems) + j % 4] = static_cast<int8_t>(code);
  }
  return errors;
}

template <Storage kStorage>
__global__ void __launch_bounds__(kPackThreads, 5) pack(PackCall call) {
  DYNAMIC_SHARED(uint8_t, shared);  // two chunks of codes, and a tile of each row
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kTeam;
  const int64_t dim = call.rows.dim, block = blockIdx.x, item = block * kItems + thread / kTeam;
  uint8_t* tiles = shared + 2 * kChunkBytes;
  Row<kStorage> row(call, item, tiles + thread / kTeam * pitch_of(call.tile, bits_of(kStorage)));
  const Codes codes = measured(call, row);

  const int64_t groups = (dim + 3) / 4;
  int8_t* out = call.codes + block * groups * (4 * kItems);
  double errors = 0;
  for (int64_t first = 0; first < dim; first += kChunk) {
    const int in_tile = static_cast<int>(first % call.tile);
    if (in_tile == 0 && dim > call.tile) row.load(first, false);
    // Chunks take turns, so that a barrier is enough: behind it the chunk before has left.
    uint8_t* chunk = shared + first / kChunk % 2 * kChunkBytes;
    const int count = static_cast<int>(dim - first < kChunk ? dim - first : kChunk);
    errors = encode(row, codes, in_tile, count,
                    reinterpret_cast<int8_t*>(chunk) + thread / kTeam * 4, errors);
    __syncthreads();
    if (thread / 4 < (count + 3) / 4)
      store_16(out + first * kItems + thread * kBytes,
               *reinterpret_cast<const uint4*>(chunk + thread * kBytes));
  }
  const double error = root(sum_of_team(errors));
  if (!row.there() || lane != 0) return;
  call.inverse_norms[item] = codes.inverse_norm;
  call.unit_scale[item] = 0;
  call.residual[item] = codes.residual;
  if (!codes.known) return;
  call.unit_scale[item] =
      static_cast<float>(rounded_product(static_cast<double>(codes.step), codes.inverse_norm));
  call.residual[item] =
      rounded_up(rounded_product(rounded_product(error, codes.inverse_norm), kMargin));
}

}  // namespace llmrec::cuda

// ---- for the host ----

#if !defined(__CUDACC_RTC__)
namespace llmrec {

int pack_cuda(const PackArguments& args, void* stream) {
  using namespace cuda;
  if (args.rows.count == 0) return 0;
  const int64_t bits = bits_of(args.rows.storage);
  const int64_t room = (kShared - 2 * kChunkBytes) / kItems - pitch_of(0, bits);
  const int64_t most = room * 8 / bits / kChunk, chunks = (args.rows.dim + kChunk - 1) / kChunk;
  const int64_t tile = (chunks < most ? chunks : most) * kChunk;
  const PackCall call = {on_device(args.rows),
                         tile,
                         reinterpret_cast<uint8_t*>(args.data),
                         args.inverse_norms,
                         args.sketch.codes,
                         args.sketch.unit_scale,
                         args.sketch.residual};
  const int64_t shared = 2 * kChunkBytes + kItems * pitch_of(tile, bits);
  const auto on = static_cast<cudaStream_t>(stream);
  with_storage(args.rows.storage, [&](auto storage) {
    LAUNCH((pack<decltype(storage)::value>), blocks_for(args.rows.count, kItems), kPackThreads,
           static_cast<size_t>(shared), on, call);
  });
  return launched();
}

}  // namespace llmrec
#endif
