"""Heads that say of a text how it is rated, and by whom; and how they are trained.

An example is a user with all their ratings. Each rating is predicted from the user's other ones, so
that what is learned holds for items that nobody has rated yet:

    e_h = r_h - μ - β_h                                    what is left of a rating
    b = (λ_b τ + Σ_h≠i e_h) / (λ_b + n - 1)                the user's bias
    p = (λ_p t + Σ_h≠i (e_h - b) q_h) / (λ_p + n - 1)      the user's taste
    r̂_ui = μ + b + β_i + p · q_i

β and q are what the head makes of the text of an item, τ and t what it makes of that of a user. λ_b
and λ_p, which are learned too, are how many ratings the text of a user is worth; of users with
texts some are shown without their other ratings, so that those who have none are learned of. A sum
over the other ratings is that over all less one term: an epoch costs no more than its ratings do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from llmrec_kernels.recommenders.history import Lists
from llmrec_kernels.recommenders.tuning import Language

_DROPOUT = 0.3  # of what is known of an item
_UNSEEN = 0.3  # of users with texts, whose other ratings are hidden: for those who have none
_PACE = 0.1  # of what is learned of users: they are few, and their words are many
_WORTH = (5.0, 10.0)  # λ_b and λ_p to begin with


class Told(NamedTuple):
    """A bias and a taste for each of some items or users."""

    bias: Tensor  # [n] float32
    taste: Tensor  # [n, k] float32


class Sums(NamedTuple):
    """Sums over the ratings of each of some users."""

    number: Tensor  # [n] float32
    rest: Tensor  # [n] float32: Σ e
    liked: Tensor  # [n, k] float32: Σ e q
    taste: Tensor  # [n, k] float32: Σ q

    def times(self, part: Tensor) -> Sums:
        """Each user's sums times a number, [n]."""
        rows = part[:, None]
        return Sums(self.number * part, self.rest * part, self.liked * rows, self.taste * rows)


class Ratings(NamedTuple):
    """Ratings of some users, user after user."""

    owners: Tensor  # [nnz] int64, ascending
    items: Tensor  # [nnz] int64
    values: Tensor  # [nnz] float32: less the mean of all

    @staticmethod
    def read(histories: Lists, mean: float, kept: NDArray[np.bool_] | None = None) -> Ratings:
        """The rows of histories, or those of them that are kept."""
        rows, owners = histories.rows, histories.owners()
        if kept is not None:
            rows, owners = rows[kept], owners[kept]
        values = torch.from_numpy(rows["rating"] - mean).float()
        return Ratings(torch.from_numpy(owners), torch.from_numpy(rows["item"].copy()), values)

    def of(self, users: Tensor) -> Ratings:
        """Those of these users, [n], who are numbered 0 to n - 1 in it."""
        starts = torch.searchsorted(self.owners, users)
        counts = torch.searchsorted(self.owners, users, right=True) - starts
        owners = torch.arange(len(users)).repeat_interleave(counts)
        rows = torch.arange(len(owners)) + (starts - counts.cumsum(0) + counts)[owners]
        return Ratings(owners, self.items[rows], self.values[rows])


class RatingNetwork(nn.Module):
    """Heads over the vectors of items and of users.

    Parameters
    ----------
    width : int
        Dimensions of an item's vector.
    dim : int
        Dimensions of a taste.
    hidden : int or None
        Units between the two; None: a linear head.
    user_width : int
        Dimensions of a user's vector; 0: nothing is said of users.
    language : Language, optional
        The language model that makes the vectors of items, where it is trained too.
    """

    def __init__(
        self,
        width: int,
        dim: int,
        hidden: int | None,
        user_width: int,
        language: Language | None = None,
    ) -> None:
        super().__init__()
        self.language = language
        # No layer has a bias: of what nothing is known, nothing is said.
        last = nn.Linear(width if hidden is None else hidden, dim + 1, bias=False)
        between: list[nn.Module] = []
        if hidden is not None:
            between = [nn.Linear(width, hidden, bias=False), nn.GELU()]
        self.of_items = nn.Sequential(nn.Dropout(_DROPOUT), *between, last)
        self.of_users = nn.Parameter(torch.zeros(user_width, dim + 1))
        self.shift = nn.Parameter(torch.zeros(()))  # the mean of items is not that of ratings
        self.worth = nn.Parameter(torch.tensor(_WORTH).log())
        with torch.no_grad():
            last.weight[0] = 0.0

    @staticmethod
    def of_weights(weights: Mapping[str, Tensor]) -> RatingNetwork:
        """The network with these weights, by the names of its `state_dict`, in eval mode."""
        layers = [one for name, one in weights.items() if name.startswith("of_items.")]
        hidden = len(layers[0]) if len(layers) > 1 else None
        user_width, outputs = weights["of_users"].shape
        with torch.random.fork_rng([]):  # it begins with random weights, which none are to miss
            network = RatingNetwork(layers[0].shape[1], outputs - 1, hidden, user_width)
        network.load_state_dict(dict(weights))
        return network.eval().requires_grad_(False)

    def weights(self) -> dict[str, Tensor]:
        """The weights of the heads, by the names of a `state_dict`."""
        heads = ("of_items.", "of_users", "shift", "worth")
        return {name: one for name, one in self.state_dict().items() if name.startswith(heads)}

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """All parameters that are trained, with their learning rates."""
        language = [] if self.language is None else list(self.language.tuned().values())
        own = {id(one) for one in language}
        heads = [one for one in self.parameters() if one.requires_grad and id(one) not in own]
        groups: list[dict[str, Any]] = [{"params": heads}]
        if self.language is not None:
            groups.append({"params": language, "lr": self.language.rate * rate})
        return groups

    def items(self, vectors: Tensor) -> Told:
        """What the vectors of items say, [n, width]."""
        told = self.of_items(vectors).float()
        return Told(told[:, 0] + self.shift, told[:, 1:])

    def users(self, vectors: Tensor) -> Told:
        """What the vectors of users say, [n, user_width]."""
        told = (vectors @ self.of_users).float() * _PACE
        return Told(told[:, 0], told[:, 1:])

    def combined(self, said: Told, sums: Sums) -> Told:
        """Users by what is said of them and what they rated."""
        worth_bias, worth_taste = self.worth.exp()
        bias = (worth_bias * said.bias + sums.rest) / (worth_bias + sums.number)
        liked = worth_taste * said.taste + sums.liked - bias[:, None] * sums.taste
        return Told(bias, liked / (worth_taste + sums.number)[:, None])

    def left_out(self, ratings: Ratings, items: Told, users: Told) -> Tensor:
        """The prediction of each rating from the user's others, less μ, [nnz] float32.

        `items` has a row for each rating, `users` one for each user.
        """
        own = ratings.owners
        terms = terms_of(ratings, items)
        sums = summed(own, terms, len(users.bias))
        others = Sums(*(total[own] - one for total, one in zip(sums, terms, strict=True)))
        if self.training and len(self.of_users):
            seen = torch.rand(len(users.bias)) >= _UNSEEN
            others = others.times(seen[own])
        user = self.combined(Told(users.bias[own], users.taste[own]), others)
        return predicted(user, items)


def terms_of(ratings: Ratings, items: Told) -> Sums:
    """What each rating adds to the sums of its user."""
    rest = ratings.values - items.bias
    return Sums(torch.ones_like(rest), rest, rest[:, None] * items.taste, items.taste)


def summed(owners: Tensor, terms: Sums, count: int) -> Sums:
    """The terms of each user added up."""
    return Sums(*(one.new_zeros(count, *one.shape[1:]).index_add(0, owners, one) for one in terms))


def predicted(users: Told, items: Told) -> Tensor:
    """Predictions of pairs, less μ."""
    return users.bias + items.bias + (users.taste * items.taste).sum(dim=1)
