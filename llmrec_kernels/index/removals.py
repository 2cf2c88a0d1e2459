"""Which rows of a segment were removed, as each version of the index sees it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]


class Removals:
    """Positions in the order in which they were removed; a version sees the first so many.

    One thread notes, any number of others ask, and none waits: what is noted lies behind all that
    a published version sees. That a position was removed is told by two arrays that confirm each
    other (a sparse set: Briggs and Torczon, *An Efficient Representation for Sparse Sets*, ACM
    LOPLAS 2, 1993), so that a change which was broken off in between leaves nothing behind.

    Examples
    --------
    >>> removals = Removals()
    >>> removals.note(np.array([4, 2]), seen=0, rows=5)
    >>> removals.has(np.array([2, 3, 4]), 2).tolist(), removals.has(np.array([2, 4]), 1).tolist()
    ([True, False, True], [False, True])
    >>> removals.first(1).tolist()
    [4]
    """

    def __init__(self) -> None:
        self._order = np.empty(0, np.int32)
        self._rank = np.zeros(0, np.int32)  # by position: 1 + its place in the order, or anything

    @property
    def nbytes(self) -> int:
        """Bytes of what was noted."""
        return self._order.nbytes + self._rank.nbytes

    def reserve(self, more: int, *, seen: int, rows: int) -> None:
        """Have room for `more` behind those that are `seen`, so that `note` cannot fail."""
        if self._order.shape[0] < seen + more:
            order = np.empty(max(16, 2 * seen, seen + more), np.int32)
            order[:seen] = self._order[:seen]
            self._order = order
        if self._rank.shape[0] < rows:
            rank = np.zeros(rows, np.int32)  # of untouched pages, where it is large
            rank[: self._rank.shape[0]] = self._rank
            self._rank = rank

    def note(self, positions: Positions, *, seen: int, rows: int) -> None:
        """Note positions below `rows`, none of which the first `seen` hold, behind those."""
        self.reserve(positions.shape[0], seen=seen, rows=rows)
        self._order[seen : seen + positions.shape[0]] = positions
        self._rank[positions] = np.arange(seen + 1, seen + 1 + positions.shape[0], dtype=np.int32)

    def first(self, count: int) -> Positions:
        """The first `count`."""
        return self._order[:count].astype(np.int64)

    def has(self, positions: Positions, count: int) -> npt.NDArray[np.bool_]:
        """Which of these positions are among the first `count`."""
        if count == 0:
            return np.zeros(positions.shape, np.bool_)
        rank, order = self._rank, self._order
        known = positions < rank.shape[0]
        ranks = rank[np.where(known, positions, 0)]
        known &= (ranks > 0) & (ranks <= count)
        confirmed: npt.NDArray[np.bool_] = order[np.where(known, ranks - 1, 0)] == positions
        return known & confirmed

    def has_one(self, position: int, count: int) -> bool:
        """`has` of one position."""
        rank = self._rank
        if count == 0 or position >= rank.shape[0]:
            return False
        place = int(rank[position])
        return 0 < place <= count and int(self._order[place - 1]) == position
