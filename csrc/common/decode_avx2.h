// Registers of AVX2: see decode.h.
#pragma once

#include "common/decode.h"

namespace llmrec {
namespace {

struct Avx2Decode {
  static constexpr int kLanes = 8, kPanel = 8;
  using Floats = Vectors<kLanes>::Floats;
  using Ints = Vectors<kLanes>::Ints;

  static void unsigned_bytes(const void* from, Ints& to) {
    to = same_bits<Ints>(_mm256_cvtepu8_epi32(_mm_loadu_si64(from)));
  }

  static void signed_bytes(const void* from, Ints& to) {
    to = same_bits<Ints>(_mm256_cvtepi8_epi32(_mm_loadu_si64(from)));
  }

  static void shorts(const void* from, Ints& to) {
    to = same_bits<Ints>(
        _mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i_u*>(from))));
  }

  template <bool kSigned>
  static void nibbles(const void* from, Floats& to) {
    int32_t word;
    std::memcpy(&word, from, sizeof word);
    const __m256i shift = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    const Ints codes = same_bits<Ints>(_mm256_srlv_epi32(_mm256_set1_epi32(word), shift)) & 15;
    to = __builtin_convertvector(kSigned ? (codes ^ 8) - 8 : codes, Floats);
  }

  static void halves(const void* from, Floats& to) {
    to = same_bits<Floats>(_mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i_u*>(from))));
  }

  static void to_halves(const Floats& from, void* to) {
    store(_mm256_cvtps_ph(same_bits<__m256>(from), _MM_FROUND_TO_NEAREST_INT), to);
  }

  static void multiply_add(const Floats& x, const Floats& y, Floats& sums) {
    sums = same_bits<Floats>(
        _mm256_fmadd_ps(same_bits<__m256>(x), same_bits<__m256>(y), same_bits<__m256>(sums)));
  }

  static float multiply_add(float x, float y, float sum) { return std::fma(x, y, sum); }
};

}  // namespace
}  // namespace llmrec
