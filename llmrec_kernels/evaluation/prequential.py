"""Prequential evaluation: replay events in the order of time, predict each, then learn from it.

A model that learns from feedback has no fixed train and test. Each event is a test first: is the
item among the k that the model would recommend to this user now? Then it is learnt from. So every
event is predicted from all that came before it and nothing that came after, and the running mean
shows whether the model gets better (Dawid, Statistical theory: the prequential approach, JRSS A
147(2), 1984; Vinagre, Jorge and Gama, Evaluation of recommender systems in streaming environments,
2015, for recommenders).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from llmrec_kernels.evaluation.columns import (
    require_one_kind,
    require_rows,
    require_times,
    require_values,
)
from llmrec_kernels.evaluation.ranked import Recommends, ids
from llmrec_kernels.evaluation.replayed import PrequentialResult
from llmrec_kernels.ops import checks

_ON_UNKNOWN = ("miss", "learn")


class Learns(Recommends, Protocol):
    """A fitted recommender that takes in feedback."""

    def update(self, interactions: pd.DataFrame) -> Any:
        """Learn from more interactions."""


def prequential(
    model: Learns,
    interactions: pd.DataFrame,
    *,
    train: pd.DataFrame | None = None,
    items: ArrayLike | Iterable[Any] | pd.DataFrame | None = None,
    k: int = 10,
    batch: int = 1,
    filter_seen: bool = True,
    on_unknown: str = "miss",
    observe: Callable[[int], object] | None = None,
) -> PrequentialResult:
    """Replay interactions in the order of time: recommend to the event's user, then learn.

    **Unknown items.** What the model knows is ``items``, the items of ``train``, and what it
    recommends; where neither is given, every item counts as known. An event with another item is a
    miss, since the model could not have recommended it, and is counted in ``n_unknown``. With
    ``on_unknown="miss"`` the model never hears of it; with "learn" it is given to ``update`` and
    known from then on, for models that can take in new items.

    **Repeats.** With ``filter_seen`` a user is not recommended what they have in ``train`` or
    earlier in the replay, as far as the model was told, so an event that repeats such a pair can be
    neither hit nor miss: it has no value and is counted in ``n_repeats``, and is learnt from like
    any other. With ``filter_seen=False`` repeats are predicted as other events are.

    **Unknown users** are the model's own affair: an empty list is a miss.

    Parameters
    ----------
    model : Learns
        Fitted on ``train``, with ``recommend`` and ``update``. It is changed.
    interactions : pandas.DataFrame
        With the columns ``user``, ``item`` and ``timestamp``; of events at one time the later row
        comes later. ``update`` gets the rows with all their columns.
    train : pandas.DataFrame, optional
        What the model was fitted on, with ``user`` and ``item``.
    items : DataFrame with the column ``item``, or iterable of item ids, optional
        Further items that the model knows.
    k : int, optional
        Length of the lists.
    batch : int, optional
        Events that are predicted before the model learns from them all. 1 is the strict replay;
        larger ones are faster, and events of a batch do not know of each other.
    filter_seen : bool, optional
        Passed to ``recommend``.
    on_unknown : {"miss", "learn"}, optional
        Whether events with items that the model does not know are kept from ``update`` or given.
    observe : callable, optional
        Called after each batch with the number of events replayed so far: to record the weights
        of an adaptive hybrid, say.

    Returns
    -------
    PrequentialResult
        One value an event, with running and moving means.

    Raises
    ------
    TypeError
        Ids are strings in one argument and numbers in another, or timestamps are text.
    ValueError
        A column or a value is missing, there is no row, an option is out of its range, or the
        model's answer is no list of up to k items for the users asked for. What is checked of the
        arguments is checked before the first event.

    Examples
    --------
    >>> from llmrec_kernels.recommenders import PopularityRecommender
    >>> train = pd.DataFrame({"user": [1, 2], "item": ["heat", "big"]})
    >>> model = PopularityRecommender().fit(train)
    >>> events = pd.DataFrame(
    ...     {"user": [3, 4, 4], "item": ["heat", "heat", "jaws"], "timestamp": [10, 20, 30]}
    ... )
    >>> result = prequential(model, events, train=train, k=1)
    >>> print(result)
    HR@1 0.3333 | NDCG@1 0.3333 | MRR@1 0.3333 | 3 events of 2 users, 1 of unknown items, 0 repeats
    >>> result.to_pandas()[["item", "known", "rank"]]
       item  known  rank
    0  heat   True   NaN
    1  heat   True   1.0
    2  jaws  False   NaN
    """
    k = checks.positive_int("k", k)
    batch = checks.positive_int("batch", batch)
    checks.choice("on_unknown", on_unknown, _ON_UNKNOWN)
    require_rows("interactions", interactions, "user", "item", "timestamp")
    require_times("interactions", interactions)
    if train is not None:
        require_values("train", train, "user", "item")
    catalogue = None if items is None else ids("items", items)
    user, item = ((None if train is None else train[one]) for one in ("user", "item"))
    require_one_kind("user", train=user, interactions=interactions["user"])
    require_one_kind("item", train=item, interactions=interactions["item"], items=catalogue)
    order = np.argsort(interactions["timestamp"].to_numpy(), kind="stable")
    events = interactions.iloc[order]
    memory = _Memory(train, catalogue, filter_seen=filter_seen, learns=on_unknown == "learn")
    rows: list[tuple[bool, bool, int]] = []
    for start in range(0, len(events), batch):
        part = events.iloc[start : start + batch]
        pairs = list(zip(part["user"].tolist(), part["item"].tolist(), strict=True))
        taken = memory.take(pairs, _places(model, pairs, k, memory))
        rows += taken
        told = np.array([known or memory.learns for known, _, _ in taken])
        if told.any():
            model.update(part[told])
        if observe is not None:
            observe(start + len(part))
    return _result(events, rows, k, filter_seen)


def _result(
    events: pd.DataFrame, rows: list[tuple[bool, bool, int]], k: int, filter_seen: bool
) -> PrequentialResult:
    """Put the values of each event beside it."""
    known, repeat, ranks = (np.array(column) for column in zip(*rows, strict=True))
    rank = np.where(ranks > 0, ranks, np.nan)
    columns = events[["user", "item", "timestamp"]].reset_index(drop=True)
    frame = columns.assign(known=known, repeat=repeat, rank=rank)
    gains = {"HR": rank / rank, "NDCG": 1 / np.log2(rank + 1), "MRR": 1 / rank}
    for label, gain in gains.items():
        value = np.nan_to_num(gain)
        frame[f"{label}@{k}"] = np.where(repeat & filter_seen, np.nan, value)
    return PrequentialResult(k, frame)


class _Memory:
    """What the model knows so far: items, and pairs of a user and an item."""

    def __init__(
        self,
        train: pd.DataFrame | None,
        items: pd.Series | None,
        *,
        filter_seen: bool,
        learns: bool,
    ) -> None:
        self.filter_seen = filter_seen
        self.learns = learns  # whether the model is told of items that it does not know
        self._items: set[Any] | None = None  # None: every item is known
        self._pairs: set[tuple[Any, Any]] = set()
        if items is not None:
            self._items = set(items.tolist())
        if train is not None:
            self._items = (self._items or set()) | set(train["item"].tolist())
            self._pairs.update(zip(train["user"].tolist(), train["item"].tolist(), strict=True))

    def had(self, user: Any, item: Any) -> bool:
        """Whether the user took the item before this batch."""
        return (user, item) in self._pairs

    def take(
        self, pairs: Sequence[tuple[Any, Any]], places: dict[tuple[Any, Any], int]
    ) -> list[tuple[bool, bool, int]]:
        """Say of each pair whether its item is known, whether it repeats one, and its rank."""
        taken: list[tuple[bool, bool, int]] = []
        for pair in pairs:
            rank = places.get(pair, 0)
            # What the model recommends it knows, whether it was said so or not.
            known = self._items is None or pair[1] in self._items or rank > 0
            taken.append((known, pair in self._pairs, rank))
            if known or self.learns:
                self._pairs.add(pair)
        if self._items is not None and self.learns:
            self._items.update(item for _, item in pairs)
        return taken


def _places(
    model: Recommends, pairs: Sequence[tuple[Any, Any]], k: int, memory: _Memory
) -> dict[tuple[Any, Any], int]:
    """The rank of each item in the lists of the users of these pairs, checked."""
    users = dict.fromkeys(user for user, _ in pairs)
    answer = model.recommend(list(users), k=k, filter_seen=memory.filter_seen)
    columns = (np.asarray(one).tolist() for one in (answer.user, answer.item, answer.rank))
    places = {}
    for user, item, rank in zip(*columns, strict=True):
        why = None
        if user not in users:
            why = "a user nobody asked for"
        elif isinstance(item, str) is not isinstance(pairs[0][1], str):
            why = "an id of another kind than those of interactions"
        elif not 1 <= rank <= k:
            why = f"with a rank outside 1 to {k}"
        elif (user, item) in places:
            why = "for the second time"
        elif memory.filter_seen and memory.had(user, item):
            why = "who has taken it before"
        if why is not None:
            raise ValueError(f"the model recommends item {item} to user {user}, {why}")
        places[user, item] = int(rank)
    return places
