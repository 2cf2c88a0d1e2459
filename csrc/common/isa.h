// The instruction set levels, and which of them this machine and its operating system offer.
#pragma once

#include <string>
#include <vector>

namespace llmrec {

// amx needs what avx512 needs, which needs what avx2 needs; neon stands beside them.
enum class Level { scalar = 0, avx2 = 1, avx512 = 2, amx = 3, neon = 4 };

constexpr Level kLevels[] = {Level::scalar, Level::avx2, Level::avx512, Level::amx, Level::neon};

const char* name_of(Level level);

// Why this machine cannot run a level; empty where it can.
std::string refusal(Level level);

// The best level that may be used: the machine's best, or what LLMREC_ISA lowers it to.
// Throws std::invalid_argument where LLMREC_ISA names no level, or one that the machine lacks.
Level allowed_level();

// Extensions beside the levels; each needs the level that it extends.
bool has_avx_vnni();     // avx2: vpdpbusd on 32-byte registers
bool has_avx512_bf16();  // avx512: vdpbf16ps
bool has_amx_bf16();     // amx: tdpbf16ps

// Whether a kernel of this level may run where `allowed` is the best that may be used.
bool within(Level level, Level allowed);

}  // namespace llmrec
