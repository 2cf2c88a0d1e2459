"""`llmrec::pack`: schema, fake kernel and cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from llmrec_kernels.cost import Cost, Formula, nbytes, nbytes_of
from llmrec_kernels.ops.define import define, enter
from llmrec_kernels.ops.pack import layout
from llmrec_kernels.ops.pack.reference import pack

OP = "pack"

SCHEMA = (
    "(Tensor data, Tensor? scale, Tensor? bias, int bits, SymInt dim)"
    " -> (Tensor data, Tensor inverse_norms, Tensor codes, Tensor unit_scale, Tensor residual)"
)


def result(
    data: Tensor, scale: Tensor | None, bias: Tensor | None, bits: int, dim: int
) -> tuple[Tensor, ...]:
    """What packing returns, of the right shapes, with no contents."""
    count = data.shape[0]
    blocks = (layout.blocks(count), layout.groups(dim), layout.LANES, layout.GROUP)
    return (
        torch.empty_like(data, memory_format=torch.contiguous_format),
        data.new_empty(count, dtype=torch.float64),
        data.new_empty(blocks, dtype=torch.int8),
        data.new_empty(count, dtype=torch.float32),
        data.new_empty(count, dtype=torch.float32),
    )


def _count(
    data: Tensor, scale: Tensor | None, bias: Tensor | None, bits: int, dim: int, *, out: Any
) -> Cost:
    # Per element: the norm's multiply-add, a comparison for the largest, multiplied and rounded for
    # its code, a multiply-add for what the code leaves out, and one more for the norm of that.
    return Cost(
        flops=9 * data.shape[0] * dim,
        bytes_read=nbytes(data, scale, bias),
        bytes_written=nbytes_of(out),
    )


FORMULA = Formula(_count)
define(OP, SCHEMA, reference=pack, fake=result, formula=FORMULA)


def offer(suffix: str, implementation: Callable[..., Any]) -> None:
    """Define the operator once more, over other kernels."""
    enter(OP, suffix, SCHEMA, implementation, result, FORMULA, differentiable=False)
