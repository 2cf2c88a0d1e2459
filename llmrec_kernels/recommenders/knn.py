"""What recommenders by neighbours share, be the neighbours items or users."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmrec_kernels.ops import checks
from llmrec_kernels.ragged import Ragged
from llmrec_kernels.recommenders import ranking
from llmrec_kernels.recommenders.answering import Learned
from llmrec_kernels.recommenders.base import Recommender
from llmrec_kernels.recommenders.biases import Biases
from llmrec_kernels.recommenders.history import Lists

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

IMPLICIT, RATINGS = FEEDBACK = ("implicit", "ratings")


class NeighbourRecommender(Recommender[Learned]):
    """A recommender by nearest neighbours, of who took what or of ratings.

    Parameters
    ----------
    neighbours : int or None
        How many count; None stands for the usual number.
    shrink : float
        At least 0.
    feedback : "implicit" or "ratings"
        What is learned from, and what scores are.
    """

    update_is_refit = False

    def __init__(self, neighbours: int | None, shrink: float, feedback: str) -> None:
        checks.choice("feedback", feedback, FEEDBACK)
        usual = 100 if feedback == IMPLICIT else 1000
        self.neighbours = (
            usual if neighbours is None else checks.positive_int("neighbours", neighbours)
        )
        self.shrink = checks.finite_number("shrink", shrink)
        if self.shrink < 0:
            raise ValueError(f"shrink is {shrink}; expected at least 0")
        self.feedback = feedback
        self._needs_ratings = feedback == RATINGS

    def predict(self, users: ArrayLike, items: ArrayLike) -> NDArray[np.float32]:
        """The rating that each user would give to the item beside it.

        Parameters
        ----------
        users, items : list or array of ids, [n]
            Pairs.

        Returns
        -------
        [n] float32
            In the unit of the ratings, and within their range; the baseline where no neighbour
            has a say.

        Raises
        ------
        UnsupportedError
            If the model was not made with `feedback="ratings"`.
        IndexError
            If the model does not know a user or an item.
        ValueError
            If there are not as many users as items.

        Examples
        --------
        >>> import pandas as pd
        >>> from llmrec_kernels.recommenders import ItemKNNRecommender
        >>> seen = pd.DataFrame({"user": [1, 1, 2], "item": [7, 8, 7], "rating": [5, 4, 3]})
        >>> ItemKNNRecommender(feedback="ratings").fit(seen).predict([2], [8]).round(2)
        array([3.81], dtype=float32)
        """
        if self.feedback == IMPLICIT:
            return super().predict(users, items)
        return self._of_pairs(users, items, self._predicted_pairs)

    def baseline(self, users: ArrayLike, items: ArrayLike) -> NDArray[np.float32]:
        """The rating of each pair by who gives it and what it is of alone: μ + b_u + b_i.

        Parameters
        ----------
        users, items : list or array of ids, [n]
            Pairs.

        Returns
        -------
        [n] float32
            Within the range of the ratings.

        Raises
        ------
        UnsupportedError, IndexError, ValueError
            As for `predict`.

        Examples
        --------
        >>> import pandas as pd
        >>> from llmrec_kernels.recommenders import UserKNNRecommender
        >>> seen = pd.DataFrame({"user": [1, 1, 2], "item": [7, 8, 7], "rating": [5, 4, 3]})
        >>> UserKNNRecommender(feedback="ratings").fit(seen).baseline([2], [8]).round(2)
        array([3.81], dtype=float32)
        """
        if self.feedback == IMPLICIT:
            return super().predict(users, items)
        return self._of_pairs(users, items, self._baseline_pairs)

    @abstractmethod
    def _biases(self) -> Biases:
        """What was learned of who gives ratings and what they are of."""

    @abstractmethod
    def _taken_rows(self, histories: Lists) -> Tensor:
        """Scores by who took what, [B, N] float32; zeros where a history says nothing."""

    @abstractmethod
    def _predicted_rows(self, histories: Lists) -> Tensor:
        """Predicted ratings, [B, N] float32."""

    def _rows(self, histories: Lists) -> Tensor:
        if self.feedback == IMPLICIT:
            return self._taken_rows(histories)
        empty = histories.empty()
        return self._predicted_rows(histories).masked_fill(empty[:, None], 0.0)

    def _meant(self, histories: Lists, rows: Tensor) -> Tensor:
        """A predicted rating may be 0."""
        if self.feedback == IMPLICIT:
            return super()._meant(histories, rows)
        return ~histories.empty()

    def _baseline_pairs(
        self, histories: Lists, pairs: Ragged
    ) -> tuple[NDArray[np.float32], Tensor]:
        biases, nobody = self._biases(), np.zeros((len(histories.offsets) - 1, 1))
        rows = torch.from_numpy(biases.predicted(histories, nobody))
        return ranking.taken(rows, pairs), rows.new_ones(len(rows)).bool()

    def _predicted_pairs(
        self, histories: Lists, pairs: Ragged
    ) -> tuple[NDArray[np.float32], Tensor]:
        rows = self._predicted_rows(histories)
        return ranking.taken(rows, pairs), rows.new_ones(len(rows)).bool()
