// cosine_topk for torch: unpack, check, call.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "common/binding.h"
#include "common/dispatch.h"
#include "cosine_topk/topk.h"

namespace llmrec {
namespace {

const Table<TopkKernel> table("cosine_topk",
                              {
#if defined(__x86_64__)
                                  {Level::amx, cosine_topk_amx},
                                  {Level::avx512, cosine_topk_avx512},
                                  {Level::avx2,
                                   has_avx_vnni() ? cosine_topk_avx2_vnni : cosine_topk_avx2},
#elif defined(__aarch64__)
                                  {Level::neon, cosine_topk_neon},
#endif
                                  {Level::scalar, cosine_topk_scalar}});

// Lists for each query, checked, and sorted so that membership is a binary search.
struct HeldLists {
  std::vector<int64_t> ids;
  Tensor offsets;
  IdLists lists;
};

HeldLists hold_lists(const char* name, const Tensor& ids, const Tensor& offsets, int64_t queries) {
  HeldLists held;
  const Tensor flat = checked(name, ids, ScalarType::Long, 1);
  held.offsets = checked(name, offsets, ScalarType::Long, 1);
  check_value(held.offsets.numel() == queries + 1, name, " has ", held.offsets.numel() - 1,
              " lists but there are ", queries, " queries");
  const auto* values = flat.const_data_ptr<int64_t>();
  const auto* bounds = held.offsets.const_data_ptr<int64_t>();
  check_offsets(sentence(name, " offsets").c_str(), bounds, queries, flat.numel());
  held.ids.assign(values, values + flat.numel());
  torch_threads().run(queries, [&](TaskQueue& queue) {
    for (int64_t q; queue.take(q);) {
      const auto first = held.ids.begin() + bounds[q], last = held.ids.begin() + bounds[q + 1];
      if (!std::is_sorted(first, last)) std::sort(first, last);
    }
  });
  held.ids.push_back(0);  // so that data() is not null for empty lists
  held.lists = {held.ids.data(), bounds};
  return held;
}

struct HeldSketch {
  MaybeTensor codes, unit_scale, residual;
  Sketch sketch;
};

HeldSketch hold_sketch(const MaybeTensor& codes, const MaybeTensor& unit_scale,
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

// The filters that hold for all queries, folded into one byte an item; empty where there are none.
std::vector<uint8_t> fold(int64_t count, const uint8_t* mask, const Tensor* allow,
                          const Tensor* exclude) {
  if (mask == nullptr && allow == nullptr && exclude == nullptr) return {};
  std::vector<uint8_t> allowed(static_cast<size_t>(count), allow == nullptr ? 1 : 0);
  if (mask != nullptr) std::copy(mask, mask + count, allowed.begin());
  if (allow != nullptr) {
    const auto* ids = allow->const_data_ptr<int64_t>();
    check_in_range("allow", ids, allow->numel(), count);
    for (int64_t i = 0; i < allow->numel(); ++i) allowed[ids[i]] = 1;
  }
  if (exclude != nullptr) {
    const auto* ids = exclude->const_data_ptr<int64_t>();
    for (int64_t i = 0; i < exclude->numel(); ++i)
      if (ids[i] >= 0 && ids[i] < count) allowed[ids[i]] = 0;
  }
  allowed.push_back(0);  // so that data() is not null where there are no items
  return allowed;
}

std::tuple<Tensor, Tensor> cosine_topk_cpu(
    const Tensor& queries, const Tensor& data, const MaybeTensor& scale, const MaybeTensor& bias,
    const MaybeTensor& inverse_norms, const MaybeTensor& codes, const MaybeTensor& unit_scale,
    const MaybeTensor& residual, int64_t bits, int64_t k, int64_t metric,
    const MaybeTensor& item_bias, const MaybeTensor& item_scale, const MaybeTensor& exclude_ids,
    const MaybeTensor& exclude_offsets, const MaybeTensor& allow_mask, const MaybeTensor& allow_ids,
    const MaybeTensor& allow_offsets, bool exact) {
  check_value(k >= 1, "k is ", k, "; expected at least 1");
  const Tensor vectors = checked("queries", queries, ScalarType::Float, 2);
  const HeldRows items = hold_rows(data, scale, bias, inverse_norms, bits, vectors.size(1));
  const int64_t count = vectors.size(0), width = items.rows.count;
  const HeldSketch sketch = hold_sketch(codes, unit_scale, residual, items);
  const MaybeTensor biases = checked_vector("item_bias", item_bias, ScalarType::Float, width);
  const MaybeTensor scales = checked_vector("item_scale", item_scale, ScalarType::Float, width);
  check_finite("item_bias", pointer<float>(biases), width);
  check_finite("item_scale", pointer<float>(scales), width);

  TopkArguments args;
  args.queries = vectors.const_data_ptr<float>();
  args.count = count;
  args.items = items.rows;
  args.sketch = sketch.sketch;
  args.exact = exact;
  args.k = k;
  args.cosine = metric == 0;
  args.item_bias = pointer<float>(biases);
  args.item_scale = pointer<float>(scales);

  HeldLists exclude, allow;
  MaybeTensor exclude_all, allow_all, mask;
  if (exclude_ids && exclude_offsets)
    exclude = hold_lists("exclude", *exclude_ids, *exclude_offsets, count);
  else if (exclude_ids)
    exclude_all = checked("exclude", *exclude_ids, ScalarType::Long, 1);
  if (allow_ids && allow_offsets) {
    allow = hold_lists("allow", *allow_ids, *allow_offsets, count);
    const Tensor flat = checked("allow", *allow_ids, ScalarType::Long, 1);
    check_in_range("allow", flat.const_data_ptr<int64_t>(), flat.numel(), width);
  } else if (allow_ids) {
    allow_all = checked("allow", *allow_ids, ScalarType::Long, 1);
  }
  if (allow_mask) mask = checked("allow", *allow_mask, ScalarType::Bool, allow_mask->dim());
  if (mask) check_value(mask->size(mask->dim() - 1) == width, "allow has not one flag an item");
  const bool for_all = mask && mask->dim() == 1;
  const std::vector<uint8_t> allowed =
      fold(width, for_all ? pointer<uint8_t>(mask) : nullptr, allow_all ? &*allow_all : nullptr,
           exclude_all ? &*exclude_all : nullptr);
  args.filters.allowed = allowed.empty() ? nullptr : allowed.data();
  args.filters.mask = mask && !for_all ? pointer<uint8_t>(mask) : nullptr;
  args.filters.exclude = exclude.lists;
  args.filters.allow = allow.lists;

  const Tensor scores = torch::stable::new_empty(vectors, {count, k});
  const Tensor ids = torch::stable::new_empty(vectors, {count, k}, ScalarType::Long);
  args.scores = mutable_pointer<float>(scores);
  args.ids = mutable_pointer<int64_t>(ids);
  table.pick()(args, torch_threads());
  return {scores, ids};
}

}  // namespace
}  // namespace llmrec

STABLE_TORCH_LIBRARY_IMPL(llmrec, CPU, m) {
  m.impl("cosine_topk", TORCH_BOX(&llmrec::cosine_topk_cpu));
}
