// What AVX2 knows better than the compiler: see decode.h.
#pragma once

#include "common/decode.h"

namespace llmrec {
namespace {

struct Avx2Decode : PortableDecode {
  static constexpr int kPanel = 4;

  static void unsigned_bytes(const void* from, Ints& to) {
    const auto* eight = static_cast<const char*>(from);
    give(_mm256_cvtepu8_epi32(_mm_loadu_si64(eight)),
         _mm256_cvtepu8_epi32(_mm_loadu_si64(eight + 8)), to);
  }

  static void signed_bytes(const void* from, Ints& to) {
    const auto* eight = static_cast<const char*>(from);
    give(_mm256_cvtepi8_epi32(_mm_loadu_si64(eight)),
         _mm256_cvtepi8_epi32(_mm_loadu_si64(eight + 8)), to);
  }

  static void shorts(const void* from, Ints& to) {
    const auto* eight = static_cast<const __m128i_u*>(from);
    give(_mm256_cvtepu16_epi32(_mm_loadu_si128(eight)),
         _mm256_cvtepu16_epi32(_mm_loadu_si128(eight + 1)), to);
  }

  static void halves(const void* from, Floats& to) {
    const auto* eight = static_cast<const __m128i_u*>(from);
    give(_mm256_cvtph_ps(_mm_loadu_si128(eight)), _mm256_cvtph_ps(_mm_loadu_si128(eight + 1)), to);
  }

  template <class Use>
  static void to_halves(const Floats& from, const Use& use) {
    __m256 values[2];
    std::memcpy(values, &from, sizeof values);
    const __m128i halves[] = {_mm256_cvtps_ph(values[0], _MM_FROUND_TO_NEAREST_INT),
                              _mm256_cvtps_ph(values[1], _MM_FROUND_TO_NEAREST_INT)};
    use(halves);
  }

 private:
  template <class Half, class Whole>
  static void give(const Half& low, const Half& high, Whole& to) {
    std::memcpy(&to, &low, sizeof low);
    std::memcpy(reinterpret_cast<char*>(&to) + sizeof low, &high, sizeof high);
  }
};

}  // namespace
}  // namespace llmrec
