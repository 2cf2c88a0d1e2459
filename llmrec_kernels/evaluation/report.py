"""What an evaluation found: one value a user and metric, and their means with errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from llmrec_kernels.evaluation.groups import Gap, by_group, gap_between
from llmrec_kernels.evaluation.intervals import LEVEL, RESAMPLES, UserSums, mean_of
from llmrec_kernels.evaluation.measured import Measured, summary

_Z95 = 1.959964  # two-sided 95% of the normal distribution


@dataclass(frozen=True, eq=False, repr=False)
class Report(Measured):
    """The metrics of one model, user by user and over all.

    Parameters
    ----------
    k : int
        Length of the lists.
    per_user : pandas.DataFrame
        One row an evaluated user (the index holds the ids), one column a metric, such as "NDCG@10".
        NaN where a user has no value, such as the novelty of an empty list; such users do not
        count in that mean.
    overall : dict of str to float
        The metrics that no single user has, such as "Coverage@10". They have no error and no
        interval: a draw of users with replacement has fewer different users, and so fewer
        different items, than the evaluation had.
    n_skipped : int
        Users in test without a relevant item, who are left out.
    group : pandas.Series, optional
        The group of each user, in the order of ``per_user``.

    Examples
    --------
    >>> values = pd.DataFrame({"HR@10": [1.0, 0.0, 0.0, 1.0]}, index=[1, 2, 3, 4])
    >>> report = Report(10, values, {"Coverage@10": 0.25}, n_skipped=1)
    >>> print(report)
    HR@10 0.5000 ± 0.5658 | Coverage@10 0.2500 | 4 users, 1 left out
    >>> report["HR@10"]
    0.5
    """

    k: int
    per_user: pd.DataFrame
    overall: dict[str, float]
    n_skipped: int
    group: pd.Series | None = None

    @property
    def n_users(self) -> int:
        """Number of users evaluated."""
        return len(self.per_user)

    @property
    def labels(self) -> list[str]:
        """Names of the metrics, in the order asked for; those of no single user come last."""
        return [*map(str, self.per_user.columns), *self.overall]

    def user_sums(self, label: str) -> UserSums:
        """Give the values of the users who have one.

        Examples
        --------
        >>> Report(10, pd.DataFrame({"HR@10": [1.0, 0.0]}), {}, 0).user_sums("HR@10").total
        array([1., 0.])
        """
        self.check_label(label)
        if label in self.overall:
            raise KeyError(f"{label} is a metric of all lists together; no single user has it")
        return mean_of(self.per_user.index, self.per_user[label].to_numpy(np.float64))

    def __getitem__(self, label: str) -> float:
        return self.overall[label] if label in self.overall else super().__getitem__(label)

    def standard_error(self, label: str) -> float:
        """Return the standard error of the mean over users, s / √U; NaN where there is none.

        Examples
        --------
        >>> values = pd.DataFrame({"HR@10": [1.0, 0.0, 0.0, 1.0]})
        >>> round(Report(10, values, {}, 0).standard_error("HR@10"), 4)
        0.2887
        """
        if label in self.overall:
            return float("nan")
        metric = self.user_sums(label)
        values = metric.total[metric.count > 0]
        return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")

    def groups(
        self, label: str, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
    ) -> pd.DataFrame:
        """Give a metric for each group of users.

        Parameters
        ----------
        label : str
            A metric of ``per_user``.
        level, resamples, seed
            Of the bootstrap interval, as for `interval`.

        Returns
        -------
        pandas.DataFrame
            One row a group: users, mean, and low and high of the interval.

        Raises
        ------
        ValueError
            The report was made without groups.

        Examples
        --------
        >>> values = pd.DataFrame({"HR@10": [1.0, 1.0, 0.0, 1.0]})
        >>> group = pd.Series(["a", "a", "b", "b"])
        >>> Report(10, values, {}, 0, group).groups("HR@10")
               users  mean  low  high
        group
        a          2   1.0  1.0   1.0
        b          2   0.5  0.0   1.0
        """
        return by_group(self.user_sums(label), self._group(), level, resamples, seed)

    def gap(
        self, label: str, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
    ) -> Gap:
        """Give the largest difference of a metric between two groups of users.

        Parameters
        ----------
        label : str
            A metric of ``per_user``.
        level, resamples, seed
            Of the bootstrap interval, as for `interval`.

        Returns
        -------
        Gap
            The groups with the highest and the lowest mean, and their difference with interval.

        Raises
        ------
        ValueError
            The report was made without groups, or fewer than two groups have a value.

        Examples
        --------
        >>> values = pd.DataFrame({"HR@10": [1.0, 1.0, 0.0, 1.0]})
        >>> group = pd.Series(["a", "a", "b", "b"])
        >>> print(Report(10, values, {}, 0, group).gap("HR@10"))
        HR@10: a is 0.5000 [0.0000, 1.0000] above b
        """
        return gap_between(label, self.user_sums(label), self._group(), level, resamples, seed)

    def to_pandas(
        self, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
    ) -> pd.DataFrame:
        """Return one row a metric: mean, standard error, and the bootstrap interval of the mean.

        Examples
        --------
        >>> values = pd.DataFrame({"HR@10": [1.0, 0.0, 0.0, 1.0]})
        >>> Report(10, values, {}, 0).to_pandas().round(2)
               mean  standard_error  low  high
        HR@10   0.5            0.29  0.0   1.0
        """
        made_of_users = [label for label in self.labels if label not in self.overall]
        table = summary(self, made_of_users, level, resamples, seed).reindex(self.labels)
        table["mean"] = [self[label] for label in self.labels]
        table.insert(1, "standard_error", [self.standard_error(label) for label in self.labels])
        return table

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, ready for JSON; what is not defined is None.

        Examples
        --------
        >>> Report(10, pd.DataFrame({"HR@10": [1.0]}), {}, 0).to_dict()["metrics"]
        {'HR@10': {'mean': 1.0, 'standard_error': None, 'low': None, 'high': None}}
        """
        rows = self.to_pandas().to_dict("index")
        return {
            "k": self.k,
            "users": self.n_users,
            "users_left_out": self.n_skipped,
            "metrics": {
                label: {name: None if np.isnan(value) else value for name, value in row.items()}
                for label, row in rows.items()
            },
        }

    def _group(self) -> pd.Series:
        if self.group is None:
            raise ValueError("the report knows no groups; evaluate with groups=")
        return self.group

    def __str__(self) -> str:
        cells = []
        for label in self.labels:
            error = self.standard_error(label)
            interval = "" if np.isnan(error) else f" ± {_Z95 * error:.4f}"
            cells.append(f"{label} {self[label]:.4f}{interval}")
        return " | ".join([*cells, f"{self.n_users} users, {self.n_skipped} left out"])

    def __repr__(self) -> str:
        return f"<Report: {self}>"
