"""Histories cut into windows to learn from, and those whose last item is held out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmrec_kernels.recommenders.history import History

_LEAST = 3  # items of a user whose last one is held out, so that there is something to learn from
_ONE_OF = 10  # users with as many is held out
_MOST_HELD_OUT = 1000  # users


class Sequences(NamedTuple):
    """Items in the order of time, user after user, and the windows of them to learn from."""

    items: Tensor  # [nnz] int64
    first: Tensor  # [W] int64: the first of a user's items, where a window's first target may be
    last: Tensor  # [W] int64: one after the last of them
    begin: Tensor  # [W] int64: where the window would begin without its shift
    shifted: Tensor  # [W] bool: whether the window moves

    @staticmethod
    def of(items: NDArray[np.int64], offsets: NDArray[np.int64], length: int) -> Sequences:
        """Windows of at most `length` targets.

        Those of a user with more are one more than needed, so that each can be moved by less than
        `length`, and each target is in one of them as often as any other.
        """
        targets = np.diff(offsets) - 1
        windows = np.where(targets > length, -(-targets // length) + 1, targets > 0)
        user = np.repeat(np.arange(len(targets)), windows)
        number = np.arange(len(user)) - np.repeat(windows.cumsum() - windows, windows)
        several = (windows > 1)[user]
        begin = offsets[user] + 1 + (number - several) * length
        columns = (items, offsets[user] + 1, offsets[user + 1], begin, several)
        return Sequences(*(torch.from_numpy(np.ascontiguousarray(one)) for one in columns))

    @property
    def targets(self) -> int:
        """Interactions that are foretold, all users' together."""
        return int((self.last.unique() - self.first.unique()).sum())

    def batch(self, windows: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs and targets of some windows, [b, length] each, and which of them are there."""
        shift = torch.randint(length, (len(windows),)) * self.shifted[windows]
        begin = self.begin[windows] + shift
        place = begin.clamp_min(self.first[windows])[:, None] + torch.arange(length)
        there = place < torch.minimum(begin + length, self.last[windows])[:, None]
        place = place.clamp_max(len(self.items) - 1)
        return self.items[place - 1], self.items[place], there


class HeldOut(NamedTuple):
    """Histories whose next item is held out."""

    inputs: Tensor  # [V, T] int64
    last: Tensor  # [V] int64: the place of the newest item in each
    targets: Tensor  # [V] int64


def read(
    history: History, taken: NDArray[np.bool_], length: int, seed: int
) -> tuple[Sequences, HeldOut | None]:
    """What is learned from, by numbers of the items that were taken, and what is held out.

    Parameters
    ----------
    history : History
        The interactions.
    taken : [N] bool
        The items that anyone took: these are numbered from 0.
    length : int
        Most items of a history.
    seed : int
        Of the draw of users whose last item is held out: a tenth of those with three or more.
    """
    everyone = history.everyone()
    items, counts = (np.cumsum(taken) - 1)[everyone.rows["item"]], np.diff(everyone.offsets)
    many = np.flatnonzero(counts >= _LEAST)
    drawn = min(len(many) // _ONE_OF, _MOST_HELD_OUT)
    chosen = np.sort(np.random.default_rng(seed).choice(many, drawn, replace=False))
    last = everyone.offsets[chosen + 1] - 1
    counts[chosen] -= 1
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), counts.cumsum()])
    sequences = Sequences.of(np.delete(items, last), offsets, length)
    if not drawn:
        return sequences, None
    begin = np.maximum(everyone.offsets[chosen], last - length)
    places = np.minimum(begin[:, None] + np.arange(length), last[:, None])
    columns = items[places], last - begin - 1, items[last]
    return sequences, HeldOut(*(torch.from_numpy(one) for one in columns))
