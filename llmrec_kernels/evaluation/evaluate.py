"""Evaluate a recommender on held-out interactions: full ranking, one value a user, with its error.

Every item that the model knows competes (no sampled negatives: those change which model wins,
Krichene and Rendle, KDD 2020), and what a user has in train is not recommended again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from llmrec_kernels.evaluation import metrics as _metrics
from llmrec_kernels.evaluation.report import Report
from llmrec_kernels.evaluation.splits import require_columns

_PER_USER = {
    "hit_rate": ("HR", _metrics.hit_rate),
    "ndcg": ("NDCG", _metrics.ndcg),
    "recall": ("Recall", _metrics.recall),
    "precision": ("Precision", _metrics.precision),
    "mrr": ("MRR", _metrics.mrr),
}
_COVERAGE = "coverage"
METRICS = (*_PER_USER, _COVERAGE)


class RankedItems(Protocol):
    """What a recommender returns: one row a recommendation, as 1-D arrays."""

    @property
    def user(self) -> Any:
        """User ids."""

    @property
    def item(self) -> Any:
        """Item ids."""

    @property
    def rank(self) -> Any:
        """Ranks, from 1."""


class Recommends(Protocol):
    """A fitted recommender, as far as evaluation needs one."""

    def recommend(
        self,
        users: Any,
        k: int = 10,
        *,
        filter_seen: bool = True,
        allow: Any = None,
        exclude: Any = None,
    ) -> RankedItems:
        """Rank up to k items for each user."""


def evaluate(
    model: Recommends,
    train: pd.DataFrame,
    test: pd.DataFrame,
    *,
    k: int = 10,
    items: ArrayLike | pd.DataFrame | None = None,
    allow: ArrayLike | None = None,
    relevance: float | None = None,
    filter_seen: bool = True,
    metrics: Sequence[str] = METRICS,
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
    items : DataFrame with the column ``item``, or item ids, optional
        The catalogue that coverage is a share of; by default the items in train and test.
    allow : item ids, optional
        The only items that may be recommended (cold items, say); test items that are not among
        them are not asked for, and coverage is a share of them.
    relevance : float, optional
        Least rating that makes a test item relevant; by default each test item is.
    filter_seen : bool, optional
        Whether what a user has in train is not recommended, nor counted as relevant.
    metrics : sequence of str, optional
        Some of ``METRICS``.

    Returns
    -------
    Report
        Means with errors, and one value a user.

    Raises
    ------
    ValueError
        A column is missing, a metric is unknown, no user has a relevant item, or the model
        breaks its promise: it returns a user nobody asked for, a rank beyond k, an item twice,
        an item that is not allowed, or one that the user has seen.

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
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise ValueError(f"metrics must be among {', '.join(METRICS)}; got {unknown[0]!r}")
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}")
    require_columns("train", train, "user", "item")
    wanted = _relevant(train, test, allow, relevance, filter_seen)
    users = pd.unique(wanted["user"].to_numpy())
    n_skipped = test["user"].nunique() - len(users)
    if not len(users):
        raise ValueError(f"test has no relevant item for any of its {n_skipped} users")
    ranked = _table(model.recommend(users, k=k, filter_seen=filter_seen, allow=allow), users, k)
    if allow is not None:
        _refuse(~ranked["item"].isin(_ids(allow)), ranked, "which is not in allow")
    if filter_seen:
        _refuse(_in(ranked, train), ranked, "who has it in train")
    catalogue = _catalogue(train, test, items, allow)
    lists, sets, known = _as_codes(ranked, wanted, catalogue, users, k)
    values, overall = {}, {}
    hits = _metrics.match(lists, sets)
    for name in metrics:
        if name == _COVERAGE:
            inside = np.where(np.isin(lists, known), lists, _metrics.PAD)
            overall[f"Coverage@{k}"] = _metrics.coverage(inside, len(catalogue), k)
        else:
            label, metric = _PER_USER[name]
            values[f"{label}@{k}"] = metric(hits, k)
    return Report(k, pd.DataFrame(values, index=pd.Index(users, name="user")), overall, n_skipped)


def compare(
    models: Mapping[str, Recommends],
    train: pd.DataFrame,
    test: pd.DataFrame,
    **options: Any,
) -> pd.DataFrame:
    """Evaluate several models alike and put their metrics side by side.

    Parameters
    ----------
    models : mapping of str to Recommends
        Fitted models by the name to show.
    train, test : pandas.DataFrame
        As for `evaluate`.
    **options
        The other parameters of `evaluate`, the same for all.

    Returns
    -------
    pandas.DataFrame
        One row a model; a column a metric, each followed by its standard error where it has one
        ("NDCG@10", "NDCG@10 SE"); last the number of users.

    Raises
    ------
    ValueError
        As `evaluate` does.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> class Only:
    ...     def __init__(self, item):
    ...         self.item = item
    ...     def recommend(self, users, k=10, *, filter_seen=True, allow=None, exclude=None):
    ...         full = [np.full(len(users), value) for value in (self.item, 1)]
    ...         return SimpleNamespace(user=users, item=full[0], rank=full[1])
    >>> train = pd.DataFrame({"user": [1, 2], "item": [7, 7]})
    >>> test = pd.DataFrame({"user": [1, 2], "item": [8, 9]})
    >>> compare({"8": Only(8), "6": Only(6)}, train, test, items=[6, 7, 8, 9], metrics=["mrr"])
       MRR@10  MRR@10 SE  users
    8     0.5        0.5      2
    6     0.0        0.0      2
    """
    rows = {}
    for name, model in models.items():
        report = evaluate(model, train, test, **options)
        row: dict[str, float] = {}
        for label in report.labels:
            row[label] = report[label]
            if label not in report.overall:
                row[f"{label} SE"] = report.standard_error(label)
        rows[name] = row | {"users": report.n_users}
    return pd.DataFrame.from_dict(rows, orient="index")


def _relevant(
    train: pd.DataFrame,
    test: pd.DataFrame,
    allow: ArrayLike | None,
    relevance: float | None,
    filter_seen: bool,
) -> pd.DataFrame:
    """Keep the (user, item) pairs of test that a list could and should hold."""
    require_columns("test", test, "user", "item", *(["rating"] if relevance is not None else []))
    rows = test
    if relevance is not None:
        rows = rows[rows["rating"] >= relevance]
    if allow is not None:
        rows = rows[rows["item"].isin(_ids(allow))]
    if filter_seen:
        rows = rows[~_in(rows, train)]
    return rows[["user", "item"]]


def _table(answer: RankedItems, users: NDArray[Any], k: int) -> pd.DataFrame:
    """Lay out the model's answer, with the row of each user in ``users``, and check it."""
    columns = {"user": answer.user, "item": answer.item, "rank": answer.rank}
    ranked = pd.DataFrame({name: np.asarray(column) for name, column in columns.items()})
    ranked["row"] = pd.Index(users).get_indexer(pd.Index(ranked["user"]))
    _refuse(ranked["row"] < 0, ranked, "a user nobody asked for")
    _refuse(~ranked["rank"].between(1, k), ranked, f"with a rank outside 1 to {k}")
    _refuse(ranked.duplicated(["row", "rank"]), ranked, "at a rank that the list already has")
    _refuse(ranked.duplicated(["row", "item"]), ranked, "for the second time")
    return ranked


def _refuse(broken: Any, ranked: pd.DataFrame, why: str) -> None:
    if broken.any():
        row = ranked[np.asarray(broken)].iloc[0]
        raise ValueError(f"the model recommends item {row['item']} to user {row['user']}, {why}")


def _in(pairs: pd.DataFrame, frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Say which (user, item) pairs also are rows of the frame."""
    users, known_users = _codes(pairs["user"], frame["user"])
    items, known_items = _codes(pairs["item"], frame["item"])
    width = 1 + max(items.max(initial=0), known_items.max(initial=0))
    return np.isin(users * width + items, known_users * width + known_items)


def _codes(*columns: pd.Series) -> list[NDArray[np.int64]]:
    """Number the values of all columns alike, whatever their type."""
    # An empty array is of float type, and would make floats of the ids it is joined to.
    filled = [column for column in columns if len(column)]
    codes = pd.factorize(pd.concat(filled, ignore_index=True))[0] if filled else np.empty(0)
    return np.split(codes.astype(np.int64), np.cumsum([len(one) for one in columns])[:-1])


def _ids(items: ArrayLike | pd.DataFrame) -> pd.Series:
    if isinstance(items, pd.DataFrame):
        require_columns("items", items, "item")
        return pd.Series(items["item"])
    return pd.Series(np.asarray(items).ravel())


def _catalogue(
    train: pd.DataFrame,
    test: pd.DataFrame,
    items: ArrayLike | pd.DataFrame | None,
    allow: ArrayLike | None,
) -> pd.Series:
    """Choose the items that coverage is a share of, each once."""
    if allow is not None:
        return _ids(allow).drop_duplicates()
    if items is not None:
        return _ids(items).drop_duplicates()
    both: pd.Series = pd.concat([train["item"], test["item"]])
    return both.drop_duplicates()


def _as_codes(
    ranked: pd.DataFrame, wanted: pd.DataFrame, catalogue: pd.Series, users: NDArray[Any], k: int
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]], NDArray[np.int64]]:
    """Number the items of the lists [U, k], of each user's set and of the catalogue alike."""
    recommended, relevant, known = _codes(ranked["item"], wanted["item"], catalogue)
    lists = np.full((len(users), k), _metrics.PAD, dtype=np.int64)
    lists[ranked["row"].to_numpy(), ranked["rank"].to_numpy(np.int64) - 1] = recommended
    rows = pd.Index(users).get_indexer(pd.Index(wanted["user"]))
    ends = np.cumsum(np.bincount(rows, minlength=len(users)))
    return lists, np.split(relevant[np.argsort(rows, kind="stable")], ends[:-1]), known
