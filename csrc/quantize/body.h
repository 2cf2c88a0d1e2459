// Row-wise quantization that every instruction set's file compiles for itself, behind its target.
// A row is read twice, the second time from cache: once for its range, once to write its codes.
//
// A code is the integer nearest to (x - bias) / scale, ties to even, exactly. A float32 product
// with 1 / scale tells it, except where it comes out beside a tie: those few are divided in
// float64.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "common/decode.h"
#include "quantize/quantize.h"

namespace llmrec {
namespace {

constexpr int64_t kRowsPerTask = 256;

struct Fit {
  float scale = 1.0f, bias = 0.0f;
};

template <class Isa, Storage kFrom, Storage kTo>
class Quantizer {
 public:
  explicit Quantizer(const QuantizeArguments& args) : args_(args), dim_(args.weight.dim) {}

  void row(int64_t row, FirstBad& not_finite, FirstBad& too_wide) const {
    const Decoder<Isa, kFrom> values(args_.weight, row);
    float low = 0.0f, high = 0.0f;
    if (!range(values, low, high)) return not_finite.note(row);
    Fit found;
    if (!fit(low, high, found)) return too_wide.note(row);
    write_numbers(row, found);
    uint8_t* codes = static_cast<uint8_t*>(args_.codes) + row * bytes_of(kTo, dim_);
    Floats some;
    int64_t j = 0;
    for (; j + kLanes <= dim_; j += kLanes) {
      values.at(j, some);
      encode(some, found, codes + bytes_of(kTo, j), kLanes);
    }
    if (j == dim_) return;
    values.rest(j, dim_, some);
    encode(some, found, codes + bytes_of(kTo, j), dim_ - j);
  }

 private:
  using Floats = typename Isa::Floats;
  using Ints = typename Isa::Ints;
  static constexpr int kLanes = Isa::kLanes;
  using Bytes = typename Vectors<kLanes>::Bytes;
  static constexpr bool kInteger = numbers_of(kTo) > 0 && kTo != Storage::fp8_e4m3;
  static constexpr bool kSymmetric = !is_affine(kTo);
  static constexpr int kMost = largest_code_of(kTo), kLeast = kSymmetric ? -kMost : 0;

  // The least and the largest element; whether all are finite.
  bool range(const Decoder<Isa, kFrom>& values, float& low, float& high) const {
    if (dim_ == 0) return true;
    Floats some, least, most, bad = {};
    const auto take = [&] {
      least = some < least ? some : least;
      most = some > most ? some : most;
      bad += some - some;
    };
    if (dim_ >= kLanes)
      values.at(0, some);
    else
      padded_rest(values, 0, some);
    least = most = some;
    for (int64_t j = 0; j + kLanes <= dim_; j += kLanes) {
      values.at(j, some);
      take();
    }
    if (dim_ % kLanes != 0) {
      padded_rest(values, dim_ / kLanes * kLanes, some);
      take();
    }
    low = folded(least, [](float x, float y) { return x < y ? x : y; }) + 0.0f;  // -0 becomes 0
    high = folded(most, [](float x, float y) { return x > y ? x : y; });
    return folded(bad, [](float x, float y) { return x + y; }) == 0.0f;
  }

  // One number of them all.
  template <class Operation>
  static float folded(const Floats& values, const Operation& operation) {
    float lanes[kLanes];
    store(values, lanes);
    for (int width = kLanes / 2; width > 0; width /= 2)
      for (int lane = 0; lane < width; ++lane)
        lanes[lane] = operation(lanes[lane], lanes[lane + width]);
    return lanes[0];
  }

  // The last elements, and the very last again in place of those that are not there.
  void padded_rest(const Decoder<Isa, kFrom>& values, int64_t j, Floats& to) const {
    values.rest(j, dim_, to);
    const float last = to[dim_ - j - 1];
    for (int64_t lane = dim_ - j; lane < kLanes; ++lane) to[lane] = last;
  }

  // As torch's prepack ops: span / steps in float32, then rounded to the type that is stored, so
  // that the codes are fitted to what a reader will see. A constant row gets scale 1 and codes 0.
  // Whether the row can be represented.
  static bool fit(float low, float high, Fit& found) {
    constexpr float kLargest = std::numeric_limits<float>::max();
    if constexpr (kTo == Storage::float16) {
      return std::max(high, -low) < 65520.0f;  // rounds to 65504
    } else if constexpr (kTo == Storage::bfloat16) {
      return std::max(high, -low) < 0x1.ffp127f;
    } else {
      constexpr bool kHalf = is_nibbles(kTo);
      double span = std::max(high, -low);
      if (!kSymmetric) {
        found.bias = kHalf ? float_of_half(half_of_float(low)) : low;
        span = static_cast<double>(high) - static_cast<double>(found.bias);
      }
      float scale = static_cast<float>(span) / static_cast<float>(kMost);
      if (kHalf) scale = float_of_half(half_of_float(scale));
      found.scale = span <= 0.0 || scale == 0.0f ? 1.0f : scale;
      const double limit = kHalf ? 65504.0 : static_cast<double>(kLargest);
      return found.scale <= limit && std::abs(found.bias) <= limit &&
             static_cast<double>(found.scale) * kMost <= static_cast<double>(kLargest);
    }
  }

  void write_numbers(int64_t row, const Fit& found) const {
    constexpr int64_t kNumbers = numbers_of(kTo);
    const float numbers[] = {found.scale, found.bias};
    for (int64_t i = 0; i < kNumbers; ++i) {
      if (is_nibbles(kTo))
        static_cast<uint16_t*>(args_.numbers)[row * kNumbers + i] = half_of_float(numbers[i]);
      else
        static_cast<float*>(args_.numbers)[row * kNumbers + i] = numbers[i];
    }
  }

  // Writes `count` codes.
  static void encode(const Floats& values, const Fit& found, uint8_t* codes, int64_t count) {
    if constexpr (kTo == Storage::float16) {
      uint16_t halves[kLanes];
      Isa::to_halves(values, halves);
      copy(halves, codes, count);
    } else if constexpr (kTo == Storage::bfloat16) {
      Ints bits;
      std::memcpy(&bits, &values, sizeof bits);
      const Ints odd = (bits >> 16) & 1;
      const Ints rounded = ((bits + 0x7fff + odd) >> 16) & 0xffff;
      const auto halves = __builtin_convertvector(rounded, typename Vectors<kLanes>::Shorts);
      copy(&halves, codes, count);
    } else if constexpr (kTo == Storage::fp8_e4m3) {
      Floats scaled = values / all<Floats>(found.scale);
      scaled = scaled > 448.0f ? all<Floats>(448.0f) : scaled;
      scaled = scaled < -448.0f ? all<Floats>(-448.0f) : scaled;
      const auto bytes = fp8_of(scaled);
      copy(&bytes, codes, count);
    } else {
      narrow(nearest(values, found), codes, count);
    }
  }

  // As fp8_of_float.
  static Bytes fp8_of(const Floats& values) {
    Ints bits, sum_bits;
    std::memcpy(&bits, &values, sizeof bits);
    const Ints magnitude = bits & 0x7fffffff;
    const Floats sum = same_bits<Floats>(magnitude) + 0x1p14f;
    std::memcpy(&sum_bits, &sum, sizeof sum_bits);
    const Ints normal = (magnitude - 0x3c000000 + 0x7ffff + ((magnitude >> 20) & 1)) >> 20;
    const Ints code = magnitude < 0x3c800000 ? sum_bits - 0x46800000 : normal;
    return __builtin_convertvector((code | ((bits >> 24) & 0x80)) & 0xff, Bytes);
  }

  static Ints nearest(const Floats& values, const Fit& found) {
    constexpr float kRound = 12582912.0f;  // 1.5 x 2^23: adding it leaves no fraction
    const Floats quotient = (values - all<Floats>(found.bias)) * all<Floats>(1.0f / found.scale);
    Floats rounded = (quotient + kRound) - kRound;
    // Its error is below 2^-14: this far from a tie the nearest is known. Not so for NaN.
    const Floats off = quotient - rounded;
    const Ints sure = (off <= 0.4998f) & (off >= -0.4998f);
    if (!all_of(sure))
      for (int lane = 0; lane < kLanes; ++lane)
        rounded[lane] = static_cast<float>(
            std::nearbyint((static_cast<double>(values[lane]) - static_cast<double>(found.bias)) /
                           static_cast<double>(found.scale)));
    constexpr auto kTop = static_cast<float>(kMost), kBottom = static_cast<float>(kLeast);
    rounded = rounded > kTop ? all<Floats>(kTop) : rounded;
    rounded = rounded < kBottom ? all<Floats>(kBottom) : rounded;
    return __builtin_convertvector(rounded, Ints);
  }

  static bool all_of(const Ints& flags) {
    int64_t words[kLanes / 2], every = -1;
    store(flags, words);
    for (const int64_t word : words) every &= word;
    return every == -1;
  }

  static void narrow(const Ints& integers, uint8_t* codes, int64_t count) {
    const auto bytes = __builtin_convertvector(integers & 0xff, Bytes);
    if constexpr (is_nibbles(kTo)) {
      using Pairs = Vectors<kLanes / 2>;
      typename Pairs::Shorts pairs;
      std::memcpy(&pairs, &bytes, sizeof pairs);
      if (count % 2 != 0) pairs[count / 2] &= 0x0f;
      const auto nibbles =
          __builtin_convertvector((pairs & 0x0f) | ((pairs >> 4) & 0xf0), typename Pairs::Bytes);
      copy(&nibbles, codes, count);
    } else {
      copy(&bytes, codes, count);
    }
  }

  // All codes of a register are copied at once: their number is known to the compiler.
  static void copy(const void* from, uint8_t* codes, int64_t count) {
    if (count == kLanes)
      std::memcpy(codes, from, bytes_of(kTo, kLanes));
    else
      std::memcpy(codes, from, static_cast<size_t>(bytes_of(kTo, count)));
  }

  const QuantizeArguments& args_;
  const int64_t dim_;
};

template <class Isa>
void quantize(const QuantizeArguments& args, FirstBad& not_finite, FirstBad& too_wide,
              const Parallel& parallel) {
  const int64_t rows = args.weight.count;
  with_storage(args.weight.storage, [&](auto from) {
    with_storage(args.storage, [&](auto to) {
      constexpr Storage kFrom = decltype(from)::value, kTo = decltype(to)::value;
      if constexpr (bits_of(kFrom) >= 16 && bits_of(kTo) <= 16)
        parallel.run((rows + kRowsPerTask - 1) / kRowsPerTask, [&](TaskQueue& queue) {
          const Quantizer<Isa, kFrom, kTo> quantizer(args);
          for (int64_t task; queue.take(task);)
            for (int64_t row = task * kRowsPerTask; row < std::min(rows, (task + 1) * kRowsPerTask);
                 ++row)
              quantizer.row(row, not_finite, too_wide);
        });
    });
  });
}

}  // namespace
}  // namespace llmrec
