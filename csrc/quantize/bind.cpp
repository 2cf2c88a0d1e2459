// quantize for torch on the CPU.
#include "quantize/bind.h"

#include <torch/csrc/stable/library.h>

#include "common/dispatch.h"
#include "common/pages.h"

namespace llmrec {
namespace {

const Table<QuantizeKernel> table("quantize", {
#if defined(__x86_64__)
                                                  {Level::avx512, quantize_avx512},
                                                  {Level::avx2, quantize_avx2},
#elif defined(__aarch64__)
                                                  {Level::neon, quantize_neon},
#endif
                                                  {Level::scalar, quantize_scalar}});

void run(const HeldWeight& held) {
  const QuantizeArguments& args = held.args;
  const int64_t bytes = args.weight.count * bytes_of(args.storage, args.weight.dim);
  prefer_large_pages(args.codes, static_cast<size_t>(bytes));  // lookups read rows at random
  FirstBad not_finite, too_wide;
  table.pick()(args, not_finite, too_wide, torch_threads());
  check_finite_rows("weight", not_finite);
  check_value(!too_wide.any(), "weight spans more in row ", too_wide.position(), " than ",
              held.format->name, " can hold (", held.format->limit, "); scale the weights down");
}

}  // namespace
}  // namespace llmrec

STABLE_TORCH_LIBRARY_IMPL(llmrec, CPU, m) {
  m.impl("quantize", TORCH_BOX(&llmrec::quantize<llmrec::run>));
}
