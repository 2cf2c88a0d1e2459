"""Biases of users and items against loops, and against the ridge regression they converge to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.linear_model import Ridge
from small_histories import EDGES, table, tables

from llmrec_kernels.recommenders.biases import Biases
from llmrec_kernels.recommenders.history import History, as_rows

LAMBDA, SWEEPS = 5.0, 10


def histories(data):
    user, item = np.nonzero(data.taken)
    rows = as_rows(
        item, data.ratings[user, item].astype(float), data.times[user, item].astype(float)
    )
    return History(user, rows, data.ratings.shape[1]).of(np.arange(len(data.ratings)))


def in_turns(data):
    """The two formulas one after the other, and the users' once more: μ, [U] and [N]."""
    n_users, n_items = data.ratings.shape
    mean = data.ratings[data.taken].mean() if data.taken.any() else 0.0
    users, items = np.zeros(n_users), np.zeros(n_items)

    def move_users():
        for u in range(n_users):
            rest = [
                data.ratings[u, i] - mean - items[i] for i in range(n_items) if data.taken[u, i]
            ]
            users[u] = sum(rest) / (LAMBDA + len(rest))

    for _ in range(SWEEPS):
        move_users()
        for i in range(n_items):
            rest = [
                data.ratings[u, i] - mean - users[u] for u in range(n_users) if data.taken[u, i]
            ]
            items[i] = sum(rest) / (LAMBDA + len(rest))
    move_users()
    return mean, users, items


def check(data):
    mean, users, items = in_turns(data)
    lists = histories(data)
    found = Biases.of(lists, len(items))
    assert found.mean == pytest.approx(mean)
    np.testing.assert_allclose(found.items, items, atol=1e-12)
    np.testing.assert_allclose(found.of_users(lists), users, atol=1e-12)
    baseline = mean + users[:, None] + items
    wanted = (data.ratings - baseline)[lists.owners(), lists.rows["item"]]
    np.testing.assert_allclose(found.residuals(lists), wanted, atol=1e-12)
    deviations = np.random.default_rng(0).normal(size=baseline.shape) * 3
    rows = found.predicted(lists, deviations)
    if data.taken.any():
        given = data.ratings[data.taken]
        assert rows == pytest.approx(np.clip(baseline + deviations, given.min(), given.max()))


@settings(max_examples=60)
@given(data=tables())
def test_each_bias_is_the_shrunk_mean_of_what_the_others_leave(data):
    check(data)


@pytest.mark.parametrize("edge", EDGES)
def test_the_formulas_hold_at_the_edges(edge):
    check(EDGES[edge])


def test_they_come_to_the_ridge_regression_on_who_rated_and_what():
    rng = np.random.default_rng(4)
    ratings = rng.integers(1, 6, size=(12, 9)) * (rng.random((12, 9)) < 0.6)
    data = table(ratings)
    lists = histories(data)
    found = Biases.of(lists, 9)
    design = np.hstack([np.eye(12)[lists.owners()], np.eye(9)[lists.rows["item"]]])
    ridge = Ridge(alpha=LAMBDA, fit_intercept=False).fit(design, lists.rows["rating"] - found.mean)
    np.testing.assert_allclose(found.of_users(lists), ridge.coef_[:12], atol=1e-3)
    np.testing.assert_allclose(found.items, ridge.coef_[12:], atol=1e-3)


def test_equal_ratings_leave_no_biases():
    lists = histories(EDGES["equal ratings"])
    found = Biases.of(lists, 4)
    assert (found.mean, found.lowest, found.highest) == (3.0, 3.0, 3.0)
    assert not found.items.any()
    assert not found.of_users(lists).any()
    assert not found.residuals(lists).any()
