"""`llmrec::embedding_bag`: schema, fake kernels, gradient and cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from llmrec_kernels._library import library
from llmrec_kernels.cost import Cost, Formula, nbytes, nbytes_of
from llmrec_kernels.ops.define import define, enter, first_order_only
from llmrec_kernels.ops.embedding_bag.reference import (
    OUT_DTYPES,
    embedding_bag,
    embedding_bag_backward,
)

OP = "embedding_bag"

SCHEMA = (
    "(Tensor data, Tensor? scale, Tensor? bias, int bits, SymInt dim, Tensor indices, "
    "Tensor offsets, int mode, Tensor? per_sample_weights, SymInt padding_idx, bool normalize, "
    "int out_dtype) -> Tensor"
)
BACKWARD = (
    "(Tensor grad, Tensor data, Tensor? scale, Tensor? bias, int bits, SymInt dim, "
    "Tensor indices, Tensor offsets, int mode, Tensor? per_sample_weights, SymInt padding_idx, "
    "bool normalize) -> (Tensor grad_table, Tensor grad_weights)"
)


def _fake(
    data: Tensor,
    scale: Any,
    bias: Any,
    bits: int,
    dim: int,
    indices: Tensor,
    offsets: Tensor,
    *rest: Any,
) -> Tensor:
    return data.new_empty(offsets.shape[0] - 1, dim, dtype=OUT_DTYPES[rest[-1]])


def _fake_backward(
    grad: Tensor,
    data: Tensor,
    scale: Any,
    bias: Any,
    bits: int,
    dim: int,
    indices: Tensor,
    offsets: Tensor,
    mode: int,
    per_sample_weights: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor]:
    return (
        data.new_empty(data.shape) if bits == 0 else data.new_empty(0, dtype=torch.float32),
        data.new_empty(0 if per_sample_weights is None else indices.shape[0], dtype=torch.float32),
    )


def _touched(data: Tensor, indices: Tensor, *metadata: Tensor | None) -> int:
    """Bytes of the rows that the indices name, counted as often as they are named."""
    row = data.shape[1] * data.element_size()
    row += sum(t.element_size() for t in metadata if t is not None)
    return indices.shape[0] * row


def _count(
    data: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    bits: int,
    dim: int,
    indices: Tensor,
    offsets: Tensor,
    mode: int,
    per_sample_weights: Tensor | None,
    *rest: Any,
    out: Any,
) -> Cost:
    # Widening a quantized element is a multiply-add; weighting and pooling are one each.
    per_element = 1 + (2 if bits else 0) + (per_sample_weights is not None)
    return Cost(
        flops=per_element * indices.shape[0] * dim,
        bytes_read=_touched(data, indices, scale, bias)
        + nbytes(indices, offsets, per_sample_weights),
        bytes_written=nbytes_of(out),
    )


def _count_backward(
    grad: Tensor, data: Tensor, scale: Any, bias: Any, bits: int, dim: int, indices: Tensor,
    offsets: Tensor, *rest: Any, out: Any,
) -> Cost:  # fmt: skip
    return Cost(
        flops=2 * indices.shape[0] * dim,
        bytes_read=nbytes(grad, indices, offsets),
        bytes_written=nbytes_of(out),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    (data, scale, bias, ctx.bits, ctx.dim, indices, offsets, ctx.mode, weights) = inputs[:9]
    ctx.padding_idx, ctx.normalize = inputs[9:11]
    ctx.save_for_backward(data, scale, bias, indices, offsets, weights)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    data, scale, bias, indices, offsets, weights = ctx.saved_tensors
    grad_table, grad_weights = torch.ops.llmrec.embedding_bag_backward(
        grad.contiguous(), data, scale, bias, ctx.bits, ctx.dim, indices, offsets, ctx.mode,
        weights, ctx.padding_idx, ctx.normalize,
    )  # fmt: skip
    result: list[Tensor | None] = [None] * 12
    result[0] = grad_table if ctx.bits == 0 else None
    result[8] = None if weights is None else grad_weights
    return tuple(result)


FORMULA = Formula(_count, lookup=5)
define(
    OP,
    SCHEMA,
    reference=embedding_bag,
    fake=_fake,
    formula=FORMULA,
    differentiable=True,
)
define(
    f"{OP}_backward",
    BACKWARD,
    reference=embedding_bag_backward,
    fake=_fake_backward,
    formula=Formula(_count_backward),
    differentiable=True,
)
first_order_only(f"{OP}_backward")
for _name in (OP, f"{OP}_reference"):
    torch.library.register_autograd(f"llmrec::{_name}", _backward, setup_context=_save, lib=library)


def offer(suffix: str, implementation: Callable[..., Tensor]) -> None:
    """Define the operator once more, over other kernels."""
    enter(OP, suffix, SCHEMA, implementation, _fake, FORMULA, differentiable=True)
    torch.library.register_autograd(
        f"llmrec::{OP}{suffix}", _backward, setup_context=_save, lib=library
    )
