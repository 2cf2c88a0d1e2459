// cosine_topk for torch on any device: unpack, check, run. Only bind files include it.
#pragma once

#include <tuple>

#include "common/binding.h"
#include "cosine_topk/topk.h"

namespace llmrec {

// Ids for all queries, or with offsets a list for each.
struct HeldIds {
  MaybeTensor ids, offsets;
};

inline HeldIds hold_ids(const char* name, const MaybeTensor& ids, const MaybeTensor& offsets,
                        int64_t queries) {
  HeldIds held;
  if (!ids) return held;
  held.ids = checked(name, *ids, ScalarType::Long, 1);
  if (!offsets) return held;
  held.offsets = checked(name, *offsets, ScalarType::Long, 1);
  check_value(held.offsets->numel() == queries + 1, name, " has ", held.offsets->numel() - 1,
              " lists but there are ", queries, " queries");
  return held;
}

struct HeldSketch {
  MaybeTensor codes, unit_scale, residual;
  Sketch sketch;
};

inline HeldSketch hold_sketch(const MaybeTensor& codes, const MaybeTensor& unit_scale,
                              const MaybeTensor& residual, const HeldRows& items) {
  HeldSketch held;
  if (!codes) return held;
  const Rows& rows = items.rows;
  check_value(unit_scale && residual && items.inverse_norms,
              "codes needs unit_scale, residual and inverse_norms");
  held.codes = checked("codes", *codes, ScalarType::Char, 4);
  const int64_t blocks = (rows.count + 15) / 16, groups = (rows.dim + 3) / 4;
  check_value(codes->size(0) == blocks && codes->size(1) == groups && codes->size(2) == 16 &&
                  codes->size(3) == 4,
              "codes has shape [", codes->size(0), ", ", codes->size(1), ", ", codes->size(2), ", ",
              codes->size(3), "]; expected [", blocks, ", ", groups, ", 16, 4]");
  held.unit_scale = checked_vector("unit_scale", unit_scale, ScalarType::Float, rows.count);
  held.residual = checked_vector("residual", residual, ScalarType::Float, rows.count);
  held.sketch = {pointer<int8_t>(held.codes), pointer<float>(held.unit_scale),
                 pointer<float>(held.residual)};
  return held;
}

// The arguments with the tensors that hold them; filters are kRun's to put into form.
struct HeldSearch {
  TopkArguments args;
  Tensor queries, scores, ids;
  HeldRows items;
  HeldSketch sketch;
  MaybeTensor item_bias, item_scale;
  HeldIds exclude, allow;
  MaybeTensor mask;  // [N] or [B, N]
};

// kRun checks the contents, where it can see them, and fills the outputs.
template <void (*kRun)(HeldSearch&)>
std::tuple<Tensor, Tensor> cosine_topk(
    const Tensor& queries, const Tensor& data, const MaybeTensor& scale, const MaybeTensor& bias,
    const MaybeTensor& inverse_norms, const MaybeTensor& codes, const MaybeTensor& unit_scale,
    const MaybeTensor& residual, int64_t bits, int64_t k, int64_t metric,
    const MaybeTensor& item_bias, const MaybeTensor& item_scale, const MaybeTensor& exclude_ids,
    const MaybeTensor& exclude_offsets, const MaybeTensor& allow_mask, const MaybeTensor& allow_ids,
    const MaybeTensor& allow_offsets, bool exact) {
  check_value(k >= 1, "k is ", k, "; expected at least 1");
  HeldSearch held;
  held.queries = checked("queries", queries, ScalarType::Float, 2);
  held.items = hold_rows(data, scale, bias, inverse_norms, bits, held.queries.size(1));
  const int64_t count = held.queries.size(0), width = held.items.rows.count;
  held.sketch = hold_sketch(codes, unit_scale, residual, held.items);
  held.item_bias = checked_vector("item_bias", item_bias, ScalarType::Float, width);
  held.item_scale = checked_vector("item_scale", item_scale, ScalarType::Float, width);
  held.exclude = hold_ids("exclude", exclude_ids, exclude_offsets, count);
  held.allow = hold_ids("allow", allow_ids, allow_offsets, count);
  if (allow_mask) {
    held.mask = checked("allow", *allow_mask, ScalarType::Bool, allow_mask->dim() == 1 ? 1 : 2);
    check_value(held.mask->size(held.mask->dim() - 1) == width, "allow has not one flag an item");
    check_value(held.mask->dim() == 1 || held.mask->size(0) == count,
                "allow has not one row a query");
  }

  TopkArguments& args = held.args;
  args.queries = held.queries.const_data_ptr<float>();
  args.count = count;
  args.items = held.items.rows;
  args.sketch = held.sketch.sketch;
  args.exact = exact;
  args.k = k;
  args.cosine = metric == 0;
  args.item_bias = pointer<float>(held.item_bias);
  args.item_scale = pointer<float>(held.item_scale);
  held.scores = torch::stable::new_empty(held.queries, {count, k});
  held.ids = torch::stable::new_empty(held.queries, {count, k}, ScalarType::Long);
  args.scores = mutable_pointer<float>(held.scores);
  args.ids = mutable_pointer<int64_t>(held.ids);
  kRun(held);
  return {held.scores, held.ids};
}

}  // namespace llmrec
