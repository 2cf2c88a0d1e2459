// The scan in portable C++, for machines with no level of their own.
//
// Sums of products of codes are exact in float32 below 2^24, which 1,024 dimensions cannot pass;
// so the codes of a block become floats once, a lane an item, and each query multiplies and adds
// them in vectors of four, which every processor since SSE2 and NEON has.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#include "common/check.h"
#include "common/workspace.h"
#include "cosine_topk/portable.h"
#include "cosine_topk/scored.h"
#include "cosine_topk/search.h"
#include "cosine_topk/topk.h"

namespace llmrec {
namespace {

typedef float Quad __attribute__((vector_size(16)));

struct Scalar : Portable {
  using Code = float;
  static constexpr int64_t kTile = 8, kRows = 1, kDepth = 4, kGroup = 4;
  static constexpr int32_t kItemOffset = 0;
  static constexpr int64_t kExact = 1024;  // dimensions whose sums are exact

  class Session {
   public:
    template <class Between>
    void sums(const float* codes, const int32_t*, int count, const int8_t* const* blocks,
              int64_t dim, bool, int32_t* values, Between&& between) {
      between(0);
      const int64_t padded = padded_to(std::max<int64_t>(dim, 1), kDepth);
      std::fill_n(values, count * kStrip, 0);
      lanes_.resize(static_cast<size_t>(kExact * kBlock));
      for (int half = 0; half < 2; ++half)
        for (int64_t first = 0; first < dim; first += kExact) {
          const int64_t length = std::min(kExact, padded_to(dim, kDepth) - first);
          widen(blocks[half] + first * kBlock, length);
          for (int q = 0; q < count; q += 2)
            add(codes + q * padded + first, codes + std::min(q + 1, count - 1) * padded + first,
                length, values + q * kStrip + half * kBlock, q + 1 < count);
        }
    }

   private:
    // Codes of a block as [dimension][16] floats.
    void widen(const int8_t* codes, int64_t length) {
      for (int64_t j = 0; j < length; j += 4)
        for (int64_t lane = 0; lane < kBlock; ++lane)
          for (int64_t i = 0; i < 4; ++i)
            lanes_[(j + i) * kBlock + lane] = codes[j * kBlock + lane * 4 + i];
    }

    // Adds the products of two queries with the sixteen items of a block.
    void add(const float* a, const float* b, int64_t length, int32_t* values, bool both) const {
      Quad first[4] = {}, second[4] = {};
      for (int64_t j = 0; j < length; ++j) {
        Quad items[4];
        std::memcpy(items, lanes_.data() + j * kBlock, sizeof items);
        const Quad qa = {a[j], a[j], a[j], a[j]}, qb = {b[j], b[j], b[j], b[j]};
        for (int part = 0; part < 4; ++part) {
          first[part] += items[part] * qa;
          second[part] += items[part] * qb;
        }
      }
      for (int lane = 0; lane < kBlock; ++lane) {
        values[lane] += static_cast<int32_t>(first[lane / 4][lane % 4]);
        if (both) values[kStrip + lane] += static_cast<int32_t>(second[lane / 4][lane % 4]);
      }
    }

    std::vector<float> lanes_;
  };
};

}  // namespace

void cosine_topk_scalar(const TopkArguments& args, const Parallel& parallel) {
  search<Scalar>(args, parallel);
}

}  // namespace llmrec
