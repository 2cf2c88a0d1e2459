// Pooled embedding lookup in AVX2.
#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/target.h"
#include "embedding_bag/bag.h"

#define LLMREC_REGISTER_BYTES 32
LLMREC_TARGET_BEGIN(LLMREC_TARGET_AVX2)

#include "common/decode_avx2.h"
#include "embedding_bag/body.h"

namespace llmrec {

void embedding_bag_avx2(const BagArguments& args, FirstBad& bad, const Parallel& parallel) {
  embedding_bag<Avx2Decode>(args, bad, parallel);
}

}  // namespace llmrec

LLMREC_TARGET_END

#endif
