"""Scores of several recommenders made one: by standardised scores, or by ranks.

Scores of different recommenders have different units. Either each part's scores for a user are
standardised over the items that the user has not taken,

    score(u, i) = Σ_p w_p (s_p(u, i) - mean_p(u)) / std_p(u)

or only the ranks r_p among those items count (reciprocal rank fusion):

    score(u, i) = Σ_p w_p / (60 + r_p(u, i))

A part that says nothing about a user gives nothing. What the caller filters changes no score.

Sources: E. Fox and J. Shaw, Combination of multiple searches, TREC 2, 1994; G. Cormack, C. Clarke
and S. Buettcher, Reciprocal rank fusion outperforms Condorcet and individual rank learning
methods, SIGIR 2009.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_RANK_OFFSET = 60.0

Rows = NDArray[np.float64]  # [B, N]


def standardised(rows: Rows, unseen: NDArray[np.bool_]) -> Rows:
    """Scores less their mean over unseen items, over their standard deviation; 0 where that is 0.

    Parameters
    ----------
    rows : [B, N] float64
    unseen : [B, N] bool
        Where nothing is unseen, all items count.

    Examples
    --------
    >>> standardised(np.array([[1.0, 3.0, 9.0]]), np.array([[True, True, False]]))
    array([[-1.,  1.,  7.]])
    """
    counted = unseen | ~unseen.any(axis=1, keepdims=True)
    count = counted.sum(axis=1, keepdims=True)
    centred = rows - np.where(counted, rows, 0.0).sum(axis=1, keepdims=True) / count
    spread = np.sqrt((np.where(counted, centred, 0.0) ** 2).sum(axis=1, keepdims=True) / count)
    # Where all scores are equal, what is left of them is rounding.
    real = spread > 1e-6 * np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    return np.asarray(np.divide(centred, spread, out=np.zeros_like(centred), where=real))


def ranks(rows: Rows, unseen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The rank of each item among the unseen ones, from 1; equal scores by their place.

    Examples
    --------
    >>> ranks(np.array([[1.0, 3.0, 9.0]]), np.array([[True, True, False]]))
    array([[2, 1, 1]])
    """
    order = np.argsort(-rows, axis=1, kind="stable")
    ahead = np.take_along_axis(unseen, order, axis=1)
    before = ahead.cumsum(axis=1) - ahead
    place = np.empty_like(order)
    np.put_along_axis(place, order, before, axis=1)
    return place + 1


def reciprocal(rows: Rows, unseen: NDArray[np.bool_]) -> Rows:
    """1 / (60 + rank) of each item; 0 where all scores are 0."""
    said = rows.any(axis=1, keepdims=True)
    return np.where(said, 1.0 / (_RANK_OFFSET + ranks(rows, unseen)), 0.0)
