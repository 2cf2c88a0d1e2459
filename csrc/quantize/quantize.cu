// Row-wise quantization: a team of lanes, as many as a row has parts but at most a warp, reads a
// row twice, the second time from cache: once for its range, once to write its codes.
//
// A code is the integer nearest to (x - bias) / scale, ties to even, exactly, as on the CPU: a
// float32 product tells it, except beside a tie, where float64 divides. A row that is not finite,
// or whose range does not fit, gets a scale of NaN and codes 0; of float16 and bfloat16, elements
// that are rounded one by one.
#include "common/cuda.cuh"
#include "common/decode.cuh"
#if !defined(__CUDACC_RTC__)
#include "quantize/quantize.h"
#endif

namespace llmrec::cuda {

constexpr int kQuantizeThreads = 128;
constexpr int kPart = 8;  // elements that a lane has at a time

struct QuantizeCall {
  DeviceRows weight;  // [V, dim]
  int64_t storage;    // its own: float32, float16 or bfloat16
  uint8_t* codes;     // [V, bytes of a row]
  void* numbers;      // [V, 0 to 2]: scale, then bias; float16 for 4 bits
};

struct Fit {
  float scale = 1, bias = 0;
};

// The lanes of a team: a power of two.
__host__ __device__ __forceinline__ int team_for(int64_t dim) {
  int team = 1;
  while (team < kWarp && team * kPart < dim) team *= 2;
  return team;
}

// The largest code; of fp8, what it stands for.
template <Storage kTo>
constexpr float kMost = kTo == Storage::int8_affine      ? 255.0f
                        : kTo == Storage::int8_symmetric ? 127.0f
                        : kTo == Storage::int4_affine    ? 15.0f
                        : kTo == Storage::int4_symmetric ? 7.0f
                                                         : 448.0f;

// The part of a row that begins at element j; zeros after its end.
__device__ __forceinline__ void load_part(const QuantizeCall& call, const uint8_t* row, int64_t j,
                                          int count, int alignment, float (&values)[kPart]) {
  if (call.storage == static_cast<int64_t>(Storage::float32)) {
    const uint8_t* from = row + 4 * j;
    float halves[2][kPart / 2];
    decode<Storage::float32>(load_bytes(from, 4 * count, alignment), halves[0]);
    decode<Storage::float32>(load_bytes(from + 16, 4 * count - 16, alignment), halves[1]);
#pragma unroll
    for (int i = 0; i < kPart; ++i) values[i] = halves[i / 4][i % 4];
    return;
  }
  const uint4 part = load_bytes(row + 2 * j, 2 * count, alignment);
  if (call.storage == static_cast<int64_t>(Storage::float16))
    decode<Storage::float16>(part, values);
  else
    decode<Storage::bfloat16>(part, values);
}

// Scale and bias of a row with this range; whether it can be represented. As torch's prepack ops:
// span / steps in float32, then rounded to the type that is stored. A constant row gets scale 1.
template <Storage kTo>
__device__ __forceinline__ bool fit(float low, float high, Fit& found) {
  constexpr bool kHalf = is_nibbles(kTo);
  constexpr double kLargest = 0x1.fffffep127;
  double span = high > -low ? high : -low;
  if constexpr (is_affine(kTo)) {
    found.bias = kHalf ? float_of_half(half_of_float(low)) : low;
    span = static_cast<double>(high) - static_cast<double>(found.bias);
  }
  float scale = divided(static_cast<float>(span), kMost<kTo>);
  if (kHalf) scale = float_of_half(half_of_float(scale));
  found.scale = span <= 0 || scale == 0 ? 1.0f : scale;
  constexpr double kLimit = kHalf ? 65504.0 : kLargest;
  const double bias = found.bias < 0 ? -found.bias : found.bias;
  return found.scale <= kLimit && bias <= kLimit &&
         static_cast<double>(found.scale) * static_cast<double>(kMost<kTo>) <= kLargest;
}

template <Storage kTo>
__device__ __forceinline__ int nearest(float value, const Fit& fit, float inverse) {
  constexpr float kRound = 0x1.8p23f, kLeast = is_affine(kTo) ? 0.0f : -kMost<kTo>;
  const float quotient = rounded_product(value - fit.bias, inverse);
  float rounded = rounded_sum(rounded_sum(quotient, kRound), -kRound);
  // Its error is below 2^-14: this far from a tie the nearest is known. Not so for NaN.
  const float off = quotient - rounded;
  if (!(off <= 0.4998f && off >= -0.4998f)) {
    const double exact = divided(static_cast<double>(value) - static_cast<double>(fit.bias),
                                 static_cast<double>(fit.scale));
    rounded = static_cast<float>(rounded_sum(rounded_sum(exact, 0x1.8p52), -0x1.8p52));
  }
  rounded = rounded > kMost<kTo> ? kMost<kTo> : rounded;
  return static_cast<int>(rounded < kLeast ? kLeast : rounded);
}

// Writes the codes of a part.
template <Storage kTo>
__device__ __forceinline__ void encode(const float (&values)[kPart], int count, const Fit& fit,
                                       bool fits, uint8_t* to, int alignment) {
  constexpr int kBits = static_cast<int>(bits_of(kTo));
  uint32_t words[4] = {0, 0, 0, 0};
  float inverse = 1;
  if constexpr (kBits <= 8) inverse = divided(1.0f, fit.scale);
#pragma unroll
  for (int i = 0; i < kPart; ++i) {
    uint32_t code = 0;
    if constexpr (kTo == Storage::float16) {
      code = half_of_float(values[i]);
    } else if constexpr (kTo == Storage::bfloat16) {
      code = bfloat16_of_float(values[i]);
    } else if (fits && i < count) {
      if constexpr (kTo == Storage::fp8_e4m3) {
        float scaled = divided(values[i], fit.scale);
        scaled = scaled > kMost<kTo> ? kMost<kTo> : scaled;
        code = fp8_of_float(scaled < -kMost<kTo> ? -kMost<kTo> : scaled);
      } else {
        code = static_cast<uint32_t>(nearest<kTo>(values[i], fit, inverse)) & ((1u << kBits) - 1);
      }
    }
    words[i * kBits / 32] |= code << (i * kBits % 32);
  }
  store_bytes(to, {words[0], words[1], words[2], words[3]}, (count * kBits + 7) / 8, alignment);
}

template <Storage kTo>
__device__ __forceinline__ void write_numbers(void* numbers, int64_t row, const Fit& fit) {
  constexpr int kCount = is_affine(kTo) ? 2 : 1;
  const float values[] = {fit.scale, fit.bias};
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if constexpr (is_nibbles(kTo))
      static_cast<uint16_t*>(numbers)[row * kCount + i] = half_of_float(values[i]);
    else
      static_cast<float*>(numbers)[row * kCount + i] = values[i];
  }
}

// The scale and bias of a team's row; whether it can be represented. Whole warps call this.
template <Storage kTo>
__device__ __forceinline__ bool fit_row(const QuantizeCall& call, const uint8_t* row, int64_t dim,
                                        int lane, int team, int alignment, Fit& found) {
  float least = kInfinity, most = -kInfinity, bad = 0;
  for (int64_t j = lane * kPart; j < dim; j += team * kPart) {
    const int count = dim - j < kPart ? static_cast<int>(dim - j) : kPart;
    float values[kPart];
    load_part(call, row, j, count, alignment, values);
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      if (i >= count) break;
      least = values[i] < least ? values[i] : least;
      most = values[i] > most ? values[i] : most;
      bad += values[i] - values[i];
    }
  }
  for (int other = team / 2; other > 0; other /= 2) {
    const float low = __shfl_xor_sync(kEverybody, least, other);
    const float high = __shfl_xor_sync(kEverybody, most, other);
    bad += __shfl_xor_sync(kEverybody, bad, other);
    least = low < least ? low : least;
    most = high > most ? high : most;
  }
  if (dim == 0) least = most = 0;
  return bad == 0 && fit<kTo>(rounded_sum(least, 0.0f), most, found);  // -0 becomes 0
}

template <Storage kTo>
__global__ void __launch_bounds__(kQuantizeThreads) quantize(QuantizeCall call) {
  const DeviceRows& weight = call.weight;
  const int team = team_for(weight.dim), lane = static_cast<int>(threadIdx.x) % team;
  const int64_t row =
      static_cast<int64_t>(blockIdx.x) * (kQuantizeThreads / team) + threadIdx.x / team;
  const bool there = row < weight.count;
  const int64_t dim = there ? weight.dim : 0;  // all lanes meet
  const uint8_t* from = weight.data + row * weight.stride;
  const int alignment = alignment_of(weight.data, weight.stride);
  Fit found;
  bool fits = true;
  if constexpr (bits_of(kTo) <= 8) {
    fits = fit_row<kTo>(call, from, dim, lane, team, alignment, found);
    if (!fits) found = {float_of_bits(0x7fc00000u), float_of_bits(0x7fc00000u)};
    if (there && lane == 0) write_numbers<kTo>(call.numbers, row, found);
  }
  const int64_t bytes = (weight.dim * bits_of(kTo) + 7) / 8;
  const int coded = alignment_of(call.codes, bytes);
  for (int64_t j = lane * kPart; j < dim; j += team * kPart) {
    const int count = dim - j < kPart ? static_cast<int>(dim - j) : kPart;
    float values[kPart];
    load_part(call, from, j, count, alignment, values);
    encode<kTo>(values, count, found, fits, call.codes + row * bytes + j * bits_of(kTo) / 8, coded);
  }
}

}  // namespace llmrec::cuda

// ---- for the host ----

#if !defined(__CUDACC_RTC__)
namespace llmrec {

int quantize_cuda(const QuantizeArguments& args, void* stream) {
  using namespace cuda;
  if (args.weight.count == 0) return 0;
  const QuantizeCall call = {on_device(args.weight), static_cast<int64_t>(args.weight.storage),
                             static_cast<uint8_t*>(args.codes), args.numbers};
  const auto on = static_cast<cudaStream_t>(stream);
  const unsigned blocks =
      blocks_for(args.weight.count, kQuantizeThreads / team_for(call.weight.dim));
  with_storage(args.storage, [&](auto to) {
    constexpr Storage kTo = decltype(to)::value;
    if constexpr (kTo != Storage::float32)
      LAUNCH((quantize<kTo>), blocks, kQuantizeThreads, 0, on, call);
  });
  return launched();
}

}  // namespace llmrec
#endif
