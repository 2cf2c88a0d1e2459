// Pooled embedding lookup in portable C++.
#include "embedding_bag/body.h"

namespace llmrec {

void embedding_bag_scalar(const BagArguments& args, const Parallel& parallel) {
  embedding_bag<PortableDecode>(args, parallel);
}

}  // namespace llmrec
