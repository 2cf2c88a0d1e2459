"""Evaluate predicted ratings: RMSE and MAE, with intervals over users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llmrec_kernels.evaluation.columns import require_numbers, require_rows
from llmrec_kernels.evaluation.intervals import LEVEL, RESAMPLES, UserSums
from llmrec_kernels.evaluation.measured import Measured, summary

_COLUMNS = {"RMSE": "squared_error", "MAE": "absolute_error"}


class Predicts(Protocol):
    """A fitted model of ratings, as far as evaluation needs one."""

    def predict(self, users: Any, items: Any) -> Any:
        """Predict the rating of each user for the item beside it, [n]."""


@dataclass(frozen=True, eq=False, repr=False)
class RatingReport(Measured):
    """How far predicted ratings are from the actual ones: "RMSE" and "MAE".

    RMSE = √(Σ squared errors / ratings), MAE = Σ absolute errors / ratings, over all ratings of
    test: a user with many counts for many. The bootstrap draws users with all their ratings.

    Parameters
    ----------
    per_user : pandas.DataFrame
        One row a user (the index holds the ids): ``ratings``, and the sums ``squared_error`` and
        ``absolute_error`` over them.

    Examples
    --------
    >>> sums = {"ratings": [2, 1], "squared_error": [8.0, 4.0], "absolute_error": [4.0, 2.0]}
    >>> report = RatingReport(pd.DataFrame(sums))
    >>> print(report)
    RMSE 2.0000 | MAE 2.0000 | 3 ratings of 2 users
    """

    per_user: pd.DataFrame

    @property
    def labels(self) -> list[str]:
        """Names of the metrics."""
        return list(_COLUMNS)

    @property
    def n_users(self) -> int:
        """Number of users evaluated."""
        return len(self.per_user)

    @property
    def n_ratings(self) -> int:
        """Number of ratings predicted."""
        return int(self.per_user["ratings"].sum())

    def user_sums(self, label: str) -> UserSums:
        """Give the sum of errors and the number of ratings of each user.

        Examples
        --------
        >>> sums = {"ratings": [2], "squared_error": [8.0], "absolute_error": [4.0]}
        >>> RatingReport(pd.DataFrame(sums)).user_sums("MAE").total
        array([4.])
        """
        self.check_label(label)
        total = self.per_user[_COLUMNS[label]].to_numpy(np.float64)
        count = self.per_user["ratings"].to_numpy(np.float64)
        return UserSums(self.per_user.index, total, count, root=label == "RMSE", error=True)

    def to_pandas(
        self, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
    ) -> pd.DataFrame:
        """Return one row a metric: its value, and low and high of its bootstrap interval.

        Examples
        --------
        >>> sums = {"ratings": [2, 1], "squared_error": [8.0, 4.0], "absolute_error": [4.0, 2.0]}
        >>> RatingReport(pd.DataFrame(sums)).to_pandas()
              mean  low  high
        RMSE   2.0  2.0   2.0
        MAE    2.0  2.0   2.0
        """
        return summary(self, self.labels, level, resamples, seed)

    def __str__(self) -> str:
        cells = [f"{label} {self[label]:.4f}" for label in self.labels]
        return " | ".join([*cells, f"{self.n_ratings} ratings of {self.n_users} users"])

    def __repr__(self) -> str:
        return f"<RatingReport: {self}>"


def evaluate_ratings(model: Predicts, test: pd.DataFrame) -> RatingReport:
    """Compare the ratings that a fitted model predicts with those of test.

    The model is asked for every rating of test and must answer each with a number: leaving out the
    hard ones would flatter it. Fit a model that refuses users and items it does not know with
    ``users`` and ``items`` that hold those of test. Predictions are taken as they come, not cut to
    the scale.

    Parameters
    ----------
    model : Predicts
        With ``predict(users, items)``, fitted on other ratings than test's.
    test : pandas.DataFrame
        Ratings, with the columns ``user``, ``item`` and ``rating``.

    Returns
    -------
    RatingReport
        RMSE and MAE with bootstrap intervals.

    Raises
    ------
    TypeError
        A rating is no number.
    ValueError
        A column or a value is missing, there is no row, or the model's answer is not one finite
        number for each row.

    Examples
    --------
    >>> class Three:
    ...     def predict(self, users, items):
    ...         return np.full(len(users), 3.0)
    >>> test = pd.DataFrame({"user": [1, 1, 2], "item": [7, 8, 7], "rating": [3.0, 5.0, 5.0]})
    >>> print(evaluate_ratings(Three(), test))
    RMSE 1.6330 | MAE 1.3333 | 3 ratings of 2 users
    """
    require_rows("test", test, "user", "item", "rating")
    require_numbers("test", test, "rating")
    actual = test["rating"].to_numpy(np.float64)
    if not np.isfinite(actual).all():
        raise ValueError("test has a rating that is not finite; leave such rows out")
    users, items = test["user"].to_numpy(), test["item"].to_numpy()
    errors = _predicted(model, users, items) - actual
    frame = pd.DataFrame(
        {"user": users, "ratings": 1, "squared_error": errors**2, "absolute_error": np.abs(errors)}
    )
    return RatingReport(frame.groupby("user", sort=False).sum())


def _predicted(model: Predicts, users: NDArray[Any], items: NDArray[Any]) -> NDArray[np.float64]:
    predicted = np.asarray(model.predict(users, items), dtype=np.float64)
    if predicted.shape != users.shape:
        raise ValueError(
            f"the model predicts an array of shape {list(predicted.shape)}; expected "
            f"{len(users)} ratings, one for each row of test"
        )
    finite = np.isfinite(predicted)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ValueError(
            f"the model predicts {predicted[row]} for user {users[row]} and item {items[row]}; "
            "expected a finite number for each row of test, also where the model knows nothing"
        )
    return predicted
