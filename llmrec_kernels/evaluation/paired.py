"""Paired comparison: whether one model is better, or the users just fell so.

Two models that answer the same users are compared user by user: the difference of a metric varies
far less than the metric itself, for a hard user is hard for both. The interval is a bootstrap of
the difference, both models drawn with the same users. The p-value is that of a sign-flip
permutation test: if the models did not differ, a user's two values might as well be exchanged; p is
how often exchanges at random give a difference at least as large as the one found,
p = (1 + #{|flipped difference| ≥ |difference|}) / (1 + draws). Smucker, Allan and Carterette, A
comparison of statistical significance tests for information retrieval evaluation, CIKM 2007, find
that both agree with each other and with the t-test, and recommend the permutation test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmrec_kernels.evaluation.intervals import (
    LEVEL,
    RESAMPLES,
    Interval,
    UserSums,
    check_options,
    percentiles,
    resample,
    slices,
)
from llmrec_kernels.evaluation.measured import Measured
from llmrec_kernels.evaluation.options import check_seed
from llmrec_kernels.ops import checks

_PERMUTATIONS = 10_000


@dataclass(frozen=True)
class PairedComparison:
    """How much two models differ in one metric, over the same users.

    Parameters
    ----------
    label : str
        The metric.
    n_users : int
        Users who have a value from both.
    first, second : float
        The metric of each over these users.
    difference : float
        First less second.
    low, high : float
        Bootstrap interval of the difference; NaN for fewer than two users.
    p : float
        Two-sided, of the sign-flip permutation test.
    wins, losses, ties : int
        Users for whom the first is better, worse, and as good: higher is better, and lower for
        an error such as RMSE.

    Examples
    --------
    >>> print(PairedComparison("HR@10", 4, 0.75, 0.5, 0.25, 0.0, 0.75, 1.0, 1, 0, 3))
    HR@10: +0.2500 [0.0000, 0.7500], p = 1.0000; 1 wins, 0 losses, 3 ties of 4 users
    """

    label: str
    n_users: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    wins: int
    losses: int
    ties: int

    def __str__(self) -> str:
        return (
            f"{self.label}: {self.difference:+.4f} [{self.low:.4f}, {self.high:.4f}], "
            f"p = {self.p:.4f}; {self.wins} wins, {self.losses} losses, {self.ties} ties of "
            f"{self.n_users} users"
        )


def compare_paired(
    first: Measured,
    second: Measured,
    label: str,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    permutations: int = _PERMUTATIONS,
    seed: int = 0,
) -> PairedComparison:
    """Compare two models user by user.

    Parameters
    ----------
    first, second : Report, RatingReport or PrequentialResult
        Of the same users, in any order, with the same options.
    label : str
        A metric that both have, such as "NDCG@10".
    level : float, optional
        How often the interval is to hold the true difference.
    resamples : int, optional
        Draws of the bootstrap.
    permutations : int, optional
        Draws of the permutation test; p is never below 1 / (1 + permutations).
    seed : int, optional
        Seed of both.

    Returns
    -------
    PairedComparison
        The difference with interval, p, wins, losses and ties.

    Raises
    ------
    ValueError
        The users differ or have a different number of ratings or events, or a report has a user
        twice.
    KeyError
        A report has no such metric, or the metric is of no single user.

    Examples
    --------
    >>> import pandas as pd
    >>> from llmrec_kernels.evaluation import Report
    >>> good = Report(10, pd.DataFrame({"HR@10": [1.0, 1.0, 0.0, 1.0]}), {}, 0)
    >>> poor = Report(10, pd.DataFrame({"HR@10": [0.0, 0.0, 0.0, 1.0]}), {}, 0)
    >>> print(compare_paired(good, poor, "HR@10"))
    HR@10: +0.5000 [0.0000, 1.0000], p = 0.5012; 2 wins, 0 losses, 2 ties of 4 users
    """
    check_options(level, resamples)
    checks.positive_int("permutations", permutations)
    check_seed(seed)
    one, other = _same_users(first.user_sums(label), second.user_sums(label))
    n_users = len(one.users)
    values = one.value(), other.value()
    interval = Interval(np.nan, np.nan)
    if n_users >= 2:
        sums = resample(np.stack([one.total, other.total, one.count], axis=1), resamples, seed)
        draws = one.of(sums[:, 0], sums[:, 2]) - one.of(sums[:, 1], sums[:, 2])
        interval = percentiles(draws, level)
    better = np.sign(one.total - other.total) * (-1 if one.error else 1)
    return PairedComparison(
        label,
        n_users,
        *values,
        values[0] - values[1],
        *interval,
        _sign_flip_p(one, other, permutations, seed),
        wins=int((better > 0).sum()),
        losses=int((better < 0).sum()),
        ties=int((better == 0).sum()),
    )


def _same_users(one: UserSums, other: UserSums) -> tuple[UserSums, UserSums]:
    """Bring both in one order, and keep the users who have a value from both."""
    for name, report in (("first", one), ("second", other)):
        twice = report.users[report.users.duplicated()]
        if len(twice):
            raise ValueError(
                f"{name} has user {twice[0]} more than once; expected each user once: pool() puts "
                "several runs together"
            )
    for name, mine, theirs in (("second", one, other), ("first", other, one)):
        missing = mine.users.difference(theirs.users, sort=False)
        if len(missing):
            raise ValueError(
                f"{name} lacks {len(missing)} of the users of the other report, such as user "
                f"{missing[0]}; evaluate both on the same test with the same options"
            )
    other = other.take(other.users.get_indexer(one.users))
    both = (one.count > 0) & (other.count > 0)
    differs = both & (one.count != other.count)
    if differs.any():
        row = int(np.argmax(differs))
        raise ValueError(
            f"first has {one.count[row]:g} values of user {one.users[row]} but second has "
            f"{other.count[row]:g}; evaluate both on the same test with the same options"
        )
    return one.take(both), other.take(both)


def _sign_flip_p(one: UserSums, other: UserSums, permutations: int, seed: int) -> float:
    """How often exchanged users give a difference as large, of random exchanges."""
    # To exchange users changes neither the counts nor the sum of both totals T, and so the
    # difference of the metrics, f((T + D) / 2n) − f((T − D) / 2n), grows with D = Σ ± differences:
    # D alone says which of two differences is larger, also where f is a root.
    differences = one.total - other.total
    differences = differences[differences != 0]  # to exchange equal values changes nothing
    if not differences.size:
        return 1.0
    # The product below adds in another order than a sum would: equal differences need some room.
    found = abs(differences.sum()) * (1 - 1e-9)
    rng = np.random.default_rng(seed)
    as_large = 0
    for rows in slices(permutations, differences.size):
        signs = rng.integers(0, 2, size=(rows, differences.size), dtype=np.int8)
        as_large += int((np.abs((2.0 * signs - 1.0) @ differences) >= found).sum())
    return (1 + as_large) / (1 + permutations)
