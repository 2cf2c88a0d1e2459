// cosine_topk for torch on the CPU.
#include "cosine_topk/bind.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <vector>

#include "common/dispatch.h"

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

// Lists for each query, sorted so that membership is a binary search; `ids` holds them.
IdLists sorted_lists(const char* name, const HeldIds& held, int64_t queries,
                     std::vector<int64_t>& ids) {
  if (!held.ids || !held.offsets) return {};
  const auto* values = pointer<int64_t>(held.ids);
  const auto* bounds = pointer<int64_t>(held.offsets);
  const int64_t entries = held.ids->numel();
  check_offsets(sentence(name, " offsets").c_str(), bounds, queries, entries);
  ids.assign(values, values + entries);
  torch_threads().run(queries, [&](TaskQueue& queue) {
    for (int64_t q; queue.take(q);) {
      const auto first = ids.begin() + bounds[q], last = ids.begin() + bounds[q + 1];
      if (!std::is_sorted(first, last)) std::sort(first, last);
    }
  });
  ids.push_back(0);  // so that data() is not null for empty lists
  return {ids.data(), bounds};
}

// The filters that hold for all queries, folded into one byte an item; empty where there are none.
std::vector<uint8_t> fold(int64_t count, const uint8_t* mask, const HeldIds& allow,
                          const HeldIds& exclude) {
  const bool allow_all = allow.ids && !allow.offsets;
  const bool exclude_all = exclude.ids && !exclude.offsets;
  if (mask == nullptr && !allow_all && !exclude_all) return {};
  // One more, so that data() is not null where there are no items.
  std::vector<uint8_t> allowed(static_cast<size_t>(count) + 1, allow_all ? 0 : 1);
  if (mask != nullptr) std::copy(mask, mask + count, allowed.begin());
  if (allow_all) {
    const auto* ids = pointer<int64_t>(allow.ids);
    for (int64_t i = 0; i < allow.ids->numel(); ++i) allowed[ids[i]] = 1;
  }
  if (exclude_all) {
    const auto* ids = pointer<int64_t>(exclude.ids);
    for (int64_t i = 0; i < exclude.ids->numel(); ++i)
      if (ids[i] >= 0 && ids[i] < count) allowed[ids[i]] = 0;
  }
  return allowed;
}

void run(HeldSearch& held) {
  TopkArguments& args = held.args;
  const int64_t count = args.count, width = args.items.count;
  check_finite("item_bias", args.item_bias, width);
  check_finite("item_scale", args.item_scale, width);
  std::vector<int64_t> exclude, allow;
  args.filters.exclude = sorted_lists("exclude", held.exclude, count, exclude);
  args.filters.allow = sorted_lists("allow", held.allow, count, allow);
  if (held.allow.ids)
    check_in_range("allow", pointer<int64_t>(held.allow.ids), held.allow.ids->numel(), width);
  const bool for_all = held.mask && held.mask->dim() == 1;
  const auto* mask = pointer<uint8_t>(held.mask);
  const std::vector<uint8_t> allowed =
      fold(width, for_all ? mask : nullptr, held.allow, held.exclude);
  args.filters.allowed = allowed.empty() ? nullptr : allowed.data();
  args.filters.mask = for_all ? nullptr : mask;
  table.pick()(args, torch_threads());
}

}  // namespace
}  // namespace llmrec

STABLE_TORCH_LIBRARY_IMPL(llmrec, CPU, m) {
  m.impl("cosine_topk", TORCH_BOX(&llmrec::cosine_topk<llmrec::run>));
}
