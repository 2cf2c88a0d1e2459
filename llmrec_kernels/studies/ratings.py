"""How far predicted ratings are from those given: the official five folds of MovieLens-100K."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from llmrec_kernels.datasets import Dataset, load, movielens_100k_split
from llmrec_kernels.evaluation import (
    RatingReport,
    compare_paired,
    evaluate_ratings,
    pool,
    random_split,
)
from llmrec_kernels.recommenders import ItemKNNRecommender, UserKNNRecommender
from llmrec_kernels.studies.study import Study, Table, interval, signed

if TYPE_CHECKING:
    from typing_extensions import Self

FOLDS = ("u1", "u2", "u3", "u4", "u5")


_SHRINKS = (0.0, 10.0, 30.0, 100.0)
_MAKERS: dict[str, type[ItemKNNRecommender] | type[UserKNNRecommender]] = {
    "user neighbours": UserKNNRecommender,
    "item neighbours": ItemKNNRecommender,
}


class BiasesOnly:
    """μ + b_u + b_i: what there is before any neighbour."""

    def fit(self, train: pd.DataFrame, items: pd.DataFrame, users: pd.DataFrame | None) -> Self:
        """Learn the biases, as neighbours do."""
        model = ItemKNNRecommender(neighbours=1, feedback="ratings")
        self._model = model.fit(train, items, users)
        return self

    def predict(self, users: Any, items: Any) -> Any:
        """The baseline of each pair, [n] float32."""
        return self._model.baseline(users, items)


def choose(train: pd.DataFrame, data: Dataset) -> dict[str, float]:
    """The shrinkage of each kind of neighbours with the least RMSE on a fifth of train."""
    inner, held_out = random_split(train, 0.2, seed=0)

    def error(name: str, shrink: float) -> float:
        model = _MAKERS[name](shrink=shrink, feedback="ratings")
        model.fit(inner, data.items, data.users)
        return evaluate_ratings(model, held_out)["RMSE"]

    errors = {name: [error(name, shrink) for shrink in _SHRINKS] for name in _MAKERS}
    return {name: _SHRINKS[tried.index(min(tried))] for name, tried in errors.items()}


def five_folds() -> Study:
    """RMSE and MAE of predicted ratings on u1 to u5."""
    data = load("ml-100k")
    shrinks = choose(movielens_100k_split("u1")[0], data)
    reports: dict[str, list[RatingReport]] = {"biases only": [], **{name: [] for name in _MAKERS}}
    for fold in FOLDS:
        train, test = movielens_100k_split(fold)
        biases = BiasesOnly().fit(train, data.items, data.users)
        reports["biases only"].append(evaluate_ratings(biases, test))
        for name, shrink in shrinks.items():
            model = _MAKERS[name](shrink=shrink, feedback="ratings")
            model.fit(train, data.items, data.users)
            reports[name].append(evaluate_ratings(model, test))
    rows = {}
    for name, of_folds in reports.items():
        pooled = pool(of_folds)
        rows[name] = {
            "RMSE": pooled["RMSE"],
            "MAE": pooled["MAE"],
            **{f"RMSE {fold}": one["RMSE"] for fold, one in zip(FOLDS, of_folds, strict=True)},
        }
    folds = zip(FOLDS, reports["item neighbours"], reports["biases only"], strict=True)
    paired = {fold: compare_paired(ours, theirs, "RMSE") for fold, ours, theirs in folds}
    differences = {
        fold: {
            "difference": signed(one.difference, 4),
            "95% interval": interval(one.low, one.high, 4),
        }
        for fold, one in paired.items()
    }
    return Study(
        "Rating prediction: u1 to u5 of ml-100k",
        _protocol(shrinks),
        [
            Table("Means, and each fold.", pd.DataFrame(rows).T),
            Table(
                "RMSE of item neighbours less that of biases only, over the same users.",
                pd.DataFrame(differences).T,
            ),
        ],
    )


def _protocol(shrinks: dict[str, float]) -> str:
    return (
        "MovieLens-100K's own folds `u1` to `u5`: fitted on `.base`, tested on the 20,000 ratings "
        "of `.test`; means over the five folds. Predictions are clipped to the range of the "
        "ratings. Neighbours are the 1,000 nearest, of which those count that the user rated, or "
        "who rated the item. The shrinkage was chosen among 0, 10, 30 and 100 by RMSE on 20% of "
        f"`u1.base`, drawn at random (seed 0): {shrinks['user neighbours']:g} for users, "
        f"{shrinks['item neighbours']:g} for items. As the `.base` files of `u2` to `u5` have "
        "ratings of `u1.test` and the other way round, `u1` is the one fold for which that choice "
        "was blind."
    )
