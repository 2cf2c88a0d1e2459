// The scan in AVX2.
//
// VPMADDUBSW would multiply bytes, but its 16-bit sums saturate. So codes are widened to 16 bits,
// and VPMADDWD multiplies 16 pairs and adds each two neighbours: two a cycle (ports 0 and 1), and
// an addition for each (port 5 as well), at best 24 multiply-adds a cycle. Three queries times the
// four registers of a block are twelve sums, with three broadcasts and one register of items.
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
LLMREC_TARGET_BEGIN(LLMREC_TARGET_AVX2)

#include "cosine_topk/avx2_compare.h"
#include "cosine_topk/search.h"

namespace llmrec {
namespace {

struct Avx2 : Avx2Compare {
  using Code = int16_t;
  static constexpr int64_t kTile = 12, kRows = 3, kDepth = 4, kGroup = 4;
  static constexpr int32_t kItemOffset = 0;

  struct Session {
    template <class Between>
    void sums(const int16_t* codes, const int32_t*, int count, const int8_t* const* blocks,
              int64_t dim, bool, int32_t* values, Between&& between) {
      between(0);
      const int64_t groups = std::max<int64_t>(1, (dim + 3) / 4);
      for (int half = 0; half < 2; ++half) {
        int32_t* to = values + half * kBlock;
        for (int q = 0; q < count; q += kRows)
          products<3>(codes + q * groups * 4, blocks[half], (dim + 3) / 4, to + q * kStrip);
      }
    }
  };

  template <int kCount>
  static void products(const int16_t* codes, const int8_t* items, int64_t groups, int32_t* values) {
    products(codes, items, groups, values, std::make_integer_sequence<int, kCount>());
  }

  // Sums of four items come in pairs of 32 bits: a register for each four items of a block.
  template <int... q>
  static void products(const int16_t* codes, const int8_t* items, int64_t groups, int32_t* values,
                       std::integer_sequence<int, q...>) {
    const __m256i zero = _mm256_setzero_si256();
    __m256i first[] = {(void(q), zero)...}, second[] = {(void(q), zero)...};
    __m256i third[] = {(void(q), zero)...}, fourth[] = {(void(q), zero)...};
    for (int64_t group = 0; group < groups; ++group, codes += kRows * 4, items += 64) {
      const __m256i query[] = {four(codes + 4 * q)...};
      __m256i wide = widen(items);
      ((first[q] = add(first[q], wide, query[q])), ...);
      wide = widen(items + 16);
      ((second[q] = add(second[q], wide, query[q])), ...);
      wide = widen(items + 32);
      ((third[q] = add(third[q], wide, query[q])), ...);
      wide = widen(items + 48);
      ((fourth[q] = add(fourth[q], wide, query[q])), ...);
    }
    ((store(first[q], second[q], values + q * kStrip),
      store(third[q], fourth[q], values + q * kStrip + 8)),
     ...);
  }

  static __m256i widen(const int8_t* items) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(items)));
  }

  static __m256i four(const int16_t* codes) {
    int64_t bits;
    std::memcpy(&bits, codes, sizeof bits);
    return _mm256_set1_epi64x(bits);
  }

  static __m256i add(__m256i sums, __m256i items, __m256i query) {
    return _mm256_add_epi32(sums, _mm256_madd_epi16(items, query));
  }

  // Adds neighbours, which belong to one item, and puts eight items in order.
  static void store(__m256i low, __m256i high, int32_t* values) {
    const __m256i sums = _mm256_permute4x64_epi64(_mm256_hadd_epi32(low, high), 0xd8);
    _mm256_store_si256(reinterpret_cast<__m256i*>(values), sums);
  }
};

}  // namespace

void cosine_topk_avx2(const TopkArguments& args, const Parallel& parallel) {
  search<Avx2>(args, parallel);
}

}  // namespace llmrec

LLMREC_TARGET_END

#endif
