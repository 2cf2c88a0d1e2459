// Registers of AVX-512: see decode.h.
#pragma once

#include "common/decode.h"

namespace llmrec {
namespace {

struct Avx512Decode {
  static constexpr int kLanes = 16, kPanel = 8;
  using Floats = Vectors<kLanes>::Floats;
  using Ints = Vectors<kLanes>::Ints;

  static void unsigned_bytes(const void* from, Ints& to) {
    to =
        same_bits<Ints>(_mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i_u*>(from))));
  }

  static void signed_bytes(const void* from, Ints& to) {
    to =
        same_bits<Ints>(_mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i_u*>(from))));
  }

  static void shorts(const void* from, Ints& to) {
    to = same_bits<Ints>(
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i_u*>(from))));
  }

  // Looked up in a register: a permutation looks at the low four bits of each lane alone.
  template <bool kSigned>
  static void nibbles(const void* from, Floats& to) {
    int32_t words[2];
    std::memcpy(words, from, sizeof words);
    const __m512i word = _mm512_mask_set1_epi32(_mm512_set1_epi32(words[0]), 0xff00, words[1]);
    const __m512i shift =
        _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    const __m512 numbers =
        kSigned ? _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1)
                : _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    to = same_bits<Floats>(_mm512_permutexvar_ps(_mm512_srlv_epi32(word, shift), numbers));
  }

  static void halves(const void* from, Floats& to) {
    to =
        same_bits<Floats>(_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i_u*>(from))));
  }

  static void to_halves(const Floats& from, void* to) {
    store(_mm512_cvtps_ph(same_bits<__m512>(from), _MM_FROUND_TO_NEAREST_INT), to);
  }

  static void multiply_add(const Floats& x, const Floats& y, Floats& sums) {
    sums = same_bits<Floats>(
        _mm512_fmadd_ps(same_bits<__m512>(x), same_bits<__m512>(y), same_bits<__m512>(sums)));
  }

  static float multiply_add(float x, float y, float sum) { return std::fma(x, y, sum); }
};

}  // namespace
}  // namespace llmrec
