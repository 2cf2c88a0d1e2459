"""How much each item of a history counts, and the profiles that come of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmrec_kernels.ops import checks, embedding_bag
from llmrec_kernels.recommenders.history import Lists


class Bags(NamedTuple):
    """What to pool: bag `b` has the places and weights `offsets[b] .. offsets[b + 1] - 1`."""

    places: NDArray[np.int64]  # [nnz]
    weights: NDArray[np.float64]  # [nnz]
    offsets: NDArray[np.int64]  # [B + 1]

    def pooled(self, vectors: Tensor) -> Tensor:
        """The weighted sums of rows of a matrix, [B, d] float32."""
        sums: Tensor = embedding_bag(
            vectors,
            torch.from_numpy(np.ascontiguousarray(self.places)),
            torch.from_numpy(self.offsets),
            per_sample_weights=torch.from_numpy(self.weights).float(),
            include_last_offset=True,
        )
        return sums

    def of(self, bag: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The places in a bag that count, and their weights."""
        part = slice(self.offsets[bag], self.offsets[bag + 1])
        found = self.weights[part] != 0
        return self.places[part][found], self.weights[part][found]


POOLINGS = ("mean", "rating", "recency")


def weights(
    histories: Lists,
    pooling: str,
    *,
    lowest: float,
    half_life: float,
    min_rating: float | None,
) -> NDArray[np.float64]:
    """A weight for each row, [nnz], at least 0; those of a user sum to 1, or are all 0.

    Parameters
    ----------
    histories : Lists
        Each user's rows in the order of time.
    pooling : str
        One of `POOLINGS`.
    lowest : float
        The rating that counts nothing where ratings are weights. A user with no higher rating
        is pooled evenly.
    half_life : float
        After as many newer rows a row counts half, for "recency".
    min_rating : float or None
        Rows with a lower rating do not count, nor as newer rows.
    """
    rating, counts = histories.rows["rating"], np.diff(histories.offsets)
    owner = np.repeat(np.arange(len(counts)), counts)
    kept = np.ones(len(rating)) if min_rating is None else (rating >= min_rating).astype(np.float64)
    raw = kept
    if pooling == "rating":
        raw = kept * np.maximum(rating - lowest, 0.0)
        raw = np.where(_sums(owner, raw, len(counts))[owner] > 0, raw, kept)
    elif pooling == "recency":
        so_far = kept.cumsum()
        ends = np.concatenate([[0.0], so_far])[histories.offsets[1:]]
        raw = kept * 0.5 ** ((ends[owner] - so_far) / half_life)
    total = _sums(owner, raw, len(counts))[owner]
    return np.divide(raw, total, out=np.zeros_like(raw), where=total > 0)


def rating_shares(
    histories: Lists, pooling: str, scale: tuple[float, float], min_rating: float | None
) -> NDArray[np.float64]:
    """A weight for each row, [nnz], from 0 to 1, that no other row of its history moves."""
    (lowest, highest), rating = scale, histories.rows["rating"]
    share = np.ones(len(rating))
    if pooling == "rating" and highest > lowest:
        share = np.clip((rating - lowest) / (highest - lowest), 0.0, 1.0)
    return share if min_rating is None else np.where(rating >= min_rating, share, 0.0)


def decayed(histories: Lists, half_life: float | None) -> NDArray[np.float64]:
    """A weight for each row, [nnz]: 1 for a user's newest, half as much `half_life` rows before."""
    counts = np.diff(histories.offsets)
    if half_life is None:
        return np.ones(len(histories.rows))
    newer = np.repeat(histories.offsets[1:] - 1, counts) - np.arange(len(histories.rows))
    weight: NDArray[np.float64] = 0.5 ** (newer / half_life)
    return weight


def checked_half_life(half_life: Any) -> float | None:
    """A half-life in interactions, or None: nothing ages."""
    if half_life is not None and checks.finite_number("half_life", half_life) <= 0:
        raise ValueError(f"half_life is {half_life}; expected more than 0, or None")
    return None if half_life is None else float(half_life)


def _sums(owner: NDArray[np.int64], values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    return np.bincount(owner, weights=values, minlength=count).astype(np.float64)
