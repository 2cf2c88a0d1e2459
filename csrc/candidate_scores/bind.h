// candidate_scores for torch on any device: unpack, check, run. Only bind files include it.
#pragma once

#include <tuple>

#include "candidate_scores/candidates.h"
#include "common/binding.h"

namespace llmrec {

// The arguments with the tensors that hold them.
struct HeldPairs {
  CandidateArguments args;
  Tensor queries, candidates, offsets, scores, ids;
  HeldRows items;
  MaybeTensor query_bias, item_bias, query_scale, item_scale;
};

// All scores, or the k best; the outputs are not filled yet.
inline HeldPairs hold_pairs(const Tensor& queries, const Tensor& data, const MaybeTensor& scale,
                            const MaybeTensor& bias, const MaybeTensor& inverse_norms, int64_t bits,
                            const Tensor& candidates, const Tensor& offsets, int64_t metric,
                            const MaybeTensor& query_bias, const MaybeTensor& item_bias,
                            double offset, const MaybeTensor& query_scale,
                            const MaybeTensor& item_scale, int64_t k) {
  HeldPairs held;
  held.queries = checked("queries", queries, ScalarType::Float, 2);
  held.items = hold_rows(data, scale, bias, inverse_norms, bits, held.queries.size(1));
  held.candidates = checked("candidates", candidates, ScalarType::Long, 1);
  held.offsets = checked("candidates offsets", offsets, ScalarType::Long, 1);
  const int64_t count = held.queries.size(0), width = held.items.rows.count;
  const int64_t entries = held.candidates.numel();
  check_value(held.offsets.numel() == count + 1, "candidates has ", held.offsets.numel() - 1,
              " lists but there are ", count, " queries");
  held.query_bias = checked_vector("query_bias", query_bias, ScalarType::Float, count);
  held.item_bias = checked_vector("item_bias", item_bias, ScalarType::Float, width);
  held.query_scale = checked_vector("query_scale", query_scale, ScalarType::Float, count);
  held.item_scale = checked_vector("item_scale", item_scale, ScalarType::Float, width);
  CandidateArguments& args = held.args;
  args.queries = held.queries.const_data_ptr<float>();
  args.count = count;
  args.items = held.items.rows;
  args.candidates = held.candidates.const_data_ptr<int64_t>();
  args.offsets = held.offsets.const_data_ptr<int64_t>();
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
  return held;
}

// kRun checks the contents, where it can see them, and fills the outputs.
template <void (*kRun)(const HeldPairs&)>
Tensor candidate_scores(const Tensor& queries, const Tensor& data, const MaybeTensor& scale,
                        const MaybeTensor& bias, const MaybeTensor& inverse_norms, int64_t bits,
                        const Tensor& candidates, const Tensor& offsets, int64_t metric,
                        const MaybeTensor& query_bias, const MaybeTensor& item_bias, double offset,
                        const MaybeTensor& query_scale, const MaybeTensor& item_scale) {
  const HeldPairs held =
      hold_pairs(queries, data, scale, bias, inverse_norms, bits, candidates, offsets, metric,
                 query_bias, item_bias, offset, query_scale, item_scale, 0);
  kRun(held);
  return held.scores;
}

template <void (*kRun)(const HeldPairs&)>
std::tuple<Tensor, Tensor> candidate_topk(
    const Tensor& queries, const Tensor& data, const MaybeTensor& scale, const MaybeTensor& bias,
    const MaybeTensor& inverse_norms, int64_t bits, const Tensor& candidates, const Tensor& offsets,
    int64_t metric, const MaybeTensor& query_bias, const MaybeTensor& item_bias, double offset,
    const MaybeTensor& query_scale, const MaybeTensor& item_scale, int64_t k) {
  check_value(k >= 1, "k is ", k, "; expected at least 1");
  const HeldPairs held =
      hold_pairs(queries, data, scale, bias, inverse_norms, bits, candidates, offsets, metric,
                 query_bias, item_bias, offset, query_scale, item_scale, k);
  kRun(held);
  return {held.scores, held.ids};
}

}  // namespace llmrec
