// candidate_scores for torch on the CPU.
#include "candidate_scores/bind.h"

#include <torch/csrc/stable/library.h>

#include "common/dispatch.h"

namespace llmrec {
namespace {

const Table<CandidateKernel> table("candidate_scores",
                                   {
#if defined(__x86_64__)
                                       {Level::avx512, candidate_scores_avx512},
                                       {Level::avx2, candidate_scores_avx2},
#elif defined(__aarch64__)
                                       {Level::neon, candidate_scores_neon},
#endif
                                       {Level::scalar, candidate_scores_scalar}});

void run(const HeldPairs& held) {
  const CandidateArguments& args = held.args;
  const int64_t entries = held.candidates.numel(), width = args.items.count;
  check_offsets("candidates offsets", args.offsets, args.count, entries);
  check_in_range("candidates", args.candidates, entries, width);
  check_finite("query_bias", args.query_bias, args.count);
  check_finite("item_bias", args.item_bias, width);
  check_finite("query_scale", args.query_scale, args.count);
  check_finite("item_scale", args.item_scale, width);
  FirstBad bad_query, bad_item;
  table.pick()(args, bad_query, bad_item, torch_threads());
  check_finite_rows("queries", bad_query);
  check_finite_rows("items", bad_item);
}

}  // namespace
}  // namespace llmrec

STABLE_TORCH_LIBRARY_IMPL(llmrec, CPU, m) {
  m.impl("candidate_scores", TORCH_BOX(&llmrec::candidate_scores<llmrec::run>));
  m.impl("candidate_scores.topk", TORCH_BOX(&llmrec::candidate_topk<llmrec::run>));
}
