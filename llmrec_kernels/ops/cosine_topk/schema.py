"""`llmrec::cosine_topk`: schema, fake kernel and cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from llmrec_kernels.cost import Cost, nbytes, nbytes_of
from llmrec_kernels.ops.cosine_topk.reference import cosine_topk
from llmrec_kernels.ops.define import define, enter

OP = "cosine_topk"

SCHEMA = (
    "(Tensor queries, Tensor data, Tensor? scale, Tensor? bias, Tensor? inverse_norms, "
    "Tensor? codes, Tensor? unit_scale, Tensor? residual, int bits, "
    "SymInt k, int metric, Tensor? item_bias, Tensor? item_scale, "
    "Tensor? exclude_ids, Tensor? exclude_offsets, "
    "Tensor? allow_mask, Tensor? allow_ids, Tensor? allow_offsets, bool exact)"
    " -> (Tensor scores, Tensor ids)"
)


def _fake(
    queries: Tensor,
    data: Tensor,
    scale: Any,
    bias: Any,
    inverse_norms: Any,
    codes: Any,
    unit_scale: Any,
    residual: Any,
    bits: int,
    k: int,
    *rest: Any,
) -> tuple[Tensor, Tensor]:
    scores = queries.new_empty(queries.shape[0], k, dtype=torch.float32)
    return scores, queries.new_empty(queries.shape[0], k, dtype=torch.int64)


def _cost(queries: Tensor, data: Tensor, *arguments: Any, out: Any) -> Cost:
    count, dim = queries.shape
    tensors = [value for value in arguments if isinstance(value, Tensor)]
    return Cost(
        flops=2 * count * data.shape[0] * dim,
        bytes_read=nbytes(queries, data, *tensors),
        bytes_written=nbytes_of(out),
    )


define(OP, SCHEMA, reference=cosine_topk, fake=_fake, formula=_cost)


def offer(suffix: str, implementation: Callable[..., Any]) -> None:
    """Define the operator once more, over other kernels."""
    enter(OP, suffix, SCHEMA, implementation, _fake, _cost, differentiable=False)
