"""Row-wise quantization in Triton: a program reads a few rows twice, for range and for codes.

The same codes as the reference: the integer nearest to (x - bias) / scale, in float64. Contents
are not looked at: a row with NaN or Inf, or one that the type cannot hold, has some codes. The
limit is memory: a row is read again from the cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from llmrec_kernels.ops.quantize.reference import DTYPES, steps
from llmrec_kernels.ops.quantize.schema import offer, result
from llmrec_kernels.ops.rows import Rows
from llmrec_kernels.ops.triton_common import (
    BFLOAT16,
    FLOAT16,
    FP8_E4M3,
    INT4_AFFINE,
    INT4_SYMMETRIC,
    INT8_AFFINE,
    OPTIONS,
    DeviceRows,
    codes_of,
)

ROWS, COLUMNS, WARPS = 8, 256, 4


@triton.jit
def half_of(values):
    """Float32 rounded to float16 and back."""
    return values.to(tl.float16).to(tl.float32)


@triton.jit
def bfloat16_bits(values):
    """Float32 rounded to the nearest even bfloat16, as int16."""
    bits = values.to(tl.int32, bitcast=True)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return tl.where(values == values, rounded, 0x7FC0).to(tl.int16)


@triton.jit
def fp8_bits(values):
    """Float32 of -448 to 448 rounded to the nearest even e4m3, as uint8."""
    bits = values.to(tl.int32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    # Adding 2^14 leaves multiples of 2^-9, rounded, at the bottom of the sum.
    small = (magnitude.to(tl.float32, bitcast=True) + 16384.0).to(tl.int32, bitcast=True)
    normal = (magnitude - 0x3C000000 + 0x7FFFF + ((magnitude >> 20) & 1)) >> 20
    code = tl.where(magnitude < 0x3C800000, small - 0x46800000, normal)
    code = tl.where(values == values, code, 0x7F)
    return (code | ((bits >> 24) & 0x80)).to(tl.uint8)


@triton.jit(do_not_specialize=["rows"])
def quantize_rows(
    data, codes, numbers, rows, dim, stride,
    STORAGE: tl.constexpr, TO: tl.constexpr, LARGEST: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Codes of TO, and the numbers of each row; LARGEST is the largest code."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    there = row < rows
    AFFINE: tl.constexpr = (TO == INT8_AFFINE) | (TO == INT4_AFFINE)
    NIBBLES: tl.constexpr = (TO == INT4_AFFINE) | (TO == INT4_SYMMETRIC)
    scale = tl.full((ROWS,), 1.0, tl.float32)
    bias = tl.zeros((ROWS,), tl.float32)
    if TO >= INT8_AFFINE:
        least = tl.full((ROWS, COLUMNS), float("inf"), tl.float32)
        most = tl.full((ROWS, COLUMNS), float("-inf"), tl.float32)
        for first in range(0, dim, COLUMNS):
            values = codes_of(data, row, there, stride, dim, first, dim, COLUMNS, STORAGE)
            inside = (first + tl.arange(0, COLUMNS) < dim)[None, :]
            least = tl.minimum(least, tl.where(inside, values, float("inf")))
            most = tl.maximum(most, tl.where(inside, values, float("-inf")))
        low = tl.min(least, axis=1) + 0.0  # -0 becomes 0
        high = tl.max(most, axis=1)
        span = tl.maximum(high, -low).to(tl.float64)
        if AFFINE:
            bias = half_of(low) if NIBBLES else low
            span = high.to(tl.float64) - bias.to(tl.float64)
        scale = tl.div_rn(span.to(tl.float32), tl.full((ROWS,), LARGEST, tl.float32))
        if NIBBLES:
            scale = half_of(scale)
        # A constant row gets scale 1 and codes 0; and one with NaN or Inf no division by it.
        scale = tl.where(scale > 0.0, scale, 1.0)
        COUNT: tl.constexpr = 2 if AFFINE else 1
        kept = scale.to(numbers.dtype.element_ty)
        tl.store(numbers + row * COUNT, kept, mask=there)
        if AFFINE:
            tl.store(numbers + row * COUNT + 1, bias.to(numbers.dtype.element_ty), mask=there)
    for first in range(0, dim, COLUMNS):
        values = codes_of(data, row, there, stride, dim, first, dim, COLUMNS, STORAGE)
        columns = first + tl.arange(0, COLUMNS)
        inside = there[:, None] & (columns < dim)[None, :]
        at = row[:, None] * dim + columns[None, :]
        if TO == FLOAT16:
            tl.store(codes + at, values.to(tl.float16), mask=inside)
        elif TO == BFLOAT16:
            tl.store(codes + at, bfloat16_bits(values), mask=inside)
        elif TO == FP8_E4M3:
            scaled = tl.div_rn(values, tl.broadcast_to(scale[:, None], (ROWS, COLUMNS)))
            scaled = tl.where(scaled > 448.0, 448.0, tl.where(scaled < -448.0, -448.0, scaled))
            tl.store(codes + at, fp8_bits(scaled), mask=inside)
        else:
            exact = (values.to(tl.float64) - bias.to(tl.float64)[:, None]) / scale.to(tl.float64)[
                :, None
            ]
            exact = tl.where(exact == exact, exact, 0.0)
            exact = tl.where(exact > LARGEST, 1.0 * LARGEST, exact)
            floor: tl.constexpr = 0.0 if AFFINE else -1.0 * LARGEST
            exact = tl.where(exact < floor, floor, exact)
            # Adding 1.5 x 2^52 leaves the nearest even integer.
            code = ((exact + 6755399441055744.0) - 6755399441055744.0).to(tl.int32)
            if NIBBLES:
                pairs = tl.reshape(tl.where(inside, code & 15, 0), (ROWS, COLUMNS // 2, 2))
                low_code, high_code = tl.split(pairs)
                byte = first // 2 + tl.arange(0, COLUMNS // 2)
                bytes_of_row = (dim + 1) // 2
                mask = there[:, None] & (byte < bytes_of_row)[None, :]
                at_byte = row[:, None] * bytes_of_row + byte[None, :]
                tl.store(codes + at_byte, (low_code | (high_code << 4)).to(tl.uint8), mask=mask)
            else:
                tl.store(codes + at, code.to(codes.dtype.element_ty), mask=inside)


def target_of(dtype: int, symmetric: bool) -> tuple[int, int]:
    """The storage that codes are made for, and the largest code."""
    name = DTYPES[dtype]
    if name in ("int8", "int4"):
        affine = INT8_AFFINE.value if name == "int8" else INT4_AFFINE.value
        return affine + symmetric, steps(8 if name == "int8" else 4, symmetric)
    storages = {"fp8_e4m3": FP8_E4M3, "float16": FLOAT16, "bfloat16": BFLOAT16}
    return int(storages[name].value), 448


def quantize(weight: Tensor, dtype: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """As `reference.quantize`, with no look at contents."""
    codes, numbers = result(weight, dtype, symmetric)
    if weight.shape[0] == 0 or weight.shape[1] == 0:  # the numbers of rows without elements
        numbers.zero_()[:, :1].fill_(1)
        return codes, numbers
    rows = DeviceRows.of(Rows(weight, None, None, 0, weight.shape[1]))
    target, largest = target_of(dtype, symmetric)
    plain = {torch.float8_e4m3fn: torch.uint8, torch.bfloat16: torch.int16}
    with torch.cuda.device_of(weight):
        quantize_rows[(triton.cdiv(weight.shape[0], ROWS),)](
            rows.data, codes.view(plain.get(codes.dtype, codes.dtype)), numbers, weight.shape[0],
            weight.shape[1], rows.stride, STORAGE=rows.storage, TO=target, LARGEST=largest,
            ROWS=ROWS, COLUMNS=COLUMNS, num_warps=WARPS, **OPTIONS,
        )  # fmt: skip
    return codes, numbers


offer("_triton", quantize)
