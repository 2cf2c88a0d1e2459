// Rows of any storage as vectors of sixteen float32 numbers: what widen_row makes, for kernels that
// stream rows and have no use for a copy. Include it behind LLMREC_TARGET_BEGIN.
//
// A level's Isa may know better ways than the compiler, which takes vectors of bytes apart:
//   unsigned_bytes, signed_bytes, shorts   sixteen integers of that kind as Ints
//   halves                sixteen float16 numbers as Floats
//   to_halves             the other way, rounded to the nearest even
//   Nibbles               sixteen 4-bit codes times a factor, or with a scale and a bias
//   kPanel                how many such vectors of sums the registers hold, and what else is needed
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "common/rows.h"
#include "common/vectors.h"
#include "common/widen.h"

namespace llmrec {
namespace {

constexpr int64_t kLine = 64;  // bytes

inline Floats all(float value) {
  return Floats{value, value, value, value, value, value, value, value,
                value, value, value, value, value, value, value, value};
}

inline Floats as_floats(const Ints& numbers) { return __builtin_convertvector(numbers, Floats); }

inline Floats of_bits(const Ints& bits) {
  Floats values;
  std::memcpy(&values, &bits, sizeof values);
  return values;
}

struct PortableDecode {
  static constexpr int kPanel = 4;

  static void unsigned_bytes(const void* from, Ints& to) {
    UnsignedBytes bytes;
    load(from, bytes);
    to = __builtin_convertvector(bytes, Ints);
  }

  static void signed_bytes(const void* from, Ints& to) {
    Bytes bytes;
    load(from, bytes);
    to = __builtin_convertvector(bytes, Ints);
  }

  static void shorts(const void* from, Ints& to) {
    UnsignedShorts shorts;
    load(from, shorts);
    to = __builtin_convertvector(shorts, Ints);
  }

  static void halves(const void* from, Floats& to) {
    Ints half;
    shorts(from, half);
    const Ints magnitude = half & 0x7fff;
    const Floats subnormal = as_floats(magnitude) * 0x1p-24f;
    Ints bits;
    std::memcpy(&bits, &subnormal, sizeof bits);
    const Ints infinite = (magnitude >= 0x7c00) & 0x7f800000;
    const Ints normal = ((magnitude << 13) + 0x38000000) | infinite;
    to = of_bits((magnitude < 0x400 ? bits : normal) | ((half & 0x8000) << 16));
  }

  template <class Take>
  static void to_halves(const Floats& from, const Take& take) {
    uint16_t halves[kWide];
    for (int lane = 0; lane < kWide; ++lane) halves[lane] = half_of_float(from[lane]);
    take(halves);
  }

  template <bool kAffine>
  class Nibbles {
   public:
    Nibbles(float scale, float bias) : scale_(all(scale)), bias_(all(bias)) {}

    void at(const char* from, Floats& to) const {
      codes(from, to);
      to = kAffine ? scale_ * to + bias_ : scale_ * to;
    }

    void add(const char* from, Floats& sums) const {
      Floats values;
      codes(from, values);
      sums += scale_ * values;
    }

   private:
    static void codes(const char* from, Floats& to) {
      uint32_t words[2];
      std::memcpy(words, from, sizeof words);
      const auto low = static_cast<int32_t>(words[0]), high = static_cast<int32_t>(words[1]);
      const Ints word = {low,  low,  low,  low,  low,  low,  low,  low,
                         high, high, high, high, high, high, high, high};
      const Ints shift = {0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28};
      const Ints code = (word >> shift) & 15;
      to = as_floats(kAffine ? code : (code ^ 8) - 8);
    }

    Floats scale_, bias_;
  };
};

// One row.
template <class Isa, Storage kStorage>
class Decoder {
 public:
  static constexpr int64_t kPerLine = kLine * 8 / bits_of(kStorage);  // elements of a cache line
  static constexpr bool kCoded = bits_of(kStorage) <= 8;

  Decoder(const Rows& rows, int64_t row)
      : Decoder(row_start(rows, row), number_at<kStorage>(rows, rows.scale, row),
                number_at<kStorage>(rows, rows.bias, row)) {}

  // From where its elements are counted, and with another scale and bias than the row's own.
  Decoder(const char* start, float scale, float bias) : start_(start), numbers_(scale, bias) {}

  // Elements j .. j + 15, of which all must be there; j is even.
  void at(int64_t j, Floats& to) const { decode(place(j), to); }

  // Elements j .. dim - 1, fewer than sixteen; what comes after them is finite where they are.
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
    Scaled(float s, float b) : scale(all(s)), bias(all(b)) {}
    Floats scale, bias;
  };
  template <Storage kOf>
  static auto numbers_type() {
    if constexpr (is_nibbles(kOf))
      return static_cast<typename Isa::template Nibbles<is_affine(kOf)>*>(nullptr);
    else if constexpr (bits_of(kOf) == 8)
      return static_cast<Scaled*>(nullptr);
    else
      return static_cast<Plain*>(nullptr);
  }
  using Numbers = std::remove_pointer_t<decltype(numbers_type<kStorage>())>;

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
      to = of_bits(integers << 16);
    } else if constexpr (kStorage == Storage::int8_affine) {
      Isa::unsigned_bytes(from, integers);
      to = as_floats(integers);
    } else if constexpr (kStorage == Storage::int8_symmetric) {
      Isa::signed_bytes(from, integers);
      to = as_floats(integers);
    } else {
      static_assert(kStorage == Storage::fp8_e4m3);
      Isa::unsigned_bytes(from, integers);
      const Ints magnitude = integers & 0x7f;
      const Floats subnormal = as_floats(magnitude) * 0x1p-9f;
      Ints bits;
      std::memcpy(&bits, &subnormal, sizeof bits);
      const Ints missing = (magnitude == 0x7f) & 0x7f800000;
      const Ints normal = ((magnitude << 20) + 0x3c000000) | missing;
      to = of_bits((magnitude < 8 ? bits : normal) | ((integers & 0x80) << 24));
    }
  }

  void decode(const char* from, Floats& to) const {
    if constexpr (is_nibbles(kStorage)) {
      numbers_.at(from, to);
    } else {
      codes(from, to);
      if constexpr (kCoded) to = numbers_.scale * to;
      if constexpr (is_affine(kStorage)) to = to + numbers_.bias;
    }
  }

  void add_from(const char* from, Floats& sums) const {
    if constexpr (is_nibbles(kStorage)) {
      numbers_.add(from, sums);
    } else {
      Floats values;
      codes(from, values);
      if constexpr (kCoded)
        sums += numbers_.scale * values;
      else
        sums += values;
    }
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

// As widen_row, sixteen elements at a time; `scratch` has room for a whole number of sixteens.
template <class Isa>
const float* decode_row(const Rows& rows, int64_t row, float* scratch) {
  if (rows.storage == Storage::float32) return reinterpret_cast<const float*>(row_start(rows, row));
  with_storage(rows.storage, [&](auto storage) {
    const Decoder<Isa, decltype(storage)::value> decoder(rows, row);
    Floats sixteen;
    int64_t j = 0;
    for (; j + kWide <= rows.dim; j += kWide) {
      decoder.at(j, sixteen);
      store(sixteen, scratch + j);
    }
    if (j == rows.dim) return;
    decoder.rest(j, rows.dim, sixteen);
    store(sixteen, scratch + j);
  });
  return scratch;
}

}  // namespace
}  // namespace llmrec
