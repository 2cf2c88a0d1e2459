"""How much each item of a history counts in its user's profile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmrec_kernels.recommenders.history import Lists

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


def _sums(owner: NDArray[np.int64], values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    return np.bincount(owner, weights=values, minlength=count).astype(np.float64)
