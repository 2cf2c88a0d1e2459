"""Metrics beyond accuracy: who and what is shown, and how alike it is.

A list can be accurate and still show everybody the same few items. These metrics look at the lists
alone, not at what the users took: how much of the catalogue is shown (coverage), how evenly (Gini),
how little known the items are (novelty), how unlike each other (intra-list diversity), and how the
places are shared between popular and other items (exposure). Castells, Hurley and Vargas, Novelty
and diversity in recommender systems, Recommender Systems Handbook, 2022, set most of them out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmrec_kernels.evaluation.metrics.lists import PAD, check_k

POPULARITY_GROUPS = ("head", "mid", "tail")
_NUMBERS_AT_ONCE = 2**22  # in the largest array of `intra_list_diversity`: 32 MiB


def coverage(recommended: ArrayLike, n_items: int, k: int = 10) -> float:
    """Coverage@k: the share of the catalogue that is recommended to someone.

    Coverage@k = |∪_u {items in the first k of user u}| / n_items

    Parameters
    ----------
    recommended : array_like, int [U, K]
        Item ids of each user's list, best first; −1 fills a short list.
    n_items : int
        Size of the catalogue.
    k : int, optional
        Length of the list, at most K.

    Returns
    -------
    float
        Between 0 and 1.

    Examples
    --------
    >>> coverage([[7, 8, 9], [5, 7, -1]], n_items=6, k=2)
    0.5
    """
    return len(_counts(recommended, n_items, k)) / n_items if n_items else 0.0


def gini(recommended: ArrayLike, n_items: int, k: int = 10) -> float:
    """Gini@k: how unevenly the places in the lists are shared among the items of the catalogue.

    Gini = Σ_i Σ_j |x_i − x_j| / (2 n² x̄), where x_i counts the lists that have item i among their
    first k, n is the size of the catalogue, and x̄ the mean of x

    Parameters
    ----------
    recommended : array_like, int [U, K]
        Item ids of each user's list, best first; −1 fills a short list.
    n_items : int
        Size of the catalogue; items in no list have x_i = 0.
    k : int, optional
        Length of the list, at most K.

    Returns
    -------
    float
        0 where all items are shown equally often, 1 − 1/n where all places go to one item. NaN
        where nothing is recommended.

    Examples
    --------
    >>> gini([[7, 8], [9, 6]], n_items=4, k=2)
    0.0
    >>> gini([[7], [7]], n_items=4, k=1)
    0.75
    """
    counts = np.sort(_counts(recommended, n_items, k))
    if not counts.size:
        return float("nan")
    # Sorted, x_j is subtracted n − j times and added j − 1 times; items in no list add nothing.
    place = np.arange(n_items - len(counts) + 1, n_items + 1)
    return float(((2 * place - n_items - 1) * counts).sum() / (n_items * counts.sum()))


def novelty(recommended: ArrayLike, popularity: ArrayLike, k: int = 10) -> NDArray[np.float64]:
    """Novelty@k: mean self-information of the items in a list, in bits.

    Novelty@k = Σ_{i≤k} −log2 p(item at rank i) / length of the list, where p is the item's share
    of all interactions: being shown what half of all interactions are with tells 1 bit

    Zhou, Kuscsik, Liu, Medo, Wakeling and Zhang, Solving the apparent diversity-accuracy dilemma of
    recommender systems, PNAS 107(10), 2010.

    Parameters
    ----------
    recommended : array_like, int [U, K]
        Items of each user's list as rows of ``popularity``, best first; −1 fills a short list.
    popularity : array_like, float [N]
        Interactions of each item in train. An item without any counts as one that has one.
    k : int, optional
        Length of the list, at most K.

    Returns
    -------
    float64 [U]
        One value a user; NaN where the list is empty.

    Examples
    --------
    >>> novelty([[0, 1], [1, -1]], popularity=[6, 2], k=2).round(4)
    array([1.2075, 2.    ])
    """
    counts = _popularity(popularity)
    bits = -np.log2(np.maximum(counts, 1) / max(counts.sum(), 1))
    lists = _places(recommended, len(counts), k)
    shown = lists != PAD
    return _share((np.append(bits, 0.0)[lists]).sum(axis=1), shown.sum(axis=1))


def intra_list_diversity(
    recommended: ArrayLike, vectors: ArrayLike, k: int = 10
) -> NDArray[np.float64]:
    """Diversity@k: how unlike each other the items of a list are.

    ILD@k = 1 − mean of cosine(v_i, v_j) over the pairs i ≠ j among the first k

    Ziegler, McNee, Konstan and Lausen, Improving recommendation lists through topic
    diversification, WWW 2005.

    Parameters
    ----------
    recommended : array_like, int [U, K]
        Items of each user's list as rows of ``vectors``, best first; −1 fills a short list.
    vectors : array_like, float [N, d]
        A vector for each item. The cosine with a zero vector is 0.
    k : int, optional
        Length of the list, at most K.

    Returns
    -------
    float64 [U]
        One value a user, from 0 (all alike) to 2; NaN where the list has fewer than two items.

    Examples
    --------
    >>> intra_list_diversity([[0, 1], [0, 2], [1, -1]], [[1, 0], [2, 0], [0, 3]], k=2)
    array([ 0.,  1., nan])
    """
    matrix = np.asarray(vectors, dtype=np.float64)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise ValueError(
            f"vectors must be finite numbers of shape [N, d]; got shape {list(matrix.shape)}"
        )
    lists = _places(recommended, len(matrix), k)
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    # The row that −1 picks is the last: a zero vector, which adds nothing to a sum.
    units = np.vstack([matrix / np.where(norms > 0, norms, 1), np.zeros((1, matrix.shape[1]))])
    squares = np.append(norms[:, 0] > 0, False)
    step = max(1, _NUMBERS_AT_ONCE // max(1, k * matrix.shape[1]))
    sums = [
        np.square(units[lists[row : row + step]].sum(axis=1)).sum(axis=1)
        for row in range(0, len(lists), step)
    ]
    # |Σ v|² is the sum over all pairs, those of an item with itself included.
    cosines = np.concatenate([*sums, np.empty(0)]) - squares[lists].sum(axis=1)
    n = (lists != PAD).sum(axis=1)
    return 1 - _share(cosines, n * (n - 1))


def popularity_groups(popularity: ArrayLike) -> NDArray[np.int64]:
    """Divide the items into head, mid and tail by their share of all interactions.

    The items are taken from the most popular on. Those that begin within the first third of all
    interactions are the head, within the second third the mid, and the others the tail. Equally
    popular items are in one group, and those without interactions in the tail.

    Parameters
    ----------
    popularity : array_like, float [N]
        Interactions of each item in train.

    Returns
    -------
    int64 [N]
        0 for head, 1 for mid, 2 for tail: places in ``POPULARITY_GROUPS``.

    Examples
    --------
    >>> popularity_groups([5, 30, 10, 10, 5, 0])
    array([2, 0, 1, 1, 2, 2])
    """
    counts = _popularity(popularity)
    levels, level, sizes = np.unique(counts, return_inverse=True, return_counts=True)
    sums = levels * sizes
    more_popular = sums[::-1].cumsum()[::-1] - sums  # interactions with items above the level
    thirds = np.floor(3 * more_popular / max(sums.sum(), 1)).astype(np.int64)
    group: NDArray[np.int64] = np.where(levels > 0, np.minimum(thirds, 2), 2)[level]
    return group


def exposure(recommended: ArrayLike, group: ArrayLike, k: int = 10) -> NDArray[np.float64]:
    """Exposure@k: which share of the places in a list goes to each group of items.

    Exposure@k of group g = |{i ≤ k: item at rank i is in g}| / length of the list

    Parameters
    ----------
    recommended : array_like, int [U, K]
        Items of each user's list as rows of ``group``, best first; −1 fills a short list.
    group : array_like, int [N]
        The group of each item, from 0, as from `popularity_groups`.
    k : int, optional
        Length of the list, at most K.

    Returns
    -------
    float64 [U, G]
        A share for each user and group; a row sums to 1, and is NaN where the list is empty.

    Examples
    --------
    >>> exposure([[0, 1], [2, -1]], group=[0, 2, 2], k=2)
    array([[0.5, 0. , 0.5],
           [0. , 0. , 1. ]])
    """
    groups = np.asarray(group)
    if groups.ndim != 1 or (groups.size and (groups.dtype.kind not in "iu" or groups.min() < 0)):
        raise ValueError(
            f"group must be integers from 0 on, of shape [N]; got {groups.dtype} of shape "
            f"{list(groups.shape)}"
        )
    lists = _places(recommended, len(groups), k)
    n_groups = int(groups.max(initial=0)) + 1
    placed = np.append(groups, n_groups)[lists]  # −1 falls in a group of its own
    places = [(placed == one).sum(axis=1) for one in range(n_groups)]
    shown = (lists != PAD).sum(axis=1)
    return np.stack([_share(one, shown) for one in places], axis=1)


def _counts(recommended: ArrayLike, n_items: int, k: int) -> NDArray[np.int64]:
    """How many lists have each item that is in any."""
    lists = np.asarray(recommended)
    check_k(lists, k, "recommended")
    ids, counts = np.unique(lists[:, :k], return_counts=True)
    counts = np.asarray(counts[ids != PAD], dtype=np.int64)
    if len(counts) > n_items:
        raise ValueError(
            f"n_items must be the size of the catalogue; got {n_items}, and {len(counts)} "
            f"different items are recommended"
        )
    return counts


def _popularity(popularity: ArrayLike) -> NDArray[np.float64]:
    counts = np.asarray(popularity, dtype=np.float64)
    if counts.ndim != 1 or not (np.isfinite(counts) & (counts >= 0)).all():
        raise ValueError(
            f"popularity must be finite numbers of at least 0, of shape [N]; got shape "
            f"{list(counts.shape)}"
        )
    return counts


def _places(recommended: ArrayLike, n_items: int, k: int) -> NDArray[np.int64]:
    """The first k of each list, as rows of an array of n_items rows."""
    lists = np.asarray(recommended)
    check_k(lists, k, "recommended")
    first = lists[:, :k].astype(np.int64)
    if first.size and not (first.min() >= PAD and first.max() < n_items):
        wrong = first[(first < PAD) | (first >= n_items)][0]
        raise IndexError(
            f"recommended has {wrong}; expected rows from 0 to {n_items - 1}, or {PAD}"
        )
    return first


def _share(part: NDArray[np.generic], whole: NDArray[np.generic]) -> NDArray[np.float64]:
    """Divide, with NaN where the whole is 0."""
    out = np.full(len(whole), np.nan)
    np.divide(part, whole, out=out, where=np.asarray(whole != 0))
    return out
