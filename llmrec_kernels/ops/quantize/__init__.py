"""Row-wise quantization of an embedding table."""

from __future__ import annotations

from typing import Any

import torch

from llmrec_kernels import backends
from llmrec_kernels.ops import checks
from llmrec_kernels.ops.quantize.reference import DTYPES
from llmrec_kernels.ops.quantize.schema import OP
from llmrec_kernels.ops.quantize.table import SCHEMES, QuantizedTable

__all__ = ["QuantizedTable", "quantize"]


def quantize(
    weight: Any, dtype: str = "int8", *, scheme: str = "affine", backend: str | None = None
) -> QuantizedTable:
    """Quantize an embedding table row by row, to the nearest code, ties to even.

    Parameters
    ----------
    weight : array, [V, D] float32, float16, bfloat16 or float64
        The table; finite. Float64 is read as float32.
    dtype : "int8", "int4", "fp8_e4m3", "float16" or "bfloat16"
        What an element becomes.
    scheme : "affine" or "symmetric"
        Of int8 and int4: affine rows have a scale and a bias, symmetric ones a scale alone and
        signed codes. The floating-point formats have no bias in either.
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
        row than the format can hold.

    Notes
    -----
    The error of an element x is at most

    - int8, int4: half a scale, plus the largest code times the rounding of the stored scale, plus
      the rounding of the stored bias (both nothing to speak of in int8's float32), plus the two
      float32 roundings of the result;
    - fp8_e4m3: 2^-4 |x| where |x| is at least 2^-6 scales, and 2^-10 scales below, plus two
      float32 roundings; a row whose largest element is below 448 x 2^-126 has a denormal scale,
      whose rounding adds to it;
    - float16: 2^-11 |x| where |x| is at least 2^-14, and 2^-25 below; bfloat16: 2^-8 |x|.

    The int8 and int4 rows have the format of `torch.ops.quantized.embedding_bag_byte_prepack` and
    `..._4bit_prepack`: one scale and one bias each, float32 for 8 bits and float16 for 4. Their
    contents differ for constant rows, whose scale is 1 here, and where torch's constant of 10^-8
    rounds the codes of narrow rows.

    Examples
    --------
    >>> table = quantize(torch.tensor([[-1.0, 0.0, 1.0]]), "int8", scheme="symmetric")
    >>> table.codes.tolist(), table.bias
    ([[-127, 0, 127]], None)
    >>> quantize(torch.tensor([[1.75, 0.3]]), "fp8_e4m3").dequantize()
    tensor([[1.7500, 0.3125]])
    """
    kind = checks.choice("dtype", dtype, DTYPES)
    symmetric = bool(checks.choice("scheme", scheme, SCHEMES))
    tensor = checks.float_array("weight", weight, "[V, D]")
    op = getattr(torch.ops.llmrec, backends.select(OP, tensor.device, backend))
    codes, numbers = op(tensor, kind, symmetric)
    scale, bias = (numbers[:, i] if i < numbers.shape[1] else None for i in range(2))
    return QuantizedTable(codes, scale, bias, dtype, tensor.shape[1])
