"""`llmrec::quantize`: schema, fake kernel and cost."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from llmrec_kernels.cost import Cost, nbytes, nbytes_of
from llmrec_kernels.ops.define import define
from llmrec_kernels.ops.quantize.reference import STORED, quantize

OP = "quantize"

SCHEMA = "(Tensor weight, int bits, bool symmetric) -> (Tensor codes, Tensor scale, Tensor bias)"


def _fake(weight: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor, Tensor]:
    rows, dim = weight.shape
    code_dtype = torch.int8 if symmetric and bits == 8 else torch.uint8
    codes = weight.new_empty(rows, dim if bits == 8 else (dim + 1) // 2, dtype=code_dtype)
    scale = weight.new_empty(rows, dtype=STORED[bits])
    return codes, scale, scale.new_empty(0 if symmetric else rows)


def _cost(weight: Tensor, bits: int, symmetric: bool, *, out: Any) -> Cost:
    # Per element: two comparisons for the range, then subtract, divide, round.
    return Cost(flops=5 * weight.numel(), bytes_read=nbytes(weight), bytes_written=nbytes_of(out))


define(OP, SCHEMA, reference=quantize, fake=_fake, formula=_cost)
