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
from typing import NamedTuple

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor, nn

from llmrec_kernels.recommenders.history import Lists

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
    """

    def __init__(self, width: int, dim: int, hidden: int | None, user_width: int) -> None:
        super().__init__()
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
        terms = _terms(ratings, items)
        sums = _sums(own, terms, len(users.bias))
        others = Sums(*(total[own] - one for total, one in zip(sums, terms, strict=True)))
        if self.training and len(self.of_users):
            seen = torch.rand(len(users.bias)) >= _UNSEEN
            others = others.times(seen[own])
        user = self.combined(Told(users.bias[own], users.taste[own]), others)
        return _predicted(user, items)


class RatingTask:
    """What is learned: heads that predict ratings of items that are not in a history.

    Parameters
    ----------
    network : RatingNetwork
        The heads.
    vectors : Tensor, [N, width] float32
        Of the items.
    users : Tensor, [U, user_width] float32
        Of the users.
    ratings : Ratings
        To learn from, at least one.
    held_out : Ratings
        Of other items, to see when to stop; none: train all epochs.
    """

    def __init__(
        self,
        network: RatingNetwork,
        vectors: Tensor,
        users: Tensor,
        ratings: Ratings,
        held_out: Ratings,
    ) -> None:
        self.network: nn.Module = network
        self._heads = network
        self._vectors, self._users = vectors, users
        self._ratings, self._held_out = ratings, held_out
        self._who = ratings.owners.unique()
        self.size = len(self._who)

    def loss(self, examples: Tensor) -> Tensor:
        """The squared errors of some users' ratings, over the ratings that as many users have."""
        users = self._who[examples]
        ratings = self._ratings.of(users)
        items = _of_each(self._heads, self._vectors, ratings)
        predicted = self._heads.left_out(ratings, items, self._heads.users(self._users[users]))
        # Not over their own number of ratings: each rating counts alike, whoever is drawn with it.
        usual = len(self._ratings.items) / self.size
        return (ratings.values - predicted).square().sum() / (usual * len(examples))

    def validate(self) -> float | None:
        """The RMSE of ratings of items that are not learned from."""
        held_out = self._held_out
        if not len(held_out.items):
            return None
        items = self._heads.items(self._vectors)
        said = self._heads.users(self._users)
        of_ratings = Told(items.bias[self._ratings.items], items.taste[self._ratings.items])
        terms = _terms(self._ratings, of_ratings)
        users = self._heads.combined(said, _sums(self._ratings.owners, terms, len(self._users)))
        user = Told(users.bias[held_out.owners], users.taste[held_out.owners])
        item = Told(items.bias[held_out.items], items.taste[held_out.items])
        return float((held_out.values - _predicted(user, item)).square().mean().sqrt())

    def identity(self) -> dict[str, str | int | float]:
        """What a checkpoint must have alike."""
        digest = xxhash.xxh3_64()
        for one in (self._vectors, self._users, *self._ratings, *self._held_out):
            digest.update(one.contiguous().numpy().data)
        shapes = [list(one.shape) for one in self.network.state_dict().values()]
        return {
            "architecture": f"RatingNetwork {shapes}",
            "items": len(self._vectors),
            "data": digest.hexdigest(),
        }


def _of_each(network: RatingNetwork, vectors: Tensor, ratings: Ratings) -> Told:
    """What is said of the item of each rating."""
    places, rows = ratings.items.unique(return_inverse=True)
    told = network.items(vectors[places])
    return Told(told.bias[rows], told.taste[rows])


def _terms(ratings: Ratings, items: Told) -> Sums:
    """What each rating adds to the sums of its user."""
    rest = ratings.values - items.bias
    return Sums(torch.ones_like(rest), rest, rest[:, None] * items.taste, items.taste)


def _sums(owners: Tensor, terms: Sums, count: int) -> Sums:
    """The terms of each user added up."""
    return Sums(*(one.new_zeros(count, *one.shape[1:]).index_add(0, owners, one) for one in terms))


def _predicted(users: Told, items: Told) -> Tensor:
    """Predictions of pairs, less μ."""
    return users.bias + items.bias + (users.taste * items.taste).sum(dim=1)
