"""The rows of an index: columns of equal length, with room to grow.

A row is a position `0 .. count - 1` in every column. Appending doubles the room when it runs out,
and removing fills the holes with the last rows, so that each change moves as many rows as it
changes (amortised) however many there are. Positions therefore say nothing about age or id.
`ascending` tells whether they happen to be in the order of the external ids: they are where ids
were added in order and none was removed from the middle.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llmrec_kernels.ops import PackedItems, pack, quantize

STORAGES = ("float32", "float16", "bfloat16", "int8", "int4")
_FLOATS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_BITS = {"int8": 8, "int4": 4}
_SMALLEST = 16  # rows that there is always room for


class Storage:
    """Columns `ids`, `data`, `inverse_norms`, `item_bias`, `item_scale`, and for codes two more.

    Parameters
    ----------
    dim : int
        Elements in a vector.
    storage : str
        One of `STORAGES`.
    device : torch.device
        Where the columns are.
    """

    def __init__(self, dim: int, storage: str, device: torch.device) -> None:
        self.dim, self.storage, self.device = dim, storage, device
        self.count = 0
        self.ascending = True
        # Whether a bias or a scale was ever given: a search reads no column of zeros or ones.
        self.biased = self.scaled = False
        self.columns = self._columns(
            torch.empty(0, dtype=torch.int64, device=device),
            self.encode(torch.empty(0, dim, dtype=torch.float32, device=device)),
            torch.empty(0, dtype=torch.float32, device=device),
            torch.empty(0, dtype=torch.float32, device=device),
        )

    @property
    def ids(self) -> Tensor:
        """The external ids by position, [count] int64."""
        return self.columns["ids"][: self.count]

    def encode(self, vectors: Tensor) -> PackedItems:
        """Vectors [n, dim] float32 as they are stored; refuses what the storage cannot hold."""
        bad = ~vectors.isfinite().all(dim=1)
        if bool(bad.any()):
            row = int(bad.nonzero()[0, 0])
            raise ValueError(f"vectors holds NaN or Inf in row {row}; expected finite numbers")
        if self.storage in _FLOATS:
            narrow = vectors.to(_FLOATS[self.storage])
            bad = ~narrow.isfinite().all(dim=1)
            if bool(bad.any()):
                row = int(bad.nonzero()[0, 0])
                raise ValueError(
                    f"vectors holds {float(vectors[row].abs().max()):.6g} in row {row}, more than "
                    f"{self.storage} can hold; scale the vectors down or take another storage"
                )
            return pack(narrow)
        try:
            return pack(quantize(vectors, self.storage))
        except ValueError as error:  # quantize calls its argument a weight
            raise ValueError(str(error).replace("weight", "vectors", 1)) from error

    def packed(self, index: slice | Tensor) -> PackedItems:
        """These rows as the operators take them: a view for a slice, a copy for positions."""
        columns = {name: column[: self.count][index] for name, column in self.columns.items()}
        return PackedItems(
            columns["data"],
            columns.get("code_scale"),
            columns.get("code_bias"),
            _BITS.get(self.storage, 0),
            self.dim,
            columns["inverse_norms"],
        )

    def modifiers(self, index: slice | Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The item bias and the item scale of these rows, where there are any."""
        bias, scale = (
            self.columns[name][: self.count][index] if given else None
            for name, given in (("item_bias", self.biased), ("item_scale", self.scaled))
        )
        return bias, scale

    def append(self, ids: Tensor, rows: PackedItems, bias: Tensor, scale: Tensor) -> None:
        """Put rows behind the last, in the order given."""
        added, start = ids.shape[0], self.count
        self._make_room(start + added)
        for name, values in self._columns(ids, rows, bias, scale).items():
            self.columns[name][start : start + added] = values
        seam = self.columns["ids"][max(0, start - 1) : start + added]
        self.ascending &= bool((seam[1:] > seam[:-1]).all())
        self.count += added

    def write(self, positions: Tensor, **columns: Tensor) -> None:
        """Overwrite columns at these positions."""
        for name, values in columns.items():
            self.columns[name][positions] = values

    def write_rows(self, positions: Tensor, rows: PackedItems) -> None:
        """Overwrite the vectors at these positions."""
        self.write(positions, **self._vector_columns(rows))

    def drop(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Remove rows; the last ones move into the holes: (ids moved, their new positions)."""
        left = self.count - positions.shape[0]
        tail = torch.arange(left, self.count, device=self.device)
        moving = tail[~torch.isin(tail, positions)]
        holes = positions[positions < left]
        for column in self.columns.values():
            column[holes] = column[moving]
        moved = self.columns["ids"][holes].clone()
        self.count = left
        self.ascending = left < 2 or (self.ascending and holes.shape[0] == 0)
        self._make_room(left)
        return moved, holes

    def _make_room(self, count: int) -> None:
        """Double the columns until `count` rows fit; halve them where three quarters are empty."""
        room = capacity = self.columns["ids"].shape[0]
        while room < count:
            room = max(_SMALLEST, 2 * room)
        while room > _SMALLEST and room >= 4 * count:
            room //= 2
        if room == capacity:
            return
        kept = min(self.count, count)
        for name, column in self.columns.items():
            resized = column.new_empty(room, *column.shape[1:])
            resized[:kept] = column[:kept]
            self.columns[name] = resized

    @staticmethod
    def _vector_columns(rows: PackedItems) -> dict[str, Tensor]:
        columns = {"data": rows.data, "inverse_norms": rows.inverse_norms}
        if rows.scale is not None:
            columns["code_scale"] = rows.scale
        if rows.bias is not None:
            columns["code_bias"] = rows.bias
        return columns

    @classmethod
    def _columns(
        cls, ids: Tensor, rows: PackedItems, bias: Tensor, scale: Tensor
    ) -> dict[str, Tensor]:
        return {"ids": ids, "item_bias": bias, "item_scale": scale} | cls._vector_columns(rows)
