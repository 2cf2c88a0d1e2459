// The packing loop that every instruction set's file compiles for itself, behind its target.
// One pass: a row is read from memory once, and its norm, its codes and its copy are made of it
// while it is in the cache.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "common/sketch.h"
#include "pack/pack.h"

namespace llmrec {
namespace {

constexpr int64_t kBlocksPerTask = 32;
constexpr int64_t kRowsAhead = 4;  // on their way from memory while a row is packed

inline void prefetch_row(const PackArguments& args, int64_t row) {
  if (row >= args.rows.count) return;
  for (int64_t byte = 0; byte < args.row_bytes; byte += 64)
    __builtin_prefetch(row_start(args.rows, row) + byte);
}

// Copies a row past the caches where it can: nobody reads it soon, and a store through the cache
// would read from memory first what it overwrites.
inline void copy_row(const char* from, char* to, int64_t bytes) {
#if defined(__SSE2__)
  if (reinterpret_cast<uintptr_t>(to) % 16 == 0 && bytes % 16 == 0) {
    for (int64_t byte = 0; byte < bytes; byte += 16)
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + byte),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + byte)));
    return;
  }
#endif
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}

// Makes such copies visible to other threads.
inline void finish_copies() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

inline void pack_block(const PackArguments& args, int64_t block, Sketcher& sketcher,
                       std::vector<float>& scratch, FirstBad& bad) {
  int8_t* codes = args.sketch.codes + block * block_bytes(args.rows.dim);
  for (int64_t lane = 0; lane < kBlock; ++lane) {
    const int64_t row = block * kBlock + lane;
    if (row >= args.rows.count) {
      sketcher.cleared(codes, lane, 0.0f);
      continue;
    }
    prefetch_row(args, row + kRowsAhead);
    const float* wide = widen_row(args.rows, row, scratch.data());
    const double norm = norm_of(wide, args.rows.dim), inverse = inverse_of(norm);
    if (!std::isfinite(norm)) {
      bad.note(row);
      continue;
    }
    const RowSketch sketch = sketcher.sketch(wide, inverse, codes, lane);
    args.inverse_norms[row] = inverse;
    args.sketch.unit_scale[row] = sketch.unit_scale;
    args.sketch.residual[row] = sketch.residual;
    copy_row(row_start(args.rows, row), args.data + row * args.row_bytes, args.row_bytes);
  }
}

inline void pack_rows(const PackArguments& args, FirstBad& bad, const Parallel& parallel) {
  const int64_t blocks = (args.rows.count + kBlock - 1) / kBlock;
  parallel.run((blocks + kBlocksPerTask - 1) / kBlocksPerTask, [&](TaskQueue& queue) {
    Sketcher sketcher(args.rows.dim);
    std::vector<float> scratch(static_cast<size_t>(args.rows.dim));
    for (int64_t task; queue.take(task);) {
      const int64_t end = std::min(blocks, (task + 1) * kBlocksPerTask);
      for (int64_t block = task * kBlocksPerTask; block < end; ++block)
        pack_block(args, block, sketcher, scratch, bad);
    }
    finish_copies();
  });
}

}  // namespace
}  // namespace llmrec
