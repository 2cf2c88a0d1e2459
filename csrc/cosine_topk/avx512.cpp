// The scan in AVX-512 with VNNI.
//
// VPDPBUSD multiplies 64 unsigned bytes with 64 signed ones and adds each four neighbours to a
// 32-bit sum: latency 5, two a cycle (ports 0 and 5). Ten independent sums keep both ports busy;
// twelve queries times the two blocks of a strip are 24 registers, with two for items and one for
// a broadcast. Codes of items are signed and made unsigned by one exclusive-or for all twelve
// queries, which adds 128 to each; the sums begin with what that adds.
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

#define LLMREC_REGISTER_BYTES 64
LLMREC_TARGET_BEGIN(LLMREC_TARGET_AVX512)

#include "cosine_topk/avx512_compare.h"
#include "cosine_topk/search.h"

namespace llmrec {
namespace {

struct Avx512 : Avx512Compare {
  static int parts(int64_t) { return 1; }

  using Code = int8_t;
  static constexpr int64_t kTile = 12, kRows = 12, kDepth = 4;
  static constexpr int64_t kGroup = 4;
  static constexpr int32_t kItemOffset = 128;

  struct Session {
    template <class Between>
    void sums(const int8_t* codes, const int32_t* start, int count, const int8_t* const* blocks,
              int64_t dim, bool, int32_t* values, Between&& between) {
      const int64_t groups = (dim + 3) / 4;
      between(0);
      if (count == 1) return products(codes, start, blocks, groups, values, queries<1>());
      if (count == 2) return products(codes, start, blocks, groups, values, queries<2>());
      if (count <= 4) return products(codes, start, blocks, groups, values, queries<4>());
      if (count <= 8) return products(codes, start, blocks, groups, values, queries<8>());
      products(codes, start, blocks, groups, values, queries<12>());
    }
  };

  template <int kCount>
  static constexpr auto queries() {
    return std::make_integer_sequence<int, kCount>();
  }

  template <int... q>
  static void products(const int8_t* codes, const int32_t* start, const int8_t* const* blocks,
                       int64_t groups, int32_t* values, std::integer_sequence<int, q...>) {
    const __m512i sign = _mm512_set1_epi8(-128);
    __m512i low[] = {_mm512_set1_epi32(start[q])...};
    __m512i high[] = {low[q]...};
    for (int64_t group = 0; group < groups; ++group, codes += kTile * 4) {
      const int8_t* first = blocks[0] + group * 64;
      const int8_t* second = blocks[1] + group * 64;
      if constexpr (sizeof...(q) <= 8) {  // items come from memory
        _mm_prefetch(first + kPrefetch, _MM_HINT_T1);
        _mm_prefetch(second + kPrefetch, _MM_HINT_T1);
      }
      const __m512i a = _mm512_xor_si512(_mm512_loadu_si512(first), sign);
      const __m512i b = _mm512_xor_si512(_mm512_loadu_si512(second), sign);
      const auto four = [&](int row) {
        int32_t bytes;
        std::memcpy(&bytes, codes + 4 * row, sizeof bytes);
        return _mm512_set1_epi32(bytes);
      };
      ((low[q] = _mm512_dpbusd_epi32(low[q], a, four(q)),
        high[q] = _mm512_dpbusd_epi32(high[q], b, four(q))),
       ...);
    }
    ((_mm512_store_si512(values + q * kStrip, low[q]),
      _mm512_store_si512(values + q * kStrip + 16, high[q])),
     ...);
  }
};

}  // namespace

void cosine_topk_avx512(const TopkArguments& args, const Parallel& parallel) {
  search<Avx512>(args, parallel);
}

}  // namespace llmrec

LLMREC_TARGET_END

#endif
