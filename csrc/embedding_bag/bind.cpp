// embedding_bag for torch on the CPU.
#include "embedding_bag/bind.h"

#include <torch/csrc/stable/library.h>

#include "common/dispatch.h"

namespace llmrec {
namespace {

const Table<BagKernel> table("embedding_bag", {
#if defined(__x86_64__)
                                                  {Level::avx512, embedding_bag_avx512},
                                                  {Level::avx2, embedding_bag_avx2},
#elif defined(__aarch64__)
                                                  {Level::neon, embedding_bag_neon},
#endif
                                                  {Level::scalar, embedding_bag_scalar}});

void run(const HeldBag& held) {
  const BagArguments& args = held.args;
  const int64_t entries = held.indices.numel();
  check_offsets("offsets", args.offsets, args.count, entries);
  FirstBad out_of_range;
  table.pick()(args, out_of_range, torch_threads());
  if (out_of_range.any())
    check_in_range("indices", args.indices, entries, args.table.count);  // says which
}

}  // namespace
}  // namespace llmrec

STABLE_TORCH_LIBRARY_IMPL(llmrec, CPU, m) {
  m.impl("embedding_bag", TORCH_BOX(&llmrec::embedding_bag<llmrec::run>));
}
