// The scan in AMX tiles.
//
// Two tiles of 16 queries times the two blocks of a strip: four tiles of sums, two of queries and
// two of items are all eight. For 64 dimensions that is four loads (32 cycles) for four products
// (64 cycles), so that products bind. Their sums pass through the cache to the AVX-512 registers,
// which compare those of the strip before while the products of the next are on their way: the
// tile unit and the vector ports work at the same time only if their instructions are
// interleaved, because one strip's comparisons fill the reorder buffer.
#if defined(__x86_64__) || defined(LLMREC_EMULATE_TILES)

#if defined(__x86_64__)
#include <immintrin.h>
#endif

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

#if !defined(LLMREC_EMULATE_TILES)
#define LLMREC_REGISTER_BYTES 64
LLMREC_TARGET_BEGIN(LLMREC_TARGET_AMX)
#include "cosine_topk/avx512_compare.h"
#else
#include "cosine_topk/portable.h"
#endif
#include "cosine_topk/search.h"
#include "cosine_topk/tiles.h"

namespace llmrec {
namespace {

#if defined(LLMREC_EMULATE_TILES)
using Compare = Portable;
#else
using Compare = Avx512Compare;
#endif

constexpr int64_t kTileBytes = 1024;

struct Amx : Compare {
  using Code = int8_t;
  static constexpr int64_t kTile = 32, kRows = 16, kDepth = 64;
  static constexpr int64_t kGroup = 2;
  static constexpr int32_t kItemOffset = 0;

  static int parts(int64_t dim) { return static_cast<int>(std::max<int64_t>(1, (dim + 63) / 64)); }

  struct Session {
    Session() { configure_tiles(TileConfiguration()); }
    ~Session() { release_tiles(); }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    template <class Between>
    void sums(const int8_t* codes, const int32_t*, int count, const int8_t* const* blocks,
              int64_t dim, bool first, int32_t* values, Between&& between) {
      const auto depths = static_cast<int>((dim + 63) / 64);
      if (count <= 16)
        sixteen(codes, blocks, depths, first, values, between);
      else
        thirty_two(codes, blocks, depths, first, values, between);
    }
  };

  static void prefetch(const int8_t* const* blocks, int64_t skip) {
    for (int64_t line = 0; line < kTileBytes; line += 64) {
      __builtin_prefetch(blocks[0] + skip + line + kPrefetch, 0, 2);
      __builtin_prefetch(blocks[1] + skip + line + kPrefetch, 0, 2);
    }
  }

  template <class Between>
  static void sixteen(const int8_t* codes, const int8_t* const* blocks, int depths, bool first,
                      int32_t* values, Between& between) {
    LLMREC_TILE_ZERO(0);
    LLMREC_TILE_ZERO(1);
    if (depths == 0) between(0);
    for (int depth = 0; depth < depths; ++depth) {
      const int64_t skip = depth * kTileBytes;
      LLMREC_TILE_LOAD(4, codes + skip, 64);
      LLMREC_TILE_LOAD(6, blocks[0] + skip, 64);
      LLMREC_TILE_PRODUCTS(0, 4, 6);
      LLMREC_TILE_LOAD(7, blocks[1] + skip, 64);
      LLMREC_TILE_PRODUCTS(1, 4, 7);
      if (first) prefetch(blocks, skip);
      between(depth);
    }
    LLMREC_TILE_STORE(0, values, kStrip * 4);
    LLMREC_TILE_STORE(1, values + 16, kStrip * 4);
  }

  template <class Between>
  static void thirty_two(const int8_t* codes, const int8_t* const* blocks, int depths, bool first,
                         int32_t* values, Between& between) {
    const int8_t* more = codes + depths * kTileBytes;
    LLMREC_TILE_ZERO(0);
    LLMREC_TILE_ZERO(1);
    LLMREC_TILE_ZERO(2);
    LLMREC_TILE_ZERO(3);
    if (depths == 0) between(0);
    for (int depth = 0; depth < depths; ++depth) {
      const int64_t skip = depth * kTileBytes;
      LLMREC_TILE_LOAD(4, codes + skip, 64);
      LLMREC_TILE_LOAD(6, blocks[0] + skip, 64);
      LLMREC_TILE_PRODUCTS(0, 4, 6);
      LLMREC_TILE_LOAD(7, blocks[1] + skip, 64);
      LLMREC_TILE_PRODUCTS(1, 4, 7);
      LLMREC_TILE_LOAD(5, more + skip, 64);
      LLMREC_TILE_PRODUCTS(2, 5, 6);
      LLMREC_TILE_PRODUCTS(3, 5, 7);
      if (first) prefetch(blocks, skip);
      between(depth);
    }
    LLMREC_TILE_STORE(0, values, kStrip * 4);
    LLMREC_TILE_STORE(1, values + 16, kStrip * 4);
    LLMREC_TILE_STORE(2, values + 16 * kStrip, kStrip * 4);
    LLMREC_TILE_STORE(3, values + 16 * kStrip + 16, kStrip * 4);
  }
};

}  // namespace

void cosine_topk_amx(const TopkArguments& args, const Parallel& parallel) {
  search<Amx>(args, parallel);
}

}  // namespace llmrec

#if !defined(LLMREC_EMULATE_TILES)
LLMREC_TARGET_END
#endif

#endif
