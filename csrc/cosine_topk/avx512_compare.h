// Comparisons in AVX-512, for avx512.cpp and amx.cpp: a conversion, a multiplication and a
// comparison for 16 items, which share ports 0 and 5.
#pragma once

namespace llmrec {
namespace {

struct Avx512Compare {
  template <bool kBias>
  static uint32_t passing(const int32_t* values, const float* weight, const float* test,
                          float inverse_scale, float least, int32_t* copy) {
    uint32_t bits = 0;
    for (int half = 0; half < 2; ++half) {
      const __m512i sums = _mm512_load_si512(values + 16 * half);
      _mm512_store_si512(copy + 16 * half, sums);
      __m512 reached = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_load_ps(weight + 16 * half));
      if (kBias)
        reached = _mm512_fmadd_ps(_mm512_load_ps(test + 16 * half), _mm512_set1_ps(inverse_scale),
                                  reached);
      const auto mask = _mm512_cmp_ps_mask(reached, _mm512_set1_ps(least), _CMP_GE_OQ);
      bits |= static_cast<uint32_t>(_cvtmask16_u32(mask)) << (16 * half);
    }
    return bits;
  }

  template <bool kBias>
  static void raise_to(float* lows, const int32_t* values, const float* weight, const float* test,
                       float scale, float inverse_scale, float error) {
    __m512 best = _mm512_loadu_ps(lows);
    for (int half = 0; half < 2; ++half) {
      __m512 reached = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(values + 16 * half)),
                                     _mm512_load_ps(weight + 16 * half));
      if (kBias)
        reached = _mm512_fmadd_ps(_mm512_load_ps(test + 16 * half), _mm512_set1_ps(inverse_scale),
                                  reached);
      reached = _mm512_mul_ps(_mm512_sub_ps(reached, _mm512_set1_ps(error)), _mm512_set1_ps(scale));
      best = _mm512_max_ps(reached, best);  // the second where the first is NaN
    }
    _mm512_storeu_ps(lows, best);
  }

  static int32_t keep(float* low, float* high, uint32_t* id, int32_t count, float cut) {
    int32_t kept = 0;
    for (int32_t i = 0; i < count; i += 16) {
      const __m512 lows = _mm512_loadu_ps(low + i), highs = _mm512_loadu_ps(high + i);
      const __m512i ids = _mm512_loadu_si512(id + i);
      __mmask16 mask = _mm512_cmp_ps_mask(highs, _mm512_set1_ps(cut), _CMP_GE_OQ);
      if (i + 16 > count) mask &= static_cast<__mmask16>((1u << (count - i)) - 1);
      _mm512_storeu_ps(low + kept, _mm512_maskz_compress_ps(mask, lows));
      _mm512_storeu_ps(high + kept, _mm512_maskz_compress_ps(mask, highs));
      _mm512_storeu_si512(id + kept, _mm512_maskz_compress_epi32(mask, ids));
      kept += std::popcount(static_cast<uint32_t>(mask));
    }
    return kept;
  }
};

}  // namespace
}  // namespace llmrec
