// Row-wise quantization in NEON.
#if defined(__aarch64__)

#include <arm_neon.h>

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

LLMREC_TARGET_BEGIN(LLMREC_TARGET_NEON)

#include "common/decode_neon.h"
#include "quantize/body.h"

namespace llmrec {

void quantize_neon(const QuantizeArguments& args, FirstBad& not_finite, FirstBad& too_wide,
                   const Parallel& parallel) {
  quantize<NeonDecode>(args, not_finite, too_wide, parallel);
}

}  // namespace llmrec

LLMREC_TARGET_END

#endif
