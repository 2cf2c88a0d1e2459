"""How films are rated that nobody has rated yet, foretold from their texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llmrec_kernels.datasets import Dataset, movielens_latest_small
from llmrec_kernels.evaluation import (
    PairedComparison,
    RatingReport,
    cold_item_split,
    compare_paired,
    evaluate_ratings,
    pool,
    random_split,
)
from llmrec_kernels.evaluation.ratings import Predicts
from llmrec_kernels.recommenders import (
    ItemKNNRecommender,
    TextRatingRegressor,
    UserKNNRecommender,
)
from llmrec_kernels.studies import models
from llmrec_kernels.studies.ratings import BiasesOnly
from llmrec_kernels.studies.study import NOTHING, Study, Table, interval, short, signed

if TYPE_CHECKING:
    from typing_extensions import Self

_HELD_OUT = 0.2
_WARM_SEED = 1
_SHRINK = 5.0  # ratings of the mean that each user is taken to have given, as in `biases.py`
_MEAN, _USERS, _BIASES = "mean of all ratings", "means of users", "biases"
_TEXTS, _FEATURES = "texts", "texts, and genres, year"


class UserMeans:
    """μ + b_u with b_u = Σ (r - μ) / (5 + n): what there is of a film without ratings or text.

    Parameters
    ----------
    biased : bool
        Whether users differ; else it is μ for all.
    """

    def __init__(self, biased: bool = True) -> None:
        self._biased = biased

    def fit(self, train: pd.DataFrame) -> Self:
        """Learn how high users rate."""
        self._mean = float(train["rating"].mean())
        rest = (train["rating"] - self._mean).groupby(train["user"])
        self._users = rest.sum() / (_SHRINK + rest.count()) * self._biased
        return self

    def predict(self, users: Any, items: Any) -> Any:
        """The same for all items, [n]."""
        return self._mean + self._users.reindex(users).fillna(0.0).to_numpy()


def draws(data: Dataset) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Train and test of the five draws of the protocol."""
    rated = np.sort(data.interactions["item"].unique())
    count = int(len(rated) * _HELD_OUT)
    for seed in models.SEEDS:
        held_out = np.random.default_rng(seed).choice(rated, count, replace=False)
        yield cold_item_split(data.interactions, held_out)


def together(reports: list[RatingReport]) -> RatingReport:
    """Reports as one, in which a user has all their ratings of all draws.

    Examples
    --------
    >>> sums = {"ratings": [2], "squared_error": [8.0], "absolute_error": [4.0]}
    >>> print(together([RatingReport(pd.DataFrame(sums, index=["ann"]))] * 2))
    RMSE 2.0000 | MAE 2.0000 | 4 ratings of 1 users
    """
    return RatingReport(pd.concat([one.per_user for one in reports]).groupby(level=0).sum())


def regressors() -> dict[str, TextRatingRegressor]:
    """The models in question, with their defaults, not yet fitted."""
    return {
        _TEXTS: TextRatingRegressor(models.text_encoder()),
        _FEATURES: TextRatingRegressor(models.features("genres", "year")),
    }


def text_ratings() -> Study:
    """RMSE and MAE on a fifth of the films held out with all their ratings, five draws."""
    data = movielens_latest_small()
    models.text_encoder().encode(data.items["text"].tolist())  # once, and in nobody's time
    reports: dict[str, list[RatingReport]] = {}
    trained: dict[str, list[tuple[int, float]]] = {}
    for train, test in draws(data):
        fitted: dict[str, Predicts] = {
            _MEAN: UserMeans(biased=False).fit(train),
            _BIASES: BiasesOnly().fit(train, data.items, data.users),
            _USERS: UserMeans().fit(train),
        }
        for name, regressor in regressors().items():
            fitted[name] = regressor.fit(train, data.items)
            report = regressor.training_report
            assert report is not None
            trained.setdefault(name, []).append((len(report.epochs), report.seconds))
        for name, model in fitted.items():
            reports.setdefault(name, []).append(evaluate_ratings(model, test))
    return Study(
        "Ratings of films that nobody has rated yet: ml-latest-small",
        _PROTOCOL,
        [
            Table("Mean over five draws, and the RMSE of each.", _means(reports)),
            Table(
                f"RMSE less that of *{_USERS}*, over the same users: *all draws* has each user "
                "once, with all their ratings of the five.",
                pd.concat([_differences(name, reports) for name in (_TEXTS, _FEATURES)]),
            ),
            Table("Training, mean over the draws.", _times(trained)),
            Table(
                f"For comparison, films that others have rated: a fifth of all ratings held out at "
                f"random (seed {_WARM_SEED}).",
                _warm(data),
            ),
        ],
    )


def _means(reports: dict[str, list[RatingReport]]) -> pd.DataFrame:
    rows = {
        name: {
            "RMSE": pool(of_draws)["RMSE"],
            "95% interval": _interval(together(of_draws), "RMSE"),
            "MAE": pool(of_draws)["MAE"],
            **{f"seed {seed}": one["RMSE"] for seed, one in enumerate(of_draws)},
        }
        for name, of_draws in reports.items()
    }
    return pd.DataFrame(rows, dtype=object).T


def _differences(name: str, reports: dict[str, list[RatingReport]]) -> pd.DataFrame:
    ours, theirs = reports[name], reports[_USERS]
    rows = {
        f"{name}: seed {seed}": _row(compare_paired(one, other, "RMSE"))
        for seed, (one, other) in enumerate(zip(ours, theirs, strict=True))
    }
    whole = compare_paired(together(ours), together(theirs), "RMSE")
    return pd.DataFrame(rows | {f"{name}: all draws": _row(whole)}).T


def _times(trained: dict[str, list[tuple[int, float]]]) -> pd.DataFrame:
    rows = {
        name: {
            "epochs": np.mean([epochs for epochs, _ in runs]),
            "seconds": np.mean([seconds for _, seconds in runs]),
        }
        for name, runs in trained.items()
    }
    return pd.DataFrame(rows).T.map(lambda value: short(value, 1))


def _warm(data: Dataset) -> pd.DataFrame:
    train, test = random_split(data.interactions, _HELD_OUT, seed=_WARM_SEED)
    fitted: dict[str, Predicts] = {
        _USERS: UserMeans().fit(train),
        "user neighbours": UserKNNRecommender(feedback="ratings").fit(train, data.items),
        _BIASES: BiasesOnly().fit(train, data.items, data.users),
        "item neighbours": ItemKNNRecommender(feedback="ratings").fit(train, data.items),
        **{name: model.fit(train, data.items) for name, model in regressors().items()},
    }
    reports = {name: evaluate_ratings(model, test) for name, model in fitted.items()}
    rows = {
        name: {
            "RMSE": one["RMSE"],
            "95% interval": _interval(one, "RMSE"),
            "MAE": one["MAE"],
            **{
                f"RMSE less *{other}*": NOTHING
                if other == name
                else _difference(one, reports[other])
                for other in (_BIASES, "item neighbours")
            },
        }
        for name, one in reports.items()
    }
    return pd.DataFrame(rows, dtype=object).T


def _interval(report: RatingReport, label: str) -> str:
    ends = report.to_pandas()
    return interval(ends["low"][label], ends["high"][label], 3)


def _row(one: PairedComparison) -> dict[str, Any]:
    return {
        "difference": signed(one.difference, 4),
        "95% interval": interval(one.low, one.high, 4),
        "users better, worse": f"{one.wins}, {one.losses}",
    }


def _difference(ours: RatingReport, theirs: RatingReport) -> str:
    one = compare_paired(ours, theirs, "RMSE")
    return f"{signed(one.difference, 4)} {interval(one.low, one.high, 4)}"


_PROTOCOL = (
    "Of the 9,724 films with ratings, sorted by number, "
    "`numpy.random.default_rng(seed).choice(films, 1944, replace=False)` are held out with all "
    "their ratings, seeds 0 to 4. Models are fitted on the ratings of the other films, and know "
    "the texts of all: `Title (Year). Genres: a, b.`, by MiniLM (mean pooling). Each held-out "
    "rating is predicted; RMSE and MAE are over ratings, and the bootstrap draws users with all "
    f"of theirs. *{_USERS}* is μ + b_u with b_u the mean of what a user rates above μ, counted "
    f"with five ratings of 0; *{_BIASES}* are μ + b_u + b_i fitted together, where b_i is 0 for a "
    "film without ratings: there the former is the better baseline, because users choose films "
    f"that are better than the average one. So it is *{_USERS}* that is compared with. *{_TEXTS}* "
    "is a `TextRatingRegressor` with its defaults, MiniLM frozen, linear heads; "
    f"*{_FEATURES}* has genres and year as categories beside the text, each of weight "
    f"{models.FEATURE_WEIGHT:g}. The defaults (32 dimensions, dropout .3, learning rate .005, "
    "stopping by a tenth of the films) were chosen on a fifth of the films that are left in "
    "seeds 0 and 1, held out once more in the same way (seed 1000 + seed); the held-out films "
    "were not looked at. Neighbours have the settings they have by default."
)
