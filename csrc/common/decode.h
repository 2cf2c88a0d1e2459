// Rows of any storage as vectors of float32 numbers: what widen_row makes, for kernels that stream
// rows and have no use for a copy. Include it behind LLMREC_TARGET_BEGIN.
//
// A level's Isa has, for its registers of kLanes numbers:
//   unsigned_bytes, signed_bytes, shorts   so many integers of that kind as Ints
//   nibbles               as many 4-bit integers as Floats
//   halves, to_halves     float16 numbers, the latter rounded to the nearest even
//   multiply_add          adds a product: fused where there is such an instruction
//   kPanel                how many registers may hold sums
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "common/rows.h"
#include "common/vectors.h"
#include "common/widen.h"

namespace llmrec {
namespace {

constexpr int64_t kLine = 64;  // bytes

// Compilers know that taking off 0 changes nothing.
template <class Vector, class Number>
inline Vector all(Number value) {
  return value - Vector{};
}

template <class To, class From>
inline To same_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

struct PortableDecode {
  static constexpr int kLanes = 4, kPanel = 8;
  using Floats = Vectors<kLanes>::Floats;
  using Ints = Vectors<kLanes>::Ints;

  static void unsigned_bytes(const void* from, Ints& to) { to = four<uint8_t>(from); }
  static void signed_bytes(const void* from, Ints& to) { to = four<int8_t>(from); }
  static void shorts(const void* from, Ints& to) { to = four<uint16_t>(from); }

  template <bool kSigned>
  static void nibbles(const void* from, Floats& to) {
    const auto* bytes = static_cast<const uint8_t*>(from);
    const Ints codes = {bytes[0] & 15, bytes[0] >> 4, bytes[1] & 15, bytes[1] >> 4};
    to = __builtin_convertvector(kSigned ? (codes ^ 8) - 8 : codes, Floats);
  }

  static void halves(const void* from, Floats& to) {
    const Ints half = four<uint16_t>(from);
    const Ints magnitude = half & 0x7fff;
    const auto subnormal = same_bits<Ints>(__builtin_convertvector(magnitude, Floats) * 0x1p-24f);
    const Ints infinite = (magnitude >= 0x7c00) & 0x7f800000;
    const Ints normal = ((magnitude << 13) + 0x38000000) | infinite;
    to = same_bits<Floats>((magnitude < 0x400 ? subnormal : normal) | ((half & 0x8000) << 16));
  }

  static void to_halves(const Floats& from, void* to) {
    uint16_t halves[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) halves[lane] = half_of_float(from[lane]);
    std::memcpy(to, halves, sizeof halves);
  }

  static void multiply_add(const Floats& x, const Floats& y, Floats& sums) { sums += x * y; }
  static float multiply_add(float x, float y, float sum) { return sum + x * y; }

 private:
  template <class Number>
  static Ints four(const void* from) {
    Number numbers[kLanes];
    std::memcpy(numbers, from, sizeof numbers);
    return Ints{numbers[0], numbers[1], numbers[2], numbers[3]};
  }
};

// One row.
template <class Isa, Storage kStorage>
class Decoder {
 public:
  using Floats = typename Isa::Floats;
  using Ints = typename Isa::Ints;
  static constexpr bool kCoded = bits_of(kStorage) <= 8;

  Decoder(const Rows& rows, int64_t row)
      : Decoder(row_start(rows, row), number_at<kStorage>(rows, rows.scale, row),
                number_at<kStorage>(rows, rows.bias, row)) {}

  // From where its elements are counted, and with another scale and bias than the row's own.
  Decoder(const char* start, float scale, float bias) : start_(start), numbers_(scale, bias) {}

  // Elements j .. j + kLanes - 1, of which all must be there; j is even.
  void at(int64_t j, Floats& to) const { decode(place(j), to); }

  // Elements j .. dim - 1, fewer than kLanes; what comes after them is finite where they are.
  void rest(int64_t j, int64_t dim, Floats& to) const {
    alignas(64) char padded[kLine];
    pad(j, dim, padded);
    decode(padded, to);
  }

  // Adds scale x code to sums, and no bias; or the elements where there is no scale.
  void add(int64_t j, Floats& sums) const { add_from(place(j), sums); }

  void add_rest(int64_t j, int64_t dim, Floats& sums) const {
    alignas(64) char padded[kLine];
    pad(j, dim, padded);
    add_from(padded, sums);
  }

 private:
  struct Plain {
    Plain(float, float) {}
  };
  struct Scaled {
    Scaled(float s, float b) : scale(all<Floats>(s)), bias(all<Floats>(b)) {}
    Floats scale, bias;
  };
  using Numbers = std::conditional_t<kCoded, Scaled, Plain>;

  const char* place(int64_t j) const { return start_ + bytes_of(kStorage, j); }

  void pad(int64_t j, int64_t dim, char* padded) const {
    std::memset(padded, 0, kLine);
    std::memcpy(padded, place(j), static_cast<size_t>(bytes_of(kStorage, dim - j)));
  }

  // The codes as numbers; of what is no code, the elements.
  static void codes(const char* from, Floats& to) {
    Ints integers;
    if constexpr (kStorage == Storage::float32) {
      load(from, to);
    } else if constexpr (kStorage == Storage::float16) {
      Isa::halves(from, to);
    } else if constexpr (kStorage == Storage::bfloat16) {
      Isa::shorts(from, integers);
      to = same_bits<Floats>(integers << 16);
    } else if constexpr (kStorage == Storage::fp8_e4m3) {
      Isa::unsigned_bytes(from, integers);
      const Ints magnitude = integers & 0x7f;
      const auto subnormal = same_bits<Ints>(__builtin_convertvector(magnitude, Floats) * 0x1p-9f);
      const Ints missing = (magnitude == 0x7f) & 0x7f800000;
      const Ints normal = ((magnitude << 20) + 0x3c000000) | missing;
      to = same_bits<Floats>((magnitude < 8 ? subnormal : normal) | ((integers & 0x80) << 24));
    } else if constexpr (is_nibbles(kStorage)) {
      Isa::template nibbles<!is_affine(kStorage)>(from, to);
    } else {
      if constexpr (is_affine(kStorage))
        Isa::unsigned_bytes(from, integers);
      else
        Isa::signed_bytes(from, integers);
      to = __builtin_convertvector(integers, Floats);
    }
  }

  void decode(const char* from, Floats& to) const {
    codes(from, to);
    if constexpr (kCoded) to = numbers_.scale * to;
    if constexpr (is_affine(kStorage)) to = to + numbers_.bias;
  }

  void add_from(const char* from, Floats& sums) const {
    Floats values;
    codes(from, values);
    if constexpr (kCoded)
      Isa::multiply_add(numbers_.scale, values, sums);
    else
      sums += values;
  }

  const char* start_;
  Numbers numbers_;
};

template <Storage kStorage>
using StorageIs = std::integral_constant<Storage, kStorage>;

// Calls `use` with the storage as a constant of the compiler's.
template <class Use>
void with_storage(Storage storage, const Use& use) {
  switch (storage) {
    case Storage::float32:
      return use(StorageIs<Storage::float32>());
    case Storage::float16:
      return use(StorageIs<Storage::float16>());
    case Storage::bfloat16:
      return use(StorageIs<Storage::bfloat16>());
    case Storage::int8_affine:
      return use(StorageIs<Storage::int8_affine>());
    case Storage::int8_symmetric:
      return use(StorageIs<Storage::int8_symmetric>());
    case Storage::int4_affine:
      return use(StorageIs<Storage::int4_affine>());
    case Storage::int4_symmetric:
      return use(StorageIs<Storage::int4_symmetric>());
    case Storage::fp8_e4m3:
      return use(StorageIs<Storage::fp8_e4m3>());
  }
}

// As widen_row, a register at a time; `scratch` has room for a whole number of sixteens.
template <class Isa>
const float* decode_row(const Rows& rows, int64_t row, float* scratch) {
  if (rows.storage == Storage::float32) return reinterpret_cast<const float*>(row_start(rows, row));
  with_storage(rows.storage, [&](auto storage) {
    const Decoder<Isa, decltype(storage)::value> decoder(rows, row);
    typename Isa::Floats values;
    int64_t j = 0;
    for (; j + Isa::kLanes <= rows.dim; j += Isa::kLanes) {
      decoder.at(j, values);
      store(values, scratch + j);
    }
    if (j == rows.dim) return;
    decoder.rest(j, rows.dim, values);
    store(values, scratch + j);
  });
  return scratch;
}

}  // namespace
}  // namespace llmrec
