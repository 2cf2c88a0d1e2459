"""Recommend what is near, by who took it, to what a user took: item-based neighbours.

For each item its nearest items are kept (`neighbours.py` has the similarities). With who took what,
the score of an item is the sum of its similarities to the items of the history:

    score(u, i) = Σ_j∈N(i)∩history(u) w_uj s_ij

With ratings it is the baseline plus what the user's ratings of near items say:

    r̂_ui = μ + b_u + b_i + Σ_j∈N(i)∩history(u) s_ij (r_uj - μ - b_u - b_j) / Σ_j |s_ij|

Sources: B. Sarwar et al., Item-based collaborative filtering recommendation algorithms, WWW 2001;
Y. Koren, Factor in the neighbors, TKDD 4(1), 2010.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from llmrec_kernels._ids import id_list
from llmrec_kernels.ops import TopK, checks
from llmrec_kernels.recommenders.answering import Fitted, Given
from llmrec_kernels.recommenders.biases import Biases
from llmrec_kernels.recommenders.history import Lists, sparse
from llmrec_kernels.recommenders.knn import IMPLICIT, NeighbourRecommender
from llmrec_kernels.recommenders.neighbours import nearest
from llmrec_kernels.recommenders.profiles import checked_half_life, decayed
from llmrec_kernels.recommenders.results import Explanation, SimilarItems

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class NearItems(NamedTuple):
    """What is learned of the items."""

    nearest: csr_array  # [N, N] float64: row i has the items nearest to i
    biases: Biases


class ItemKNNRecommender(NeighbourRecommender[NearItems]):
    """Recommend the items that are near to what a user took, by who took both.

    Parameters
    ----------
    neighbours : int, optional
        How many nearest items of each item count: 100 when left out, and 1000 with ratings, where
        only those count that the user has rated.
    shrink : float
        At least 0: the higher, the less a similarity counts that few users speak for.
    feedback : "implicit" or "ratings"
        "implicit" ranks by who took what, whatever the rating. "ratings" predicts ratings
        (`predict`, and scores are predicted ratings): for the error of ratings, not for lists.
    half_life : float, optional
        Interactions after which an item of a history counts half when asked, for "implicit".

    Examples
    --------
    >>> import pandas as pd
    >>> seen = pd.DataFrame({"user": [1, 1, 2, 2, 3], "item": ["a", "b", "a", "b", "a"]})
    >>> model = ItemKNNRecommender(shrink=0).fit(seen)
    >>> model.recommend([3]).to_pandas().round(2)
       user item  score  rank
    0     3    b   0.82     1
    >>> model.similar_items(["b"]).similar.tolist()
    ['a']
    """

    def __init__(
        self,
        neighbours: int | None = None,
        shrink: float = 10.0,
        *,
        feedback: str = IMPLICIT,
        half_life: float | None = None,
    ) -> None:
        super().__init__(neighbours, shrink, feedback)
        self.half_life = checked_half_life(half_life)

    def similar_items(self, items: ArrayLike, k: int = 10) -> SimilarItems:
        """Find the k nearest items of each of some items.

        Parameters
        ----------
        items : list or array of ids
            An item is not similar to itself.
        k : int
            At least 1; there are at most `neighbours`.

        Raises
        ------
        IndexError
            If the model does not know an item.
        """
        known = self._ready()
        codes = known.items.known_codes("items", id_list("items", items))
        k = min(checks.positive_int("k", k), len(known.items))
        scores = np.zeros((len(codes), k), dtype=np.float32)
        places = np.full((len(codes), k), -1)
        for row, code in enumerate(codes.tolist()):
            near = self._learned.nearest[[code]]
            order = np.lexsort((near.indices, -near.data))[:k]
            scores[row, : len(order)] = near.data[order]
            places[row, : len(order)] = near.indices[order]
        return SimilarItems.of(
            known.items, codes, TopK(torch.from_numpy(scores), torch.from_numpy(places))
        )

    def explain(self, user: Any, item: Any) -> Explanation:
        """Say which items of a user's history are near to an item, and what each gives.

        With ratings the shares are those of the deviation from the baseline μ + b_u + b_i.

        Parameters
        ----------
        user, item : int or str
            Ids that the model knows.

        Raises
        ------
        IndexError
            If the model does not know the user or the item.
        ValueError
            If the user's history says nothing to the model, which then answers with what is
            popular.
        """
        known, history, code = self._one(user, item)
        taken = history.rows["item"]
        near = self._learned.nearest[code].toarray()[0, taken]
        found = np.flatnonzero(near)
        share = near * self._votes(history)
        if self.feedback != IMPLICIT and len(found):
            share = share / near.sum()
        score = self._explained_score(user, history, code)
        sources = known.items.take(taken[found])
        return Explanation.of(user, item, score, "history", sources, near[found], share[found])

    def _take(self, learned: NearItems, fitted: Fitted) -> None:
        super()._take(learned, fitted)
        # A history asks what each of its items speaks for: row j has the items that j is near to.
        self._spoken_for = csr_array(learned.nearest.T)

    def _learn(self, given: Given) -> NearItems:
        everyone, n_items = given.history.everyone(), len(given.item_ids)
        biases = Biases.of(everyone, n_items)
        if self.feedback == IMPLICIT:
            taken = csr_array(given.history.matrix().T)
            return NearItems(nearest(taken, self.neighbours, self.shrink), biases)
        rated = csr_array(sparse(everyone, n_items, biases.residuals(everyone)).T)
        return NearItems(nearest(rated, self.neighbours, self.shrink), biases)

    @classmethod
    def _as_learned(cls, fields: dict[str, Any]) -> NearItems:
        return NearItems(**fields | {"biases": Biases(**fields["biases"])})

    def _biases(self) -> Biases:
        return self._learned.biases

    def _votes(self, histories: Lists) -> NDArray[np.float64]:
        """What each item of a history says, [nnz]: that it was taken, or how it was rated."""
        if self.feedback == IMPLICIT:
            return decayed(histories, self.half_life)
        return self._learned.biases.residuals(histories)

    def _taken_rows(self, histories: Lists) -> Tensor:
        votes = sparse(histories, len(self._ready().items), self._votes(histories))
        scores = (votes @ self._spoken_for).toarray()
        return torch.from_numpy(scores.astype(np.float32))

    def _predicted_rows(self, histories: Lists) -> Tensor:
        n_items, biases = len(self._ready().items), self._learned.biases
        said = (sparse(histories, n_items, self._votes(histories)) @ self._spoken_for).toarray()
        weight = (sparse(histories, n_items) @ self._spoken_for).toarray()
        deviations = np.divide(said, weight, out=np.zeros_like(said), where=weight > 0)
        return torch.from_numpy(biases.predicted(histories, deviations))
