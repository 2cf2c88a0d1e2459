"""Small tables of who took what, and how a model is compared with scores worked out by hand."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llmrec_kernels.datasets import DatasetNotFoundError


class Table(NamedTuple):
    """Ratings of 1 and more, 0 where a user did not take an item; and when each was given."""

    ratings: np.ndarray  # [U, N]
    times: np.ndarray  # [U, N], each once for a user

    @property
    def taken(self):
        return self.ratings > 0

    @property
    def users(self):
        return [f"user {code}" for code in range(len(self.ratings))]

    @property
    def items(self):
        """Ids that fall as the places rise, so that one cannot be taken for the other."""
        return [500 - code for code in range(self.ratings.shape[1])]

    def frame(self):
        user, item = np.nonzero(self.taken)
        return pd.DataFrame(
            {
                "user": np.array(self.users)[user],
                "item": np.array(self.items)[item],
                "rating": self.ratings[user, item].astype(float),
                "timestamp": self.times[user, item],
            }
        )

    def catalogue(self):
        return pd.DataFrame({"item": self.items})

    def fit(self, model):
        return model.fit(self.frame(), self.catalogue(), pd.DataFrame({"user": self.users}))

    def newer(self):
        """How many items each user took after each, [U, N]."""
        counts = np.zeros(self.ratings.shape)
        for user, item in zip(*np.nonzero(self.taken), strict=True):
            later = self.times[user] > self.times[user, item]
            counts[user, item] = (later & self.taken[user]).sum()
        return counts


def table(ratings, seed=0):
    ratings = np.asarray(ratings)
    order = np.tile(np.arange(ratings.shape[1]), (len(ratings), 1))
    return Table(ratings, np.random.default_rng(seed).permuted(order, axis=1))


def tables(max_users=6, max_items=6, ratings=(0, 0, 1, 3, 4, 5)):
    """Any small table, half empty or so."""
    shapes = st.tuples(st.integers(1, max_users), st.integers(1, max_items))
    filled = shapes.flatmap(
        lambda shape: arrays(np.int64, shape, elements=st.sampled_from(ratings))
    )
    return st.builds(table, filled, st.integers(0, 9))


EDGES = {
    "one user": table([[1, 0, 5, 2]]),
    "one item": table([[5], [0], [3]]),
    "one user and one item": table([[4]]),
    "nobody took anything": table(np.zeros((3, 4), dtype=int)),
    "equal ratings": table([[3, 3, 0, 0], [3, 0, 3, 0], [0, 3, 3, 3]]),
    "an item nobody took": table([[5, 4, 0, 0], [3, 0, 2, 0], [0, 1, 5, 0]]),
    "one who took everything": table([[5, 4, 3, 2], [5, 0, 0, 1], [0, 4, 0, 0]]),
    "one who took nothing": table([[5, 4, 0, 2], [0, 0, 0, 0], [0, 4, 1, 0]]),
    "items all alike": table([[4, 4, 4, 0], [2, 2, 2, 0], [5, 5, 5, 5], [0, 0, 0, 1]]),
}


def check_scores(model, data, wanted, said=None, atol=1e-5):
    """That scores, lists and their order are those of a table [U, N].

    ``said`` has the users whom the model can answer, by default those with a score that is not 0;
    the others get what is popular.
    """
    said = wanted.any(axis=1) if said is None else said
    wanted = np.where(said[:, None], wanted, data.taken.sum(axis=0))
    pairs = [(user, item) for user in data.users for item in data.items]
    scores = model.score(*zip(*pairs, strict=True)).reshape(wanted.shape)
    np.testing.assert_allclose(scores, wanted, atol=atol)
    answer = model.recommend(data.users, k=len(data.items))
    assert answer.unknown_users == tuple(np.array(data.users)[~said])
    place = {item: code for code, item in enumerate(data.items)}
    for code, user in enumerate(data.users):
        own = answer.user == user
        places, found = np.array([place[one] for one in answer.item[own]], int), answer.score[own]
        assert sorted(places) == np.flatnonzero(~data.taken[code]).tolist()
        np.testing.assert_allclose(found, wanted[code, places], atol=atol)
        assert list(zip(-found, places, strict=True)) == sorted(zip(-found, places, strict=True))


def check_shares(model, data, shares, user, item):
    """That an explanation has these shares, [N], of the items of the history: those not 0."""
    why = model.explain(data.users[user], data.items[item])
    assert (why.kind, why.user, why.item) == ("history", data.users[user], data.items[item])
    found = dict(zip(why.source.tolist(), why.share, strict=True))
    assert set(found) <= {data.items[one] for one in np.flatnonzero(data.taken[user])}
    every = np.array([found.get(one, 0.0) for one in data.items])
    np.testing.assert_allclose(every, shares, atol=1e-5)
    assert (np.diff(why.share) <= 0).all()
    return why


def real(load, *arguments, **options):
    """A data set; where it is not at hand, the test is skipped with the reason."""
    try:
        return load(*arguments, **options)
    except DatasetNotFoundError as error:
        pytest.skip(str(error))
