// Comparisons in AVX2, for avx2.cpp and avx2_vnni.cpp.
#pragma once

#include "cosine_topk/portable.h"

namespace llmrec {
namespace {

struct Avx2Compare : Portable {
  template <bool kBias>
  static uint32_t passing(const int32_t* values, const float* weight, const float* test,
                          float inverse_scale, float least, int32_t* copy) {
    uint32_t bits = 0;
    for (int eight = 0; eight < 4; ++eight) {
      const int skip = 8 * eight;
      const __m256i sums = _mm256_load_si256(reinterpret_cast<const __m256i*>(values + skip));
      _mm256_store_si256(reinterpret_cast<__m256i*>(copy + skip), sums);
      __m256 reached = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_load_ps(weight + skip));
      if (kBias)
        reached =
            _mm256_fmadd_ps(_mm256_load_ps(test + skip), _mm256_set1_ps(inverse_scale), reached);
      const __m256 passed = _mm256_cmp_ps(reached, _mm256_set1_ps(least), _CMP_GE_OQ);
      bits |= static_cast<uint32_t>(_mm256_movemask_ps(passed)) << skip;
    }
    return bits;
  }
};

}  // namespace
}  // namespace llmrec
