// What AVX2 knows better than the compiler: see decode.h.
#pragma once

#include "common/decode.h"

namespace llmrec {
namespace {

struct Avx2Decode : PortableDecode {
  static void halves(const void* from, Floats& to) {
    const auto* half = static_cast<const __m128i_u*>(from);
    const __m256 values[] = {_mm256_cvtph_ps(_mm_loadu_si128(half)),
                             _mm256_cvtph_ps(_mm_loadu_si128(half + 1))};
    std::memcpy(&to, values, sizeof to);
  }

  template <class Take>
  static void to_halves(const Floats& from, const Take& take) {
    __m256 values[2];
    std::memcpy(values, &from, sizeof values);
    const __m128i halves[] = {_mm256_cvtps_ph(values[0], _MM_FROUND_TO_NEAREST_INT),
                              _mm256_cvtps_ph(values[1], _MM_FROUND_TO_NEAREST_INT)};
    take(halves);
  }
};

}  // namespace
}  // namespace llmrec
