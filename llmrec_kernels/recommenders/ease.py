"""Recommend by an item-item matrix in closed form: EASE, shallow autoencoders.

A linear model predicts each item of a history from the others: X ≈ X B with a zero diagonal, X the
users × items matrix of ones. With a ridge penalty λ there is a closed form. With the Gram matrix
G = XᵀX and P = (G + λ I)⁻¹,

    B_ij = -P_ij / P_jj  (i ≠ j),   B_jj = 0,   score(u, j) = Σ_i∈history(u) w_ui B_ij

so a score is an exact sum over the history, and weights of a history can be negative: "who took
this does not take that". Learning takes N³/3 operations and 8 N² bytes, for thousands of items;
answering is a pooled lookup of the rows of B.

Source: H. Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy.linalg import lapack
from torch import Tensor

from llmrec_kernels._ids import id_list
from llmrec_kernels.ops import checks
from llmrec_kernels.recommenders import ranking
from llmrec_kernels.recommenders.answering import Given
from llmrec_kernels.recommenders.base import Recommender
from llmrec_kernels.recommenders.filters import Filters
from llmrec_kernels.recommenders.history import Lists
from llmrec_kernels.recommenders.profiles import Bags, checked_half_life, decayed
from llmrec_kernels.recommenders.results import Explanation, SimilarItems

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class ItemWeights(NamedTuple):
    """What an item says for each other one."""

    matrix: Tensor  # [N, N] float32: B


class EASERecommender(Recommender[ItemWeights]):
    """Recommend by the linear model that best predicts each item of a history from the others.

    The strong simple baseline for who took what; it knows nothing of an item that nobody took.
    Ratings count as taken, whatever they are.

    Parameters
    ----------
    regularization : float
        λ, above 0: how many users must agree before a pair of items counts.
    half_life : float, optional
        Interactions after which an item of a history counts half when asked. None: all alike.

    Examples
    --------
    >>> import pandas as pd
    >>> seen = pd.DataFrame({"user": [1, 1, 2, 2, 3], "item": ["a", "b", "a", "b", "a"]})
    >>> model = EASERecommender(regularization=1).fit(seen)
    >>> model.recommend([3]).item.tolist()
    ['b']
    >>> model.explain(3, "b").to_pandas().round(2)
      history  weight  share
    0       a     1.0    0.5
    """

    update_is_refit = False

    def __init__(self, regularization: float = 200.0, *, half_life: float | None = None) -> None:
        self.regularization = checks.finite_number("regularization", regularization)
        if self.regularization <= 0:
            raise ValueError(f"regularization is {regularization}; expected more than 0")
        self.half_life = checked_half_life(half_life)

    def similar_items(self, items: ArrayLike, k: int = 10) -> SimilarItems:
        """Find the k items that each of some items says most for: the largest weights of its row.

        Parameters
        ----------
        items : list or array of ids
            An item is not similar to itself.
        k : int
            At least 1.

        Raises
        ------
        IndexError
            If the model does not know an item.
        """
        known = self._ready()
        codes = known.items.known_codes("items", id_list("items", items))
        k = min(checks.positive_int("k", k), len(known.items))
        rows = self._learned.matrix[torch.from_numpy(codes)]
        themselves = Lists.of_one_each(codes)
        topk = ranking.best(rows, k, Filters(None, None).hiding(themselves))
        return SimilarItems.of(known.items, codes, ranking.above(topk, 0.0))

    def explain(self, user: Any, item: Any) -> Explanation:
        """Say how much each item of a user's history gives to the score of an item: w B.

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
        weight = decayed(history, self.half_life)
        share = weight * self._learned.matrix[torch.from_numpy(taken), code].double().numpy()
        score = self._explained_score(user, history, code)
        return Explanation.of(user, item, score, "history", known.items.take(taken), weight, share)

    def _learn(self, given: Given) -> ItemWeights:
        taken = given.history.matrix()
        gram = (taken.T @ taken).astype(np.float64).toarray()
        np.fill_diagonal(gram, gram.diagonal() + self.regularization)
        factor, failed = lapack.dpotrf(gram, lower=False, overwrite_a=True)
        if failed:
            raise ValueError(
                f"regularization is {self.regularization}; too little for these interactions: "
                "their Gram matrix has no inverse in float64; expected a larger one"
            )
        inverse, _ = lapack.dpotri(factor, lower=False, overwrite_c=True)
        inverse = np.triu(inverse) + np.triu(inverse, 1).T
        inverse /= -inverse.diagonal().copy()
        np.fill_diagonal(inverse, 0.0)
        return ItemWeights(torch.from_numpy(inverse.astype(np.float32)))

    @classmethod
    def _as_learned(cls, fields: dict[str, Any]) -> ItemWeights:
        return ItemWeights(**fields)

    def _rows(self, histories: Lists) -> Tensor:
        weight = decayed(histories, self.half_life)
        return Bags(histories.rows["item"], weight, histories.offsets).pooled(self._learned.matrix)
