"""What an evaluation found: one value a user and metric, and their means with errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

_Z95 = 1.959964  # two-sided 95% of the normal distribution


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """The metrics of one model, user by user and over all.

    Parameters
    ----------
    k : int
        Length of the lists.
    per_user : pandas.DataFrame
        One row an evaluated user (the index holds the ids), one column a metric, such as "NDCG@10".
    overall : dict of str to float
        The metrics that no single user has, such as "Coverage@10".
    n_skipped : int
        Users in test without a relevant item, who are left out.

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

    @property
    def n_users(self) -> int:
        """Number of users evaluated."""
        return len(self.per_user)

    @property
    def labels(self) -> list[str]:
        """Names of the metrics, in the order asked for; those of no single user come last."""
        return [*map(str, self.per_user.columns), *self.overall]

    def __getitem__(self, label: str) -> float:
        if label not in self.labels:
            raise KeyError(f"the report has no {label!r}; it has {', '.join(self.labels)}")
        if label in self.overall:
            return self.overall[label]
        return float(self.per_user[label].mean())

    def standard_error(self, label: str) -> float:
        """Return the standard error of the mean over users, s / √U; NaN where there is none.

        Examples
        --------
        >>> values = pd.DataFrame({"HR@10": [1.0, 0.0, 0.0, 1.0]})
        >>> round(Report(10, values, {}, 0).standard_error("HR@10"), 4)
        0.2887
        """
        if label in self.overall or self.n_users < 2:
            return float("nan")
        return float(self.per_user[label].to_numpy().std(ddof=1) / np.sqrt(self.n_users))

    def to_pandas(self) -> pd.DataFrame:
        """Return one row a metric: mean, standard error, and a 95% interval of the mean.

        Examples
        --------
        >>> values = pd.DataFrame({"HR@10": [1.0, 0.0, 0.0, 1.0]})
        >>> Report(10, values, {}, 0).to_pandas().round(2)
               mean  standard_error  low  high
        HR@10   0.5            0.29 -0.07  1.07
        """
        mean = np.array([self[label] for label in self.labels])
        error = np.array([self.standard_error(label) for label in self.labels])
        columns = {"mean": mean, "standard_error": error}
        interval = {"low": mean - _Z95 * error, "high": mean + _Z95 * error}
        return pd.DataFrame(columns | interval, index=self.labels)

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

    def __str__(self) -> str:
        cells = []
        for label in self.labels:
            error = self.standard_error(label)
            interval = "" if np.isnan(error) else f" ± {_Z95 * error:.4f}"
            cells.append(f"{label} {self[label]:.4f}{interval}")
        return " | ".join([*cells, f"{self.n_users} users, {self.n_skipped} left out"])

    def __repr__(self) -> str:
        return f"<Report: {self}>"
