"""`llmrec::cosine_topk`: schema, fake kernel and cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from llmrec_kernels.cost import Cost, Formula, nbytes, nbytes_of
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


def _count(
    queries: Tensor,
    data: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    inverse_norms: Tensor | None,
    codes: Tensor | None,
    unit_scale: Tensor | None,
    residual: Tensor | None,
    bits: int,
    k: int,
    metric: int,
    item_bias: Tensor | None,
    item_scale: Tensor | None,
    exclude_ids: Tensor | None,
    exclude_offsets: Tensor | None,
    allow_mask: Tensor | None,
    allow_ids: Tensor | None,
    allow_offsets: Tensor | None,
    exact: bool,
    *,
    out: Any,
) -> Cost:
    """Every query with every item that may be returned; the contents of a mask are not looked at.

    Items with codes are read as such, and as what they are stored as only where they are returned.
    """
    count, (width, dim) = queries.shape[0], (data.shape[0], queries.shape[1])
    pairs, scanned = count * width, width
    if allow_ids is not None:
        pairs = allow_ids.shape[0] * (1 if allow_offsets is not None else count)
        scanned = min(width, allow_ids.shape[0])
    stored = scanned if codes is None else min(scanned, count * k)
    row = data.shape[1] * data.element_size() + _widths(scale, bias, inverse_norms)
    item = _widths(item_bias, item_scale)
    if codes is not None:
        item += 4 * codes.shape[1] + _widths(unit_scale, residual)  # groups of four codes
    filters = (exclude_ids, exclude_offsets, allow_mask, allow_ids, allow_offsets)
    return Cost(
        flops=2 * pairs * dim,
        bytes_read=nbytes(queries, *filters) + stored * row + scanned * item,
        bytes_written=nbytes_of(out),
    )


def _widths(*vectors: Tensor | None) -> int:
    """Bytes of one entry of each."""
    return sum(vector.element_size() for vector in vectors if vector is not None)


# The exact scan multiplies int8 codes.
FORMULA = Formula(_count, kind="int8")
define(OP, SCHEMA, reference=cosine_topk, fake=_fake, formula=FORMULA)


def offer(suffix: str, implementation: Callable[..., Any]) -> None:
    """Define the operator once more, over other kernels."""
    enter(OP, suffix, SCHEMA, implementation, _fake, FORMULA, differentiable=False)
