// Scores of given pairs in AVX-512.
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

#include "candidate_scores/candidates.h"
#include "common/target.h"

#define LLMREC_REGISTER_BYTES 64
LLMREC_TARGET_BEGIN(LLMREC_TARGET_AVX512)

#include "candidate_scores/body.h"
#include "common/decode_avx512.h"

namespace llmrec {

void candidate_scores_avx512(const CandidateArguments& args, FirstBad& bad_query,
                             FirstBad& bad_item, const Parallel& parallel) {
  candidate_scores<Avx512Decode>(args, bad_query, bad_item, parallel);
}

}  // namespace llmrec

LLMREC_TARGET_END

#endif
