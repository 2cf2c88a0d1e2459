// AMX's tile instructions, or the same in plain C++ where LLMREC_EMULATE_TILES is defined: the
// tests run the logic of amx.cpp on machines without AMX.
//
// Eight tiles of 16 rows of 64 bytes. TDPBSSD adds, for each row m of one tile and each column n
// of another, the products of signed bytes in groups of four: 16 x 16 x 64 multiply-adds in 16
// cycles, latency 52. TILELOADD takes 8 cycles, TILESTORED 16.
#pragma once

#include <cstdint>
#include <cstring>

namespace llmrec {
namespace {

struct alignas(64) TileConfiguration {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

#if defined(LLMREC_EMULATE_TILES)

struct EmulatedTile {
  alignas(64) int8_t bytes[16][64];
};

inline thread_local EmulatedTile emulated_tiles[8];
inline thread_local bool emulated_configuration = false;

inline void configure_tiles(const TileConfiguration&) {
  emulated_configuration = true;
  std::memset(emulated_tiles, 0, sizeof emulated_tiles);
}
inline void release_tiles() { emulated_configuration = false; }

// Without a configuration the processor faults: so does a null tile.
inline EmulatedTile& emulated_tile(int tile) {
  if (!emulated_configuration) __builtin_trap();
  return emulated_tiles[tile];
}

inline void emulated_load(int tile, const void* from, int64_t stride) {
  for (int row = 0; row < 16; ++row)
    std::memcpy(emulated_tile(tile).bytes[row], static_cast<const char*>(from) + row * stride, 64);
}

inline void emulated_store(int tile, void* to, int64_t stride) {
  for (int row = 0; row < 16; ++row)
    std::memcpy(static_cast<char*>(to) + row * stride, emulated_tile(tile).bytes[row], 64);
}

inline void emulated_products(int sums, int left, int right) {
  const EmulatedTile& a = emulated_tile(left);
  const EmulatedTile& b = emulated_tile(right);
  for (int m = 0; m < 16; ++m) {
    int32_t row[16];
    std::memcpy(row, emulated_tile(sums).bytes[m], sizeof row);
    for (int k = 0; k < 16; ++k)
      for (int n = 0; n < 16; ++n)
        for (int i = 0; i < 4; ++i) row[n] += a.bytes[m][4 * k + i] * b.bytes[k][4 * n + i];
    std::memcpy(emulated_tile(sums).bytes[m], row, sizeof row);
  }
}

#define LLMREC_TILE_ZERO(tile) std::memset(emulated_tile(tile).bytes, 0, 1024)
#define LLMREC_TILE_LOAD(tile, from, stride) emulated_load(tile, from, stride)
#define LLMREC_TILE_STORE(tile, to, stride) emulated_store(tile, to, stride)
#define LLMREC_TILE_PRODUCTS(sums, left, right) emulated_products(sums, left, right)

#else

inline void configure_tiles(const TileConfiguration& tiles) {
  // GCC's intrinsic says that it reads eight bytes: without this it may leave the others unwritten.
  __asm__ volatile("" : : "m"(tiles));
  _tile_loadconfig(&tiles);
}
inline void release_tiles() { _tile_release(); }

#define LLMREC_TILE_ZERO(tile) _tile_zero(tile)
#define LLMREC_TILE_LOAD(tile, from, stride) _tile_loadd(tile, from, stride)
#define LLMREC_TILE_STORE(tile, to, stride) _tile_stored(tile, to, stride)
#define LLMREC_TILE_PRODUCTS(sums, left, right) _tile_dpbssd(sums, left, right)

#endif

}  // namespace
}  // namespace llmrec
