"""What towers are trained on: what users took and liked, and what of it is held out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmrec_kernels.recommenders.history import History, Lists

_VALIDATED = 1000  # users of whom one item is held out at most


class Taken(NamedTuple):
    """What users took, user after user."""

    owners: Tensor  # [nnz] int64, ascending
    items: Tensor  # [nnz] int64
    values: Tensor  # [nnz] float32: weights in a history, or ratings less the mean
    counts: Tensor  # [nnz] float32: how much it matters that this one is foretold

    def of(self, users: Tensor) -> Taken:
        """What these users took, [n], who are numbered 0 to n - 1 in it."""
        starts = torch.searchsorted(self.owners, users)
        counts = torch.searchsorted(self.owners, users, right=True) - starts
        owners = torch.arange(len(users)).repeat_interleave(counts)
        rows = torch.arange(len(owners)) + (starts - counts.cumsum(0) + counts)[owners]
        return Taken(owners, self.items[rows], self.values[rows], self.counts[rows])

    @staticmethod
    def split(history: History, mean: float | None, seed: int) -> tuple[Taken, Taken]:
        """What is learned from, and an item of each of some users to see when to stop.

        With a mean, values are ratings less it, and each is foretold.
        """
        everyone = history.everyone()
        owners, item, rating = everyone.owners(), everyone.rows["item"], everyone.rows["rating"]
        if mean is None:
            values, counts = liking(everyone, history), liked(everyone, history)
        else:
            values, counts = rating - mean, np.ones(len(rating))
        draw = np.random.default_rng(seed)
        many = np.flatnonzero(np.diff(everyone.offsets) >= 3)
        some = draw.permutation(many)[: min(len(many) // 10, _VALIDATED)]
        rows = draw.permutation(np.flatnonzero((counts > 0) & np.isin(owners, some)))
        held_out = np.zeros(len(rating), dtype=bool)
        held_out[rows[np.unique(owners[rows], return_index=True)[1]]] = True
        columns = (owners, item.copy(), values.astype(np.float32), counts.astype(np.float32))
        learned, later = (
            Taken(*(torch.from_numpy(one[part]) for one in columns))
            for part in (~held_out, held_out)
        )
        return learned, later


def liking(histories: Lists, history: History) -> NDArray[np.float64]:
    """How much each row was liked, [nnz], from 0 to 1: alike, where ratings do not tell."""
    lowest, span = history.lowest, history.highest - history.lowest
    if span <= 0:
        return np.ones(len(histories.rows))
    return np.asarray(np.clip((histories.rows["rating"] - lowest) / span, 0.0, 1.0))


def liked(histories: Lists, history: History) -> NDArray[np.float64]:
    """Which rows are foretold, [nnz] of ones and zeros: those rated no lower than the mean."""
    return np.asarray(histories.rows["rating"] >= history.mean, dtype=np.float64)


def popularity(history: History) -> Tensor:
    """The logarithm of how many liked each item, [N], less the mean."""
    everyone, n_items = history.everyone(), len(history.popularity)
    counts = np.bincount(everyone.rows["item"], liked(everyone, history), n_items)
    known, level = history.popularity > 0, np.log1p(counts)
    if known.any():
        level -= level[known].mean()
    return torch.from_numpy(level * known).float()


def check_classes(history: History) -> None:
    """Refuse ratings that are all alike: of these there is nothing to learn."""
    rating = history.everyone().rows["rating"]
    if len(rating) and rating.min() == rating.max():
        raise ValueError(
            f"interactions has {len(rating)} ratings and each is {rating[0]:g}; expected ratings "
            "of at least two values, or loss='contrastive'"
        )
