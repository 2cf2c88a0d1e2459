"""Splits of each user's history, by time or at random."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

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


def leave_last_out(interactions: pd.DataFrame, nth: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hold out each user's last interaction, or the one before it.

    Users with a single interaction stay in train: nothing could be predicted from nothing.

    ``nth=2`` is for choosing weights and other settings without a look at the test: it splits the
    train part of ``nth=1`` once more, so that the second-last interaction is held out and the last
    is in neither part. Choose on ``nth=2``, then fit anew and report on ``nth=1``.

    Parameters
    ----------
    interactions : pandas.DataFrame
        With the columns ``user`` and ``timestamp``.
    nth : int, optional
        Which interaction to hold out, counted from the last; later ones are dropped.

    Returns
    -------
    train, test : pandas.DataFrame
        Test has one row for each user with more than ``nth`` interactions.

    Raises
    ------
    TypeError
        Timestamps are text.
    ValueError
        A column or a value is missing, there is no row, or ``nth`` is below 1.

    Examples
    --------
    >>> seen = pd.DataFrame(
    ...     {"user": [1, 1, 1, 2], "item": [7, 8, 6, 9], "timestamp": [20, 10, 5, 5]}
    ... )
    >>> train, test = leave_last_out(seen)
    >>> train.item.tolist(), test.item.tolist()
    ([8, 6, 9], [7])
    >>> train, test = leave_last_out(seen, nth=2)
    >>> train.item.tolist(), test.item.tolist()
    ([6, 9], [8])
    """
    nth = checks.positive_int("nth", nth)
    require_moments(interactions, "user")
    place, count = place_in_history(interactions["user"], in_time(interactions))
    left = np.maximum(count - (nth - 1), 1)  # without the dropped ones; the first always stays
    kept = place < left
    return divide(interactions[kept], ((place == left - 1) & (left > 1))[kept])


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
    TypeError
        Timestamps are text.
    ValueError
        A column or a value is missing, there is no row, or ``test_ratio`` or ``by`` is out of its
        range.

    Examples
    --------
    >>> seen = pd.DataFrame({"user": 1, "item": [7, 8, 9, 10], "timestamp": [40, 30, 20, 10]})
    >>> train, test = ratio_split(seen, 0.25)
    >>> train.item.tolist(), test.item.tolist()
    ([8, 9, 10], [7])
    """
    check_share(test_ratio)
    if by not in ("time", "random"):
        raise ValueError(f"by must be 'time' or 'random'; got {by!r}")
    if by == "time":
        require_moments(interactions, "user")
        order = in_time(interactions)
    else:
        require_rows("interactions", interactions, "user")
        order = np.random.default_rng(check_seed(seed)).permutation(len(interactions))
    place, count = place_in_history(interactions["user"], order)
    held_out = np.minimum(floor_share(count, test_ratio), count - 1)
    return divide(interactions, place >= count - held_out)
