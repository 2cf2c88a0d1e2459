"""Row-wise quantization in plain torch: the definition of correct."""

from __future__ import annotations

import torch
from torch import Tensor

from llmrec_kernels.ops import contents

DTYPES = ("int8", "int4", "fp8_e4m3", "float16", "bfloat16")
BITS = {"int8": 8, "int4": 4}
FLOAT_CODES = {
    "fp8_e4m3": torch.float8_e4m3fn,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
STORED = {8: torch.float32, 4: torch.float16}  # the type of a row's scale and bias, as torch's ops
LARGEST_FP8 = 448.0
BLOCK = 1 << 20  # elements handled at a time: the float64 temporaries stay in cache


def quantize(weight: Tensor, dtype: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Codes, and the numbers of each row: [V, 2] scale and bias, [V, 1] scale, or [V, 0]."""
    rows_per_block = max(1, BLOCK // max(1, weight.shape[1]))
    block = {"fp8_e4m3": _fp8, "float16": _cast, "bfloat16": _cast}.get(DTYPES[dtype], _integers)
    blocks = [
        block(weight[start : start + rows_per_block].float(), DTYPES[dtype], symmetric, start)
        for start in range(0, max(1, weight.shape[0]), rows_per_block)
    ]
    codes, numbers = zip(*blocks, strict=True)
    return _joined(codes), torch.cat(numbers)


def _joined(codes: tuple[Tensor, ...]) -> Tensor:
    if codes[0].dtype != torch.float8_e4m3fn:
        return torch.cat(codes)
    return torch.cat([part.view(torch.uint8) for part in codes]).view(torch.float8_e4m3fn)


def _integers(rows: Tensor, dtype: str, symmetric: bool, start: int) -> tuple[Tensor, Tensor]:
    bits = BITS[dtype]
    low, high = _range(rows, start)
    scale, bias = scales(low, high, bits, symmetric)
    _representable(scale, bias, bits, symmetric, start)
    codes = (rows.double() - bias[:, None]) / scale[:, None]
    top = steps(bits, symmetric)
    codes = codes.round().clamp(-top if symmetric else 0, top)
    numbers = scale[:, None] if symmetric else torch.stack([scale, bias], dim=1)
    return _pack(codes.to(torch.int16), bits, symmetric), numbers.to(STORED[bits])


def _fp8(rows: Tensor, dtype: str, symmetric: bool, start: int) -> tuple[Tensor, Tensor]:
    low, high = _range(rows, start)
    scale = _divided(torch.maximum(high, -low).float(), LARGEST_FP8)[:, None]
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    codes = (rows / scale).clamp(-LARGEST_FP8, LARGEST_FP8)
    return codes.to(FLOAT_CODES[dtype]), scale


def _cast(rows: Tensor, dtype: str, symmetric: bool, start: int) -> tuple[Tensor, Tensor]:
    _range(rows, start)
    codes = rows.to(FLOAT_CODES[dtype])
    bad = ~codes.isfinite().all(dim=1)
    if bool(bad.any()):
        _too_wide(start + int(bad.nonzero()[0, 0]), dtype, codes.dtype, "elements")
    return codes, rows.new_empty(rows.shape[0], 0)


def _range(rows: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """The least and the largest element of each row, [V] float64 each; all are finite."""
    if rows.shape[1] == 0 or rows.shape[0] == 0:
        low = high = rows.new_zeros(rows.shape[0], dtype=torch.float64)
    else:
        low, high = (bound.double() for bound in rows.aminmax(dim=1))
    contents.finite_rows("weight", high - low, start)
    return low + 0.0, high  # -0 becomes 0


def scales(low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """The scale and bias that a row with this range is stored with, [V] float64 each.

    Computed as torch's prepack ops do: span / steps in float32, then rounded to the type that
    is stored, so that the codes are fitted to what a reader will see. A constant row gets
    scale 1 and codes 0.
    """
    narrow = STORED[bits]
    if symmetric:
        bias = torch.zeros_like(low)
        span = torch.maximum(high, -low)
    else:
        bias = low.to(narrow).double()
        span = high - bias
    scale = _divided(span.float(), steps(bits, symmetric)).to(narrow).double()
    return torch.where((span <= 0) | (scale == 0), torch.ones_like(scale), scale), bias


def _divided(values: Tensor, by: float) -> Tensor:
    """Rounded once, as `values / by` is not on a GPU: torch multiplies by a reciprocal there."""
    return values / torch.full_like(values, by)


def steps(bits: int, symmetric: bool) -> int:
    """The largest code."""
    return (1 << (bits - 1)) - 1 if symmetric else (1 << bits) - 1


def _representable(scale: Tensor, bias: Tensor, bits: int, symmetric: bool, start: int) -> None:
    limit = torch.finfo(STORED[bits]).max
    largest = scale * steps(bits, symmetric)
    bad = (scale > limit) | (bias.abs() > limit) | (largest > torch.finfo(torch.float32).max)
    if bool(bad.any()):
        row = start + int(bad.nonzero()[0, 0])
        _too_wide(row, f"int{bits}", STORED[bits], "scale and bias")


def _too_wide(row: int, dtype: str, holds: torch.dtype, what: str) -> None:
    raise ValueError(
        f"weight spans more in row {row} than {dtype} can hold "
        f"({what} up to {torch.finfo(holds).max:.6g}); scale the weights down"
    )


def _pack(codes: Tensor, bits: int, symmetric: bool) -> Tensor:
    if bits == 8:
        return codes.to(torch.int8 if symmetric else torch.uint8)
    nibbles = torch.nn.functional.pad(codes & 15, (0, codes.shape[1] % 2))
    return (nibbles[:, 0::2] | nibbles[:, 1::2] << 4).to(torch.uint8)
