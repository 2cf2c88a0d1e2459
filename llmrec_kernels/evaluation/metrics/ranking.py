"""Ranking metrics: are the relevant items in the list, and how high? Vectorised over users.

`match` finds once which recommendations are relevant; each ranking metric reads its result and
returns one value a user, so that means, standard errors and paired comparisons are the caller's.
In the formulas, rel_i is 1 where the item at rank i (from 1) is relevant to the user and 0
otherwise, R is the user's set of relevant items, and relevance is binary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmrec_kernels.evaluation.metrics.lists import PAD, check_k


class Hits(NamedTuple):
    """Which recommendations are relevant, and how many items are."""

    matrix: NDArray[np.bool_]  # [U, K]: rel_i of each user
    n_relevant: NDArray[np.int64]  # [U]: |R| of each user, at least 1


def match(recommended: ArrayLike, relevant: Sequence[ArrayLike]) -> Hits:
    """Mark the recommended items that are relevant.

    Parameters
    ----------
    recommended : array_like, int [U, K]
        Item ids of each user's list, best first; −1 fills a short list.
    relevant : sequence of U array_likes of int
        Each user's relevant items, in any order; repeats count once.

    Returns
    -------
    Hits
        What the metrics take.

    Raises
    ------
    ValueError
        The shapes disagree, a list has an item twice, a relevant id is −1, or a user has no
        relevant item: such a user has no recall and no NDCG, and belongs left out.

    Examples
    --------
    >>> match([[7, 8, 9], [5, 7, -1]], [[9, 1], [7]])
    Hits(matrix=array([[False, False,  True],
           [False,  True, False]]), n_relevant=array([2, 1]))
    """
    lists = np.asarray(recommended)
    if lists.ndim != 2 or (lists.size and not np.issubdtype(lists.dtype, np.integer)):
        raise ValueError(
            f"recommended must be integers of shape [U, K]; got {lists.dtype} of shape "
            f"{list(lists.shape)}"
        )
    sets = [np.asarray(one).ravel() for one in relevant]
    if len(sets) != len(lists):
        raise ValueError(f"recommended has {len(lists)} users but relevant has {len(sets)}")
    sizes = np.array([len(one) for one in sets], dtype=np.int64)
    if (sizes == 0).any():
        row = int(np.argmin(sizes))
        raise ValueError(f"relevant has no item for the user in row {row}; leave such users out")
    keys, relevant_keys = _pair_keys(lists, sets, sizes)
    _refuse_repeats(lists, keys)
    relevant_keys, first = np.unique(relevant_keys, return_index=True)
    n_relevant = np.bincount(np.repeat(np.arange(len(sets)), sizes)[first], minlength=len(sets))
    return Hits(np.isin(keys, relevant_keys), n_relevant.astype(np.int64))


def hit_rate(hits: Hits, k: int = 10) -> NDArray[np.float64]:
    """HitRate@k: 1 if a relevant item is among the first k, otherwise 0.

    HitRate@k = min(1, Σ_{i≤k} rel_i)

    Parameters
    ----------
    hits : Hits
        From `match`, with at least k columns.
    k : int, optional
        Length of the list.

    Returns
    -------
    float64 [U]
        One value a user.

    Examples
    --------
    >>> hit_rate(match([[7, 8, 9], [5, 7, -1]], [[9, 1], [7]]), k=2)
    array([0., 1.])
    """
    return np.asarray(_first(hits, k).any(axis=1), dtype=np.float64)


def precision(hits: Hits, k: int = 10) -> NDArray[np.float64]:
    """Precision@k: the share of the k places that hold a relevant item.

    Precision@k = Σ_{i≤k} rel_i / k, also where the list is shorter than k.

    Parameters
    ----------
    hits : Hits
        From `match`, with at least k columns.
    k : int, optional
        Length of the list.

    Returns
    -------
    float64 [U]
        One value a user.

    Examples
    --------
    >>> precision(match([[7, 8, 9], [5, 7, -1]], [[9, 7], [7]]), k=2)
    array([0.5, 0.5])
    """
    shares: NDArray[np.float64] = _first(hits, k).sum(axis=1) / k
    return shares


def recall(hits: Hits, k: int = 10) -> NDArray[np.float64]:
    """Recall@k: the share of the user's relevant items among the first k.

    Recall@k = Σ_{i≤k} rel_i / |R|

    Parameters
    ----------
    hits : Hits
        From `match`, with at least k columns.
    k : int, optional
        Length of the list.

    Returns
    -------
    float64 [U]
        One value a user.

    Examples
    --------
    >>> recall(match([[7, 8, 9], [5, 7, -1]], [[9, 1], [7]]), k=3)
    array([0.5, 1. ])
    """
    shares: NDArray[np.float64] = _first(hits, k).sum(axis=1) / hits.n_relevant
    return shares


def ndcg(hits: Hits, k: int = 10) -> NDArray[np.float64]:
    """NDCG@k: discounted gain of the list over that of the best possible list of length k.

    NDCG@k = Σ_{i≤k} rel_i / log2(i + 1) / Σ_{i≤min(k, |R|)} 1 / log2(i + 1)

    Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS 20(4), 2002,
    with binary gains and the ideal cut at k as in trec_eval.

    Parameters
    ----------
    hits : Hits
        From `match`, with at least k columns.
    k : int, optional
        Length of the list.

    Returns
    -------
    float64 [U]
        One value a user.

    Examples
    --------
    >>> ndcg(match([[7, 8, 9], [5, 7, -1]], [[9, 7], [5]]), k=3).round(3)
    array([0.92, 1.  ])
    """
    matrix = _first(hits, k)
    discounts = 1 / np.log2(np.arange(k) + 2)
    ideal = np.cumsum(discounts)[np.minimum(hits.n_relevant, k) - 1]
    # Summed like the ideal, so that a perfect list gives 1 and not 1 + 2e-16.
    gains: NDArray[np.float64] = np.cumsum(matrix * discounts, axis=1)[:, -1] / ideal
    return gains


def mrr(hits: Hits, k: int = 10) -> NDArray[np.float64]:
    """MRR@k: one over the rank of the first relevant item, or 0 if none is among the first k.

    RR@k = max_{i≤k} rel_i / i; its mean over the users is MRR@k.

    Parameters
    ----------
    hits : Hits
        From `match`, with at least k columns.
    k : int, optional
        Length of the list.

    Returns
    -------
    float64 [U]
        One value a user.

    Examples
    --------
    >>> mrr(match([[7, 8, 9], [5, 7, -1]], [[9, 8], [1]]), k=3)
    array([0.5, 0. ])
    """
    ranks: NDArray[np.float64] = np.max(_first(hits, k) / (np.arange(k) + 1.0), axis=1)
    return ranks


def average_precision(hits: Hits, k: int = 10) -> NDArray[np.float64]:
    """MAP@k: the mean, over the relevant items, of the precision at the rank of each.

    AP@k = Σ_{i≤k} rel_i · Precision@i / |R|; its mean over the users is MAP@k.

    A relevant item beyond rank k gives 0, and the sum is divided by |R| as in trec_eval's
    map_cut; libraries that divide by min(k, |R|) give more where |R| > k.

    Parameters
    ----------
    hits : Hits
        From `match`, with at least k columns.
    k : int, optional
        Length of the list.

    Returns
    -------
    float64 [U]
        One value a user.

    Examples
    --------
    >>> average_precision(match([[7, 8, 9], [5, 7, -1]], [[7, 9], [7]]), k=3).round(4)
    array([0.8333, 0.5   ])
    """
    matrix = _first(hits, k)
    precisions = np.cumsum(matrix, axis=1) / (np.arange(k) + 1.0)
    means: NDArray[np.float64] = (matrix * precisions).sum(axis=1) / hits.n_relevant
    return means


def auc(
    recommended: ArrayLike, relevant: Sequence[ArrayLike], n_items: ArrayLike
) -> NDArray[np.float64]:
    """AUC: how often a relevant item is ranked before one that is not.

    AUC = |{(r, s): r ∈ R, s ∉ R, r before s}| / (|R| · (n_items − |R|))

    This is a metric of the full ranking, with no cut: the lists should hold every item that could
    be recommended. Items that are in no place of a list are taken to be tied behind those that
    are; a tied pair counts one half, as in the ROC curve. Equal scores count in the order shown.

    Parameters
    ----------
    recommended : array_like, int [U, K]
        Item ids of each user's ranking, best first; −1 fills a short one.
    relevant : sequence of U array_likes of int
        Each user's relevant items, as for `match`.
    n_items : int, or array_like of int [U]
        How many items compete for each user, relevant ones included.

    Returns
    -------
    float64 [U]
        One value a user; 1/2 is chance. NaN where every item is relevant.

    Raises
    ------
    ValueError
        As `match` does, or fewer items compete than are ranked or relevant.

    Examples
    --------
    >>> auc([[7, 8, 9], [5, 7, -1]], [[8], [9]], n_items=4).round(4)
    array([0.6667, 0.1667])
    """
    lists = np.asarray(recommended)
    matrix, n_relevant = match(lists, relevant)
    hits, ranked = matrix.sum(axis=1), (lists != PAD).sum(axis=1)
    n_others = np.broadcast_to(np.asarray(n_items), hits.shape) - n_relevant
    others_behind = n_others - (ranked - hits)  # those in no place of the list
    if (others_behind < 0).any():
        row = int(np.argmax(others_behind < 0))
        needed = ranked[row] + n_relevant[row] - hits[row]
        raise ValueError(
            f"n_items must count all items that compete; got {n_others[row] + n_relevant[row]} "
            f"for the user in row {row}, who has {needed} ranked or relevant ones"
        )
    others_before = np.cumsum(~matrix & (lists != PAD), axis=1)
    won = (matrix * (n_others[:, None] - others_before)).sum(axis=1)
    tied = (n_relevant - hits) * others_behind
    pairs = n_relevant * n_others
    share = (won + tied / 2) / np.maximum(pairs, 1)
    return np.where(pairs > 0, share, np.nan)


def _pair_keys(
    lists: NDArray[np.int64], sets: list[NDArray[np.int64]], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give each (user, item) pair one number, the same in the lists [U, K] and in the sets."""
    flat = np.concatenate([*sets, np.empty(0, np.int64)])
    if (flat == PAD).any():
        raise ValueError(
            f"relevant has the id {PAD}, which fills short lists; give items other ids"
        )
    ids, codes = np.unique(np.concatenate([lists.ravel(), flat]), return_inverse=True)
    row = np.arange(len(lists)) * len(ids)
    keys = row[:, None] + codes[: lists.size].reshape(lists.shape)
    return keys, np.repeat(row, sizes) + codes[lists.size :]


def _refuse_repeats(lists: NDArray[np.int64], keys: NDArray[np.int64]) -> None:
    found, counts = np.unique(keys[lists != PAD], return_counts=True)
    if (counts > 1).any():
        row, column = np.argwhere(keys == found[np.argmax(counts)])[0]
        raise ValueError(
            f"recommended has the item {lists[row, column]} twice in row {row}; a list may hold "
            f"an item once"
        )


def _first(hits: Hits, k: int) -> NDArray[np.bool_]:
    check_k(hits.matrix, k, "hits")
    return hits.matrix[:, :k]
