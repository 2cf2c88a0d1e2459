// The instruction set of the functions between LLMREC_TARGET_BEGIN and LLMREC_TARGET_END.
//
// A compiler flag for one file would also reach the inline functions of every header in it, and
// the linker may keep those copies for everyone. A pragma after all includes reaches nothing
// else, where what it covers has internal linkage.
#pragma once

#define LLMREC_PRAGMA(text) _Pragma(#text)

#if defined(__clang__)
#define LLMREC_TARGET_BEGIN(features) \
  LLMREC_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define LLMREC_TARGET_END LLMREC_PRAGMA(clang attribute pop)
#else
#define LLMREC_TARGET_BEGIN(features) \
  LLMREC_PRAGMA(GCC push_options)     \
  LLMREC_PRAGMA(GCC target(features))
#define LLMREC_TARGET_END LLMREC_PRAGMA(GCC pop_options)
#endif

#define LLMREC_TARGET_AVX2 "avx2,fma,f16c"
#define LLMREC_TARGET_AVX2_VNNI LLMREC_TARGET_AVX2 ",avxvnni"
#define LLMREC_TARGET_AVX512 LLMREC_TARGET_AVX2 ",avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"
#define LLMREC_TARGET_AMX LLMREC_TARGET_AVX512 ",amx-tile,amx-int8"
#define LLMREC_TARGET_NEON "arch=armv8.2-a+dotprod"
