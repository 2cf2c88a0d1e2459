// The kernels beside top-K: small calls, compared with plain loops.
#pragma once

#include "check.h"

namespace llmrec::driver {

void check_quantize(Checker& checker);
void check_embedding_bag(Checker& checker);
void check_candidate_scores(Checker& checker);
void check_roofs(Checker& checker);

}  // namespace llmrec::driver
