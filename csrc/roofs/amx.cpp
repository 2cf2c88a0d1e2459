// Tiles of 16 rows of 64 bytes. tdpbssd makes 16 x 16 x 64 products of int8 in 16 cycles, latency
// 52, so that four accumulators keep the unit busy; tdpbf16ps 16 x 16 x 32 of bfloat16 in the same
// time. As in a kernel, two tiles of queries and two of items make the four.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/target.h"
#include "roofs/roofs.h"

LLMREC_TARGET_BEGIN(LLMREC_TARGET_AMX ",amx-bf16")
#include "roofs/loops.h"

namespace llmrec {
namespace {

constexpr int64_t kTileBytes = 1024;

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Eight full tiles of zeros for as long as it lives: 0 to 3 accumulate, 4 to 7 are factors. The
// unit takes as long for zeros as for anything.
class Tiles {
 public:
  Tiles() {
    TileConfig config;
    std::fill_n(config.row_bytes, 8, uint16_t{64});
    std::fill_n(config.rows, 8, uint8_t{16});
    __asm__ volatile("" : : "r"(&config) : "memory");  // GCC's intrinsic does not say it reads
    _tile_loadconfig(&config);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

void run_int8(int64_t rounds) {
  const Tiles tiles;
  for (; rounds > 0; --rounds) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
}

void run_bfloat16(int64_t rounds) {
  const Tiles tiles;
  for (; rounds > 0; --rounds) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}

void read_tiles(const char* data, int64_t bytes) {
  const Tiles tiles;
  for (const char* end = data + bytes; data < end; data += kTileBytes) {
    for (int64_t line = 0; line < kTileBytes; line += kLine) prefetch(data + kAhead + line);
    _tile_loadd(0, data, kLine);
  }
}

}  // namespace

RoofLoops roofs_amx() {
  constexpr int64_t kAccumulators = 4, kSums = 16 * 16;
  RoofLoops loops;
  loops.read = read_tiles;
  loops.int8 = {run_int8, kAccumulators * kSums * 64};
  loops.bfloat16 = {run_bfloat16, kAccumulators * kSums * 32};
  return loops;
}

}  // namespace llmrec
LLMREC_TARGET_END
#endif
