"""`llmrec::pack`: schema, fake kernel and cost."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from llmrec_kernels.cost import Cost, nbytes, nbytes_of
from llmrec_kernels.ops.define import define
from llmrec_kernels.ops.pack.reference import pack

OP = "pack"

SCHEMA = (
    "(Tensor data, Tensor? scale, Tensor? bias, int bits, SymInt dim)"
    " -> (Tensor data, Tensor inverse_norms)"
)


def _fake(
    data: Tensor, scale: Tensor | None, bias: Tensor | None, bits: int, dim: int
) -> tuple[Tensor, Tensor]:
    copy = torch.empty_like(data, memory_format=torch.contiguous_format)
    return copy, data.new_empty(data.shape[0], dtype=torch.float64)


def _cost(
    data: Tensor, scale: Tensor | None, bias: Tensor | None, bits: int, dim: int, *, out: Any
) -> Cost:
    return Cost(
        flops=2 * data.shape[0] * dim,
        bytes_read=nbytes(data, scale, bias),
        bytes_written=nbytes_of(out),
    )


define(OP, SCHEMA, reference=pack, fake=_fake, formula=_cost)
