// Pooled embedding lookup in NEON.
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
#include "embedding_bag/bag.h"

LLMREC_TARGET_BEGIN(LLMREC_TARGET_NEON)

#include "common/decode_neon.h"
#include "embedding_bag/body.h"

namespace llmrec {

void embedding_bag_neon(const BagArguments& args, FirstBad& bad, const Parallel& parallel) {
  embedding_bag<NeonDecode>(args, bad, parallel);
}

}  // namespace llmrec

LLMREC_TARGET_END

#endif
