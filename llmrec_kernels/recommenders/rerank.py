"""Reorder longer lists of recommendations: more diversity, or shares for groups of items.

`mmr` builds each list item by item. With S what is chosen so far, the next is the candidate i with
the largest

    trade_off * r_i - (1 - trade_off) * max over j in S of cos(x_i, x_j),

maximal marginal relevance (J. Carbonell and J. Goldstein, "The use of MMR, diversity-based
reranking for reordering documents and producing summaries", SIGIR 1998). There r and cos have one
unit; scores of recommenders have many, so r_i is the score scaled to [0, 1] within the candidates
of each user.

`quota` keeps the number of items of each group among the first k within bounds, as in L. E. Celis,
D. Straszak and N. K. Vishnoi, "Ranking with fairness constraints", ICALP 2018, for the list as a
whole. First the best items of each group that its lower bound asks for are taken, then the best
others that no upper bound forbids; they come in the order that they had. Each item is in one group,
so of all lists within the bounds this one has the largest sum of scores: any two items could only
be exchanged for a worse one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from llmrec_kernels._ids import IdMap, id_list
from llmrec_kernels.ops import checks
from llmrec_kernels.recommenders.reduce import finite_rows
from llmrec_kernels.recommenders.results import Recommendations

_BLOCK = 1 << 22  # numbers of candidates' vectors at once: 16 MB
_ROUNDING = 1e-9  # 0.7 of 10 items are 7, whatever 0.7 * 10 is in floating point


class Unmet(NamedTuple):
    """A user in whose list a group has fewer items than its quota, for want of candidates."""

    user: Any
    group: Any
    expected: int
    got: int


@dataclass(frozen=True, eq=False)
class QuotaRecommendations(Recommendations):
    """Recommendations within quotas.

    Parameters
    ----------
    user, item, score, rank, unknown_users
        As in `Recommendations`.
    unmet : tuple of Unmet
        Where there were too few candidates of a group.

    Examples
    --------
    >>> none = np.array([], dtype=np.int64)
    >>> QuotaRecommendations(none, none, none.astype(np.float32), none, (), ()).unmet
    ()
    """

    unmet: tuple[Unmet, ...]


def mmr(
    recommendations: Recommendations,
    items: Any,
    vectors: Any,
    k: int = 10,
    *,
    trade_off: float = 0.5,
) -> Recommendations:
    """Choose k of each user's recommendations that are good and not all alike.

    Parameters
    ----------
    recommendations : Recommendations
        Longer lists than k, such as of 50: what is not among them is not considered.
    items : list or array of ids, [N]
        The items that `vectors` are of.
    vectors : array, [N, d]
        What likeness is measured by, such as the embeddings of the items. Zeros are like nothing.
    k : int
        At least 1. Lists that are shorter are reordered.
    trade_off : float
        From 0 to 1: how much scores count, and 1 less that is how much diversity does. 1 leaves
        the order as it is.

    Returns
    -------
    Recommendations
        In the order of choice, with the scores that they had, which then need not descend. Equal
        choices are made in the order that the items had.

    Raises
    ------
    IndexError
        If an item has no vector.
    TypeError, ValueError
        If an argument is of the wrong kind or out of its range, or a number is not finite.

    Examples
    --------
    >>> best = Recommendations(
    ...     np.array(["ann"] * 3),
    ...     np.array(["alien", "aliens", "heat"]),
    ...     np.array([0.9, 0.8, 0.7], dtype=np.float32),
    ...     np.array([1, 2, 3]),
    ...     (),
    ... )
    >>> vectors = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> mmr(best, ["alien", "aliens", "heat"], vectors, k=2).to_pandas()
      user   item  score  rank
    0  ann  alien    0.9     1
    1  ann   heat    0.7     2
    """
    k = checks.positive_int("k", k)
    trade_off = checks.finite_number("trade_off", trade_off)
    if not 0 <= trade_off <= 1:
        raise ValueError(f"trade_off is {trade_off}; expected a number from 0 to 1")
    places = list_places(recommendations)
    codes, rows = _vectors_of(recommendations, items, vectors)
    relevance = _relevance(recommendations.score, places)
    chosen = [
        _greedy(normalize(rows[codes[block]], dim=2), score, block >= 0, k, trade_off)
        for block, score in _blocks(places, relevance, rows.shape[1])
    ]
    picked = np.concatenate([*chosen, np.empty((0, min(k, places.shape[1])), dtype=np.int64)])
    kept = picked >= 0
    return _taken(recommendations, np.take_along_axis(places, np.maximum(picked, 0), 1)[kept], kept)


def quota(
    recommendations: Recommendations,
    groups: Mapping[Any, Hashable],
    quotas: Mapping[Any, tuple[float, float]],
    k: int = 10,
) -> QuotaRecommendations:
    """Choose k of each user's recommendations with each group's share within bounds.

    An upper bound always holds, if need be with fewer than k items. A lower bound holds where
    there are candidates enough; where not, all there are come in, others fill the list, and
    `unmet` names the user and the group. The longer the lists given, the rarer that is.

    Parameters
    ----------
    recommendations : Recommendations
        Longer lists than k, best first.
    groups : mapping of item id to group
        For each item recommended its one group, such as of its provider or its popularity; None
        for none.
    quotas : mapping of group to (float, float)
        The least and the largest share of k, each from 0 to 1. Groups that are not named, and
        items of none, are free.
    k : int
        At least 1.

    Returns
    -------
    QuotaRecommendations
        In the order that they had, with the scores that they had.

    Raises
    ------
    IndexError
        If an item recommended is not in `groups`.
    ValueError
        If no list of k items can meet the quotas, or a quota is of a group that no item has.
    TypeError
        If an argument is of the wrong kind.

    Examples
    --------
    >>> best = Recommendations(
    ...     np.array([7] * 4),
    ...     np.array([10, 11, 12, 13]),
    ...     np.array([0.9, 0.8, 0.7, 0.6], dtype=np.float32),
    ...     np.array([1, 2, 3, 4]),
    ...     (),
    ... )
    >>> groups = {10: "hit", 11: "hit", 12: "hit", 13: "niche"}
    >>> fair = quota(best, groups, {"niche": (0.5, 1.0)}, k=2)
    >>> fair.item.tolist(), fair.unmet
    ([10, 13], ())
    >>> quota(best, groups, {"niche": (1.0, 1.0)}, k=2).unmet
    (Unmet(user=7, group='niche', expected=2, got=1),)
    """
    k = checks.positive_int("k", k)
    bounds = _bounds(quotas, k)
    places = list_places(recommendations)
    group = _groups_of(recommendations, groups, list(bounds))[places]
    needed = np.zeros(places.shape, dtype=bool)
    allowed = places >= 0
    for code, (least, most) in enumerate(bounds.values()):
        nth = np.where(group == code, (group == code).cumsum(axis=1), 0)
        needed |= (nth > 0) & (nth <= least)
        allowed &= nth <= most
    others = allowed & ~needed
    room = k - needed.sum(axis=1, keepdims=True)
    kept = needed | (others & (others.cumsum(axis=1) <= room))
    taken = _taken(recommendations, places[kept], kept)
    counts = [(kept & (group == code)).sum(axis=1) for code in range(len(bounds))]
    unmet = tuple(
        Unmet(user, name, least, got)
        for row, user in enumerate(_users(recommendations, places))
        for (name, (least, _)), got in zip(
            bounds.items(), [int(c[row]) for c in counts], strict=True
        )
        if got < least
    )
    return QuotaRecommendations(**vars(taken), unmet=unmet)


def list_places(recommendations: Recommendations) -> NDArray[np.int64]:
    """Where the items of each list are, [lists, longest], -1 where a list has ended.

    Raises
    ------
    TypeError, ValueError
        If these are no recommendations, or the ranks of a list are not 1, 2, 3 and so on.
    """
    if not isinstance(recommendations, Recommendations):
        raise TypeError(
            f"recommendations is a {type(recommendations).__name__}; expected Recommendations"
        )
    rank = recommendations.rank
    before = np.concatenate([np.zeros(1, dtype=np.int64), rank[:-1]])[: len(rank)]
    wrong = (rank != 1) & (rank != before + 1)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"recommendations has rank {rank[row]} in row {row}; expected each list's ranks to be "
            "1, 2, 3 and so on"
        )
    of_list = (rank == 1).cumsum() - 1
    places = np.full((int((rank == 1).sum()), int(rank.max(initial=0))), -1, dtype=np.int64)
    places[of_list, rank - 1] = np.arange(len(rank))
    return places


def _taken(
    recommendations: Recommendations, places: NDArray[np.int64], kept: NDArray[np.bool_]
) -> Recommendations:
    """The rows at `places`, list after list, as many of each as `kept` [lists, ...] has."""
    return Recommendations(
        recommendations.user[places],
        recommendations.item[places],
        recommendations.score[places],
        kept.cumsum(axis=1)[kept],
        recommendations.unknown_users,
    )


def _users(recommendations: Recommendations, places: NDArray[np.int64]) -> list[Any]:
    users: list[Any] = recommendations.user[places[:, 0]].tolist() if places.size else []
    return users


def _relevance(score: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Scores from 0, the lowest of a list, to 1, the highest; [lists, longest]."""
    if not np.isfinite(score).all():
        row = int((~np.isfinite(score)).argmax())
        raise ValueError(f"recommendations has score {score[row]} in row {row}; expected a number")
    scores = score.astype(np.float64)[places]
    low = np.where(places >= 0, scores, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    high = np.where(places >= 0, scores, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    span = np.where(high > low, high - low, 1.0)
    relevance: NDArray[np.float64] = (scores - low) / span
    return relevance


def _vectors_of(
    recommendations: Recommendations, items: Any, vectors: Any
) -> tuple[NDArray[np.int64], Tensor]:
    """The row of each recommendation in a matrix of vectors, and that matrix."""
    ids, rows = id_list("items", items), finite_rows("vectors", vectors)
    if len(ids) != rows.shape[0]:
        raise ValueError(f"items has {len(ids)} ids but vectors has {rows.shape[0]} rows")
    known = IdMap("item", ids)
    if len(known) != len(ids):
        repeated = Counter(ids).most_common(1)[0][0]
        raise ValueError(f"items has {repeated!r} twice; expected each item once")
    asked = recommendations.item.tolist()
    codes = known.codes(asked)
    if (codes < 0).any():
        missing = asked[int((codes < 0).argmax())]
        raise IndexError(f"items lacks {missing!r}, which is recommended; give its vector too")
    return codes, rows


def _blocks(
    places: NDArray[np.int64], relevance: NDArray[np.float64], width: int
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Some lists at a time, so that their vectors take little memory."""
    step = max(1, _BLOCK // max(1, places.shape[1] * width))
    for start in range(0, len(places), step):
        block = slice(start, start + step)
        yield places[block], torch.from_numpy(relevance[block])


def _greedy(
    unit: Tensor,  # [lists, longest, d] float32
    relevance: Tensor,  # [lists, longest] float64
    there: NDArray[np.bool_],  # [lists, longest]
    k: int,
    trade_off: float,
) -> NDArray[np.int64]:
    """The candidates chosen, [lists, k or longest], -1 where a list has ended."""
    lists, longest, _ = unit.shape
    steps, rows = min(k, longest), torch.arange(lists)
    chosen = torch.full((lists, steps), -1)
    left = torch.from_numpy(there.copy())
    closest = torch.zeros(lists, longest, dtype=torch.float64)
    for step in range(steps):
        value = trade_off * relevance - (1.0 - trade_off) * closest
        best = value.masked_fill(~left, -torch.inf).argmax(dim=1)  # the first of equal ones
        chosen[:, step] = torch.where(left.any(dim=1), best, -1)
        left[rows, best] = False
        alike = torch.bmm(unit, unit[rows, best, :, None])[:, :, 0].double()
        closest = alike if step == 0 else torch.maximum(closest, alike)
    return chosen.numpy()


def _bounds(quotas: Mapping[Any, tuple[float, float]], k: int) -> dict[Any, tuple[int, int]]:
    """The least and the largest number of items of each group."""
    if not isinstance(quotas, Mapping):
        raise TypeError(
            f"quotas is a {type(quotas).__name__}; expected a mapping of group to (least, largest)"
        )
    bounds = {}
    for group, pair in quotas.items():
        name = f"quotas[{group!r}]"
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"{name} is {pair!r}; expected a pair of the least and largest share")
        least, most = (checks.finite_number(name, share) for share in pair)
        if not 0 <= least <= most <= 1:
            raise ValueError(f"{name} is {pair}; expected 0 <= least <= largest <= 1")
        low, high = math.ceil(least * k - _ROUNDING), math.floor(most * k + _ROUNDING)
        if low > high:
            raise ValueError(f"{name} is {pair}; no whole number of {k} items is within it")
        bounds[group] = low, high
    together = sum(low for low, _ in bounds.values())
    if together > k:
        raise ValueError(f"the quotas ask for at least {together} items; a list has k = {k}")
    return bounds


def _groups_of(
    recommendations: Recommendations, groups: Mapping[Any, Hashable], named: list[Any]
) -> NDArray[np.int64]:
    """The number among `named` of each recommendation's group, -1 for others, [n + 1]."""
    if not isinstance(groups, Mapping):
        raise TypeError(
            f"groups is a {type(groups).__name__}; expected a mapping of item to group, such as "
            "dict(zip(items.item, items.group))"
        )
    try:
        held = set(groups.values())
    except TypeError as error:
        raise TypeError(f"groups has what is no single group: {error}") from None
    for group in named:
        if group not in held:
            raise ValueError(f"quotas has {group!r}, a group that no item has")
    number = {group: code for code, group in enumerate(named)}
    codes = []
    for item in recommendations.item.tolist():
        if item not in groups:
            raise IndexError(f"groups lacks {item!r}, which is recommended; None is for no group")
        codes.append(number.get(groups[item], -1))
    return np.array([*codes, -1], dtype=np.int64)  # the last is for lists that have ended
