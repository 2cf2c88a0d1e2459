"""Several models side by side, and each against a baseline, user by user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from llmrec_kernels.evaluation.evaluate import evaluate
from llmrec_kernels.evaluation.paired import compare_paired
from llmrec_kernels.evaluation.ranked import Recommends
from llmrec_kernels.evaluation.report import Report


def compare(
    models: Mapping[str, Recommends],
    train: pd.DataFrame,
    test: pd.DataFrame,
    *,
    baseline: str | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Evaluate several models alike and put their metrics side by side.

    Parameters
    ----------
    models : mapping of str to Recommends
        Fitted models by the name to show.
    train, test : pandas.DataFrame
        As for `evaluate`.
    baseline : str, optional
        The name of the model to compare the others with, by `compare_paired`.
    **options
        The other parameters of `evaluate`, the same for all.

    Returns
    -------
    pandas.DataFrame
        One row a model; a column a metric, each followed by its standard error where it has one
        ("NDCG@10", "NDCG@10 SE"), and with a baseline by the mean difference to it, the ends of
        the bootstrap interval of the difference, and p ("NDCG@10 diff", "NDCG@10 diff low",
        "NDCG@10 diff high", "NDCG@10 p"), which the baseline itself has not; last the number of
        users.

    Raises
    ------
    ValueError
        As `evaluate` does, or there is no model, or no baseline of that name.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import numpy as np
    >>> class Only:
    ...     def __init__(self, item):
    ...         self.item = item
    ...     def recommend(self, users, k=10, *, filter_seen=True, allow=None, exclude=None):
    ...         full = [np.full(len(users), value) for value in (self.item, 1)]
    ...         return SimpleNamespace(user=users, item=full[0], rank=full[1])
    >>> train = pd.DataFrame({"user": [1, 2], "item": [7, 7]})
    >>> test = pd.DataFrame({"user": [1, 2], "item": [8, 9]})
    >>> models = {"8": Only(8), "6": Only(6)}
    >>> compare(models, train, test, items=[6, 7, 8, 9], metrics=["mrr"])
       MRR@10  MRR@10 SE  users
    8     0.5        0.5      2
    6     0.0        0.0      2
    >>> table = compare(models, train, test, metrics=["mrr"], baseline="6")
    >>> float(table.loc["8", "MRR@10 diff"])
    0.5
    """
    if not models:
        raise ValueError("models is empty; expected one model or more, by name")
    if baseline is not None and baseline not in models:
        raise ValueError(f"baseline must be among {', '.join(models)}; got {baseline!r}")
    reports = {name: evaluate(model, train, test, **options) for name, model in models.items()}
    reference = None if baseline is None else reports[baseline]
    rows = {name: _row(report, reference) for name, report in reports.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def _row(report: Report, reference: Report | None) -> dict[str, float]:
    row: dict[str, float] = {}
    for label in report.labels:
        row[label] = report[label]
        if label not in report.overall:
            row[f"{label} SE"] = report.standard_error(label)
            if reference is not None:
                row |= _against(report, reference, label)
    return row | {"users": report.n_users}


def _against(report: Report, reference: Report, label: str) -> dict[str, float]:
    names = [f"{label} {part}" for part in ("diff", "diff low", "diff high", "p")]
    if report is reference:
        return dict.fromkeys(names, float("nan"))
    paired = compare_paired(report, reference, label)
    values = (paired.difference, paired.low, paired.high, paired.p)
    return dict(zip(names, values, strict=True))
