// The packing loop that every instruction set's file compiles for itself, behind its target.
// One pass: a row is read from memory once, and its norm, its codes and its copy are made of it
// while it is in the cache.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "common/sketch.h"
#include "pack/pack.h"

namespace llmrec {
namespace {

constexpr int64_t kBlocksPerTask = 32;

inline void pack_block(const PackArguments& args, int64_t block, Sketcher& sketcher,
                       std::vector<float>& scratch, FirstBad& bad) {
  int8_t* codes = args.sketch.codes + block * block_bytes(args.rows.dim);
  for (int64_t lane = 0; lane < kBlock; ++lane) {
    const int64_t row = block * kBlock + lane;
    if (row >= args.rows.count) {
      sketcher.cleared(codes, lane, 0.0f);
      continue;
    }
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
    if (args.row_bytes > 0)
      std::memcpy(args.data + row * args.row_bytes, row_start(args.rows, row),
                  static_cast<size_t>(args.row_bytes));
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
  });
}

}  // namespace
}  // namespace llmrec
