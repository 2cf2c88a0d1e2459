// The scan in NEON with the dot product instructions of ARMv8.2.
//
// SDOT multiplies 16 signed bytes with 16 others and adds each four neighbours to a 32-bit sum:
// latency 3, two to four a cycle. Six queries times the four registers of a block are 24 sums,
// with four for items and one for a broadcast.
#if defined(__aarch64__)

#include <arm_neon.h>

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

LLMREC_TARGET_BEGIN(LLMREC_TARGET_NEON)

#include "cosine_topk/portable.h"
#include "cosine_topk/search.h"

namespace llmrec {
namespace {

struct Neon : Portable {
  using Code = int8_t;
  static constexpr int64_t kTile = 12, kRows = 6, kDepth = 4, kGroup = 4;
  static constexpr int32_t kItemOffset = 0;

  struct Session {
    template <class Between>
    void sums(const int8_t* codes, const int32_t*, int count, const int8_t* const* blocks,
              int64_t dim, bool, int32_t* values, Between&& between) {
      between(0);
      const int64_t groups = (dim + 3) / 4, row = std::max<int64_t>(1, groups) * 4;
      for (int half = 0; half < 2; ++half)
        for (int q = 0; q < count; q += kRows) {
          int32_t* to = values + half * kBlock + q * kStrip;
          if (count - q <= 2)
            products(codes + q * row, blocks[half], groups, to, queries<2>());
          else
            products(codes + q * row, blocks[half], groups, to, queries<6>());
        }
    }
  };

  template <int kCount>
  static constexpr auto queries() {
    return std::make_integer_sequence<int, kCount>();
  }

  template <int... q>
  static void products(const int8_t* codes, const int8_t* items, int64_t groups, int32_t* values,
                       std::integer_sequence<int, q...>) {
    const int32x4_t zero = vdupq_n_s32(0);
    int32x4_t first[] = {(void(q), zero)...}, second[] = {(void(q), zero)...};
    int32x4_t third[] = {(void(q), zero)...}, fourth[] = {(void(q), zero)...};
    for (int64_t group = 0; group < groups; ++group, codes += kRows * 4, items += 64) {
      const int8x16_t a = vld1q_s8(items), b = vld1q_s8(items + 16);
      const int8x16_t c = vld1q_s8(items + 32), d = vld1q_s8(items + 48);
      const auto four = [&](int row) {
        int32_t bytes;
        std::memcpy(&bytes, codes + 4 * row, sizeof bytes);
        return vreinterpretq_s8_s32(vdupq_n_s32(bytes));
      };
      ((first[q] = vdotq_s32(first[q], a, four(q)), second[q] = vdotq_s32(second[q], b, four(q)),
        third[q] = vdotq_s32(third[q], c, four(q)), fourth[q] = vdotq_s32(fourth[q], d, four(q))),
       ...);
    }
    (store(values + q * kStrip, first[q], second[q], third[q], fourth[q]), ...);
  }

  static void store(int32_t* to, int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d) {
    vst1q_s32(to, a);
    vst1q_s32(to + 4, b);
    vst1q_s32(to + 8, c);
    vst1q_s32(to + 12, d);
  }
};

}  // namespace

void cosine_topk_neon(const TopkArguments& args, const Parallel& parallel) {
  search<Neon>(args, parallel);
}

}  // namespace llmrec

LLMREC_TARGET_END

#endif
