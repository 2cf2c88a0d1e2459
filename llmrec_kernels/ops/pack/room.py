"""Rows with room behind the last, so that a change moves as many rows as it changes.

The tensors have more rows than are in use. Adding rows doubles them when the room runs out
(amortised, each row is moved once or twice), and removing some fills the holes with the last rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from llmrec_kernels.ops.pack import layout
from llmrec_kernels.ops.rows import Rows, Sketch, indexable

SMALLEST = 16  # rows that there is always room for, once there was any


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
        copy = torch.empty(room, *column.shape[1:], dtype=column.dtype, device=column.device)
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
        self.count = rows.data.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is held, the room included."""
        return self._held.nbytes

    def rows(self) -> Rows:
        """The rows without the room: views."""
        if self.count == self._held.data.shape[0]:
            return self._held
        used = layout.blocks(self.count)
        return _mapped(self._held, lambda t: t[: self.count], lambda codes: codes[:used])

    def take(self, positions: Tensor) -> Rows:
        """Copies of the rows at these positions."""
        return _mapped(
            self._held, lambda t: t[positions], lambda codes: layout.take(codes, positions)
        )

    def append(self, rows: Rows) -> None:
        """Put rows behind the last."""
        start, count = self.count, self.count + rows.data.shape[0]
        self._fit(count)
        with torch.inference_mode():  # in which any tensor may be written
            for column, new in zip(_columns(self._held), _columns(rows), strict=True):
                column[start:count] = new
            if self._held.sketch is not None and rows.sketch is not None:
                layout.append(self._held.sketch.codes, start, rows.sketch.codes, count - start)
        self.count = count

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
        self.count = left
        self._fit(left)
        return moving, holes

    def _fit(self, count: int) -> None:
        held = self._held.data.shape[0]
        room = capacity(held, count)
        if room == held:
            return
        kept = min(self.count, count)
        self._held = _mapped(
            self._held,
            lambda t: resized(t, room, kept),
            lambda codes: resized(codes, layout.blocks(room), layout.blocks(kept)),
        )


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
