"""Several runs of one experiment as one: over seeds, or over the folds of a cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llmrec_kernels.evaluation.measured import Measured


@dataclass(frozen=True, eq=False, repr=False)
class Pooled:
    """The metrics of several runs, and how far the runs are apart.

    The spread is that of what changed from run to run, such as the seed; the spread over users is
    in the report of each run.

    Parameters
    ----------
    runs : pandas.DataFrame
        One row a run, one column a metric.

    Examples
    --------
    >>> print(Pooled(pd.DataFrame({"NDCG@10": [0.20, 0.24]})))
    NDCG@10 0.2200 (sd 0.0283) | 2 runs
    """

    runs: pd.DataFrame

    @property
    def labels(self) -> list[str]:
        """Names of the metrics."""
        return [str(label) for label in self.runs.columns]

    def __getitem__(self, label: str) -> float:
        return float(self._values(label).mean())

    def standard_deviation(self, label: str) -> float:
        """Return the standard deviation over the runs; NaN for a single one.

        Examples
        --------
        >>> round(Pooled(pd.DataFrame({"HR@10": [0.1, 0.2, 0.3]})).standard_deviation("HR@10"), 4)
        0.1
        """
        values = self._values(label)
        return float(values.std(ddof=1)) if len(values) > 1 else float("nan")

    def to_pandas(self) -> pd.DataFrame:
        """Return one row a metric: mean, standard deviation, lowest and highest run.

        Examples
        --------
        >>> Pooled(pd.DataFrame({"HR@10": [0.1, 0.2, 0.3]})).to_pandas()
               mean  standard_deviation  lowest  highest  runs
        HR@10   0.2                 0.1     0.1      0.3     3
        """
        return pd.DataFrame(
            {
                "mean": [self[label] for label in self.labels],
                "standard_deviation": [self.standard_deviation(label) for label in self.labels],
                "lowest": self.runs.min().to_numpy(),
                "highest": self.runs.max().to_numpy(),
                "runs": len(self.runs),
            },
            index=self.labels,
        )

    def _values(self, label: str) -> NDArray[np.float64]:
        if label not in self.labels:
            raise KeyError(f"the runs have no {label!r}; they have {', '.join(self.labels)}")
        return self.runs[label].to_numpy(np.float64)

    def __str__(self) -> str:
        cells = [
            f"{label} {self[label]:.4f} (sd {self.standard_deviation(label):.4f})"
            for label in self.labels
        ]
        return " | ".join([*cells, f"{len(self.runs)} runs"])

    def __repr__(self) -> str:
        return f"<Pooled: {self}>"


def pool(reports: Sequence[Measured]) -> Pooled:
    """Put the reports of several seeds or folds together.

    Each run counts the same, whatever its number of users.

    Parameters
    ----------
    reports : sequence of Report, RatingReport or PrequentialResult
        With the same metrics.

    Returns
    -------
    Pooled
        Mean and spread over the runs.

    Raises
    ------
    ValueError
        There is no report, or the metrics differ.

    Examples
    --------
    >>> from llmrec_kernels.evaluation import Report
    >>> first = Report(10, pd.DataFrame({"HR@10": [1.0, 0.0]}), {}, 0)
    >>> second = Report(10, pd.DataFrame({"HR@10": [1.0, 1.0]}), {}, 0)
    >>> pool([first, second])["HR@10"]
    0.75
    """
    if not reports:
        raise ValueError("reports is empty; expected the report of one run or more")
    labels = reports[0].labels
    for number, report in enumerate(reports):
        if report.labels != labels:
            raise ValueError(
                f"reports must have the same metrics; got {', '.join(labels)} in the first and "
                f"{', '.join(report.labels)} in entry {number}"
            )
    return Pooled(
        pd.DataFrame([[one[label] for label in labels] for one in reports], columns=labels)
    )
