"""How far predicted ratings are from those given: the official five folds of MovieLens-100K."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from llmrec_kernels.datasets import load, movielens_100k_split
from llmrec_kernels.evaluation import RatingReport, compare_paired, evaluate_ratings, pool
from llmrec_kernels.recommenders import ItemKNNRecommender, UserKNNRecommender
from llmrec_kernels.studies.study import Study, Table

FOLDS = ("u1", "u2", "u3", "u4", "u5")


class BiasesOnly:
    """μ + b_u + b_i: what there is before any neighbour."""

    def fit(self, train: pd.DataFrame, items: pd.DataFrame, users: pd.DataFrame) -> None:
        """Learn the biases; the ids are those of a model by neighbours."""
        self._known = ItemKNNRecommender(neighbours=1, feedback="ratings").fit(train, items, users)

    def predict(self, users: Any, items: Any) -> Any:
        """The baseline of each pair, [n]."""
        fitted = self._known._ready()
        user, item = fitted.users.codes(list(users)), fitted.items.codes(list(items))
        histories = fitted.history.of(np.unique(user))
        biases = self._known._learned.biases
        nobody = np.zeros((len(histories.offsets) - 1, len(fitted.items)))
        rows = biases.predicted(histories, nobody)
        return rows[np.unique(user, return_inverse=True)[1], item]


def _models() -> dict[str, Any]:
    return {
        "biases only": BiasesOnly(),
        "user neighbours": UserKNNRecommender(feedback="ratings"),
        "item neighbours": ItemKNNRecommender(shrink=0.0, feedback="ratings"),
    }


def five_folds() -> Study:
    """RMSE and MAE of predicted ratings on u1 to u5."""
    data = load("ml-100k")
    reports: dict[str, list[RatingReport]] = {name: [] for name in _models()}
    for fold in FOLDS:
        train, test = movielens_100k_split(fold)
        for name, model in _models().items():
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
    paired = {}
    for fold, ours, theirs in zip(
        FOLDS, reports["item neighbours"], reports["biases only"], strict=True
    ):
        one = compare_paired(ours, theirs, "RMSE")
        paired[fold] = {
            "difference": f"{one.difference:+.4f}",
            "95% interval": f"[{one.low:+.4f}, {one.high:+.4f}]",
        }
    protocol = (
        "MovieLens-100K's own folds `u1` to `u5`: fitted on `.base`, tested on the 20,000 ratings "
        "of `.test`; means over the five folds. Predictions are clipped to 1 to 5. Settings are "
        "the defaults for ratings (1,000 neighbours, of which those count that the user rated), "
        "with shrink 0 for items and 10 for users, chosen on 20% of `u1.base`; as the `.base` "
        "files of `u2` to `u5` have ratings of `u1.test` and the other way round, `u1` is the one "
        "fold for which that choice was blind."
    )
    return Study(
        "Rating prediction: u1 to u5 of ml-100k",
        protocol,
        [
            Table("Means, and each fold.", pd.DataFrame(rows).T),
            Table(
                "RMSE of item neighbours less that of biases only, over the same users.",
                pd.DataFrame(paired).T,
                4,
            ),
        ],
    )
