// Pooled embedding lookup in portable C++.
#include "embedding_bag/body.h"

namespace llmrec {

void embedding_bag_scalar(const BagArguments& args, FirstBad& bad, const Parallel& parallel) {
  embedding_bag<PortableDecode>(args, bad, parallel);
}

}  // namespace llmrec
