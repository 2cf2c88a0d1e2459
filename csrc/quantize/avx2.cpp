// Row-wise quantization in AVX2.
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
#include "quantize/quantize.h"

#define LLMREC_REGISTER_BYTES 32
LLMREC_TARGET_BEGIN(LLMREC_TARGET_AVX2)

#include "common/decode_avx2.h"
#include "quantize/body.h"

namespace llmrec {

void quantize_avx2(const QuantizeArguments& args, FirstBad& not_finite, FirstBad& too_wide,
                   const Parallel& parallel) {
  quantize<Avx2Decode>(args, not_finite, too_wide, parallel);
}

}  // namespace llmrec

LLMREC_TARGET_END

#endif
