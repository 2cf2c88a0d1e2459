// Packing over raw pointers: the inverse norm of each row, checked.
#pragma once

#include <cstdint>

#include "common/check.h"
#include "common/parallel.h"
#include "common/rows.h"

namespace llmrec {

// Writes 1 / norm of each row, and 0 for a zero row; notes the first that is not finite.
using InverseNormsKernel = void(const Rows&, double* inverse_norms, FirstBad& bad, const Parallel&);

InverseNormsKernel inverse_norms_scalar;

}  // namespace llmrec
