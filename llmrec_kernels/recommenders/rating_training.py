"""How heads learn of ratings, and what the ratings of an item then say beyond its text."""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor, nn

from llmrec_kernels.recommenders.rating_networks import (
    RatingNetwork,
    Ratings,
    Told,
    predicted,
    summed,
    terms_of,
)
from llmrec_kernels.recommenders.tuning import Language
from llmrec_kernels.training import Training, TrainingReport, architecture, train

_TEXTS = 16  # of a batch, which the language model reads while it is trained
_PRIOR = 5.0  # λ_i: ratings that an item needs before they count as much as its text
_HELD_OUT = 0.1  # of the items: to see when training is to stop
_USERS_AT_ONCE = 1024


class Known(NamedTuple):
    """What heads are to learn of."""

    users: Tensor  # [U, user_width] float32: vectors of what is said of users
    ratings: Ratings
    held_out: Ratings  # of other items, to see when to stop


def trained(
    vectors: Tensor,
    known: Known,
    shape: tuple[int, int | None],
    training: Training,
    language: Language | None = None,
) -> tuple[RatingNetwork, TrainingReport | None]:
    """Heads of a shape, `dim` and `hidden`, that have learned; if there is anything to learn of.

    `vectors`, [N, width], are those of the items, which a language model makes where there is one.
    """
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(training.seed)
        network = RatingNetwork(vectors.shape[1], *shape, known.users.shape[1], language)
    if not len(known.ratings.items):
        return network.eval(), None
    groups = network.groups(training.learning_rate)
    return network, train(RatingTask(network, vectors, known), training, parameter_groups=groups)


class RatingTask:
    """What is learned: heads that predict ratings of items that are not in a history.

    Parameters
    ----------
    network : RatingNetwork
        The heads.
    vectors : Tensor, [N, width] float32
        Of the items.
    known : Known
        At least one rating to learn of; without any that are held out all epochs are trained.
    """

    def __init__(self, network: RatingNetwork, vectors: Tensor, known: Known) -> None:
        self.network: nn.Module = network
        self._heads, self._vectors = network, vectors
        self._users, self._ratings, self._held_out = known
        self._who = known.ratings.owners.unique()
        self.size = len(self._who)
        if network.language is not None:  # vectors as they were when last read
            network.register_buffer("vectors", vectors.clone())

    def loss(self, examples: Tensor) -> Tensor:
        """The squared errors of some users' ratings, over the ratings that as many users have."""
        users = self._who[examples]
        ratings = self._ratings.of(users)
        places, rows = ratings.items.unique(return_inverse=True)
        told = self._heads.items(self._read(places))
        items = Told(told.bias[rows], told.taste[rows])
        found = self._heads.left_out(ratings, items, self._heads.users(self._users[users]))
        # Not over their own number of ratings: each rating counts alike, whoever is drawn with it.
        usual = len(self._ratings.items) / self.size
        return (ratings.values - found).square().sum() / (usual * len(examples))

    def validate(self) -> float | None:
        """The RMSE of ratings of items that are not learned from."""
        held_out = self._held_out
        if not len(held_out.items):
            return None
        items = self._heads.items(getattr(self._heads, "vectors", self._vectors))
        said = self._heads.users(self._users)
        of_ratings = Told(items.bias[self._ratings.items], items.taste[self._ratings.items])
        terms = terms_of(self._ratings, of_ratings)
        users = self._heads.combined(said, summed(self._ratings.owners, terms, len(self._users)))
        user = Told(users.bias[held_out.owners], users.taste[held_out.owners])
        item = Told(items.bias[held_out.items], items.taste[held_out.items])
        return float((held_out.values - predicted(user, item)).square().mean().sqrt())

    def identity(self) -> dict[str, str | int | float]:
        """What a checkpoint must have alike."""
        digest = xxhash.xxh3_64()
        for one in (self._vectors, self._users, *self._ratings, *self._held_out):
            digest.update(one.contiguous().numpy().data)
        return {
            "architecture": architecture(self.network),
            "items": len(self._vectors),
            "data": digest.hexdigest(),
        }

    def _read(self, places: Tensor) -> Tensor:
        """The vectors of items, [n, width]; a language model that is trained reads some anew."""
        language = self._heads.language
        if language is None:
            return self._vectors[places]
        bank = cast("Tensor", self._heads.vectors)
        some = torch.randperm(len(places))[:_TEXTS]
        fresh = language(places[some])
        vectors = bank[places].index_put((some,), fresh)
        bank[places[some]] = fresh.detach()
        return vectors


def held_out(popularity: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """Which items are held out in training, [N]: a tenth of those that have ratings."""
    rated = np.flatnonzero(popularity)
    count = int(len(rated) * _HELD_OUT)
    drawn = np.zeros(len(popularity), dtype=bool)
    drawn[np.random.default_rng(seed).choice(rated, count, replace=False)] = count > 0
    return drawn


def beyond_texts(network: RatingNetwork, ratings: Ratings, items: Told, users: Told) -> Tensor:
    """What the ratings of each item say beyond its text, [N]: δ."""
    total, count = torch.zeros(2, len(items.bias), dtype=torch.float64)
    for some in torch.arange(len(users.bias)).split(_USERS_AT_ONCE):
        part = ratings.of(some)
        told = Told(items.bias[part.items], items.taste[part.items])
        said = Told(users.bias[some], users.taste[some])
        rest = part.values - network.left_out(part, told, said)
        total.index_add_(0, part.items, rest.double())
        count.index_add_(0, part.items, torch.ones_like(rest, dtype=torch.float64))
    beyond: Tensor = total / (_PRIOR + count)
    return beyond.float()
