"""Evaluate a recommender on held-out interactions: full ranking, one value a user, with its error.

Every item that the model knows competes (no sampled negatives: those change which model wins,
Krichene and Rendle, KDD 2020), and what a user has in train is not recommended again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from llmrec_kernels.evaluation import metrics as _metrics
from llmrec_kernels.evaluation.columns import (
    pairs_in,
    require_numbers,
    require_one_kind,
    require_rows,
    require_values,
)
from llmrec_kernels.evaluation.full_ranking import auc_of
from llmrec_kernels.evaluation.groups import groups_of
from llmrec_kernels.evaluation.ranked import Ranked, Recommends, Rules, ids, numbered, sets_of
from llmrec_kernels.evaluation.report import Report
from llmrec_kernels.ops import checks

_OF_HITS = {
    "hit_rate": ("HR", _metrics.hit_rate),
    "ndcg": ("NDCG", _metrics.ndcg),
    "recall": ("Recall", _metrics.recall),
    "precision": ("Precision", _metrics.precision),
    "mrr": ("MRR", _metrics.mrr),
    "map": ("MAP", _metrics.average_precision),
}
_OF_ALL_LISTS = {"coverage": ("Coverage", _metrics.coverage), "gini": ("Gini", _metrics.gini)}
METRICS = (*_OF_HITS, "auc", "novelty", "diversity", "exposure", *_OF_ALL_LISTS)
DEFAULT_METRICS = ("hit_rate", "ndcg", "recall", "precision", "mrr", "coverage")


def evaluate(
    model: Recommends,
    train: pd.DataFrame,
    test: pd.DataFrame,
    *,
    k: int = 10,
    items: ArrayLike | Iterable[Any] | pd.DataFrame | None = None,
    allow: ArrayLike | Iterable[Any] | None = None,
    relevance: float | None = None,
    filter_seen: bool = True,
    metrics: Sequence[str] = DEFAULT_METRICS,
    vectors: pd.DataFrame | None = None,
    groups: pd.Series | pd.DataFrame | None = None,
) -> Report:
    """Ask a fitted model for k items a user and compare them with what the user took in test.

    Parameters
    ----------
    model : Recommends
        Fitted on ``train``.
    train, test : pandas.DataFrame
        Interactions with the columns ``user`` and ``item``, and ``rating`` in test where
        ``relevance`` is given.
    k : int, optional
        Length of the lists.
    items : DataFrame with the column ``item``, or iterable of item ids, optional
        The catalogue: what coverage and Gini count, and what competes in AUC; by default the items
        in train and test. Give the items that the model was fitted with, where there are more.
    allow : iterable of item ids, optional
        The only items that may be recommended (cold items, say); test items that are not among
        them are not asked for, and the catalogue is these.
    relevance : float, optional
        Least rating that makes a test item relevant; by default each test item is.
    filter_seen : bool, optional
        Whether what a user has in train is not recommended, nor counted as relevant.
    metrics : sequence of str, optional
        Some of ``METRICS``. Accuracy: "hit_rate", "ndcg", "recall", "precision", "mrr", "map", and
        "auc", which asks the model again for the whole ranking of each user, some users at a time.
        What is shown: "novelty" (bits, from popularity in train), "diversity" (within a list, by
        ``vectors``), "exposure" (the share of places that goes to head, mid and tail, of a third
        of train's interactions each), "coverage" and "gini" (of all lists together).
    vectors : DataFrame, optional
        A row for each item, with item ids for index; for "diversity".
    groups : Series or DataFrame, optional
        The group of each user: a Series with user ids for index, or a frame with ``user`` and
        ``group``. The report then has ``groups(label)`` and ``gap(label)`` for every metric that
        users have.

    Returns
    -------
    Report
        Means with errors, and one value a user.

    Raises
    ------
    TypeError
        Ids are strings in one argument and numbers in another, or a rating to compare with
        ``relevance`` is no number.
    ValueError
        A column, a value, a vector or a group is missing, a metric is unknown, no user has a
        relevant item, or the model breaks its promise: it returns a user nobody asked for, a rank
        beyond k, an item twice, an item that is not allowed, or one that the user has seen.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> class Same:
    ...     def recommend(self, users, k=10, *, filter_seen=True, allow=None, exclude=None):
    ...         user = np.repeat(users, 2)
    ...         item, rank = np.tile([8, 9], len(users)), np.tile([1, 2], len(users))
    ...         return SimpleNamespace(user=user, item=item, rank=rank)
    >>> train = pd.DataFrame({"user": [1, 2], "item": [7, 7]})
    >>> test = pd.DataFrame({"user": [1, 2], "item": [8, 9]})
    >>> print(evaluate(Same(), train, test, k=2, metrics=("mrr", "coverage")))
    MRR@2 0.7500 ± 0.4900 | Coverage@2 0.6667 | 2 users, 0 left out
    >>> report = evaluate(Same(), train, test, k=2, groups=pd.Series({1: "new", 2: "old"}))
    >>> report.gap("MRR@2").difference
    0.5
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise ValueError(f"metrics must be among {', '.join(METRICS)}; got {unknown[0]!r}")
    if checks.integer("k", k) < 1:
        raise ValueError(f"k must be at least 1; got {k}")
    if "diversity" in metrics and vectors is None:
        raise ValueError("the metric diversity needs vectors: a frame with item ids for index")
    require_values("train", train, "user", "item")
    require_rows("test", test, "user", "item")
    rules = Rules(train, None if allow is None else ids("allow", allow).tolist(), filter_seen)
    catalogue = _catalogue(train, test, items, rules.allow)
    require_one_kind("user", train=train["user"], test=test["user"])
    require_one_kind(
        "item", train=train["item"], test=test["item"], allow=rules.allow, items=catalogue
    )
    wanted = _relevant(rules, test, relevance)
    users = pd.unique(wanted["user"].to_numpy())
    n_skipped = test["user"].nunique() - len(users)
    if not len(users):
        raise ValueError(f"test has no relevant item for any of its {n_skipped} users")
    group = None if groups is None else groups_of(groups, users)
    shown = _Shown(rules.ask(model, users, k), wanted, catalogue, train)
    values: dict[str, NDArray[np.float64]] = {}
    overall: dict[str, float] = {}
    for name in metrics:
        if name in _OF_ALL_LISTS:
            label, of_all = _OF_ALL_LISTS[name]
            overall[f"{label}@{k}"] = of_all(shown.in_catalogue, len(catalogue), k)
        elif name == "auc":
            values["AUC"] = auc_of(model, rules, wanted, users, catalogue)
        else:
            values |= _per_user(name, shown, k, vectors)
    per_user = pd.DataFrame(values, index=pd.Index(users, name="user"))
    return Report(k, per_user, overall, n_skipped, group)


@dataclass(frozen=True)
class _Shown:
    """The lists, with what the metrics read of them; numbered alike throughout."""

    ranked: Ranked
    wanted: pd.DataFrame
    catalogue: pd.Series
    train: pd.DataFrame

    @cached_property
    def _numbers(self) -> list[NDArray[np.int64]]:
        others = self.wanted["item"], self.catalogue, self.train["item"]
        return numbered(self.ranked, *others)

    @cached_property
    def lists(self) -> NDArray[np.int64]:  # [U, k]
        return self.ranked.lists(self._numbers[0])

    @cached_property
    def hits(self) -> _metrics.Hits:
        sets = sets_of(self.wanted, self._numbers[1], self.ranked.users)
        return _metrics.match(self.lists, sets)

    @property
    def in_catalogue(self) -> NDArray[np.int64]:  # [U, k]
        return np.where(np.isin(self.lists, self._numbers[2]), self.lists, _metrics.PAD)

    @cached_property
    def popularity(self) -> NDArray[np.int64]:  # [N], by item number
        size = 1 + max(numbers.max(initial=-1) for numbers in self._numbers)
        return np.bincount(self._numbers[3], minlength=size)


def _per_user(
    name: str, shown: _Shown, k: int, vectors: pd.DataFrame | None
) -> dict[str, NDArray[np.float64]]:
    """One value a user, by label; exposure has one for each group of items."""
    if name in _OF_HITS:
        label, metric = _OF_HITS[name]
        return {f"{label}@{k}": metric(shown.hits, k)}
    if name == "novelty":
        return {f"Novelty@{k}": _metrics.novelty(shown.lists, shown.popularity, k)}
    if name == "exposure":
        # A last item, of the tail, so that there are three groups whatever the others are.
        group = np.append(_metrics.popularity_groups(shown.popularity), 2)
        shares = _metrics.exposure(shown.lists, group, k).T
        labels = [f"Exposure {one}@{k}" for one in _metrics.POPULARITY_GROUPS]
        return dict(zip(labels, shares, strict=True))
    assert vectors is not None
    rows = _rows_of(vectors, shown.ranked)
    return {f"Diversity@{k}": _metrics.intra_list_diversity(rows, vectors.to_numpy(), k)}


def _rows_of(vectors: pd.DataFrame, ranked: Ranked) -> NDArray[np.int64]:
    """The lists as rows of the vectors."""
    if not isinstance(vectors, pd.DataFrame) or not vectors.index.is_unique:
        raise ValueError("vectors must be a DataFrame with item ids for index, each once")
    items = ranked.table["item"]
    rows = vectors.index.get_indexer(pd.Index(items))
    if (rows < 0).any():
        raise ValueError(f"vectors has no row for item {items.iloc[int(np.argmin(rows))]}")
    return ranked.lists(rows.astype(np.int64))


def _relevant(rules: Rules, test: pd.DataFrame, relevance: float | None) -> pd.DataFrame:
    """Keep the (user, item) pairs of test that a list could and should hold."""
    rows = test
    if relevance is not None:
        require_values("test", test, "rating")
        require_numbers("test", test, "rating")
        rows = rows[rows["rating"] >= checks.finite_number("relevance", relevance)]
    if rules.allow is not None:
        rows = rows[rows["item"].isin(rules.allow)]
    if rules.filter_seen:
        rows = rows[~pairs_in(rows, rules.train)]
    return rows[["user", "item"]]


def _catalogue(
    train: pd.DataFrame,
    test: pd.DataFrame,
    items: ArrayLike | Iterable[Any] | pd.DataFrame | None,
    allow: list[Any] | None,
) -> pd.Series:
    """Choose the items that there are to recommend, each once."""
    if allow is not None:
        return ids("allow", allow).drop_duplicates()
    if items is not None:
        return ids("items", items).drop_duplicates()
    both: pd.Series = pd.concat([train["item"], test["item"]])
    return both.drop_duplicates()
