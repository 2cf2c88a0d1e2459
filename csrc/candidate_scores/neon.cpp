// Scores of given pairs in NEON.
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

#include "candidate_scores/candidates.h"
#include "common/target.h"

LLMREC_TARGET_BEGIN(LLMREC_TARGET_NEON)

#include "candidate_scores/body.h"
#include "common/decode_neon.h"

namespace llmrec {

void candidate_scores_neon(const CandidateArguments& args, FirstBad& bad_query, FirstBad& bad_item,
                           const Parallel& parallel) {
  candidate_scores<NeonDecode>(args, bad_query, bad_item, parallel);
}

}  // namespace llmrec

LLMREC_TARGET_END

#endif
