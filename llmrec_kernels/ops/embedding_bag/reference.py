"""Pooled embedding lookup in plain torch, and its gradient.

Pooling is float32, in the order of the indices: each row of a float table is multiplied by its
weight, rounded, and added, rounded. Of a quantized table (scale x weight) x code is added, and
bias x weight in a sum of its own, which comes last. The scalar kernels do the same and so have
the same bits, but for the sign of a maximum of 0.0 and -0.0; the other levels fuse each product
with its sum, which are rounded as one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llmrec_kernels.ops import contents, score
from llmrec_kernels.ops.rows import Rows

SUM, MEAN, MAX = 0, 1, 2
OUT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
BLOCK = 1 << 20  # gathered elements at a time


def embedding_bag(
    data: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    bits: int,
    dim: int,
    indices: Tensor,
    offsets: Tensor,
    mode: int,
    per_sample_weights: Tensor | None,
    padding_idx: int,
    normalize: bool,
    out_dtype: int,
) -> Tensor:
    """Pooled rows [B, dim]; see `llmrec_kernels.embedding_bag`. No padding is `padding_idx` -1."""
    contents.offsets("offsets", offsets, indices.shape[0])
    contents.in_range("indices", indices, data.shape[0])
    rows = Rows(data, scale, bias, bits, dim)
    owner, indices, weights = entries(indices, offsets, per_sample_weights, padding_idx)
    pooled = _pool(rows, owner, indices, weights, offsets.shape[0] - 1, mode)
    if normalize:
        pooled = (pooled.double() * score.invert(score.norms(pooled))[:, None]).float()
    return pooled.to(OUT_DTYPES[out_dtype])


def entries(
    indices: Tensor, offsets: Tensor, weights: Tensor | None, padding_idx: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The bag, the row and the weight of each entry that is no padding."""
    counts = offsets[1:] - offsets[:-1]
    bags = torch.arange(counts.shape[0], device=offsets.device)
    owner = bags.repeat_interleave(counts, output_size=indices.shape[0])
    if padding_idx < 0:
        return owner, indices, weights
    real = indices != padding_idx
    return owner[real], indices[real], None if weights is None else weights[real]


def divisors(owner: Tensor, weights: Tensor | None, count: int) -> Tensor:
    """What a mean divides a bag by, [B] float32: its number of entries, or their weights' sum."""
    if weights is None:  # counted as integers: float32 stops at 2^24
        return owner.bincount(minlength=count).float()
    sums = torch.zeros(count, dtype=torch.float32, device=owner.device)
    return sums.index_add_(0, owner, weights)


def _pool(
    rows: Rows, owner: Tensor, indices: Tensor, weights: Tensor | None, count: int, mode: int
) -> Tensor:
    start_value = -torch.inf if mode == MAX else 0.0
    pooled = torch.full((count, rows.dim), start_value, dtype=torch.float32, device=indices.device)
    step = max(1, BLOCK // max(1, rows.dim))
    for start in range(0, indices.shape[0], step):
        part = slice(start, start + step)
        values = _shares(rows, indices[part], None if weights is None else weights[part], mode)
        if mode == MAX:
            pooled.scatter_reduce_(0, owner[part, None].expand_as(values), values, "amax")
        else:
            pooled.index_add_(0, owner[part], values)
    if rows.bias is not None and mode != MAX:
        pooled += _of_biases(rows, owner, indices, weights, count)[:, None]
    if mode == MAX:
        empty = divisors(owner, None, count) == 0
        return pooled.masked_fill(empty[:, None], 0.0)
    if mode == MEAN:
        by = divisors(owner, weights, count)[:, None]
        return torch.where(by == 0, torch.zeros_like(pooled), pooled / by)
    return pooled


def _shares(rows: Rows, indices: Tensor, weights: Tensor | None, mode: int) -> Tensor:
    """What entries add to their bags, [n, D], without the biases; for a maximum, the rows."""
    if rows.scale is None or mode == MAX:
        values = rows.widen(indices)
        return values if weights is None else values * weights[:, None]
    factors = rows.scale[indices].float()
    factors = factors if weights is None else factors * weights
    return factors[:, None] * rows.codes(indices)


def _of_biases(
    rows: Rows, owner: Tensor, indices: Tensor, weights: Tensor | None, count: int
) -> Tensor:
    assert rows.bias is not None
    biases = rows.bias[indices].float()
    biases = biases if weights is None else biases * weights
    return torch.zeros(count, device=indices.device).index_add_(0, owner, biases)


def embedding_bag_backward(
    grad: Tensor,  # [B, D]
    data: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    bits: int,
    dim: int,
    indices: Tensor,
    offsets: Tensor,
    mode: int,
    per_sample_weights: Tensor | None,
    padding_idx: int,
    normalize: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of a float table [V, D] (quantized: [0]) and of the weights [nnz] (none: [0]).

    The maximum passes its gradient to the first entry that reaches it.
    """
    rows = Rows(data, scale, bias, bits, dim)
    count = offsets.shape[0] - 1
    owner, rows_of, weights = entries(indices, offsets, per_sample_weights, padding_idx)
    grad = grad.float()
    if normalize:
        grad = _through_norm(grad, _pool(rows, owner, rows_of, weights, count, mode))
    grad_weights = grad.new_zeros(0 if weights is None else indices.shape[0])
    grad_table = grad.new_zeros(data.shape if bits == 0 else (0,))
    if mode == MEAN:
        by = divisors(owner, weights, count)
        grad = torch.where(by[:, None] == 0, torch.zeros_like(grad), grad / by[:, None])
    if mode == MAX:
        _max_backward(grad, rows, owner, rows_of, grad_table)
        return grad_table.to(data.dtype) if bits == 0 else grad_table, grad_weights
    mean = _pool(rows, owner, rows_of, weights, count, MEAN) if mode == MEAN else None
    per_entry = grad.new_zeros(rows_of.shape[0])
    step = max(1, BLOCK // max(1, dim))
    for start in range(0, rows_of.shape[0], step):
        part = slice(start, start + step)
        bag_grad = grad[owner[part]]
        if bits == 0:
            share = bag_grad if weights is None else bag_grad * weights[part, None]
            grad_table.index_add_(0, rows_of[part], share)
        if weights is not None:
            # d (sum w x / sum w) / d w = (x - mean) / sum w; the division is in `grad` already.
            values = rows.widen(rows_of[part])
            values = values if mean is None else values - mean[owner[part]]
            per_entry[part] = (bag_grad * values).sum(1)
    if weights is not None:
        real = indices != padding_idx
        grad_weights[real] = per_entry
    return grad_table.to(data.dtype) if bits == 0 else grad_table, grad_weights


def _through_norm(grad: Tensor, pooled: Tensor) -> Tensor:
    """Through p / |p|: (g - (g . p') p') / |p|, and 0 for a zero row."""
    inverse = score.invert(score.norms(pooled))[:, None]
    unit = pooled.double() * inverse
    wide = grad.double()
    return ((wide - (wide * unit).sum(1, keepdim=True) * unit) * inverse).float()


def _max_backward(
    grad: Tensor, rows: Rows, owner: Tensor, indices: Tensor, grad_table: Tensor
) -> None:
    if rows.bits != 0 or indices.shape[0] == 0:
        return
    pooled = _pool(rows, owner, indices, None, grad.shape[0], MAX)
    entry = torch.full(grad.shape, indices.shape[0], dtype=torch.int64, device=grad.device)
    step = max(1, BLOCK // max(1, rows.dim))
    for start in range(0, indices.shape[0], step):
        part = slice(start, start + step)
        reaches = rows.widen(indices[part]) == pooled[owner[part]]
        places = torch.arange(start, start + reaches.shape[0], device=grad.device)[:, None]
        places = torch.where(reaches, places, indices.shape[0])
        entry.scatter_reduce_(0, owner[part, None].expand_as(places), places, "amin")
    found = entry < indices.shape[0]
    row = indices[entry.clamp(max=indices.shape[0] - 1)]
    grad_table.scatter_add_(0, row, torch.where(found, grad, torch.zeros_like(grad)))
