// pack for torch on the CPU.
#include "pack/bind.h"

#include <torch/csrc/stable/library.h>

#include "common/dispatch.h"
#include "common/pages.h"

namespace llmrec {
namespace {

const Table<PackKernel> table("pack", {
#if defined(__x86_64__)
                                          {Level::avx512, pack_avx512},
                                          {Level::avx2, pack_avx2},
#endif
                                          {Level::scalar, pack_scalar}});

void run(const HeldPack& held) {
  const PackArguments& args = held.args;
  // Searches read codes from end to end, and rows at random.
  prefer_large_pages(args.data, static_cast<size_t>(args.rows.count * args.row_bytes));
  prefer_large_pages(args.sketch.codes, static_cast<size_t>(held.codes.numel()));
  FirstBad bad;
  table.pick()(args, bad, torch_threads());
  check_finite_rows("items", bad);
}

}  // namespace
}  // namespace llmrec

STABLE_TORCH_LIBRARY_IMPL(llmrec, CPU, m) { m.impl("pack", TORCH_BOX(&llmrec::pack<llmrec::run>)); }
