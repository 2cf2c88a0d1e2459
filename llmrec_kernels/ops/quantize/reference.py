"""Row-wise quantization in plain torch: the definition of correct."""

from __future__ import annotations

import torch
from torch import Tensor

from llmrec_kernels.ops import contents

STORED = {8: torch.float32, 4: torch.float16}  # the type of a row's scale and bias, as torch's ops
BLOCK = 1 << 20  # elements handled at a time: the float64 temporaries stay in cache


def quantize(weight: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, scales and biases of each row; the biases are empty for the symmetric scheme."""
    rows_per_block = max(1, BLOCK // max(1, weight.shape[1]))
    blocks = [
        _block(weight[start : start + rows_per_block].float(), bits, symmetric, start)
        for start in range(0, max(1, weight.shape[0]), rows_per_block)
    ]
    codes, scale, bias = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    return codes, scale, bias


def _block(rows: Tensor, bits: int, symmetric: bool, start: int) -> tuple[Tensor, Tensor, Tensor]:
    if rows.shape[1] == 0 or rows.shape[0] == 0:
        low = high = rows.new_zeros(rows.shape[0], dtype=torch.float64)
    else:
        low, high = (bound.double() for bound in rows.aminmax(dim=1))
    contents.finite_rows("weight", high - low, start)
    scale, bias = scales(low, high, bits, symmetric)
    _representable(scale, bias, bits, symmetric, start)
    codes = (rows.double() - bias[:, None]) / scale[:, None]
    top = steps(bits, symmetric)
    codes = codes.round().clamp(-top if symmetric else 0, top)
    narrow = STORED[bits]
    packed = _pack(codes.to(torch.int16), bits, symmetric)
    return packed, scale.to(narrow), bias[:0].to(narrow) if symmetric else bias.to(narrow)


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
    scale = (span.float() / steps(bits, symmetric)).to(narrow).double()
    return torch.where((span <= 0) | (scale == 0), torch.ones_like(scale), scale), bias


def steps(bits: int, symmetric: bool) -> int:
    """The largest code."""
    return (1 << (bits - 1)) - 1 if symmetric else (1 << bits) - 1


def _representable(scale: Tensor, bias: Tensor, bits: int, symmetric: bool, start: int) -> None:
    limit = torch.finfo(STORED[bits]).max
    largest = scale * steps(bits, symmetric)
    bad = (scale > limit) | (bias.abs() > limit) | (largest > torch.finfo(torch.float32).max)
    if bool(bad.any()):
        row = start + int(bad.nonzero()[0, 0])
        raise ValueError(
            f"weight spans more in row {row} than an int{bits} row can hold "
            f"(scale and bias up to {limit:.6g}); scale the weights down"
        )


def _pack(codes: Tensor, bits: int, symmetric: bool) -> Tensor:
    if bits == 8:
        return codes.to(torch.int8 if symmetric else torch.uint8)
    nibbles = torch.nn.functional.pad(codes & 15, (0, codes.shape[1] % 2))
    return (nibbles[:, 0::2] | nibbles[:, 1::2] << 4).to(torch.uint8)
