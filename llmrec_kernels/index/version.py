"""What an index holds at one moment, which later changes leave as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmrec_kernels.index.removals import Positions
from llmrec_kernels.index.segment import Entries, Ids, Segment, merged
from llmrec_kernels.index.tail import Prefix


class Part(NamedTuple):
    """A segment, or the beginning of the tail, without the rows that were removed by then."""

    block: Segment | Prefix
    removed: int

    @property
    def live(self) -> int:
        """How many rows are left."""
        return self.block.count - self.removed

    def find(self, ids: Ids) -> Positions:
        """Where these ids are, or -1."""
        places = self.block.find(ids)
        gone = self.block.removals.has(places, self.removed)
        return np.where((places >= 0) & gone, -1, places)

    def find_one(self, item_id: int) -> int:
        """`find` of one id."""
        place = self.block.find_one(item_id)
        if place < 0 or self.block.removals.has_one(place, self.removed):
            return -1
        return place

    def gone(self) -> Positions:
        """Where the rows are that were removed."""
        return self.block.removals.first(self.removed)

    def left(self) -> Positions:
        """Where the rows are that were not removed."""
        keep = np.ones(self.block.count, np.bool_)
        keep[self.gone()] = False
        return keep.nonzero()[0]


class Places(NamedTuple):
    """Where ids are: in which part, and where in it; -1 for what is nowhere."""

    part: npt.NDArray[np.int64]
    position: Positions

    def in_part(self, number: int) -> Positions:
        """The positions in one part."""
        found: Positions = self.position[self.part == number]
        return found


class Version(NamedTuple):
    """The parts of an index after so many changes.

    Parameters
    ----------
    number : int
        How many changes the index had seen.
    parts : sequence of Part
        Segments, and the tail behind them.
    """

    number: int
    parts: Sequence[Part]

    @property
    def live(self) -> int:
        """How many items there are."""
        return sum(part.live for part in self.parts)

    def has(self, item_id: int) -> bool:
        """Whether there is an item of this id."""
        return any(part.find_one(item_id) >= 0 for part in self.parts)

    def find(self, ids: Ids) -> Places:
        """Where the items of these ids are."""
        found = Places(np.full(ids.shape, -1), np.full(ids.shape, -1))
        if ids.shape[0] == 1:  # a change of one item is to cost little
            one = int(ids[0])
            for number, part in enumerate(self.parts):
                if (place := part.find_one(one)) >= 0:
                    return Places(np.array([number]), np.array([place]))
            return found
        open_ = np.arange(ids.shape[0])
        for number, part in enumerate(self.parts):
            if not open_.shape[0]:
                break
            places = part.find(ids[open_])
            here = places >= 0
            found.part[open_[here]] = number
            found.position[open_[here]] = places[here]
            open_ = open_[~here]
        return found

    def known(self, name: str, ids: Ids) -> Places:
        """`find`, where all ids must be there."""
        found = self.find(ids)
        missing = found.part < 0
        if missing.any():
            raise IndexError(f"{name} holds {ids[missing.argmax()]}, which is not in the index")
        return found

    def numbers(self, places: Places) -> tuple[Tensor | None, Tensor | None]:
        """Bias and scale of these items, in their order; None where none was ever given."""
        return self._column("bias", places, 0.0), self._column("scale", places, 1.0)

    def _column(self, name: str, places: Places, default: float) -> Tensor | None:
        result = None
        for number, part in enumerate(self.parts):
            here = (places.part == number).nonzero()[0]
            if not here.shape[0]:
                continue
            column: Tensor | None = getattr(part.block.some(places.position[here]), name)
            if column is not None:
                if result is None:
                    result = column.new_full(places.part.shape, default)
                of = (
                    torch.from_numpy(each).to(column.device)
                    for each in (here, places.position[here])
                )
                rows, positions = of
                result[rows] = column[positions]
        return result

    def entries(self, places: Places) -> Entries:
        """Copies of these items, in ascending order of their ids."""
        pieces = [
            (part.block, positions)
            for number, part in enumerate(self.parts)
            if (positions := places.in_part(number)).shape[0]
        ]
        return merged(pieces or [(self.parts[-1].block, places.position)])
