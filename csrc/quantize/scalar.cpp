// Row-wise quantization in portable C++.
#include "quantize/body.h"

namespace llmrec {

void quantize_scalar(const QuantizeArguments& args, FirstBad& not_finite, FirstBad& too_wide,
                     const Parallel& parallel) {
  quantize<PortableDecode>(args, not_finite, too_wide, parallel);
}

}  // namespace llmrec
