"""Groups of users: whom a model serves better, and by how much.

Ekstrand et al., All the cool kids, how do they fit in?, FAT* 2018, look at a metric group by group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llmrec_kernels.evaluation.columns import require_rows
from llmrec_kernels.evaluation.intervals import (
    Interval,
    UserSums,
    check_options,
    intervals,
    percentiles,
    resample,
)
from llmrec_kernels.evaluation.options import check_seed


@dataclass(frozen=True)
class Gap:
    """The largest difference of a metric between two groups of users.

    Parameters
    ----------
    label : str
        The metric.
    highest, lowest : ids of groups
        The groups with the highest and the lowest mean.
    difference : float
        Highest less lowest mean.
    low, high : float
        Bootstrap interval of the difference between these two groups, each resampled by itself. It
        does not know that the two were picked out among several groups: with many small groups
        some gap is always there, and an interval near 0 says little.

    Examples
    --------
    >>> print(Gap("NDCG@10", "young", "old", 0.04, 0.01, 0.07))
    NDCG@10: young is 0.0400 [0.0100, 0.0700] above old
    """

    label: str
    highest: Any
    lowest: Any
    difference: float
    low: float
    high: float

    def __str__(self) -> str:
        return (
            f"{self.label}: {self.highest} is {self.difference:.4f} [{self.low:.4f}, "
            f"{self.high:.4f}] above {self.lowest}"
        )


def groups_of(groups: pd.Series | pd.DataFrame, users: NDArray[Any]) -> pd.Series:
    """Look up the group of each user, in the order of the users.

    Parameters
    ----------
    groups : Series or DataFrame
        A Series of groups with user ids for index, or a frame with the columns ``user`` and
        ``group``; each user once. Users who are not asked for are no harm.
    users : [U] ids
        Whom to look up.

    Raises
    ------
    ValueError
        A user has no group, or two.

    Examples
    --------
    >>> groups_of(pd.Series(["f", "m"], index=[1, 2]), np.array([2, 1])).tolist()
    ['m', 'f']
    """
    if isinstance(groups, pd.DataFrame):
        require_rows("groups", groups, "user", "group")
        groups = groups.set_index("user")["group"]
    if not isinstance(groups, pd.Series):
        raise TypeError(
            f"groups is a {type(groups).__name__}; expected a pandas Series with user ids for "
            "index, or a DataFrame with user and group"
        )
    twice = groups.index[groups.index.duplicated()]
    if len(twice):
        raise ValueError(f"groups has user {twice[0]} twice; expected each user once")
    rows = groups.index.get_indexer(pd.Index(users))
    found = groups.iloc[np.maximum(rows, 0)] if len(groups) else groups.reindex(users)
    missing = (rows < 0) | found.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"groups has no group for {int(missing.sum())} of the {len(users)} users, such as user "
            f"{users[np.argmax(missing)]}"
        )
    return pd.Series(found.to_numpy(), index=pd.Index(users, name="user"), name="group")


def by_group(
    metric: UserSums, group: pd.Series, level: float, resamples: int, seed: int
) -> pd.DataFrame:
    """One row a group: its users, the metric, and a bootstrap interval."""
    rows: dict[Any, dict[str, float]] = {}
    for name, part in _parts(metric, group).items():
        (interval,) = intervals([part], level, resamples, seed)
        rows[name] = {
            "users": int(np.count_nonzero(part.count)),
            "mean": part.value(),
            "low": interval.low,
            "high": interval.high,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("group")


def gap_between(
    label: str, metric: UserSums, group: pd.Series, level: float, resamples: int, seed: int
) -> Gap:
    """Find the groups with the highest and the lowest metric, and how far they are apart."""
    check_options(level, resamples)
    check_seed(seed)
    parts = {name: part for name, part in _parts(metric, group).items() if part.count.any()}
    if len(parts) < 2:
        raise ValueError(f"a gap needs two groups of users with {label}; got {len(parts)}")
    values = {name: part.value() for name, part in parts.items()}
    highest, lowest = max(values, key=values.__getitem__), min(values, key=values.__getitem__)
    if highest == lowest:  # all are equal
        highest, lowest = list(values)[:2]
    draws = []
    for number, name in enumerate((highest, lowest)):
        part = parts[name]
        # Seeds that differ, so that two groups of one size are not drawn alike.
        sums = resample(np.stack([part.total, part.count], axis=1), resamples, seed + number)
        draws.append(part.of(sums[:, 0], sums[:, 1]))
    few = min(np.count_nonzero(parts[name].count) for name in (highest, lowest)) < 2
    interval = Interval(np.nan, np.nan) if few else percentiles(draws[0] - draws[1], level)
    return Gap(label, highest, lowest, values[highest] - values[lowest], *interval)


def _parts(metric: UserSums, group: pd.Series) -> dict[Any, UserSums]:
    """Divide the users by group; the groups come in sorted order, where they have one."""
    numbers, names = pd.factorize(group, sort=True)
    return {name: metric.take(numbers == number) for number, name in enumerate(names)}
