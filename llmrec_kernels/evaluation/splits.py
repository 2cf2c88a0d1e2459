"""Divide interactions into train and test.

Every split returns two frames with the rows, the index and the order of the input: disjoint, and
together the whole. Time is the column ``timestamp``; of interactions at the same time, the later
row is the later interaction.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray


def leave_last_out(interactions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hold out each user's last interaction.

    Users with a single interaction stay in train: nothing could be predicted from nothing.

    Parameters
    ----------
    interactions : pandas.DataFrame
        With the columns ``user`` and ``timestamp``.

    Returns
    -------
    train, test : pandas.DataFrame
        Test has one row for each user with two interactions or more.

    Raises
    ------
    ValueError
        A column is missing.

    Examples
    --------
    >>> seen = pd.DataFrame({"user": [1, 1, 2], "item": [7, 8, 9], "timestamp": [20, 10, 5]})
    >>> train, test = leave_last_out(seen)
    >>> train.item.tolist(), test.item.tolist()
    ([8, 9], [7])
    """
    require_columns("interactions", interactions, "user", "timestamp")
    place, count = _place_in_history(interactions, by="time")
    return _divide(interactions, (place == count - 1) & (count > 1))


def ratio_split(
    interactions: pd.DataFrame,
    test_ratio: float = 0.2,
    *,
    by: Literal["time", "random"] = "time",
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hold out a share of each user's interactions.

    Of a user's n interactions, floor(n · test_ratio) are held out, so every user stays in train.

    Parameters
    ----------
    interactions : pandas.DataFrame
        With the column ``user``, and ``timestamp`` where ``by="time"``.
    test_ratio : float, optional
        Share to hold out, between 0 and 1, both excluded.
    by : {"time", "random"}, optional
        Hold out the last ones, or ones drawn at random.
    seed : int, optional
        Seed of the draw.

    Returns
    -------
    train, test : pandas.DataFrame
        The rows kept and the rows held out.

    Raises
    ------
    ValueError
        A column is missing, or ``test_ratio`` or ``by`` is out of its range.

    Examples
    --------
    >>> seen = pd.DataFrame({"user": 1, "item": [7, 8, 9, 10], "timestamp": [40, 30, 20, 10]})
    >>> train, test = ratio_split(seen, 0.25)
    >>> train.item.tolist(), test.item.tolist()
    ([8, 9, 10], [7])
    """
    if not 0 < test_ratio < 1:
        raise ValueError(f"test_ratio must lie between 0 and 1; got {test_ratio}")
    if by not in ("time", "random"):
        raise ValueError(f"by must be 'time' or 'random'; got {by!r}")
    require_columns("interactions", interactions, "user", *(["timestamp"] if by == "time" else []))
    place, count = _place_in_history(interactions, by, seed)
    # The small term undoes the rounding of products such as 0.29 * 100 = 28.999999999999996.
    held_out = np.floor(count * test_ratio + 1e-9)
    return _divide(interactions, place >= count - np.minimum(held_out, count - 1))


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
        The column is missing, or there are held-out ids and none has an interaction.

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
    require_columns("interactions", interactions, "item")
    ids = np.asarray(held_out)
    if ids.ndim != 1:
        raise ValueError(f"held_out must be a 1-D array of item ids; got {held_out!r}")
    cold = interactions["item"].isin(ids.tolist()).to_numpy()
    if ids.size and not cold.any():
        raise ValueError(
            f"held_out has {ids.size} item ids, such as {ids[0]!r}, and none of them is in "
            f"interactions, whose items are of type {interactions['item'].dtype}"
        )
    return _divide(interactions, cold)


def require_columns(argument: str, frame: pd.DataFrame, *columns: str) -> None:
    """Raise ValueError if the frame lacks a column.

    Examples
    --------
    >>> require_columns("train", pd.DataFrame({"user": [1]}), "user", "item")
    Traceback (most recent call last):
    ...
    ValueError: train has no column item; its columns are user
    """
    for column in columns:
        if column not in frame.columns:
            held = ", ".join(map(str, frame.columns)) or "none"
            raise ValueError(f"{argument} has no column {column}; its columns are {held}")


def _place_in_history(
    interactions: pd.DataFrame, by: str, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Say for each row which of its user's interactions it is (from 0), and of how many."""
    if by == "time":
        order = np.argsort(interactions["timestamp"].to_numpy(), kind="stable")
    else:
        order = np.random.default_rng(seed).permutation(len(interactions))
    users: Any = interactions["user"].reset_index(drop=True)
    place = users.iloc[order].groupby(users.iloc[order]).cumcount().sort_index().to_numpy()
    count = users.groupby(users).transform("size").to_numpy()
    return place, count


def _divide(
    interactions: pd.DataFrame, in_test: NDArray[np.bool_]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    return interactions[~in_test].copy(), interactions[in_test].copy()
