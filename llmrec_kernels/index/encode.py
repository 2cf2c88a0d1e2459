"""How an index keeps vectors: rounded to its storage, and packed."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from llmrec_kernels.ops import QuantizedTable, pack, quantize
from llmrec_kernels.ops.rows import Rows

STORAGES = ("float32", "float16", "bfloat16", "int8", "int4")
_FLOATS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def encode(vectors: Tensor, storage: str, numbers: Tensor | None = None) -> Rows:
    """Vectors [n, dim] float32 as they are stored; refuses what the storage cannot hold.

    An error names the row, by its number among `numbers` [n] where those are given.
    """
    try:
        return _encode(vectors, storage)
    except ValueError as error:
        # The operators have names of their own for what they are given.
        text = re.sub("^(items|weight)", "vectors", str(error))
        if numbers is not None:
            text = re.sub(r"\brow (\d+)", lambda row: f"row {int(numbers[int(row[1])])}", text)
        raise ValueError(text) from error


def stored(columns: Mapping[str, Tensor], storage: str, dim: int) -> Rows:
    """Rows of what was kept of them before."""
    if storage in _FLOATS:
        return pack(columns["data"]).rows()
    table = QuantizedTable(columns["data"], columns["scale"], columns["bias"], storage, dim)
    return pack(table).rows()


def _encode(vectors: Tensor, storage: str) -> Rows:
    if storage not in _FLOATS:
        return pack(quantize(vectors, storage)).rows()
    narrow = vectors.to(_FLOATS[storage])
    try:
        return pack(narrow).rows()
    except ValueError:
        lost = (vectors.isfinite() & ~narrow.isfinite()).any(1)
        if not bool(lost.any()):
            raise
        row = int(lost.nonzero()[0, 0])
        raise ValueError(
            f"vectors holds {float(vectors[row].abs().max()):.6g} in row {row}, more than "
            f"{storage} can hold; scale the vectors down or take another storage"
        ) from None
