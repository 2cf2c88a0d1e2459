"""Ask a model for its lists, and hold it to what it promises."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from llmrec_kernels._ids import id_array, id_list
from llmrec_kernels.evaluation.columns import (
    codes,
    pairs_in,
    require_columns,
    require_one_kind,
)
from llmrec_kernels.evaluation.metrics import PAD


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


class Ranked(NamedTuple):
    """The lists of some users, checked."""

    users: NDArray[Any]  # [U] whom the model was asked for
    k: int
    table: pd.DataFrame  # user, item, rank, and row: the place of the user in `users`

    def lists(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Lay out a number for each row of the table as lists [U, k]; −1 fills short ones."""
        lists = np.full((len(self.users), self.k), PAD, dtype=np.int64)
        lists[self.table["row"].to_numpy(), self.table["rank"].to_numpy(np.int64) - 1] = numbers
        return lists


class Rules(NamedTuple):
    """What may be recommended to whom."""

    train: pd.DataFrame
    allow: list[Any] | None  # ids
    filter_seen: bool

    def ask(self, model: Recommends, users: NDArray[Any], k: int) -> Ranked:
        """Ask for k items a user, and raise ValueError where the model breaks the rules."""
        answer = model.recommend(users, k=k, filter_seen=self.filter_seen, allow=self.allow)
        ranked = checked(answer, users, k)
        table = ranked.table
        require_one_kind("item", train=self.train["item"], **{"the model's lists": table["item"]})
        if self.allow is not None:
            _refuse(~table["item"].isin(self.allow), table, "which is not in allow")
        if self.filter_seen:
            _refuse(pairs_in(table, self.train), table, "who has it in train")
        return ranked


def checked(answer: RankedItems, users: NDArray[Any], k: int) -> Ranked:
    """Lay out a model's answer and check that it is lists of up to k items for these users."""
    columns = {"user": answer.user, "item": answer.item, "rank": answer.rank}
    table = pd.DataFrame({name: np.asarray(column) for name, column in columns.items()})
    table["row"] = pd.Index(users).get_indexer(pd.Index(table["user"]))
    _refuse(table["row"] < 0, table, "a user nobody asked for")
    _refuse(table["item"].isna(), table, "which is no item")
    _refuse(~table["rank"].between(1, k), table, f"with a rank outside 1 to {k}")
    _refuse(table.duplicated(["row", "rank"]), table, "at a rank that the list already has")
    _refuse(table.duplicated(["row", "item"]), table, "for the second time")
    return Ranked(users, k, table)


def sets_of(
    wanted: pd.DataFrame, numbers: NDArray[np.int64], users: NDArray[Any]
) -> list[NDArray[np.int64]]:
    """Divide the numbers of the wanted pairs' items by user, in the order of the users."""
    rows = pd.Index(users).get_indexer(pd.Index(wanted["user"]))
    ends = np.cumsum(np.bincount(rows, minlength=len(users)))
    return np.split(numbers[np.argsort(rows, kind="stable")], ends[:-1])


def ids(argument: str, items: ArrayLike | Iterable[Any] | pd.DataFrame) -> pd.Series:
    """Item ids as a column, of anything that lists them or of a frame with the column ``item``.

    Examples
    --------
    >>> ids("allow", {7}).tolist()
    [7]
    """
    if isinstance(items, pd.DataFrame):
        require_columns(argument, items, "item")
        return pd.Series(items["item"])
    return pd.Series(id_array(id_list(argument, items)))


def numbered(ranked: Ranked, *columns: pd.Series) -> list[NDArray[np.int64]]:
    """Number the items of the lists and of other columns alike."""
    return codes(ranked.table["item"], *columns)


def _refuse(broken: Any, table: pd.DataFrame, why: str) -> None:
    if broken.any():
        row = table[np.asarray(broken)].iloc[0]
        raise ValueError(f"the model recommends item {row['item']} to user {row['user']}, {why}")
