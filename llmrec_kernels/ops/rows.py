"""Rows of vectors in any storage: float, or quantized with a scale and a bias per row.

`Rows` is what the operators' schemas carry, tensor by tensor; the public classes that users
hold (`QuantizedTable`, `PackedItems`, or a plain tensor) all turn into it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmrec_kernels.cost import nbytes
from llmrec_kernels.ops import checks


class Sketch(NamedTuple):
    """N rows rounded to int8, for a scan that leaves out what cannot win.

    A row x is about `step` times its codes, where `step` is the largest of its elements over the
    largest code. For any query q, |q . x - step (q . codes)| <= |q| residual |x|
    (Cauchy-Schwarz).

    Parameters
    ----------
    codes : Tensor, [ceil(N / 16), ceil(dim / 4), 16, 4] int8
        Element j of row i is at `[i // 16, j // 4, i % 16, j % 4]`: what the integer dot products
        of a processor take at once lies side by side. Zeros where there is no such row or element.
    unit_scale : Tensor, [N] float32
        step / |x|; 0 where the codes are.
    residual : Tensor, [N] float32
        |x - step codes| / |x|, rounded up; 0 for a zero row, and 1 for a row whose elements are
        too small or too large to be rounded to codes: nothing is known of it but its norm.
    """

    codes: Tensor
    unit_scale: Tensor
    residual: Tensor


class Rows(NamedTuple):
    """N rows of `dim` elements each.

    Parameters
    ----------
    data : Tensor
        `[N, dim]` float32, float16 or bfloat16 where `bits` is 0; `[N, dim]` uint8 (affine),
        int8 (symmetric) or float8_e4m3fn where it is 8; `[N, ceil(dim / 2)]` uint8, low nibble
        first, where it is 4.
    scale, bias : Tensor, [N], or None
        A row is `scale * code + bias`; float32 for 8 bits, float16 for 4. No bias makes integer
        codes signed. Any stride.
    bits : int
        0 for floating point, or 8, or 4.
    dim : int
        Elements in a row.
    inverse_norms : Tensor, [N] float64, or None
        1 / norm of each row and 0 for a zero row, where that was computed before.
    sketch : Sketch or None
        The rows in int8, where they were rounded before.
    """

    data: Tensor
    scale: Tensor | None
    bias: Tensor | None
    bits: int
    dim: int
    inverse_norms: Tensor | None = None
    sketch: Sketch | None = None

    def widen(self, index: slice | Tensor) -> Tensor:
        """Exactly these rows in float32, [n, dim]: scale × code, rounded, + bias, rounded."""
        if self.bits == 0:
            return self.data[index].float()
        assert self.scale is not None
        values = self.scale[index].float()[:, None] * self.codes(index)
        return values if self.bias is None else values + self.bias[index].float()[:, None]

    def codes(self, index: slice | Tensor) -> Tensor:
        """What scales are multiplied with, [n, dim] float32."""
        data = indexable(self.data)[index].view(self.data.dtype)
        if self.bits == 8:
            return data.float()
        nibbles = torch.stack([data & 15, data >> 4], dim=-1).flatten(1)[:, : self.dim]
        if self.bias is None:
            nibbles = (nibbles ^ 8).to(torch.int8) - 8  # two's complement in four bits
        return nibbles.float()

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is held."""
        sketch = () if self.sketch is None else self.sketch
        return nbytes(self.data, self.scale, self.bias, self.inverse_norms, *sketch)


def indexable(data: Tensor) -> Tensor:
    """The same memory in a type that torch can index, where it cannot index this one."""
    return data.view(torch.uint8) if data.dtype == torch.float8_e4m3fn else data


class RowStore(ABC):
    """What the classes that hold rows have in common."""

    @abstractmethod
    def rows(self) -> Rows:
        """As the operators' schemas carry it."""

    def __len__(self) -> int:
        return self.rows().data.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, elements in a row)."""
        return len(self), self.rows().dim

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.rows().data.device

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is held."""
        return self.rows().nbytes


def rows_of(name: str, items: Any) -> Rows:
    """The rows of whatever an operator takes as its items or its table."""
    if isinstance(items, RowStore):
        return items.rows()
    tensor = checks.float_array(name, items, "[N, d]")
    return Rows(tensor, None, None, 0, tensor.shape[1])
