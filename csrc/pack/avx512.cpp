// Packing in AVX-512.
#if defined(__x86_64__)

#include <emmintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "common/target.h"
#include "pack/pack.h"

#define LLMREC_REGISTER_BYTES 64
LLMREC_TARGET_BEGIN(LLMREC_TARGET_AVX512)

#include "pack/body.h"

namespace llmrec {

void pack_avx512(const PackArguments& args, FirstBad& bad, const Parallel& parallel) {
  pack_rows(args, bad, parallel);
}

}  // namespace llmrec

LLMREC_TARGET_END

#endif
