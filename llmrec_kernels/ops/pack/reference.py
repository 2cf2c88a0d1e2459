"""Packing in plain torch: a copy of the rows, checked, with their inverse norms."""

from __future__ import annotations

import torch
from torch import Tensor

from llmrec_kernels.ops import contents, score
from llmrec_kernels.ops.rows import Rows

BLOCK = 1 << 18  # elements handled at a time: their float64 products stay in cache


def pack(
    data: Tensor, scale: Tensor | None, bias: Tensor | None, bits: int, dim: int
) -> tuple[Tensor, Tensor]:
    """A copy of the rows' data, and 1 / norm of each row, [N] float64."""
    rows = Rows(data, scale, bias, bits, dim)
    lengths = torch.empty(data.shape[0], dtype=torch.float64, device=data.device)
    step = max(1, BLOCK // max(1, dim))
    for start in range(0, data.shape[0], step):
        part = slice(start, start + step)
        lengths[part] = score.norms(rows.widen(part))
        contents.finite_rows("items", lengths[part], start)
    return data.clone(memory_format=torch.contiguous_format), score.invert(lengths)
