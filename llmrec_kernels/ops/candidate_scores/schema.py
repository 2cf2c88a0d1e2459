"""`llmrec::candidate_scores` and its top-k: schemas, fake kernels, gradients and cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from llmrec_kernels._library import library
from llmrec_kernels.cost import Cost, Formula, nbytes, nbytes_of
from llmrec_kernels.ops.candidate_scores.reference import (
    candidate_scores,
    candidate_scores_backward,
    candidate_topk,
)
from llmrec_kernels.ops.define import define, enter, first_order_only

OP = "candidate_scores"

ARGUMENTS = (
    "Tensor queries, Tensor data, Tensor? scale, Tensor? bias, Tensor? inverse_norms, int bits, "
    "Tensor candidates, Tensor offsets, int metric, Tensor? query_bias, Tensor? item_bias, "
    "float offset, Tensor? query_scale, Tensor? item_scale"
)
SCHEMA = f"({ARGUMENTS}) -> Tensor"
TOPK = f"({ARGUMENTS}, SymInt k) -> (Tensor scores, Tensor ids)"
BACKWARD = (
    "(Tensor grad, Tensor queries, Tensor data, Tensor? scale, Tensor? bias, int bits, "
    "Tensor candidates, Tensor offsets, int metric, Tensor? query_scale, Tensor? item_scale)"
    " -> (Tensor grad_queries, Tensor grad_items, Tensor grad_query_bias, Tensor grad_item_bias,"
    " Tensor grad_query_scale, Tensor grad_item_scale)"
)


def _fake(queries: Tensor, *arguments: Any) -> Tensor:
    candidates: Tensor = arguments[5]
    return queries.new_empty(candidates.shape[0], dtype=torch.float32)


def _fake_topk(queries: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    k = arguments[-1]
    scores = queries.new_empty(queries.shape[0], k, dtype=torch.float32)
    return scores, queries.new_empty(queries.shape[0], k, dtype=torch.int64)


def _fake_backward(
    grad: Tensor, queries: Tensor, data: Tensor, scale: Any, bias: Any, bits: int, *rest: Any
) -> tuple[Tensor, ...]:
    count, width = queries.shape[0], data.shape[0]
    return (
        torch.empty_like(queries, memory_format=torch.contiguous_format),
        data.new_empty(data.shape) if bits == 0 else data.new_empty(0, dtype=torch.float32),
        *(grad.new_empty(size) for size in (count, width, count, width)),
    )


def _count(queries: Tensor, data: Tensor, *arguments: Any, out: Any) -> Cost:
    metadata = [t for t in arguments[:3] if t is not None]
    candidates = arguments[4]
    row = data.shape[1] * data.element_size() + sum(t.element_size() for t in metadata)
    rest = [t for t in arguments[4:] if isinstance(t, Tensor)]
    return Cost(
        flops=2 * candidates.shape[0] * queries.shape[1],
        bytes_read=nbytes(queries, *rest) + candidates.shape[0] * row,
        bytes_written=nbytes_of(out),
    )


def _count_backward(grad: Tensor, queries: Tensor, data: Tensor, *rest: Any, out: Any) -> Cost:
    pairs, dim = grad.shape[0], queries.shape[1]
    return Cost(
        flops=4 * pairs * dim,
        bytes_read=nbytes(grad, queries) + pairs * dim * data.element_size(),
        bytes_written=nbytes_of(out),
    )


# Where the arguments of ARGUMENTS stand that have a gradient, in the order of BACKWARD's results.
_DIFFERENTIABLE = (0, 1, 9, 10, 12, 13)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    queries, data, scale, bias, _, ctx.bits, candidates, offsets, ctx.metric = inputs[:9]
    query_scale, item_scale = inputs[12:14]
    ctx.save_for_backward(queries, data, scale, bias, candidates, offsets, query_scale, item_scale)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    queries, data, scale, bias, candidates, offsets, query_scale, item_scale = ctx.saved_tensors
    grads = torch.ops.llmrec.candidate_scores_backward(
        grad.contiguous(),
        queries,
        data,
        scale,
        bias,
        ctx.bits,
        candidates,
        offsets,
        ctx.metric,
        query_scale,
        item_scale,
    )
    result: list[Tensor | None] = [None] * 14
    for place, found in zip(_DIFFERENTIABLE, grads, strict=True):
        if ctx.needs_input_grad[place]:
            result[place] = found
    return tuple(result)


FORMULA = Formula(_count, lookup=6)
# The overload comes first: a later one would replace the packet that the cost is entered for.
define(
    f"{OP}.topk",
    TOPK,
    reference=candidate_topk,
    fake=_fake_topk,
    formula=FORMULA,
)
define(
    OP,
    SCHEMA,
    reference=candidate_scores,
    fake=_fake,
    formula=FORMULA,
    differentiable=True,
)
define(
    f"{OP}_backward",
    BACKWARD,
    reference=candidate_scores_backward,
    fake=_fake_backward,
    formula=Formula(_count_backward),
    differentiable=True,
)
first_order_only(f"{OP}_backward")
for _name in (OP, f"{OP}_reference"):
    torch.library.register_autograd(f"llmrec::{_name}", _backward, setup_context=_save, lib=library)


def offer(suffix: str, scores: Callable[..., Tensor], topk: Callable[..., Any]) -> None:
    """Define the operator and its overload once more, over other kernels."""
    enter(f"{OP}.topk", suffix, TOPK, topk, _fake_topk, FORMULA, differentiable=False)
    enter(OP, suffix, SCHEMA, scores, _fake, FORMULA, differentiable=True)
    torch.library.register_autograd(
        f"llmrec::{OP}{suffix}", _backward, setup_context=_save, lib=library
    )
