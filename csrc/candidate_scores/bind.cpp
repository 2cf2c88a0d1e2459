// candidate_scores for torch: unpack, check, call.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "candidate_scores/candidates.h"
#include "common/binding.h"
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

// The arguments with the tensors that hold them.
struct Held {
  CandidateArguments args;
  Tensor queries, candidates, offsets, scores, ids;
  HeldRows items;
  MaybeTensor query_bias, item_bias, query_scale, item_scale;
};

MaybeTensor finite_vector(const char* name, const MaybeTensor& tensor, int64_t length) {
  MaybeTensor vector = checked_vector(name, tensor, ScalarType::Float, length);
  check_finite(name, pointer<float>(vector), length);
  return vector;
}

Held score(const Tensor& queries, const Tensor& data, const MaybeTensor& scale,
           const MaybeTensor& bias, const MaybeTensor& inverse_norms, int64_t bits,
           const Tensor& candidates, const Tensor& offsets, int64_t metric,
           const MaybeTensor& query_bias, const MaybeTensor& item_bias, double offset,
           const MaybeTensor& query_scale, const MaybeTensor& item_scale, int64_t k = 0) {
  Held held;
  held.queries = checked("queries", queries, ScalarType::Float, 2);
  held.items = hold_rows(data, scale, bias, inverse_norms, bits, held.queries.size(1));
  held.candidates = checked("candidates", candidates, ScalarType::Long, 1);
  held.offsets = checked("candidates offsets", offsets, ScalarType::Long, 1);
  const int64_t count = held.queries.size(0), width = held.items.rows.count;
  const int64_t entries = held.candidates.numel();
  check_value(held.offsets.numel() == count + 1, "candidates has ", held.offsets.numel() - 1,
              " lists but there are ", count, " queries");
  CandidateArguments& args = held.args;
  args.queries = held.queries.const_data_ptr<float>();
  args.count = count;
  args.items = held.items.rows;
  args.candidates = held.candidates.const_data_ptr<int64_t>();
  args.offsets = held.offsets.const_data_ptr<int64_t>();
  check_offsets("candidates offsets", args.offsets, count, entries);
  check_in_range("candidates", args.candidates, entries, width);
  held.query_bias = finite_vector("query_bias", query_bias, count);
  held.item_bias = finite_vector("item_bias", item_bias, width);
  held.query_scale = finite_vector("query_scale", query_scale, count);
  held.item_scale = finite_vector("item_scale", item_scale, width);
  args.cosine = metric == 0;
  args.offset = offset;
  args.query_bias = pointer<float>(held.query_bias);
  args.item_bias = pointer<float>(held.item_bias);
  args.query_scale = pointer<float>(held.query_scale);
  args.item_scale = pointer<float>(held.item_scale);
  args.k = k;
  if (k == 0) {
    held.scores = torch::stable::new_empty(held.queries, {entries});
  } else {
    held.scores = torch::stable::new_empty(held.queries, {count, k});
    held.ids = torch::stable::new_empty(held.queries, {count, k}, ScalarType::Long);
    args.ids = mutable_pointer<int64_t>(held.ids);
  }
  args.scores = mutable_pointer<float>(held.scores);
  FirstBad bad_query, bad_item;
  table.pick()(args, bad_query, bad_item, torch_threads());
  check_finite_rows("queries", bad_query);
  check_finite_rows("items", bad_item);
  return held;
}

Tensor candidate_scores_cpu(const Tensor& queries, const Tensor& data, const MaybeTensor& scale,
                            const MaybeTensor& bias, const MaybeTensor& inverse_norms, int64_t bits,
                            const Tensor& candidates, const Tensor& offsets, int64_t metric,
                            const MaybeTensor& query_bias, const MaybeTensor& item_bias,
                            double offset, const MaybeTensor& query_scale,
                            const MaybeTensor& item_scale) {
  return score(queries, data, scale, bias, inverse_norms, bits, candidates, offsets, metric,
               query_bias, item_bias, offset, query_scale, item_scale)
      .scores;
}

std::tuple<Tensor, Tensor> candidate_topk_cpu(
    const Tensor& queries, const Tensor& data, const MaybeTensor& scale, const MaybeTensor& bias,
    const MaybeTensor& inverse_norms, int64_t bits, const Tensor& candidates, const Tensor& offsets,
    int64_t metric, const MaybeTensor& query_bias, const MaybeTensor& item_bias, double offset,
    const MaybeTensor& query_scale, const MaybeTensor& item_scale, int64_t k) {
  check_value(k >= 1, "k is ", k, "; expected at least 1");
  const Held held = score(queries, data, scale, bias, inverse_norms, bits, candidates, offsets,
                          metric, query_bias, item_bias, offset, query_scale, item_scale, k);
  return {held.scores, held.ids};
}

}  // namespace
}  // namespace llmrec

STABLE_TORCH_LIBRARY_IMPL(llmrec, CPU, m) {
  m.impl("candidate_scores", TORCH_BOX(&llmrec::candidate_scores_cpu));
  m.impl("candidate_scores.topk", TORCH_BOX(&llmrec::candidate_topk_cpu));
}
