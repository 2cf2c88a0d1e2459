// Scores of given pairs in portable C++.
#include "candidate_scores/body.h"

namespace llmrec {

void candidate_scores_scalar(const CandidateArguments& args, FirstBad& bad_query,
                             FirstBad& bad_item, const Parallel& parallel) {
  candidate_scores<PortableDecode>(args, bad_query, bad_item, parallel);
}

}  // namespace llmrec
