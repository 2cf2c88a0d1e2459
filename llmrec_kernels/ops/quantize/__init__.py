"""Row-wise quantization of an embedding table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmrec_kernels import backends
from llmrec_kernels.ops import checks
from llmrec_kernels.ops.quantize.reference import STORED
from llmrec_kernels.ops.quantize.schema import OP
from llmrec_kernels.ops.rows import Rows, RowStore

DTYPES = ("int8", "int4")
SCHEMES = ("affine", "symmetric")
_BITS = {"int8": 8, "int4": 4}

__all__ = ["QuantizedTable", "quantize"]


@dataclass(frozen=True)
class QuantizedTable(RowStore):
    """An embedding table with narrow codes and a scale (and a bias) per row.

    Made by `quantize`. Element `[v, j]` stands for `scale[v] * code[v, j] + bias[v]`, computed
    in float32 with the product rounded before the sum.

    Parameters
    ----------
    codes : Tensor
        int8: `[V, D]` uint8 (affine) or int8 (symmetric). int4: `[V, ceil(D / 2)]` uint8, the
        element with the even index in the low nibble.
    scale : Tensor, [V]
        float32 for int8, float16 for int4: torch's own choice.
    bias : Tensor, [V], or None
        The same type; None for the symmetric scheme, whose codes are signed.
    dtype : str
        `"int8"` or `"int4"`.
    dim : int
        D.

    Examples
    --------
    >>> table = quantize(torch.tensor([[0.0, 1.0], [2.0, 4.0]]), "int8")
    >>> table.codes.tolist(), table.shape, table.nbytes
    ([[0, 255], [0, 255]], (2, 2), 20)
    """

    codes: Tensor
    scale: Tensor
    bias: Tensor | None
    dtype: str
    dim: int

    def __post_init__(self) -> None:
        checks.choice("dtype", self.dtype, DTYPES)
        checks.dimensions("codes", self.codes, "[V, bytes per row]")
        width = self.dim if self.dtype == "int8" else (self.dim + 1) // 2
        signed = self.dtype == "int8" and self.bias is None
        wanted = torch.int8 if signed else torch.uint8
        if self.codes.dtype != wanted or self.codes.shape[1] != width:
            raise ValueError(
                f"codes has {self.codes.shape[1]} columns of {self.codes.dtype}; "
                f"expected {width} of {wanted} for {self.dtype} rows of {self.dim}"
            )
        stored = STORED[_BITS[self.dtype]]
        for name, values in (("scale", self.scale), ("bias", self.bias)):
            if values is None:
                continue
            if values.shape != self.codes.shape[:1] or values.dtype != stored:
                raise ValueError(
                    f"{name} has shape {list(values.shape)} and dtype {values.dtype}; "
                    f"expected [{self.codes.shape[0]}] and {stored}"
                )
            checks.same_device(name, values, self.codes.device)

    @property
    def scheme(self) -> str:
        """`"affine"` or `"symmetric"`."""
        return "symmetric" if self.bias is None else "affine"

    def rows(self) -> Rows:
        """As the operators' schemas carry it."""
        return Rows(self.codes, self.scale, self.bias, _BITS[self.dtype], self.dim)

    def dequantize(self) -> Tensor:
        """The values that the codes stand for, [V, D] float32.

        Examples
        --------
        >>> quantize(torch.tensor([[0.0, 0.5, 1.0]]), "int4").dequantize()
        tensor([[0.0000, 0.5332, 0.9998]])
        """
        return self.rows().widen(slice(None))

    def to(self, device: torch.device | str) -> QuantizedTable:
        """The same table on another device.

        Examples
        --------
        >>> quantize(torch.ones(1, 2)).to("cpu").shape
        (1, 2)
        """
        bias = None if self.bias is None else self.bias.to(device)
        return QuantizedTable(
            self.codes.to(device), self.scale.to(device), bias, self.dtype, self.dim
        )


def quantize(
    weight: Any, dtype: str = "int8", *, scheme: str = "affine", backend: str | None = None
) -> QuantizedTable:
    """Quantize an embedding table row by row, to the nearest code, ties to even.

    The error of an element is at most half a scale, plus the largest code times the rounding of
    the stored scale, plus the rounding of the stored bias (both nothing to speak of in int8's
    float32), plus the two float32 roundings of the result.

    Parameters
    ----------
    weight : array, [V, D] float32, float16, bfloat16 or float64
        The table; finite. Float64 is read as float32.
    dtype : "int8" or "int4"
        The width of a code.
    scheme : "affine" or "symmetric"
        Affine rows have a scale and a bias; symmetric ones a scale alone and signed codes.
    backend
        Force one backend; None takes the best that can run.

    Returns
    -------
    QuantizedTable

    Raises
    ------
    TypeError
        If `weight` is no array.
    ValueError
        If it is not two-dimensional and floating point, holds NaN or Inf, or spans more in one
        row than the scale's type can hold.

    Notes
    -----
    The row format, one scale and one bias per row, float32 for 8 bits and float16 for 4, is that
    of `torch.ops.quantized.embedding_bag_byte_prepack` and `..._4bit_prepack`.

    Examples
    --------
    >>> table = quantize(torch.tensor([[-1.0, 0.0, 1.0]]), "int8", scheme="symmetric")
    >>> table.codes.tolist(), table.bias
    ([[-127, 0, 127]], None)
    """
    width = _BITS[DTYPES[checks.choice("dtype", dtype, DTYPES)]]
    symmetric = bool(checks.choice("scheme", scheme, SCHEMES))
    tensor = checks.float_array("weight", weight, "[V, D]")
    op = getattr(torch.ops.llmrec, backends.select(OP, tensor.device.type, backend))
    codes, scale, bias = op(tensor, width, symmetric)
    return QuantizedTable(codes, scale, None if symmetric else bias, dtype, tensor.shape[1])
