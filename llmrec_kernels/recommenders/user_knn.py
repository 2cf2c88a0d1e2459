"""Recommend what the users with the most similar histories took: user-based neighbours.

The users nearest to a history are found when it is asked for (`neighbours.py` has the
similarities). With who took what, the score of an item is the sum of the similarities of the
neighbours who took it; with ratings it is the baseline plus the mean of the neighbours' deviations
from theirs:

    score(u, i) = Σ_v∈N(u), v took i s_uv
    r̂_ui = μ + b_u + b_i + Σ_v∈N(u), v rated i s_uv (r_vi - μ - b_v - b_i) / Σ_v s_uv

Nothing is learned ahead, so that feedback counts at once, also in what is said to others.

Sources: P. Resnick et al., GroupLens: an open architecture for collaborative filtering of netnews,
CSCW 1994; J. Herlocker et al., An algorithmic framework for performing collaborative filtering,
SIGIR 1999.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from llmrec_kernels.recommenders.base import SCORES_AT_ONCE, Given
from llmrec_kernels.recommenders.biases import Biases
from llmrec_kernels.recommenders.history import Change, History, Lists, sparse
from llmrec_kernels.recommenders.ids import id_list
from llmrec_kernels.recommenders.knn import IMPLICIT, NeighbourRecommender
from llmrec_kernels.recommenders.neighbours import cosines, strongest
from llmrec_kernels.recommenders.results import Explanation

# Changed histories are kept apart until they have so large a part of all interactions.
_PART_APART = 0.25


class Users(NamedTuple):
    """Whom a history is compared with."""

    matrix: csr_array  # [U, N]: ones, or residuals of ratings
    stale: NDArray[np.int64]  # [c]: users whose line is out of date
    fresh: csr_array  # [c, N]: their lines
    biases: Biases


class UserKNNRecommender(NeighbourRecommender[Users]):
    """Recommend what the users with the most similar histories took.

    Parameters
    ----------
    neighbours : int, optional
        How many nearest users of a history count: 100 when left out, and 1000 with ratings, where
        only those count who rated the item.
    shrink : float
        At least 0: the higher, the less a similarity counts that few items speak for.
    feedback : "implicit" or "ratings"
        "implicit" ranks by who took what, whatever the rating. "ratings" predicts ratings
        (`predict`, and scores are predicted ratings): for the error of ratings, not for lists.
        There the biases stay as they were fitted, also after `update`.

    Examples
    --------
    >>> import pandas as pd
    >>> seen = pd.DataFrame({"user": [1, 1, 2, 2, 3], "item": ["a", "b", "a", "b", "a"]})
    >>> model = UserKNNRecommender(shrink=0).fit(seen)
    >>> model.recommend([3]).to_pandas().round(2)
       user item  score  rank
    0     3    b   1.41     1
    >>> model.explain(3, "b").to_pandas().round(2)
       neighbour  weight  share
    0          1    0.71   0.71
    1          2    0.71   0.71
    """

    def __init__(
        self, neighbours: int | None = None, shrink: float = 10.0, *, feedback: str = IMPLICIT
    ) -> None:
        super().__init__(neighbours, shrink, feedback)
        self.update_is_refit = feedback == IMPLICIT

    def explain(self, user: Any, item: Any) -> Explanation:
        """Say which similar users took an item, and what each gives to its score.

        With ratings the shares are those of the deviation from the baseline μ + b_u + b_i.

        Parameters
        ----------
        user, item : int or str
            Ids that the model knows.

        Returns
        -------
        Explanation
            Of the kind "neighbour". Who has taken the item already is a neighbour of theirs too.

        Raises
        ------
        IndexError
            If the model does not know the user or the item.
        """
        known = self._ready()
        history = known.history.of(known.users.known_codes("user", id_list("user", [user])))
        code = int(known.items.known_codes("item", id_list("item", [item]))[0])
        near = self._near(history)
        codes, weight = near.indices, near.data
        theirs = known.history.of(codes)
        took = theirs.rows["item"] == code
        votes = np.ones(len(theirs.rows))
        if self.feedback != IMPLICIT:
            votes = self._learned.biases.residuals(theirs)
        found = theirs.owners()[took]
        share = weight[found] * votes[took]
        if self.feedback != IMPLICIT and len(found):
            share = share / weight[found].sum()
        score = float(self.score([user], [item])[0])
        sources = known.users.take(codes[found])
        return Explanation.of(user, item, score, "neighbour", sources, weight[found], share)

    def _learn(self, given: Given) -> Users:
        everyone = given.history.everyone()
        return self._all_users(given.history, Biases.of(everyone, len(given.item_ids)))

    @classmethod
    def _as_learned(cls, fields: dict[str, Any]) -> Users:
        return Users(**fields | {"biases": Biases(**fields["biases"])})

    def _all_users(self, history: History, biases: Biases) -> Users:
        lines = self._lines(history.everyone(), biases)
        return Users(lines, np.empty(0, dtype=np.int64), lines[:0], biases)

    def _lines(self, histories: Lists, biases: Biases) -> csr_array:
        values = None if self.feedback == IMPLICIT else biases.residuals(histories)
        return sparse(histories, len(biases.items), values)

    def _absorbed(self, learned: Users, change: Change) -> Users:
        history = self._ready().history
        stale = np.union1d(learned.stale, change.users)
        apart = history.of(stale)
        if len(apart.rows) > _PART_APART * learned.matrix.nnz:
            return self._all_users(history, learned.biases)
        return learned._replace(stale=stale, fresh=self._lines(apart, learned.biases))

    def _similarity(self, histories: Lists) -> NDArray[np.float64]:
        """Of each history with each user, [B, U]."""
        learned, n_users = self._learned, self._ready().history.n_users
        lines = self._lines(histories, learned.biases)
        similarity = np.zeros((lines.shape[0], n_users))
        similarity[:, : learned.matrix.shape[0]] = cosines(lines, learned.matrix, self.shrink)
        similarity[:, learned.stale] = cosines(lines, learned.fresh, self.shrink)
        return similarity

    def _near(self, histories: Lists) -> csr_array:
        """The nearest users of each history, [B, U] float64."""
        return strongest(self._similarity(histories), self.neighbours)

    def _taken_rows(self, histories: Lists) -> Tensor:
        near, lines = self._spoken(histories)
        return torch.from_numpy((near @ lines).toarray().astype(np.float32))

    def _predicted_rows(self, histories: Lists) -> Tensor:
        near, lines = self._spoken(histories)
        said = (near @ lines).toarray()
        lines.data = np.ones_like(lines.data)
        weight = (near @ lines).toarray()
        deviations = np.divide(said, weight, out=np.zeros_like(said), where=weight > 0)
        return torch.from_numpy(self._learned.biases.predicted(histories, deviations))

    def _spoken(self, histories: Lists) -> tuple[csr_array, csr_array]:
        """The nearest users of each history, [B, n], and the lines of these n users, [n, N]."""
        near = self._near(histories)
        users, column = np.unique(near.indices, return_inverse=True)
        lines = self._lines(self._ready().history.of(users), self._learned.biases)
        shape = (near.shape[0], len(users))
        return csr_array((near.data, column, near.indptr), shape=shape), lines

    def _block_size(self) -> int:
        """Similarities to all users are held too."""
        known = self._ready()
        return max(1, SCORES_AT_ONCE // max(len(known.items), known.history.n_users))
