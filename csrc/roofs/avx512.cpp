// 64-byte registers, on ports 0 and 5.
//
// int8: vpdpbusd, 64 products, two a cycle, latency 5. float32: vfmadd231ps, 16 products, two a
// cycle, latency 4. bfloat16: vdpbf16ps, 32 products, on processors with AVX512_BF16 alone; a
// fourth-generation Xeon takes two cycles for one, so that float32 is the faster type there.
// Twenty sums hide the longest of the latencies.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>
#include <utility>

#include "common/target.h"
#include "roofs/roofs.h"

LLMREC_TARGET_BEGIN(LLMREC_TARGET_AVX512 ",avx512bf16")
#include "roofs/loops.h"

namespace llmrec {
namespace {

struct Int8 {
  using Sum = __m512i;
  using Factor = __m512i;
  static constexpr size_t kSums = 20, kProducts = 64;
  static Factor factor() { return _mm512_set1_epi8(1); }
  static void add(Sum& sum, const Factor& a, const Factor& b) {
    sum = _mm512_dpbusd_epi32(sum, a, b);
  }
};

struct Bfloat16 {
  using Sum = __m512;
  using Factor = __m512bh;
  static constexpr size_t kSums = 20, kProducts = 32;
  static Factor factor() { return _mm512_cvtne2ps_pbh(_mm512_set1_ps(1), _mm512_set1_ps(1)); }
  static void add(Sum& sum, const Factor& a, const Factor& b) { sum = _mm512_dpbf16_ps(sum, a, b); }
};

struct Float32 {
  using Sum = __m512;
  using Factor = __m512;
  static constexpr size_t kSums = 20, kProducts = 16;
  static Factor factor() { return _mm512_set1_ps(1); }
  static void add(Sum& sum, const Factor& a, const Factor& b) { sum = _mm512_fmadd_ps(a, b, sum); }
};

struct Stream {
  static void store(char* target, __m512i vector) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(target), vector);
  }
  static void fence() { _mm_sfence(); }
};

}  // namespace

RoofLoops roofs_avx512() {
  RoofLoops loops;
  loops.read = read_as<__m512i>;
  loops.copy = copy_as<__m512i, Stream>;
  loops.int8 = peak_of<Int8>();
  loops.bfloat16 = peak_of<Bfloat16>();
  loops.float32 = peak_of<Float32>();
  return loops;
}

}  // namespace llmrec
LLMREC_TARGET_END
#endif
