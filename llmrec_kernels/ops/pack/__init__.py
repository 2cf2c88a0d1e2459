"""Pack once, score many times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmrec_kernels import backends
from llmrec_kernels.ops.pack.schema import OP
from llmrec_kernels.ops.rows import Rows, RowStore, rows_of

__all__ = ["PackedItems", "pack"]


@dataclass(frozen=True)
class PackedItems(RowStore):
    """Items prepared for scoring: checked once, with the norm of each row at hand.

    Made by `pack`. It holds copies: changing the source afterwards does not change the pack.
    An item takes the bytes of its row in the source's type, and 8 for its inverse norm.

    Parameters
    ----------
    data, scale, bias, bits, dim
        As in `Rows`.
    inverse_norms : Tensor, [N] float64
        1 / norm of each row, and 0 for a zero row.

    Examples
    --------
    >>> items = pack(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    >>> items.shape, items.nbytes, items.inverse_norms.tolist()
    ((2, 2), 32, [0.2, 0.5])
    """

    data: Tensor
    scale: Tensor | None
    bias: Tensor | None
    bits: int
    dim: int
    inverse_norms: Tensor

    def rows(self) -> Rows:
        """As the operators' schemas carry it."""
        return Rows(self.data, self.scale, self.bias, self.bits, self.dim, self.inverse_norms)


def pack(items: Any, *, backend: str | None = None) -> PackedItems:
    """Prepare items for many calls of `cosine_topk` and `candidate_scores`.

    Parameters
    ----------
    items : array [N, d] float32, float16, bfloat16 or float64, or QuantizedTable
        The vectors; finite. Float64 is read as float32.
    backend
        Force one backend; None takes the best that can run.

    Returns
    -------
    PackedItems

    Raises
    ------
    TypeError
        If `items` is neither an array nor a QuantizedTable.
    ValueError
        If it is not two-dimensional and floating point, or holds NaN or Inf.

    Examples
    --------
    >>> len(pack(torch.eye(3)))
    3
    """
    rows = rows_of("items", items)
    op = getattr(torch.ops.llmrec, backends.select(OP, rows.data.device.type, backend))
    data, inverse_norms = op(rows.data.detach(), rows.scale, rows.bias, rows.bits, rows.dim)
    scale = None if rows.scale is None else rows.scale.clone()
    bias = None if rows.bias is None else rows.bias.clone()
    return PackedItems(data, scale, bias, rows.bits, rows.dim, inverse_norms)
