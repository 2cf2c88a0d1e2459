"""Recommend what the users with the most similar histories took: user-based neighbours.

The users nearest to a history are found when it is asked for (`neighbours.py` has the
similarities). With who took what, the score of an item is the sum of the similarities of the
neighbours who took it; with ratings it is the baseline plus the mean of the neighbours' deviations
from theirs:

    score(u, i) = Σ_v∈N(u), v took i s_uv
    r̂_ui = μ + b_u + b_i + Σ_v∈N(u), v rated i s_uv (r_vi - μ - b_v - b_i) / Σ_v s_uv

Nothing is learned ahead, so that feedback counts at once, also in what is said to others. The
histories are laid out by item, so that a question reads only those who took the same items; users
whose history has changed since are laid out in layers of their own when the next question comes,
and with all others once they have a quarter of all interactions.

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

from llmrec_kernels.recommenders.answering import SCORES_AT_ONCE, Fitted, Given
from llmrec_kernels.recommenders.biases import Biases
from llmrec_kernels.recommenders.history import Change, Lists, sparse
from llmrec_kernels.recommenders.knn import IMPLICIT, NeighbourRecommender
from llmrec_kernels.recommenders.neighbours import Others, cosines, strongest
from llmrec_kernels.recommenders.results import Explanation

# Changed histories are laid out apart until they have so large a part of all interactions.
_PART_APART = 0.25


class _Layer(NamedTuple):
    """Lines of some users; of a user in several layers those in the last one count."""

    users: NDArray[np.int64]  # [n]
    lines: Others

    @property
    def size(self) -> int:
        """Interactions in it."""
        return int(self.lines.columns.nnz)


class _Compared:
    """Whom a history is compared with: everyone, and in layers those who have changed since."""

    def __init__(self, everyone: Others) -> None:
        self.everyone = everyone
        self.layers: list[_Layer] = []
        self.changed: set[int] = set()  # users whose history is in no layer as it is by now


class UserKNNRecommender(NeighbourRecommender[Biases]):
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
        ValueError
            If the user's history says nothing to the model, which then answers with what is
            popular.
        """
        known, history, code = self._one(user, item)
        near = self._near(history)
        codes, weight = near.indices, near.data
        theirs = known.history.of(codes)
        took = theirs.rows["item"] == code[0]
        votes = np.ones(len(theirs.rows))
        if self.feedback != IMPLICIT:
            votes = self._learned.residuals(theirs)
        found = theirs.owners()[took]
        share = weight[found] * votes[took]
        if self.feedback != IMPLICIT and len(found):
            share = share / weight[found].sum()
        score = self._explained_score(user, history, code)
        sources = known.users.take(codes[found])
        return Explanation.of(user, item, score, "neighbour", sources, weight[found], share)

    def _learn(self, given: Given) -> Biases:
        return Biases.of(given.history.everyone(), len(given.item_ids))

    @classmethod
    def _as_learned(cls, fields: dict[str, Any]) -> Biases:
        return Biases(**fields)

    def _biases(self) -> Biases:
        return self._learned

    def _take(self, learned: Biases, fitted: Fitted) -> None:
        super()._take(learned, fitted)
        self._lay_out()

    def _lay_out(self) -> None:
        lines = self._lines(self._ready().history.everyone())
        self._compared = _Compared(Others.of(lines))

    def _lines(self, histories: Lists) -> csr_array:
        """What is compared, [B, N]: ones, or residuals of ratings."""
        implicit = self.feedback == IMPLICIT
        values = None if implicit else self._learned.residuals(histories)
        return sparse(histories, len(self._learned.items), values)

    def _absorbed(self, learned: Biases, change: Change) -> Biases:
        """Note who has changed: the work is done where it is asked for."""
        self._compared.changed.update(change.users.tolist())
        return learned

    def _catch_up(self) -> None:
        """Lay out the histories that have changed since the last question.

        They become a layer. Layers that are no larger are laid out with it once more, so that
        there are few, and each line is laid out a few times (a logarithm of how many there are).
        """
        compared, history = self._compared, self._ready().history
        users = np.array(sorted(compared.changed), dtype=np.int64)
        size = len(history.of(users).rows)
        while compared.layers and compared.layers[-1].size <= size:
            users = np.union1d(compared.layers.pop().users, users)
            size = len(history.of(users).rows)
        if size > _PART_APART * compared.everyone.columns.nnz:
            self._lay_out()
            return
        compared.layers.append(_Layer(users, Others.of(self._lines(history.of(users)))))
        compared.changed.clear()

    def _similarity(self, histories: Lists) -> NDArray[np.float64]:
        """Of each history with each user, [B, U]."""
        if self._compared.changed:
            self._catch_up()
        compared, lines = self._compared, self._lines(histories)
        similarity = np.zeros((lines.shape[0], self._ready().history.n_users))
        everyone = cosines(lines, compared.everyone, self.shrink)
        similarity[:, : everyone.shape[1]] = everyone
        for layer in compared.layers:
            similarity[:, layer.users] = cosines(lines, layer.lines, self.shrink)
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
        return torch.from_numpy(self._learned.predicted(histories, deviations))

    def _spoken(self, histories: Lists) -> tuple[csr_array, csr_array]:
        """The nearest users of each history, [B, n], and the lines of these n users, [n, N]."""
        near = self._near(histories)
        users, column = np.unique(near.indices, return_inverse=True)
        lines = self._lines(self._ready().history.of(users))
        shape = (near.shape[0], len(users))
        return csr_array((near.data, column, near.indptr), shape=shape), lines

    def _block_size(self) -> int:
        """Similarities to all users are held too."""
        known = self._ready()
        return max(1, SCORES_AT_ONCE // max(len(known.items), known.history.n_users))
