"""Pooled embedding lookup in Triton: a program pools a few bags, a block of columns of each.

The rows of a bag are added in the order of its indices, by fused multiply-adds, as the compiled
CPU levels do. The loop over a bag is unrolled, so that several rows are on their way at a time.
The limit is memory: the 32-byte sectors that the rows touch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from llmrec_kernels.ops.embedding_bag.reference import OUT_DTYPES
from llmrec_kernels.ops.embedding_bag.schema import offer
from llmrec_kernels.ops.rows import Rows
from llmrec_kernels.ops.triton_common import (
    INT4_AFFINE,
    INT8_AFFINE,
    OPTIONS,
    DeviceRows,
    codes_of,
    elements_of,
    inverse_of,
    numbers_of,
    per_load,
)

UNROLL = 4  # rows on their way; half as many of 4-bit codes, which need more registers
WARPS = 2
REGISTERS = 128  # of a thread, at most
WIDEST = 256  # columns of a program
NORMAL_ROWS = 4  # rows that a program normalises, and their columns at a time
NORMAL_COLUMNS = 128

_MODE_MEAN, _MODE_MAX = tl.constexpr(1), tl.constexpr(2)


@triton.jit(do_not_specialize=["table_rows", "entries", "bags", "padding"])
def pool(
    data, scale, bias, indices, offsets, weights, out,
    table_rows, stride, width, number_stride, entries, bags, dim, padding,
    STORAGE: tl.constexpr, MODE: tl.constexpr, BAGS: tl.constexpr, COLUMNS: tl.constexpr,
    UNROLL: tl.constexpr,
):  # fmt: skip
    """out[b] = the sum, mean or maximum over bag b. `weights`, `scale`, `bias` may be None."""
    bag = tl.program_id(0).to(tl.int64) * BAGS + tl.arange(0, BAGS)
    first = tl.program_id(1) * COLUMNS
    is_bag = bag < bags
    start = tl.maximum(tl.load(offsets + bag, mask=is_bag, other=0), 0)
    start = tl.minimum(start, entries)
    end = tl.maximum(tl.load(offsets + bag + 1, mask=is_bag, other=0), 0)
    end = tl.minimum(end, entries)
    sums = tl.full((BAGS, COLUMNS), float("-inf") if MODE == _MODE_MAX else 0.0, tl.float32)
    last = tl.zeros((BAGS,), tl.float32)  # what biases add up to
    divisor = tl.zeros((BAGS,), tl.float32)
    counted = tl.zeros((BAGS,), tl.int64)
    for step in range(0, tl.max(end - start, axis=0), UNROLL):
        for part in tl.static_range(UNROLL):
            entry = start + step + part
            inside = entry < end  # a bag that does not exist ends at 0
            index = tl.load(indices + entry, mask=inside, other=-1)
            real = (index >= 0) & (index < table_rows) & (index != padding)
            counted += real.to(tl.int64)
            if MODE == _MODE_MAX:
                values = elements_of(
                    data, scale, bias, index, real, stride, width, number_stride, first, dim,
                    COLUMNS, STORAGE,
                )  # fmt: skip
                keep = (sums >= values) | (sums != sums) | ~real[:, None]  # a NaN stays
                sums = tl.where(keep, sums, values)
            else:
                values = codes_of(data, index, real, stride, width, first, dim, COLUMNS, STORAGE)
                factor = real.to(tl.float32)
                if weights is not None:
                    factor = tl.load(weights + entry, mask=real, other=0.0)
                    divisor += factor
                if (STORAGE == INT8_AFFINE) | (STORAGE == INT4_AFFINE):
                    last = tl.fma(numbers_of(bias, index, real, number_stride), factor, last)
                if STORAGE >= INT8_AFFINE:
                    factor = factor * numbers_of(scale, index, real, number_stride)
                if STORAGE >= INT8_AFFINE or weights is not None:
                    share = tl.broadcast_to(factor[:, None], (BAGS, COLUMNS))
                    sums = tl.fma(share, values, sums)
                else:
                    sums = sums + values
    if MODE == _MODE_MAX:
        sums = tl.where((counted > 0)[:, None], sums, 0.0)
    else:
        sums = sums + last[:, None]
    if MODE == _MODE_MEAN:
        by = divisor if weights is not None else counted.to(tl.float32)
        some = tl.where(by == 0.0, 1.0, by)
        sums = tl.where((by == 0.0)[:, None], 0.0, tl.div_rn(sums, some[:, None]))
    columns = first + tl.arange(0, COLUMNS)
    at = out + bag[:, None] * dim + columns[None, :]
    tl.store(at, sums.to(out.dtype.element_ty), mask=is_bag[:, None] & (columns < dim)[None, :])


@triton.jit(do_not_specialize=["count"])
def normalize(pooled, out, count, dim, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """out[r] = pooled[r] / |pooled[r]|, with the length in float64; zero rows stay."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    square = tl.zeros((ROWS, COLUMNS), tl.float64)
    for first in range(0, dim, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        inside = (row < count)[:, None] & (columns < dim)[None, :]
        at = row[:, None] * dim + columns[None, :]
        values = tl.load(pooled + at, mask=inside, other=0.0).to(tl.float64)
        square += values * values
    inverse = inverse_of(tl.sum(square, axis=1))[:, None]
    for first in range(0, dim, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        inside = (row < count)[:, None] & (columns < dim)[None, :]
        at = row[:, None] * dim + columns[None, :]
        values = tl.load(pooled + at, mask=inside, other=0.0).to(tl.float64) * inverse
        tl.store(out + at, values.to(tl.float32).to(out.dtype.element_ty), mask=inside)


def unroll_of(storage: int) -> int:
    """Rows of a bag that are asked for at a time."""
    return UNROLL if per_load(storage) < 32 else UNROLL // 2


def shape_of(storage: int, dim: int) -> tuple[int, int]:
    """(bags, columns) of a program: each thread then loads 16 bytes of a row."""
    columns = min(WIDEST, max(16, triton.next_power_of_2(dim)))
    return max(1, min(16, WARPS * 32 * per_load(storage) // columns)), columns


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
    normalize_rows: bool,
    out_dtype: int,
) -> Tensor:
    """As `reference.embedding_bag`, with no look at contents: entries out of range are skipped."""
    rows = DeviceRows.of(Rows(data, scale, bias, bits, dim))
    count = offsets.shape[0] - 1
    out = data.new_empty(count, dim, dtype=OUT_DTYPES[out_dtype])
    if count == 0 or dim == 0:
        return out
    pooled = torch.empty_like(out, dtype=torch.float32) if normalize_rows else out
    bags, columns = shape_of(rows.storage, dim)
    weights = None if per_sample_weights is None else per_sample_weights.contiguous()
    with torch.cuda.device_of(data):
        pool[(triton.cdiv(count, bags), triton.cdiv(dim, columns))](
            rows.data, rows.scale, rows.bias, indices.contiguous(), offsets.contiguous(), weights,
            pooled, data.shape[0], rows.stride, rows.width, rows.number_stride,
            indices.shape[0], count, dim,
            padding_idx, STORAGE=rows.storage, MODE=mode, BAGS=bags, COLUMNS=columns,
            UNROLL=unroll_of(rows.storage), num_warps=WARPS,
            **OPTIONS | {"maxnreg": REGISTERS},
        )  # fmt: skip
        if normalize_rows:
            normalize[(triton.cdiv(count, NORMAL_ROWS),)](
                pooled, out, count, dim, ROWS=NORMAL_ROWS, COLUMNS=NORMAL_COLUMNS, num_warps=4,
                **OPTIONS,
            )  # fmt: skip
    return out


offer("_triton", embedding_bag)
