"""Rows with room behind the last, so that a change moves as many rows as it changes.

The tensors have more rows than are in use. Adding rows doubles them when the room runs out
(amortised, each row is moved once or twice), and removing some fills the holes with the last rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from llmrec_kernels import _memory
from llmrec_kernels.ops.pack import layout
from llmrec_kernels.ops.rows import Rows, Sketch, indexable

SMALLEST = 16  # rows that there is always room for, once there was any
GATHERED = 2048  # rows copied at a time, whole blocks


def capacity(room: int, count: int) -> int:
    """Rows to have room for: doubled until `count` fit, halved where three quarters are empty.

    Examples
    --------
    >>> capacity(0, 1), capacity(16, 40), capacity(64, 17), capacity(64, 16)
    (16, 64, 64, 32)
    """
    while room < count:
        room = max(SMALLEST, 2 * room)
    while room > SMALLEST and room >= 4 * count:
        room //= 2
    return room


def resized(column: Tensor, room: int, kept: int) -> Tensor:
    """A copy with other room: the first `kept` entries, and nothing in particular behind them.

    Nor does it become one of inference mode's tensors, which could be changed in that mode only.
    """
    with torch.inference_mode(False), torch.no_grad():
        copy = _memory.empty((room, *column.shape[1:]), column.dtype, column.device)
        copy[:kept] = column[:kept]
    return copy


class Room:
    """Packed rows that can be added to, overwritten and removed.

    What comes in was checked by the caller.

    Parameters
    ----------
    rows : Rows
        With inverse norms; held as they are until they must grow.
    """

    def __init__(self, rows: Rows) -> None:
        self._held = rows
        self._used: Rows | None = rows
        self.count = rows.data.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is held, the room included."""
        return self._held.nbytes

    def rows(self) -> Rows:
        """The rows without the room: views."""
        if self._used is None:
            self._used = used(*self.prefix())
        return self._used

    def prefix(self) -> tuple[Rows, int]:
        """The rows with the room, and how many there are: what `used` makes the rows of.

        Also later, when there are more: those are behind them, or elsewhere.
        """
        return self._held, self.count

    def reserve(self, more: int) -> None:
        """Have room for `more` rows behind the last, so that `append` needs no memory."""
        self._fit(self.count + more)

    def _use(self, count: int) -> None:
        self.count, self._used = count, None

    def take(self, positions: Tensor) -> Rows:
        """Copies of the rows at these positions."""
        return taken(self._held, positions)

    def append(self, rows: Rows) -> None:
        """Put rows behind the last."""
        start, count = self.count, self.count + rows.data.shape[0]
        self._fit(count)
        with torch.inference_mode():  # in which any tensor may be written
            for column, new in zip(_columns(self._held), _columns(rows), strict=True):
                column[start:count] = new
            if self._held.sketch is not None and rows.sketch is not None:
                layout.append(self._held.sketch.codes, start, rows.sketch.codes, count - start)
        self._use(count)

    def replace(self, positions: Tensor, rows: Rows) -> None:
        """Overwrite the rows at these positions, each of them once."""
        with torch.inference_mode():
            for column, new in zip(_columns(self._held), _columns(rows), strict=True):
                column[positions] = new
            if self._held.sketch is not None and rows.sketch is not None:
                layout.replace(self._held.sketch.codes, positions, rows.sketch.codes)

    def remove(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Remove rows; the last ones move into the holes: (where they were, where they are)."""
        left = self.count - positions.shape[0]
        tail = torch.arange(left, self.count, device=positions.device)
        moving = tail[~torch.isin(tail, positions)]
        holes = positions[positions < left]
        self.replace(holes, self.take(moving))
        if self._held.sketch is not None:
            with torch.inference_mode():
                layout.truncate(self._held.sketch.codes, left)
        self._use(left)
        self._fit(left)
        return moving, holes

    def _fit(self, count: int) -> None:
        room = capacity(self._held.data.shape[0], count)
        if room != self._held.data.shape[0]:
            self.resize(room)

    def resize(self, room: int) -> None:
        """Have room for exactly so many rows."""
        kept = min(self.count, room)
        self._held = _mapped(
            self._held,
            lambda t: resized(t, room, kept),
            lambda codes: resized(codes, layout.blocks(room), layout.blocks(kept)),
        )
        self._use(kept)


class Piece(NamedTuple):
    """Rows that come to lie among those of other packs.

    Parameters
    ----------
    rows : Rows
        With inverse norms and a sketch.
    sources, targets : Tensor, [n] int64
        Their positions, and those that they get; both ascending.
    """

    rows: Rows
    sources: Tensor
    targets: Tensor

    def within(self, start: int, stop: int) -> Piece:
        """What goes to targets `start .. stop - 1`, with targets counted from `start`."""
        bounds = torch.tensor([start, stop], device=self.targets.device)
        low, high = torch.searchsorted(self.targets, bounds).tolist()
        return Piece(self.rows, self.sources[low:high], self.targets[low:high] - start)


def used(held: Rows, count: int) -> Rows:
    """The first rows: views."""
    if count == held.data.shape[0]:
        return held
    blocks = layout.blocks(count)
    with torch.inference_mode(False):  # of whose tensors no other mode may take views
        return _mapped(held, lambda t: t[:count], lambda codes: codes[:blocks])


def taken(rows: Rows, positions: Tensor) -> Rows:
    """Copies of the rows at these positions."""
    return _mapped(
        rows, lambda t: t.index_select(0, positions), lambda codes: layout.take(codes, positions)
    )


def gathered(pieces: Sequence[Piece]) -> Rows:
    """Rows of several packs of one kind as one; all targets together are 0 .. n - 1."""
    count = sum(piece.targets.shape[0] for piece in pieces)
    held = Room(_mapped(pieces[0].rows, lambda t: t[:0], lambda codes: codes[:0]))
    held.resize(count)
    held._use(count)
    result = held.rows()
    assert result.sketch is not None
    columns, codes = _columns(result), result.sketch.codes
    with torch.inference_mode():
        for start in range(0, count, GATHERED):
            stop = min(start + GATHERED, count)
            # Codes have no rows that could be copied: whole blocks are made at a time.
            words = codes.new_empty(stop - start, codes.shape[1], dtype=torch.int32)
            for rows, sources, targets in (piece.within(start, stop) for piece in pieces):
                assert rows.sketch is not None
                for column, old in zip(columns, _columns(rows), strict=True):
                    column[start:stop].index_copy_(0, targets, old.index_select(0, sources))
                words.index_copy_(0, targets, layout.words(rows.sketch.codes, sources))
            blocks = layout.interleave_words(words)
            first = start // layout.LANES
            codes[first : first + blocks.shape[0]] = blocks
    return result


def _columns(rows: Rows) -> list[Tensor]:
    """The tensors with an entry for each row: all but the codes of the sketch."""
    numbers = (rows.scale, rows.bias, rows.inverse_norms, *(rows.sketch or ())[1:])
    columns = (indexable(rows.data), *numbers)
    return [column for column in columns if column is not None]


def _mapped(
    rows: Rows, each: Callable[[Tensor], Tensor], of_codes: Callable[[Tensor], Tensor]
) -> Rows:
    """The rows with every tensor that has an entry for each, and the codes, put through these."""
    sketch = rows.sketch
    return rows._replace(
        data=each(indexable(rows.data)).view(rows.data.dtype),
        scale=None if rows.scale is None else each(rows.scale),
        bias=None if rows.bias is None else each(rows.bias),
        inverse_norms=None if rows.inverse_norms is None else each(rows.inverse_norms),
        sketch=None
        if sketch is None
        else Sketch(of_codes(sketch.codes), each(sketch.unit_scale), each(sketch.residual)),
    )
