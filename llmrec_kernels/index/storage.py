"""The rows of an index: packed vectors, and beside them columns of equal length.

A row is a position `0 .. count - 1` in all of them. There is room to grow, appending doubles it
when it runs out, and removing fills the holes with the last rows, so that each change moves as many
rows as it changes (amortised) however many there are. Positions therefore say nothing about age or
id. `ascending` tells whether they happen to be in the order of the external ids: they are where ids
were added in order and none was removed from the middle.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llmrec_kernels.ops import PackedItems, pack, quantize
from llmrec_kernels.ops.pack.room import capacity, resized

STORAGES = ("float32", "float16", "bfloat16", "int8", "int4")
_FLOATS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Storage:
    """The vectors as `items`, and the columns `ids`, `item_bias` and `item_scale`.

    Parameters
    ----------
    dim : int
        Elements in a vector.
    storage : str
        One of `STORAGES`.
    device : torch.device
        Where the rows are.
    """

    def __init__(self, dim: int, storage: str, device: torch.device) -> None:
        self.dim, self.storage, self.device = dim, storage, device
        self.ascending = True
        # Whether a bias or a scale was ever given: a search reads no column of zeros or ones.
        self.biased = self.scaled = False
        self.items = self.encode(torch.empty(0, dim, dtype=torch.float32, device=device))
        self.columns = {
            "ids": torch.empty(0, dtype=torch.int64, device=device),
            "item_bias": torch.empty(0, dtype=torch.float32, device=device),
            "item_scale": torch.empty(0, dtype=torch.float32, device=device),
        }

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self.items)

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
        """As the operators take them: all rows, themselves, or copies of those at positions."""
        if isinstance(index, Tensor):
            return self.items.take(index)
        assert index == slice(None)
        return self.items

    def modifiers(self, index: slice | Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The item bias and the item scale of these rows, where there are any."""
        bias, scale = (
            self.columns[name][: self.count][index] if given else None
            for name, given in (("item_bias", self.biased), ("item_scale", self.scaled))
        )
        return bias, scale

    def append(self, ids: Tensor, rows: PackedItems, bias: Tensor, scale: Tensor) -> None:
        """Put rows behind the last, in the order given."""
        start, count = self.count, self.count + ids.shape[0]
        self._make_room(count, kept=start)
        self.write(slice(start, count), ids=ids, item_bias=bias, item_scale=scale)
        self.items.append(rows)
        seam = self.ids[max(0, start - 1) :]
        self.ascending &= bool((seam[1:] > seam[:-1]).all())

    def write(self, index: slice | Tensor, **columns: Tensor) -> None:
        """Overwrite columns at these positions."""
        with torch.inference_mode():  # in which any tensor may be written
            for name, values in columns.items():
                self.columns[name][index] = values

    def drop(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Remove rows; the last ones move into the holes: (ids moved, their new positions)."""
        moving, holes = self.items.remove(positions)
        self.write(holes, **{name: column[moving] for name, column in self.columns.items()})
        self.ascending = self.count < 2 or (self.ascending and holes.shape[0] == 0)
        self._make_room(self.count, kept=self.count)
        return self.ids[holes].clone(), holes

    def _make_room(self, count: int, kept: int) -> None:
        """Let the columns grow or shrink to where `count` rows fit well, with the first `kept`."""
        held = self.columns["ids"].shape[0]
        room = capacity(held, count)
        if room != held:
            self.columns = {n: resized(c, room, kept) for n, c in self.columns.items()}
