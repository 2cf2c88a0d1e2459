"""One moment for all users: what comes before it is known, what comes after is to be predicted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llmrec_kernels.evaluation.splits.parts import (
    check_share,
    divide,
    floor_share,
    in_time,
    require_moments,
)


def time_split(
    interactions: pd.DataFrame, *, at: Any = None, test_ratio: float | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hold out what happens from one moment on, the same for all users.

    Train is what has a timestamp before the moment. Interactions at the same time are never
    divided. Ji, Sun, Zhang and Li, A critical study on data leakage in recommender system offline
    evaluation, TOIS 41(3), 2023, say why one moment for all is the only split without leakage.

    Parameters
    ----------
    interactions : pandas.DataFrame
        With the column ``timestamp``: numbers or dates.
    at : number or date, optional
        The moment, in the unit of ``timestamp``.
    test_ratio : float, optional
        In its place, the largest share to hold out: the moment is the earliest that holds out
        floor(n · test_ratio) of the n interactions or fewer.

    Returns
    -------
    train, test : pandas.DataFrame
        The rows before the moment, and those at it or later. Users and items who come in test
        alone are unknown to a model that was fitted on train.

    Raises
    ------
    TypeError
        Timestamps are text, or ``at`` is of another kind than the times.
    ValueError
        A column or a time is missing, not exactly one of ``at`` and ``test_ratio`` is given, or
        one part would be empty.

    Examples
    --------
    >>> seen = pd.DataFrame({"user": [1, 2, 3, 1], "timestamp": [10, 20, 20, 30]})
    >>> train, test = time_split(seen, at=20)
    >>> train.user.tolist(), test.user.tolist()
    ([1], [2, 3, 1])
    >>> time_split(seen, test_ratio=0.5)[1].user.tolist()
    [1]
    """
    if (at is None) == (test_ratio is None):
        raise ValueError(f"give one of at and test_ratio; got at={at!r}, test_ratio={test_ratio!r}")
    if test_ratio is not None:
        check_share(test_ratio)
    require_moments(interactions)
    times = interactions["timestamp"]
    if test_ratio is None:
        in_test = _from(times, at)
        how = f"at={at!r}"
    else:
        last = len(times) - int(floor_share(len(times), test_ratio)) - 1
        in_test = (times > times.iloc[in_time(interactions)[last]]).to_numpy()
        how = f"test_ratio={test_ratio}"
    if in_test.all() or not in_test.any():
        raise ValueError(
            f"{how} leaves nothing for {'train' if in_test.all() else 'test'}: the {len(times)} "
            f"interactions run from {times.min()} to {times.max()}, and those at one time stay "
            "together"
        )
    return divide(interactions, np.asarray(in_test))


def _from(times: pd.Series, at: Any) -> NDArray[np.bool_]:
    try:
        return np.asarray(times >= at)
    except TypeError:
        raise TypeError(
            f"at is {at!r}; expected a moment that compares with timestamp, of type {times.dtype}"
        ) from None
