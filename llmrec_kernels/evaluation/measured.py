"""What reports have in common: metrics by label, each made of users, with bootstrap intervals."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import pandas as pd

from llmrec_kernels.evaluation.intervals import LEVEL, RESAMPLES, Interval, UserSums, intervals


class Measured(ABC):
    """Metrics by label: ``report["NDCG@10"]`` is the value over all users."""

    @property
    @abstractmethod
    def labels(self) -> list[str]:
        """Names of the metrics."""

    @abstractmethod
    def user_sums(self, label: str) -> UserSums:
        """What a metric is made of, user by user; KeyError where no user has it."""

    def __getitem__(self, label: str) -> float:
        return self.user_sums(label).value()

    def interval(
        self, label: str, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
    ) -> Interval:
        """Give the percentile bootstrap interval of a metric, users resampled.

        Parameters
        ----------
        label : str
            One of ``labels`` that is made of users.
        level : float, optional
            How often such an interval is to hold the truth, between 0 and 1.
        resamples : int, optional
            Number of draws.
        seed : int, optional
            Seed of the draws.

        Returns
        -------
        Interval
            Both ends; NaN for fewer than two users with a value.

        Examples
        --------
        >>> from llmrec_kernels.evaluation import Report
        >>> Report(10, pd.DataFrame({"HR@10": [1.0, 0.0, 0.0, 1.0]}), {}, 0).interval("HR@10")
        Interval(low=0.0, high=1.0)
        """
        return intervals([self.user_sums(label)], level, resamples, seed)[0]

    def check_label(self, label: str) -> None:
        """Refuse a metric that the report has not."""
        if label not in self.labels:
            raise KeyError(f"the report has no {label!r}; it has {', '.join(self.labels)}")


def summary(
    report: Measured, labels: list[str], level: float, resamples: int, seed: int
) -> pd.DataFrame:
    """One row a metric: value and interval, all from the same draws."""
    metrics = [report.user_sums(label) for label in labels]
    rows = [
        (metric.value(), *found)
        for metric, found in zip(metrics, intervals(metrics, level, resamples, seed), strict=True)
    ]
    return pd.DataFrame(
        np.array(rows, dtype=np.float64).reshape(-1, 3),
        index=labels,
        columns=["mean", "low", "high"],
    )
