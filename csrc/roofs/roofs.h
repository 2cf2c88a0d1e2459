// Measured peaks of this machine, per level: what a kernel's speed is a share of.
//
// A level's file offers loops, and measure.cpp runs them on all threads and times them. A level
// offers what its own instructions add: float32 at level avx2_vnni is that of avx2, and is not
// measured again.
#pragma once

#include <cstdint>
#include <string>

#include "common/parallel.h"

namespace llmrec {

// In the order in which llmrec_kernels/profiler/roofs.py names them.
enum class RoofLevel { scalar = 0, avx2, avx2_vnni, avx512, amx, neon };
enum class RoofKind { int8 = 0, bfloat16, float32 };

// Multiply-adds on registers alone: as many independent sums as hide the latency of one.
struct PeakLoop {
  void (*run)(int64_t rounds) = nullptr;
  int64_t multiply_adds = 0;  // of one round
};

struct RoofLoops {
  // Touches every byte of `bytes`, a multiple of 1 KB, from an address that is a multiple of 64.
  void (*read)(const char* data, int64_t bytes) = nullptr;
  // The same to another such address, past the caches where the level has stores that go there.
  void (*copy)(const char* data, char* target, int64_t bytes) = nullptr;
  PeakLoop int8, bfloat16, float32;
};

RoofLoops roofs_scalar();
RoofLoops roofs_avx2();
RoofLoops roofs_avx2_vnni();
RoofLoops roofs_avx512();
RoofLoops roofs_amx();
RoofLoops roofs_neon();

// Bytes per second that all threads together read from a buffer of this size, the best of several
// repetitions; a buffer that is soon read is read several times in each. Throws
// std::invalid_argument where the machine or the level has no such loop.
double read_roof(RoofLevel level, int64_t bytes, int64_t repetitions, const Parallel& parallel);

// The same of copying one such buffer to another, once in a repetition: bytes read and written.
double copy_roof(RoofLevel level, int64_t bytes, int64_t repetitions, const Parallel& parallel);

// Multiply-adds per second of all threads together, the best of several slices of time.
double peak_roof(RoofLevel level, RoofKind kind, int64_t repetitions, const Parallel& parallel);

}  // namespace llmrec
