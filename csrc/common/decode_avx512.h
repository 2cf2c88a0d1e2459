// What AVX-512 knows better than the compiler: see decode.h.
#pragma once

#include "common/decode.h"

namespace llmrec {
namespace {

struct Avx512Decode {
  static constexpr int kPanel = 8;

  static void unsigned_bytes(const void* from, Ints& to) {
    give(_mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i_u*>(from))), to);
  }

  static void signed_bytes(const void* from, Ints& to) {
    give(_mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i_u*>(from))), to);
  }

  static void shorts(const void* from, Ints& to) {
    give(_mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i_u*>(from))), to);
  }

  static void halves(const void* from, Floats& to) {
    const __m512 values = _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i_u*>(from)));
    std::memcpy(&to, &values, sizeof to);
  }

  template <class Use>
  static void to_halves(const Floats& from, const Use& use) {
    const __m256i halves = _mm512_cvtps_ph(take(from), _MM_FROUND_TO_NEAREST_INT);
    use(&halves);
  }

  // The sixteen numbers that a row's codes can stand for are a table in a register.
  template <bool kAffine>
  class Nibbles {
   public:
    Nibbles(float scale, float bias) {
      const Ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
      const Floats products = all(scale) * as_floats(kAffine ? lane : (lane ^ 8) - 8);
      products_ = take(products);
      values_ = take(products + all(bias));
    }

    void at(const char* from, Floats& to) const {
      give(_mm512_permutexvar_ps(codes(from), kAffine ? values_ : products_), to);
    }

    void add(const char* from, Floats& sums) const {
      give(_mm512_add_ps(take(sums), _mm512_permutexvar_ps(codes(from), products_)), sums);
    }

   private:
    // In the low four bits of each lane, which are all that the permutation looks at.
    static __m512i codes(const char* from) {
      int32_t words[2];
      std::memcpy(words, from, sizeof words);
      const __m512i word = _mm512_mask_set1_epi32(_mm512_set1_epi32(words[0]), 0xff00, words[1]);
      const __m512i shift =
          _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
      return _mm512_srlv_epi32(word, shift);
    }

    __m512 products_, values_;
  };

 private:
  static __m512 take(const Floats& from) {
    __m512 to;
    std::memcpy(&to, &from, sizeof to);
    return to;
  }

  template <class From, class To>
  static void give(const From& from, To& to) {
    std::memcpy(&to, &from, sizeof to);
  }
};

}  // namespace
}  // namespace llmrec
