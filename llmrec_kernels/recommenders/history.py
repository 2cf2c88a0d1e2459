"""Who took what: each user's interactions in the order of time.

One row a user and item: of repeats the one with the latest timestamp counts, and of those at the
same time the later row. The history that a model was fitted on is one array, user after user;
users whose history has changed since have arrays of their own, so that feedback costs in
proportion to the histories it changes.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

ROW = np.dtype([("item", np.int64), ("rating", np.float64), ("timestamp", np.float64)])


class Lists(NamedTuple):
    """The histories of some users: those of user `i` are `rows[offsets[i]:offsets[i + 1]]`."""

    rows: NDArray[np.void]  # [nnz] of ROW
    offsets: NDArray[np.int64]  # [B + 1]
    users: NDArray[np.int64] | None = None  # [B], -1 if unknown; None: known by these alone

    @staticmethod
    def of(
        item: NDArray[np.int64], rating: NDArray[np.float64], timestamp: NDArray[np.float64]
    ) -> Lists:
        """One history of its columns, in any order and with repeats."""
        rows = as_rows(item, rating, timestamp)
        rows = rows[_latest(np.zeros(len(rows), dtype=np.int64), rows)]
        return Lists(rows, np.array([0, len(rows)]))

    def owners(self) -> NDArray[np.int64]:
        """The user of each row, [nnz]."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def empty(self) -> Tensor:
        """Whose history has nothing in it, [B] bool."""
        return torch.from_numpy(np.diff(self.offsets) == 0)

    def only(self, users: NDArray[np.int64]) -> Lists:
        """The histories of these users."""
        parts = [self.rows[self.offsets[one] : self.offsets[one + 1]] for one in users.tolist()]
        offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return Lists(np.concatenate([*parts, np.empty(0, dtype=ROW)]), offsets)

    @staticmethod
    def of_one_each(item: NDArray[np.int64]) -> Lists:
        """For each of these items, a history of it alone."""
        rows = as_rows(item, np.ones(len(item)), np.zeros(len(item)))
        return Lists(rows, np.arange(len(item) + 1))


def as_rows(
    item: NDArray[np.int64], rating: NDArray[np.float64], timestamp: NDArray[np.float64]
) -> NDArray[np.void]:
    """Columns [n] as rows [n] of `ROW`."""
    rows = np.empty(len(item), dtype=ROW)
    rows["item"], rows["rating"], rows["timestamp"] = item, rating, timestamp
    return rows


class Change(NamedTuple):
    """What interactions made of the histories of their users."""

    users: NDArray[np.int64]  # [B], each once
    before: Lists
    after: Lists


class History:
    """The interactions of all users.

    Parameters
    ----------
    user : [nnz] int64
        The user of each row, numbered from 0.
    rows : [nnz] of ROW
        In any order, also with repeats.
    n_items : int
        Items there are.

    Attributes
    ----------
    popularity : [N] int64
        How many users took each item.
    latest : float
        The latest timestamp ever given; 0 where there are none.
    n_users : int
        Users there are, up to the last one who took anything.
    lowest, highest : float
        The range of the ratings ever given; 0 and 1 where there are none.
    """

    def __init__(self, user: NDArray[np.int64], rows: NDArray[np.void], n_items: int) -> None:
        kept = _latest(user, rows)
        self._rows = rows[kept]
        self._offsets = _offsets(user[kept])
        self.n_users = len(self._offsets) - 1
        self._changed: dict[int, NDArray[np.void]] = {}
        self.popularity = np.bincount(self._rows["item"], minlength=n_items)
        self.latest = float(rows["timestamp"].max()) if len(rows) else 0.0
        self._count = len(self._rows)
        self._total = _exact_sum(self._rows["rating"])
        self.lowest, self.highest = 0.0, 1.0
        if len(rows):
            self.lowest, self.highest = float(rows["rating"].min()), float(rows["rating"].max())

    def of(self, users: NDArray[np.int64]) -> Lists:
        """The histories of these users; empty for -1 and for users without any."""
        parts = [self._of(one) for one in users.tolist()]
        offsets = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        return Lists(np.concatenate([*parts, np.empty(0, dtype=ROW)]), offsets, users)

    def add(self, user: NDArray[np.int64], rows: NDArray[np.void]) -> Change:
        """Add interactions to the histories of their users."""
        if len(rows):
            low, high = float(rows["rating"].min()), float(rows["rating"].max())
            self.lowest = min(low, self.lowest) if self._count else low
            self.highest = max(high, self.highest) if self._count else high
            newest = float(rows["timestamp"].max())
            self.latest = max(newest, self.latest) if self._count else newest
        users, owner = np.unique(user, return_inverse=True)
        before = self.of(users)
        owner = np.concatenate([np.repeat(np.arange(len(users)), np.diff(before.offsets)), owner])
        rows = np.concatenate([before.rows, rows])
        kept = _latest(owner, rows)
        rows, owner = rows[kept], owner[kept]
        offsets = np.searchsorted(owner, np.arange(len(users) + 1))
        parts = np.split(rows, offsets[1:-1])
        self._changed.update(zip(users.tolist(), parts, strict=False))
        self._total += _exact_sum(rows["rating"]) - _exact_sum(before.rows["rating"])
        self._count += len(rows) - len(before.rows)
        np.subtract.at(self.popularity, before.rows["item"], 1)
        np.add.at(self.popularity, rows["item"], 1)
        self.n_users = max(self.n_users, int(user.max(initial=-1)) + 1)
        return Change(users, before, Lists(rows, offsets))

    @property
    def mean(self) -> float:
        """The mean of the ratings, 1 where there are none."""
        return float(self._total / self._count) if self._count else 1.0

    def everyone(self) -> Lists:
        """The histories of all users, in the order of their numbers."""
        return self.of(np.arange(self.n_users))

    def matrix(self) -> csr_array:
        """Who took what: [users, N] float64 of ones."""
        return sparse(self.everyone(), len(self.popularity))

    def _of(self, user: int) -> NDArray[np.void]:
        if user in self._changed:
            return self._changed[user]
        if not 0 <= user < len(self._offsets) - 1:
            return self._rows[:0]
        return self._rows[self._offsets[user] : self._offsets[user + 1]]


def sparse(histories: Lists, n_items: int, values: NDArray[np.float64] | None = None) -> csr_array:
    """Histories as a matrix, [B, N] float64: ones, or these values, [nnz]."""
    if values is None:
        values = np.ones(len(histories.rows))
    shape = (len(histories.offsets) - 1, n_items)
    # Copies: sorting or summing in place must not touch the histories.
    places = histories.rows["item"].copy(), histories.offsets.copy()
    return csr_array((values, *places), shape=shape)


def _exact_sum(numbers: NDArray[np.float64]) -> Fraction:
    """The sum without rounding, so that it is the same in whatever order they came.

    Each is a whole number times a power of 2; those of a power are added as integers, in halves
    that do not overflow.

    Examples
    --------
    >>> float(_exact_sum(np.array([1e300, 0.25, -1e300])))
    0.25
    """
    part, power = np.frexp(numbers)
    whole = np.ldexp(part, 53).astype(np.int64)
    total = Fraction()
    for one in np.unique(power).tolist():
        alike = whole[power == one]
        upper, lower = int((alike >> 26).sum()), int((alike & (2**26 - 1)).sum())
        total += ((upper << 26) + lower) * Fraction(2) ** (one - 53)
    return total


def _latest(user: NDArray[np.int64], rows: NDArray[np.void]) -> NDArray[np.int64]:
    """Which rows count: by user and time, the last one of each user and item."""
    order = np.lexsort((rows["timestamp"], user))
    pair = user * (rows["item"].max(initial=0) + 1) + rows["item"]
    _, last = np.unique(pair[order[::-1]], return_index=True)
    return order[np.sort(len(order) - 1 - last)]


def _offsets(user: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each user's rows begin, of sorted users 0 upwards, and the end."""
    counts = np.bincount(user, minlength=int(user.max(initial=-1)) + 1)
    return np.concatenate([np.zeros(1, dtype=np.int64), counts.cumsum()])
