"""Recommend by factors of who took what: alternating least squares for implicit feedback.

Each user and each item gets f numbers, so that their product is 1 where the user took the item and
0 elsewhere, and what was taken counts 1 + α times as much as what was not (which may be just
unknown). With the items' factors Y fixed, a user's x has a closed form, and so on in turns:

    x_u = A_u⁻¹ Σ_i∈history(u) (1 + α) y_i,   A_u = YᵀY + α Σ_i∈history(u) y_i y_iᵀ + λ I

A score x_u · y_i is a sum over the history, Σ_j (1 + α) y_iᵀ A_u⁻¹ y_j, which `explain` returns.
The same formula makes the factors of someone new, from their history alone.

Source: Y. Hu, Y. Koren and C. Volinsky, Collaborative filtering for implicit feedback datasets,
ICDM 2008.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from llmrec_kernels.ops import PackedItems, checks, pack
from llmrec_kernels.recommenders.answering import Given
from llmrec_kernels.recommenders.history import Lists, as_rows, sparse
from llmrec_kernels.recommenders.results import Explanation
from llmrec_kernels.recommenders.vectors import VectorRecommender

_NUMBERS_AT_ONCE = 1 << 22
_FIRST = 0.1  # standard deviation of the numbers to begin with


class Factors(NamedTuple):
    """What is learned of the items."""

    items: PackedItems  # [N, f] float32
    gram: Tensor  # [f, f] float64: YᵀY


class ALSRecommender(VectorRecommender[Factors]):
    """Recommend by factors of users and items, learned by alternating least squares.

    Ratings count as taken, whatever they are. Users' factors are made of their histories when they
    are asked for, so `update` counts at once; items' factors stay until the next `fit`.

    Parameters
    ----------
    factors : int
        Numbers for each user and item.
    regularization : float
        λ, above 0.
    alpha : float
        α, at least 0: how much more what was taken counts.
    sweeps : int
        Turns of users, then items.
    seed : int
        Of the numbers to begin with; at least 0.

    Examples
    --------
    >>> import pandas as pd
    >>> seen = pd.DataFrame({"user": [1, 1, 2, 2, 3], "item": ["a", "b", "a", "b", "a"]})
    >>> model = ALSRecommender(factors=2, regularization=0.1).fit(seen)
    >>> model.recommend([3]).item.tolist()
    ['b']
    """

    update_is_refit = False
    _metric = "dot"

    def __init__(
        self,
        factors: int = 32,
        regularization: float = 10.0,
        *,
        alpha: float = 1.0,
        sweeps: int = 10,
        seed: int = 0,
    ) -> None:
        self.factors = checks.positive_int("factors", factors)
        self.regularization = checks.finite_number("regularization", regularization)
        if self.regularization <= 0:
            raise ValueError(f"regularization is {regularization}; expected more than 0")
        self.alpha = checks.finite_number("alpha", alpha)
        if self.alpha < 0:
            raise ValueError(f"alpha is {alpha}; expected at least 0")
        self.sweeps = checks.positive_int("sweeps", sweeps)
        self.seed = checks.integer("seed", seed)
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {seed}; expected at least 0 and less than 2**63")

    def explain(self, user: Any, item: Any) -> Explanation:
        """Say how much each item of a user's history gives to the score of an item.

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
        items, places = self._learned.items.data, history.rows["item"]
        block, used = _compact(sparse(history, len(items)), items)
        system = self._systems(block, used, self._learned.gram)[0]
        taken = items[torch.from_numpy(places)].double()
        share = taken @ torch.linalg.solve(system, items[int(code[0])].double()) * (1 + self.alpha)
        return Explanation.of(
            user,
            item,
            self._explained_score(user, history, code),
            "history",
            known.items.take(places),
            np.ones(len(places)),
            share.numpy(),
        )

    def _learn(self, given: Given) -> Factors:
        users = given.history.everyone()
        items = _turned(users, len(given.item_ids))
        draw = torch.Generator().manual_seed(self.seed)
        shape = (len(given.item_ids), self.factors)
        factors = torch.randn(shape, generator=draw, dtype=torch.float64) * _FIRST
        for _ in range(self.sweeps):
            factors = self._solved(items, self._solved(users, factors))
        gram = factors.T @ factors
        return Factors(pack(factors.float()), gram)

    @classmethod
    def _as_learned(cls, fields: dict[str, Any]) -> Factors:
        return Factors(**fields)

    def _solved(self, lists: Lists, others: Tensor, gram: Tensor | None = None) -> Tensor:
        """The factors of each list by those of what is in it, [B, f] float64."""
        gram = others.T @ others if gram is None else gram
        size = max(1, _NUMBERS_AT_ONCE // gram.numel())
        taken = sparse(lists, others.shape[0])
        solved = torch.zeros(taken.shape[0], gram.shape[0], dtype=torch.float64)
        filled = np.flatnonzero(np.diff(lists.offsets))  # the others have no wish, and stay 0
        for start in range(0, len(filled), size):
            rows = filled[start : start + size]
            block, used = _compact(taken[rows], others)
            wish = torch.from_numpy(block @ used.numpy()) * (1 + self.alpha)
            factor = torch.linalg.cholesky(self._systems(block, used, gram))
            found = torch.cholesky_solve(wish[:, :, None], factor)[:, :, 0]
            solved[torch.from_numpy(rows)] = found
        return solved

    def _systems(self, taken: csr_array, others: Tensor, gram: Tensor) -> Tensor:
        """A of each list, [B, f, f]: sums of the products of each two factors of what it has."""
        f = gram.shape[0]
        fixed = gram + self.regularization * torch.eye(f, dtype=gram.dtype)
        systems = fixed.repeat(taken.shape[0], 1, 1)
        width = max(1, _NUMBERS_AT_ONCE // (f * max(len(others), 1)))
        for start in range(0, f, width):
            products = others[:, start : start + width, None] * others[:, None, :]
            sums = taken @ products.flatten(1).numpy()
            systems[:, start : start + width] += self.alpha * torch.from_numpy(sums).view(
                len(systems), -1, f
            )
        return systems

    def _profiles(self, histories: Lists) -> Tensor:
        learned = self._learned
        return self._solved(histories, learned.items.data, learned.gram).float()

    def _vectors(self) -> PackedItems:
        return self._learned.items


def _compact(taken: csr_array, others: Tensor) -> tuple[csr_array, Tensor]:
    """A table without its empty columns, and the factors of those that are left, float64."""
    used, column = np.unique(taken.indices, return_inverse=True)
    shape = (taken.shape[0], len(used))
    left = csr_array((taken.data, column, taken.indptr), shape=shape)
    return left, others[torch.from_numpy(used.astype(np.int64))].double()


def _turned(lists: Lists, n_items: int) -> Lists:
    """For each item the users who took it, as lists of them."""
    item, owner = lists.rows["item"], lists.owners()
    order = np.argsort(item, kind="stable")
    offsets: NDArray[np.int64] = np.searchsorted(item[order], np.arange(n_items + 1))
    nothing = np.zeros(len(owner))
    return Lists(as_rows(owner[order], nothing, nothing), offsets)
