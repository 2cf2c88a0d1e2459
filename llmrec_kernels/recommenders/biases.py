"""Ratings explained by who gave them and what they are of: the baseline b_ui = μ + b_u + b_i.

Some people rate high and some films are good. The biases minimise the squared error with ridge
penalties, so that few ratings move a bias little; each is solved for in turn, the users' first:

    b_u = Σ_i (r_ui - μ - b_i) / (λ + n_u),   b_i = Σ_u (r_ui - μ - b_u) / (λ + n_i)

Source: Y. Koren, Factor in the neighbors: scalable and accurate collaborative filtering,
TKDD 4(1), 2010, section 2.1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmrec_kernels.recommenders.history import Lists

_LAMBDA = 5.0
_SWEEPS = 10


class Biases(NamedTuple):
    """The mean of all ratings and what each item adds to it."""

    mean: float
    items: NDArray[np.float64]  # [N]
    lowest: float  # no rating is below
    highest: float  # or above

    @staticmethod
    def of(histories: Lists, n_items: int) -> Biases:
        """The biases of all users' ratings.

        Examples
        --------
        >>> one = Lists.of(np.array([0, 1]), np.array([5.0, 3.0]), np.zeros(2))
        >>> Biases.of(one, 2).items.round(3)
        array([ 0.167, -0.167])
        """
        rating, item = histories.rows["rating"], histories.rows["item"]
        if not len(rating):
            return Biases(0.0, np.zeros(n_items), 0.0, 0.0)
        biases = Biases(rating.mean(), np.zeros(n_items), rating.min(), rating.max())
        owner, counts = histories.owners(), np.bincount(item, minlength=n_items)
        for _ in range(_SWEEPS):
            rest = rating - biases.mean - biases.of_users(histories)[owner]
            sums = np.bincount(item, weights=rest, minlength=n_items)
            biases = biases._replace(items=sums / (_LAMBDA + counts))
        return biases

    def of_users(self, histories: Lists) -> NDArray[np.float64]:
        """What each user adds, [B]; 0 for who rated nothing."""
        rest = histories.rows["rating"] - self.mean - self.items[histories.rows["item"]]
        counts = np.diff(histories.offsets)
        sums = np.bincount(histories.owners(), weights=rest, minlength=len(counts))
        return np.asarray(sums / (_LAMBDA + counts))

    def residuals(self, histories: Lists) -> NDArray[np.float64]:
        """Each rating less its baseline, [nnz]."""
        user = self.of_users(histories)[histories.owners()]
        rest = histories.rows["rating"] - self.mean - user - self.items[histories.rows["item"]]
        return np.asarray(rest)

    def predicted(self, histories: Lists, deviations: NDArray[np.float64]) -> NDArray[np.float32]:
        """Baselines of all items plus what neighbours say, within the range of ratings, [B, N]."""
        rows = self.mean + self.of_users(histories)[:, None] + self.items + deviations
        return np.clip(rows, self.lowest, self.highest).astype(np.float32)
