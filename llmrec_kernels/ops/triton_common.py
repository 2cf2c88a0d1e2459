"""What the Triton kernels share: rows of any storage, the float64 norm, sortable keys.

Imported only by the `triton.py` of an operator's room, when that is chosen. Kernels trust no
content: an index out of range is skipped, and a mask bounds each access by the tensor's own size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from llmrec_kernels.ops.rows import Rows

# How elements are stored; constants of the kernels.
FLOAT32 = tl.constexpr(0)
FLOAT16 = tl.constexpr(1)
BFLOAT16 = tl.constexpr(2)
INT8_AFFINE = tl.constexpr(3)
INT8_SYMMETRIC = tl.constexpr(4)
INT4_AFFINE = tl.constexpr(5)
INT4_SYMMETRIC = tl.constexpr(6)
FP8_E4M3 = tl.constexpr(7)

LOWEST = tl.constexpr(-(2**63))  # below every key
MOST_ITEMS = 2**31 - 1  # a key has 31 bits for the item

STORAGES = (
    "float32", "float16", "bfloat16", "int8 affine", "int8 symmetric", "int4 affine",
    "int4 symmetric", "fp8_e4m3",
)  # fmt: skip
_ELEMENTS = (4, 8, 8, 16, 16, 32, 32, 16)  # of a 16-byte load

# Of every launch: a product is rounded before it is added, but where a kernel says tl.fma. Told no
# limit of registers, ptxas chooses a lower one at times, for more warps, and spills.
OPTIONS = {"enable_fp_fusion": False, "maxnreg": 128}


class DeviceRows(NamedTuple):
    """Rows as kernels take them: narrow floats that not all GPUs know come as integers.

    Parameters
    ----------
    data, scale, bias
        As in `Rows`; `scale` and `bias` are None where there are none.
    storage
        One of the constants above.
    stride, number_stride
        From row to row, in elements of `data` and of `scale` and `bias`.
    """

    data: Tensor
    scale: Tensor | None
    bias: Tensor | None
    storage: int
    stride: int
    number_stride: int

    @property
    def width(self) -> int:
        """Stored elements of a row."""
        return self.data.shape[1]

    @classmethod
    def of(cls, rows: Rows) -> DeviceRows:
        """The same memory, but for elements that do not lie side by side."""
        data = rows.data if rows.data.stride(-1) == 1 else rows.data.contiguous()
        scale, bias = rows.scale, rows.bias
        if scale is not None and bias is not None and scale.stride(0) != bias.stride(0):
            scale, bias = scale.contiguous(), bias.contiguous()
        storage = storage_of(rows)
        if storage == BFLOAT16.value:
            data = data.view(torch.int16)
        if storage == FP8_E4M3.value:
            data = data.view(torch.uint8)
        return cls(
            data, scale, bias, storage, data.stride(0), 1 if scale is None else scale.stride(0)
        )


def storage_of(rows: Rows) -> int:
    """Which of the constants above a table's rows are."""
    if rows.bits == 0:
        return (torch.float32, torch.float16, torch.bfloat16).index(rows.data.dtype)
    if rows.data.dtype == torch.float8_e4m3fn:
        return int(FP8_E4M3.value)
    affine = INT8_AFFINE.value if rows.bits == 8 else INT4_AFFINE.value
    return int(affine) + (rows.bias is None)


def per_load(storage: int) -> int:
    """Elements in 16 bytes."""
    return _ELEMENTS[storage]


def per_step(storage: int) -> int:
    """Columns that the reference score takes at a time: whole eights, 16 bytes of a row.

    Of 4-bit codes that would not fit the registers.
    """
    return 16 if per_load(storage) == 16 else 8


def packed(*vectors: Tensor | None) -> list[Tensor | None]:
    """Numbers side by side, as kernels read them."""
    return [None if vector is None else vector.contiguous() for vector in vectors]


@triton.jit
def codes_of(
    data, rows, there, stride, width, first, dim, COUNT: tl.constexpr, STORAGE: tl.constexpr
):
    """Elements first .. first + COUNT - 1 of rows [R]: [R, COUNT] float32, without their scales.

    0 where `there` [R] is false and from column `dim` on; `first` is even. A row of `data` has
    `width` stored elements: a mask of known alignment is what lets a thread load 16 bytes.
    """
    start = rows * stride
    if (STORAGE == INT4_AFFINE) | (STORAGE == INT4_SYMMETRIC):
        pairs = first // 2 + tl.arange(0, COUNT // 2)
        inside = there[:, None] & (pairs < width)[None, :]
        both = tl.load(data + start[:, None] + pairs[None, :], mask=inside, other=0).to(tl.int32)
        codes = tl.reshape(tl.join(both & 15, both >> 4), (rows.shape[0], COUNT))
        if STORAGE == INT4_SYMMETRIC:
            codes = (codes ^ 8) - 8
        columns = first + tl.arange(0, COUNT)
        return tl.where((columns < dim)[None, :], codes, 0).to(tl.float32)  # an odd one is left
    columns = first + tl.arange(0, COUNT)
    inside = there[:, None] & (columns < width)[None, :]
    loaded = tl.load(data + start[:, None] + columns[None, :], mask=inside, other=0)
    if STORAGE == BFLOAT16:
        return (loaded.to(tl.int32) << 16).to(tl.float32, bitcast=True)
    if STORAGE == FP8_E4M3:
        bits = loaded.to(tl.int32)
        magnitude = bits & 0x7F
        subnormal = magnitude.to(tl.float32) * 0.001953125
        exponent = tl.where(magnitude == 0x7F, 0x7FC00000, (magnitude << 20) + 0x3C000000)
        value = tl.where(magnitude < 8, subnormal, exponent.to(tl.float32, bitcast=True))
        return tl.where(bits >= 0x80, -value, value)
    return loaded.to(tl.float32)


@triton.jit
def numbers_of(numbers, rows, there, number_stride):
    """A scale or a bias of each row, [R] float32; 0 where there is no row."""
    return tl.load(numbers + rows * number_stride, mask=there, other=0.0).to(tl.float32)


@triton.jit
def elements_of(
    data, scale, bias, rows, there, stride, width, number_stride, first, dim,
    COUNT: tl.constexpr, STORAGE: tl.constexpr,
):  # fmt: skip
    """As `codes_of`, scale x code, rounded, + bias, rounded: what `Rows.widen` makes."""
    values = codes_of(data, rows, there, stride, width, first, dim, COUNT, STORAGE)
    if STORAGE >= INT8_AFFINE:
        values = values * numbers_of(scale, rows, there, number_stride)[:, None]
    if (STORAGE == INT8_AFFINE) | (STORAGE == INT4_AFFINE):
        values = values + numbers_of(bias, rows, there, number_stride)[:, None]
        inside = (first + tl.arange(0, COUNT) < dim)[None, :]
        values = tl.where(inside, values, 0.0)
    return values


@triton.jit
def add_eights(lanes, values, COUNT: tl.constexpr):
    """The 8 or 16 columns of values [R, COUNT] added to lanes [R, 8], eight after eight."""
    if COUNT == 8:
        lanes += values
    else:
        tl.static_assert(COUNT == 16)
        halves = tl.reshape(values, (values.shape[0], 2, 8))
        first, second = tl.split(tl.permute(halves, (0, 2, 1)))
        lanes = lanes + first + second
    return lanes


@triton.jit
def sum_of(lanes):
    """The eight lanes [R, 8] in the tree 4, 2, 1: two at a time, so that no layout reorders it."""
    four = tl.sum(tl.reshape(lanes, (lanes.shape[0], 2, 4)), axis=1)
    two = tl.sum(tl.reshape(four, (lanes.shape[0], 2, 2)), axis=1)
    return tl.sum(two, axis=1)


@triton.jit
def reference_scores(
    queries, data, scale, bias, inverse_norms, query_bias, item_bias, offset, query_scale,
    item_scale, query, row, real, dim, stride, width, number_stride,
    STORAGE: tl.constexpr, IS_COSINE: tl.constexpr, PAIRS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The score of pairs of a query [PAIRS] and a row [PAIRS], float32; NaN where there is none.

    Float64 in the order of `ops.score`, so that its bits are the reference's. Terms may be None;
    `offset` is a pointer, because Python's numbers would come as float32.
    """
    product = tl.zeros((PAIRS, 8), tl.float64)
    query_square = tl.zeros((PAIRS, 8), tl.float64)
    item_square = tl.zeros((PAIRS, 8), tl.float64)
    for first in range(0, dim, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        inside = (columns < dim)[None, :]
        q = tl.load(queries + query[:, None] * dim + columns[None, :], mask=inside, other=0.0)
        q = q.to(tl.float64)
        x = elements_of(
            data, scale, bias, row, real, stride, width, number_stride, first, dim, COLUMNS, STORAGE
        ).to(tl.float64)
        product = add_eights(product, q * x, COLUMNS)
        if IS_COSINE:
            query_square = add_eights(query_square, q * q, COLUMNS)
            if inverse_norms is None:
                item_square = add_eights(item_square, x * x, COLUMNS)
    value = sum_of(product)
    if IS_COSINE:
        value = value * inverse_of(sum_of(query_square))
        if inverse_norms is None:
            value = value * inverse_of(sum_of(item_square))  # NaN, where an element is infinite
        else:
            value = value * tl.load(inverse_norms + row, mask=real, other=0.0)
    if query_scale is not None:
        value = value * tl.load(query_scale + query).to(tl.float64)
    if item_scale is not None:
        value = value * tl.load(item_scale + row, mask=real, other=0.0).to(tl.float64)
    if query_bias is not None:
        value = value + tl.load(query_bias + query).to(tl.float64)
    if item_bias is not None:
        value = value + tl.load(item_bias + row, mask=real, other=0.0).to(tl.float64)
    if offset is not None:
        value = value + tl.load(offset)
    usable = real & (value > float("-inf")) & (value < float("inf"))
    return tl.where(usable, value, float("nan")).to(tl.float32)


@triton.jit
def owner_of(offsets, lists, entry, steps, COUNT: tl.constexpr):
    """The list that each entry is of, by bisection: the first that ends behind it, [COUNT].

    Whatever entries and offsets hold, it is one of the lists.
    """
    low = tl.zeros((COUNT,), tl.int64)
    high = low + lists - 1
    for _ in range(steps):
        middle = (low + high) // 2
        behind = tl.load(offsets + middle + 1) > entry
        low = tl.where((low < high) & ~behind, middle + 1, low)
        high = tl.where(behind, middle, high)
    return low


@triton.jit
def inverse_of(square):
    """1 / length from its square in float64; 1 for a zero vector, whose products are 0 anyway."""
    return 1.0 / tl.sqrt(tl.where(square == 0, 1.0, square))


@triton.jit
def key_of(score, item):
    """Keys whose order is score down, then id up, largest first: [..] int64.

    A larger key is a better item; `item` is below 2^31.
    """
    bits = (score + 0.0).to(tl.int32, bitcast=True)  # -0 becomes 0
    order = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (order.to(tl.int64) << 32) | (0x7FFFFFFF - item.to(tl.int64))


@triton.jit
def better_keys(kept, keys, KEPT: tl.constexpr):
    """The KEPT largest of `kept` [KEPT] and `keys`, of which there are no fewer."""
    best = tl.topk(keys, KEPT)
    return tl.topk(tl.reshape(tl.join(kept, best), (2 * KEPT,)), KEPT)


def keys_of(scores: Tensor, items: Tensor) -> Tensor:
    """As `key_of`, of tensors; LOWEST for a score of NaN, which stands for no item."""
    bits = (scores + 0.0).view(torch.int32)
    order = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    keys = (order.long() << 32) | (MOST_ITEMS - items)
    return keys.where(scores == scores, LOWEST.value)


def opened(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and ids of keys: -inf and -1 for LOWEST."""
    order = (keys >> 32).int()
    scores = (order ^ ((order >> 31) & 0x7FFFFFFF)).view(torch.float32)
    ids = MOST_ITEMS - (keys & 0xFFFFFFFF)
    there = keys != LOWEST.value
    return scores.where(there, -torch.inf), ids.where(there, -1)
