// What AVX-512 knows better than the compiler: see decode.h.
#pragma once

#include "common/decode.h"

namespace llmrec {
namespace {

struct Avx512Decode {
  static void halves(const void* from, Floats& to) {
    const __m512 values = _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i_u*>(from)));
    std::memcpy(&to, &values, sizeof to);
  }

  template <class Take>
  static void to_halves(const Floats& from, const Take& take) {
    __m512 values;
    std::memcpy(&values, &from, sizeof values);
    const __m256i halves = _mm512_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT);
    take(&halves);
  }

  // The sixteen numbers that a row's codes can stand for are a table in a register.
  template <bool kAffine>
  class Nibbles {
   public:
    Nibbles(float scale, float bias) {
      const Ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
      const Floats values = kAffine ? all(scale) * as_floats(lane) + all(bias)
                                    : all(scale) * as_floats((lane ^ 8) - 8);
      std::memcpy(&table_, &values, sizeof table_);
    }

    void at(const void* from, Floats& to) const {
      int32_t words[2];
      std::memcpy(words, from, sizeof words);
      const __m512i word = _mm512_mask_set1_epi32(_mm512_set1_epi32(words[0]), 0xff00, words[1]);
      const __m512i shift =
          _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
      // The permutation looks at four bits of each index alone.
      const __m512 values = _mm512_permutexvar_ps(_mm512_srlv_epi32(word, shift), table_);
      std::memcpy(&to, &values, sizeof to);
    }

   private:
    __m512 table_;
  };
};

}  // namespace
}  // namespace llmrec
