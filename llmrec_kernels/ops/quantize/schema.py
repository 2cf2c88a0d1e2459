"""`llmrec::quantize`: schema, fake kernel and cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from llmrec_kernels.cost import Cost, Formula, nbytes, nbytes_of
from llmrec_kernels.ops.define import define, enter
from llmrec_kernels.ops.quantize.reference import BITS, DTYPES, FLOAT_CODES, STORED, quantize

OP = "quantize"

# A row's scale and bias come in one tensor, side by side: a lookup then reads one cache line.
SCHEMA = "(Tensor weight, int dtype, bool symmetric) -> (Tensor codes, Tensor numbers)"


def result(weight: Tensor, dtype: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Codes and numbers of the right shapes, with no contents."""
    rows, dim = weight.shape
    name = DTYPES[dtype]
    if name in FLOAT_CODES:
        codes = weight.new_empty(rows, dim, dtype=FLOAT_CODES[name])
        return codes, weight.new_empty(rows, int(name == "fp8_e4m3"), dtype=torch.float32)
    bits = BITS[name]
    code_dtype = torch.int8 if symmetric and bits == 8 else torch.uint8
    codes = weight.new_empty(rows, dim if bits == 8 else (dim + 1) // 2, dtype=code_dtype)
    return codes, weight.new_empty(rows, 1 if symmetric else 2, dtype=STORED[bits])


def _count(weight: Tensor, dtype: int, symmetric: bool, *, out: Any) -> Cost:
    # Per element: two comparisons for the range, then subtract, divide, round.
    return Cost(flops=5 * weight.numel(), bytes_read=nbytes(weight), bytes_written=nbytes_of(out))


FORMULA = Formula(_count)
define(OP, SCHEMA, reference=quantize, fake=result, formula=FORMULA)


def offer(suffix: str, implementation: Callable[..., Any]) -> None:
    """Define the operator once more, over other kernels."""
    enter(OP, suffix, SCHEMA, implementation, result, FORMULA, differentiable=False)
