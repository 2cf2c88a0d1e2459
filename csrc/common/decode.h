// Rows of any storage as vectors of sixteen float32 numbers: what widen_row makes, for kernels that
// stream rows and have no use for a copy. Include it behind LLMREC_TARGET_BEGIN.
//
// A level's Isa may know better ways than the compiler for
//   halves(from, to)     sixteen float16 numbers
//   to_halves(from, take) the other way, rounded to the nearest even; take(halves) gets them
//   Nibbles              sixteen 4-bit codes, of rows with the same scale and bias
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

inline Floats all(float value) { return Floats{} + value; }

inline Floats as_floats(const Ints& numbers) { return __builtin_convertvector(numbers, Floats); }

inline Floats of_bits(const Ints& bits) {
  Floats values;
  std::memcpy(&values, &bits, sizeof values);
  return values;
}

inline Ints unsigned_bytes(const void* from) {
  UnsignedBytes bytes;
  load(from, bytes);
  return __builtin_convertvector(bytes, Ints);
}

inline Ints unsigned_shorts(const void* from) {
  UnsignedShorts shorts;
  load(from, shorts);
  return __builtin_convertvector(shorts, Ints);
}

struct PortableDecode {
  static void halves(const void* from, Floats& to) {
    const Ints half = unsigned_shorts(from), magnitude = half & 0x7fff;
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

    void at(const void* from, Floats& to) const {
      uint32_t words[2];
      std::memcpy(words, from, sizeof words);
      const auto low = static_cast<int32_t>(words[0]), high = static_cast<int32_t>(words[1]);
      const Ints word = {low,  low,  low,  low,  low,  low,  low,  low,
                         high, high, high, high, high, high, high, high};
      const Ints shift = {0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28};
      const Ints code = (word >> shift) & 15;
      to = kAffine ? scale_ * as_floats(code) + bias_ : scale_ * as_floats((code ^ 8) - 8);
    }

   private:
    Floats scale_, bias_;
  };
};

// One row.
template <class Isa, Storage kStorage>
class Decoder {
 public:
  static constexpr int64_t kPerLine = kLine * 8 / bits_of(kStorage);  // elements of a cache line

  Decoder(const Rows& rows, int64_t row)
      : start_(row_start(rows, row)),
        numbers_(number_at(rows, rows.scale, row), number_at(rows, rows.bias, row)) {}

  // Elements j .. j + 15, of which all must be there; j is even.
  void at(int64_t j, Floats& to) const { decode(start_ + j * bits_of(kStorage) / 8, to); }

  // Elements j .. dim - 1, fewer than sixteen; what comes after them is finite where they are.
  void rest(int64_t j, int64_t dim, Floats& to) const {
    alignas(64) char padded[kLine] = {};
    std::memcpy(padded, start_ + j * bits_of(kStorage) / 8,
                static_cast<size_t>(((dim - j) * bits_of(kStorage) + 7) / 8));
    decode(padded, to);
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

  void decode(const char* from, Floats& to) const {
    if constexpr (kStorage == Storage::float32) {
      load(from, to);
    } else if constexpr (kStorage == Storage::float16) {
      Isa::halves(from, to);
    } else if constexpr (kStorage == Storage::bfloat16) {
      to = of_bits(unsigned_shorts(from) << 16);
    } else if constexpr (kStorage == Storage::int8_affine) {
      to = numbers_.scale * as_floats(unsigned_bytes(from)) + numbers_.bias;
    } else if constexpr (kStorage == Storage::int8_symmetric) {
      Bytes bytes;
      load(from, bytes);
      to = numbers_.scale * as_floats(__builtin_convertvector(bytes, Ints));
    } else if constexpr (kStorage == Storage::fp8_e4m3) {
      const Ints code = unsigned_bytes(from), magnitude = code & 0x7f;
      const Floats subnormal = as_floats(magnitude) * 0x1p-9f;
      Ints bits;
      std::memcpy(&bits, &subnormal, sizeof bits);
      const Ints missing = (magnitude == 0x7f) & 0x7f800000;
      const Ints normal = ((magnitude << 20) + 0x3c000000) | missing;
      to = numbers_.scale * of_bits((magnitude < 8 ? bits : normal) | ((code & 0x80) << 24));
    } else {
      numbers_.at(from, to);
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

// Asks memory for rows ahead of their use, a cache line at a time while another row is worked on:
// all lines at once would fill the queue of misses and stall.
class RowsAhead {
 public:
  explicit RowsAhead(const Rows& rows)
      : rows_(rows),
        bytes_((rows.dim * bits_of(rows.storage) + 7) / 8),
        number_bytes_(rows.number_stride * (is_nibbles(rows.storage) ? 2 : 4)) {}

  // How many rows: about as many lines as a core can wait for.
  int64_t distance() const { return std::clamp<int64_t>(kAhead / std::max(kLine, bytes_), 2, 16); }

  // Which row; its first and last line, and its numbers.
  void begin(int64_t row) {
    next_ = row_start(rows_, row);
    if (bytes_ == 0) return;
    __builtin_prefetch(next_);
    __builtin_prefetch(next_ + bytes_ - 1);
    if (rows_.scale != nullptr)
      __builtin_prefetch(static_cast<const char*>(rows_.scale) + row * number_bytes_);
    if (rows_.bias != nullptr && rows_.number_stride == 1)
      __builtin_prefetch(static_cast<const char*>(rows_.bias) + row * number_bytes_);
  }

  // The line that is so many bytes into the row. No line is past the row's padding to a line.
  void line(int64_t byte) const { __builtin_prefetch(next_ + byte); }

 private:
  static constexpr int64_t kAhead = 2048;  // bytes

  const Rows& rows_;
  int64_t bytes_, number_bytes_;
  const char* next_ = nullptr;
};

}  // namespace
}  // namespace llmrec
