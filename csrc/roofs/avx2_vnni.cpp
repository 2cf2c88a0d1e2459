// What AVX-VNNI adds to AVX2: four products of bytes and their sum in one instruction (VEX
// vpdpbusd), 32 to a register, two a cycle on ports 0 and 1, latency 5.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>
#include <utility>

#include "common/target.h"
#include "roofs/roofs.h"

LLMREC_TARGET_BEGIN(LLMREC_TARGET_AVX2_VNNI)
#include "roofs/loops.h"

namespace llmrec {
namespace {

struct Int8 {
  using Sum = __m256i;
  using Factor = __m256i;
  static constexpr size_t kSums = 12, kProducts = 32;
  static Factor factor() { return _mm256_set1_epi8(1); }
  static void add(Sum& sum, const Factor& a, const Factor& b) {
    sum = _mm256_dpbusd_avx_epi32(sum, a, b);
  }
};

}  // namespace

RoofLoops roofs_avx2_vnni() {
  RoofLoops loops;
  loops.int8 = peak_of<Int8>();
  return loops;
}

}  // namespace llmrec
LLMREC_TARGET_END
#endif
