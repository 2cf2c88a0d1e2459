"""Splits for what a model knows nothing or little of: new items, and new users."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from llmrec_kernels.evaluation.columns import require_rows
from llmrec_kernels.evaluation.options import check_seed
from llmrec_kernels.evaluation.splits.parts import (
    check_share,
    divide,
    floor_share,
    in_time,
    place_in_history,
    require_moments,
)
from llmrec_kernels.ops import checks


def cold_item_split(
    interactions: pd.DataFrame, held_out: ArrayLike
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hold out items with all their interactions: what is left knows nothing of their clicks.

    Parameters
    ----------
    interactions : pandas.DataFrame
        With the column ``item``.
    held_out : array_like
        The item ids to hold out; ids without interactions are allowed.

    Returns
    -------
    train, test : pandas.DataFrame
        Test has the interactions with the held-out items.

    Raises
    ------
    ValueError
        The column or a value is missing, there is no row, or there are held-out ids and none has
        an interaction.

    Examples
    --------
    The cold-item protocol for MovieLens-100K, here its first of five seeds, is

    >>> from llmrec_kernels.datasets import movielens_100k
    >>> held_out = np.random.default_rng(0).choice(1682, 336, replace=False) + 1
    >>> train, test = cold_item_split(movielens_100k().interactions, held_out)
    >>> len(train), len(test), bool(train.item.isin(held_out).any())
    (80641, 19359, False)

    and then ``evaluate(model, train, test, relevance=4, allow=held_out)`` for a model that was
    fitted on train.
    """
    require_rows("interactions", interactions, "item")
    return divide(interactions, _held_out(interactions["item"], held_out))


def cold_user_split(
    interactions: pd.DataFrame,
    held_out: ArrayLike | None = None,
    *,
    test_ratio: float | None = None,
    history: int = 5,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Hold out users: a few first interactions to know them by, the others to predict.

    The first interactions are a frame of their own and not in train, so that a model is fitted
    without the held-out users and meets them afterwards, as in production::

        train, known, test = cold_user_split(interactions, test_ratio=0.1, history=2)
        model.fit(train, items).update(known)
        evaluate(model, pd.concat([train, known]), test)

    Parameters
    ----------
    interactions : pandas.DataFrame
        With the column ``user``, and ``timestamp`` where ``history`` is not 0.
    held_out : array_like, optional
        The user ids to hold out; ids without interactions are allowed.
    test_ratio : float, optional
        In its place, the share of users to hold out, drawn at random: floor(U · test_ratio) of U
        users.
    history : int, optional
        How many first interactions of a held-out user are known. Who has no more than those has
        nothing in test.
    seed : int, optional
        Seed of the draw.

    Returns
    -------
    train, known, test : pandas.DataFrame
        The interactions of the other users, the first ones of the held-out users, and the rest of
        theirs.

    Raises
    ------
    TypeError
        Timestamps are text.
    ValueError
        A column or a value is missing, there is no row, not exactly one of ``held_out`` and
        ``test_ratio`` is given, ``history`` is negative, or no user would be held out.

    Examples
    --------
    >>> seen = pd.DataFrame({"user": [1, 2, 2, 2], "item": [5, 7, 8, 9], "timestamp": range(4)})
    >>> train, known, test = cold_user_split(seen, [2], history=1)
    >>> train.item.tolist(), known.item.tolist(), test.item.tolist()
    ([5], [7], [8, 9])
    """
    if (held_out is None) == (test_ratio is None):
        raise ValueError(
            f"give one of held_out and test_ratio; got held_out={held_out!r}, "
            f"test_ratio={test_ratio!r}"
        )
    history = checks.integer("history", history)
    if history < 0:
        raise ValueError(f"history is {history}; expected at least 0")
    if history:
        require_moments(interactions, "user")
        order = in_time(interactions)
    else:
        require_rows("interactions", interactions, "user")
        order = np.arange(len(interactions))
    users = interactions["user"]
    chosen: Any = held_out if test_ratio is None else _drawn(users, test_ratio, seed)
    cold = _held_out(users, chosen)
    place, _ = place_in_history(users, order)
    train, rest = divide(interactions, cold)
    known, test = divide(rest, place[cold] >= history)
    return train, known, test


def _drawn(users: pd.Series, test_ratio: float, seed: int) -> NDArray[Any]:
    """Draw a share of the users, whatever the order of their interactions."""
    check_share(test_ratio)
    rng = np.random.default_rng(check_seed(seed))
    # By text, so that ids of several kinds have an order too.
    ids = users.drop_duplicates().sort_values(key=lambda column: column.astype(str)).to_numpy()
    n = int(floor_share(len(ids), test_ratio))
    if not n:
        raise ValueError(f"test_ratio={test_ratio} holds out none of the {len(ids)} users")
    return rng.permutation(ids)[:n]


def _held_out(column: pd.Series, held_out: ArrayLike) -> NDArray[np.bool_]:
    """Mark the rows whose id is held out."""
    ids = np.asarray(held_out)
    if ids.ndim != 1:
        raise ValueError(f"held_out must be a 1-D array of {column.name} ids; got {held_out!r}")
    cold = column.isin(ids.tolist()).to_numpy()
    if ids.size and not cold.any():
        raise ValueError(
            f"held_out has {ids.size} {column.name} ids, such as {ids[0]!r}, and none of them is "
            f"in interactions, whose {column.name}s are of type {column.dtype}"
        )
    return np.asarray(cold)
