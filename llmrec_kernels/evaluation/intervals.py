"""Intervals by the bootstrap: how much a metric would vary with other users.

The users of an evaluation are a sample; another sample would give other numbers. The bootstrap
draws as many users again, with replacement, many times, computes the metric of each such draw, and
takes the middle 95% of the values as the interval (Efron, Bootstrap methods: another look at the
jackknife, Annals of Statistics 7(1), 1979; the percentile method). Users are drawn, not
interactions: what one user does hangs together.

A metric here is a ratio of sums over users, metric = f(Σ_u total_u / Σ_u count_u): a mean over
users has count 1, an RMSE has the squared errors as totals, the ratings as counts and the root as
f. So a draw is a vector of how often each user comes, and all metrics of all draws are one matrix
product, [resamples, U] times [U, metrics], done in slices of bounded size. The same seed gives the
same draws to every metric.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from llmrec_kernels.evaluation.options import check_seed
from llmrec_kernels.ops import checks

RESAMPLES = 2000
LEVEL = 0.95
_DRAWS_AT_ONCE = 2**20  # users drawn at once: 8 MiB an array


class Interval(NamedTuple):
    """A percentile interval; NaN where fewer than two users leave nothing to vary."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class UserSums:
    """What a metric is made of, user by user."""

    users: pd.Index[Any]
    total: NDArray[np.float64]  # [U]
    count: NDArray[np.float64]  # [U]: 0 where the user has no value
    root: bool = False  # whether the metric is the square root of Σ total / Σ count
    error: bool = False  # whether less is better

    def take(self, rows: NDArray[Any]) -> UserSums:
        """Keep some users."""
        return replace(self, users=self.users[rows], total=self.total[rows], count=self.count[rows])

    def value(self) -> float:
        """The metric over all users; NaN where none has a value.

        Examples
        --------
        >>> UserSums(pd.Index([1, 2]), np.array([8.0, 4.0]), np.array([2.0, 1.0]), True).value()
        2.0
        """
        return float(self.of(self.total.sum(keepdims=True), self.count.sum(keepdims=True))[0])

    def of(self, totals: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """The metric of given sums, element by element; NaN where the count is 0."""
        out = np.full(np.shape(totals), np.nan)
        np.divide(totals, counts, out=out, where=np.asarray(counts > 0))
        return np.sqrt(out) if self.root else out


def bootstrap_interval(
    values: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Give a percentile bootstrap interval of the mean of one value a user.

    Parameters
    ----------
    values : array_like, float [U]
        One value a user; users with NaN have none and count neither in the mean nor in U.
    level : float, optional
        How often such an interval is to hold the truth, between 0 and 1.
    resamples : int, optional
        Number of draws.
    seed : int, optional
        Seed of the draws.

    Returns
    -------
    Interval
        Both ends; NaN for fewer than two users.

    Raises
    ------
    ValueError
        The values are not of one dimension or infinite, or an option is out of its range.

    Examples
    --------
    >>> low, high = bootstrap_interval([0, 0, 0, 1, 1, 1, 1, 1])
    >>> low, high
    (0.25, 1.0)
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or np.isinf(numbers).any():
        raise ValueError(
            f"values must be finite numbers, or NaN, of shape [U]; got shape {list(numbers.shape)}"
        )
    return intervals([mean_of(pd.RangeIndex(len(numbers)), numbers)], level, resamples, seed)[0]


def mean_of(users: pd.Index[Any], values: NDArray[np.float64]) -> UserSums:
    """A mean over the users who have a value."""
    known = ~np.isnan(values)
    return UserSums(users, np.where(known, values, 0.0), known.astype(np.float64))


def intervals(
    metrics: Sequence[UserSums], level: float, resamples: int, seed: int
) -> list[Interval]:
    """Percentile intervals of metrics over the same users, from the same draws."""
    check_options(level, resamples)
    check_seed(seed)
    if not metrics:
        return []
    columns = [column for one in metrics for column in (one.total, one.count)]
    sums = resample(np.stack(columns, axis=1), resamples, seed)
    found = []
    for number, one in enumerate(metrics):
        draws = one.of(sums[:, 2 * number], sums[:, 2 * number + 1])
        enough = np.count_nonzero(one.count) >= 2
        found.append(percentiles(draws, level) if enough else Interval(np.nan, np.nan))
    return found


def resample(
    columns: NDArray[np.float64],  # [U, C]
    resamples: int,
    seed: int,
) -> NDArray[np.float64]:
    """Sum each column over as many users drawn with replacement, [resamples, C].

    Time is resamples × U × C; the largest arrays have about 2**20 entries, or U where that is more.
    """
    n_users = len(columns)
    if not n_users:
        return np.zeros((resamples, columns.shape[1]))
    rng = np.random.default_rng(seed)
    sums = []
    for rows in slices(resamples, n_users):
        drawn = rng.integers(0, n_users, size=(rows, n_users))
        drawn += np.arange(rows)[:, None] * n_users
        times = np.bincount(drawn.ravel(), minlength=rows * n_users).reshape(rows, n_users)
        sums.append(times.astype(np.float64) @ columns)
    return np.concatenate(sums)


def slices(n_rows: int, width: int) -> Iterator[int]:
    """Divide n_rows so that as many rows of a width are of bounded size."""
    step = max(1, _DRAWS_AT_ONCE // max(1, width))
    for start in range(0, n_rows, step):
        yield min(step, n_rows - start)


def percentiles(draws: NDArray[np.float64], level: float) -> Interval:
    """The middle part of the draws that have a value."""
    draws = draws[~np.isnan(draws)]
    if not draws.size:
        return Interval(np.nan, np.nan)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def check_options(level: float, resamples: int) -> None:
    """Refuse a level outside of 0 to 1, and fewer than one draw."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; got {level}")
    checks.positive_int("resamples", resamples)
