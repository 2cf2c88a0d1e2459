// Packing in portable C++.
#include "pack/body.h"

namespace llmrec {

void pack_scalar(const PackArguments& args, FirstBad& bad, const Parallel& parallel) {
  pack_rows(args, bad, parallel);
}

}  // namespace llmrec
