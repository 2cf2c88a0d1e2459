// The scan in AVX2 with AVX-VNNI, which level avx2 takes where the processor has it.
//
// VPDPBUSD multiplies 32 unsigned bytes with 32 signed ones and adds each four neighbours to a
// 32-bit sum: latency 5, two a cycle (ports 0 and 1). Six queries times the two registers of a
// block are twelve sums, with two for items and one for a broadcast. As in avx512.cpp the codes of
// items are made unsigned by an exclusive-or, and the sums begin with what that adds.
#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/target.h"
#include "common/workspace.h"
#include "cosine_topk/scored.h"
#include "cosine_topk/topk.h"

#define LLMREC_REGISTER_BYTES 32
LLMREC_TARGET_BEGIN(LLMREC_TARGET_AVX2_VNNI)

#include "cosine_topk/avx2_compare.h"
#include "cosine_topk/search.h"

namespace llmrec {
namespace {

struct Avx2Vnni : Avx2Compare {
  using Code = int8_t;
  static constexpr int64_t kTile = 12, kRows = 6, kDepth = 4, kGroup = 4;
  static constexpr int32_t kItemOffset = 128;

  struct Session {
    template <class Between>
    void sums(const int8_t* codes, const int32_t* start, int count, const int8_t* const* blocks,
              int64_t dim, bool, int32_t* values, Between&& between) {
      between(0);
      const int64_t groups = (dim + 3) / 4, row = std::max<int64_t>(1, groups) * 4;
      for (int half = 0; half < 2; ++half)
        for (int q = 0; q < count; q += kRows) {
          int32_t* to = values + half * kBlock + q * kStrip;
          if (count - q <= 2)
            products(codes + q * row, start + q, blocks[half], groups, to, queries<2>());
          else
            products(codes + q * row, start + q, blocks[half], groups, to, queries<6>());
        }
    }
  };

  template <int kCount>
  static constexpr auto queries() {
    return std::make_integer_sequence<int, kCount>();
  }

  template <int... q>
  static void products(const int8_t* codes, const int32_t* start, const int8_t* items,
                       int64_t groups, int32_t* values, std::integer_sequence<int, q...>) {
    const __m256i sign = _mm256_set1_epi8(-128);
    __m256i low[] = {_mm256_set1_epi32(start[q])...};
    __m256i high[] = {low[q]...};
    for (int64_t group = 0; group < groups; ++group, codes += kRows * 4, items += 64) {
      if constexpr (sizeof...(q) <= 2)  // items come from memory
        _mm_prefetch(reinterpret_cast<const char*>(items) + kPrefetch, _MM_HINT_T1);
      const auto* from = reinterpret_cast<const __m256i*>(items);
      const __m256i a = _mm256_xor_si256(_mm256_loadu_si256(from), sign);
      const __m256i b = _mm256_xor_si256(_mm256_loadu_si256(from + 1), sign);
      const auto four = [&](int row) {
        int32_t bytes;
        std::memcpy(&bytes, codes + 4 * row, sizeof bytes);
        return _mm256_set1_epi32(bytes);
      };
      ((low[q] = _mm256_dpbusd_avx_epi32(low[q], a, four(q)),
        high[q] = _mm256_dpbusd_avx_epi32(high[q], b, four(q))),
       ...);
    }
    ((_mm256_store_si256(reinterpret_cast<__m256i*>(values + q * kStrip), low[q]),
      _mm256_store_si256(reinterpret_cast<__m256i*>(values + q * kStrip + 8), high[q])),
     ...);
  }
};

}  // namespace

void cosine_topk_avx2_vnni(const TopkArguments& args, const Parallel& parallel) {
  search<Avx2Vnni>(args, parallel);
}

}  // namespace llmrec

LLMREC_TARGET_END

#endif
