// 32-byte registers, two fused multiply-adds a cycle.
//
// int8: codes widened to int16, vpmaddwd and vpaddd; exact for all codes, where vpmaddubsw would
// saturate at 2 * 255 * 127. vpmaddwd takes ports 0 and 1, latency 5; the addition any of three.
// float32: vfmadd231ps on ports 0 and 1, latency 4: eight sums in flight, and two to spare.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>
#include <utility>

#include "common/target.h"
#include "roofs/roofs.h"

LLMREC_TARGET_BEGIN(LLMREC_TARGET_AVX2)
#include "roofs/loops.h"

namespace llmrec {
namespace {

struct Int8 {
  using Sum = __m256i;
  using Factor = __m256i;
  static constexpr size_t kSums = 12, kProducts = 16;
  static Factor factor() { return _mm256_set1_epi16(1); }
  static void add(Sum& sum, Factor& a, const Factor& b) {
    hide(a);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
  }
};

struct Float32 {
  using Sum = __m256;
  using Factor = __m256;
  static constexpr size_t kSums = 10, kProducts = 8;
  static Factor factor() { return _mm256_set1_ps(1); }
  static void add(Sum& sum, const Factor& a, const Factor& b) { sum = _mm256_fmadd_ps(a, b, sum); }
};

struct Stream {
  static void store(char* target, __m256i vector) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(target), vector);
  }
  static void fence() { _mm_sfence(); }
};

}  // namespace

RoofLoops roofs_avx2() {
  RoofLoops loops;
  loops.read = read_as<__m256i>;
  loops.copy = copy_as<__m256i, Stream>;
  loops.int8 = peak_of<Int8>();
  loops.float32 = peak_of<Float32>();
  return loops;
}

}  // namespace llmrec
LLMREC_TARGET_END
#endif
