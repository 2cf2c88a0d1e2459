"""Rows of an index that never change, and how rows come together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmrec_kernels.cost import nbytes
from llmrec_kernels.index.lazy import lazy
from llmrec_kernels.index.manifest import SegmentRecord
from llmrec_kernels.index.removals import Positions, Removals
from llmrec_kernels.ops import PackedItems
from llmrec_kernels.ops.pack.room import Piece, gathered
from llmrec_kernels.ops.rows import Rows

Ids = npt.NDArray[np.int64]


class Entries(NamedTuple):
    """Rows with everything that belongs to them.

    Parameters
    ----------
    ids : ndarray, [n] int64
        External ids, each once, ascending.
    rows : Rows
        The vectors as the index keeps them, packed.
    bias, scale : Tensor, [n] float32, or None
        None stands for zeros, and for ones.
    """

    ids: Ids
    rows: Rows
    bias: Tensor | None
    scale: Tensor | None


class Proof(Protocol):
    """Whether what a file holds is what was written to it."""

    def of_ids(self) -> None:
        """Raise `IndexFormatError` unless the ids are."""

    def of_rows(self, positions: Positions | None) -> None:
        """The same of everything that belongs to these rows, or to all."""


class Segment:
    """Rows in ascending order of their external ids, which never change.

    Parameters
    ----------
    entries : Entries
        Held as they are, not copied.
    proof : Proof, optional
        Asked before contents are first looked at.
    """

    ascending = True

    def __init__(self, entries: Entries, proof: Proof | None = None) -> None:
        self._entries, self._proof = entries, proof
        self.count = entries.ids.shape[0]
        self.removals = Removals()
        self.files: dict[str, SegmentRecord] = {}  # where it was saved, by folder

    @lazy
    def host_ids(self) -> Ids:
        """External ids by position."""
        if self._proof is not None:
            self._proof.of_ids()
        return self._entries.ids

    @lazy
    def ids(self) -> Tensor:
        """The same on the index's device."""
        return torch.from_numpy(self.host_ids).to(self._entries.rows.data.device)

    @lazy
    def all(self) -> Entries:
        """Everything, with the rows as they can be searched."""
        if self._proof is not None:
            self._proof.of_rows(None)
        return self._entries

    @lazy
    def items(self) -> PackedItems:
        """As the operators take them."""
        return PackedItems.of(self.all.rows)

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is held, in memory or in a file."""
        ids, rows, *numbers = self._entries
        return ids.nbytes + rows.nbytes + nbytes(*numbers)

    @property
    def mapped(self) -> bool:
        """Whether the rows are in a file, and not in memory."""
        return self._proof is not None

    def some(self, positions: Positions) -> Entries:
        """Everything, for a look at the rows at these positions alone."""
        if self._proof is not None:
            self._proof.of_rows(positions)
        return self._entries

    def find(self, ids: Ids) -> Positions:
        """Where these ids are, or -1."""
        places = self.host_ids.searchsorted(ids)
        inside = places < self.count
        found = self.host_ids[np.where(inside, places, 0)] == ids if self.count else inside
        return np.where(inside & found, places, -1)

    def find_one(self, item_id: int) -> int:
        """`find` of one id."""
        place = int(self.host_ids.searchsorted(item_id))
        return place if place < self.count and self.host_ids[place] == item_id else -1


class Source(Protocol):
    """What rows are taken from: a segment, or a part of the tail."""

    ascending: bool

    @property
    def host_ids(self) -> Ids:
        """External ids by position."""

    def some(self, positions: Positions) -> Entries:
        """Everything, for a look at the rows at these positions alone."""


def merged(pieces: Sequence[tuple[Source, Positions]]) -> Entries:
    """Copies of rows of several sources, in ascending order of their ids, each of which is new."""
    pieces = [(source, _by_id(source, positions)) for source, positions in pieces]
    entries = [source.some(positions) for source, positions in pieces]
    ids = np.concatenate(
        [each.ids[positions] for each, (_, positions) in zip(entries, pieces, strict=True)]
    )
    order = ids.argsort(kind="stable")
    targets = np.empty_like(order)
    targets[order] = np.arange(order.shape[0])
    ends = np.cumsum([positions.shape[0] for _, positions in pieces])
    device = entries[0].rows.data.device
    copied = [
        Piece(each.rows, torch.from_numpy(positions).to(device), torch.from_numpy(to).to(device))
        for each, (_, positions), to in zip(
            entries, pieces, np.split(targets, ends[:-1]), strict=True
        )
    ]
    rows = gathered(copied)
    numbers = (
        _column([getattr(each, name) for each in entries], copied, default)
        for name, default in (("bias", 0.0), ("scale", 1.0))
    )
    return Entries(ids[order], rows, *numbers)


def _by_id(source: Source, positions: Positions) -> Positions:
    return positions if source.ascending else positions[source.host_ids[positions].argsort()]


def _column(columns: list[Tensor | None], pieces: list[Piece], default: float) -> Tensor | None:
    if all(column is None for column in columns):
        return None
    count = sum(piece.targets.shape[0] for piece in pieces)
    result = torch.full((count,), default, dtype=torch.float32, device=pieces[0].targets.device)
    for column, piece in zip(columns, pieces, strict=True):
        if column is not None:
            result[piece.targets] = column[piece.sources]
    return result
