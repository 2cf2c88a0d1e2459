"""`ALSRecommender` against its normal equations, its loss and a planted structure."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_histories import EDGES, check_scores, check_shares, table, tables

from llmrec_kernels.recommenders import ALSRecommender, als


def solved(taken, others, regularization, alpha):
    """Each row's factors by its normal equations, with a weight for every entry, taken or not."""
    confidence = 1 + alpha * taken
    factors = np.zeros((len(taken), others.shape[1]))
    for row in range(len(taken)):
        system = regularization * np.eye(others.shape[1])
        wish = np.zeros(others.shape[1])
        for column in range(len(others)):
            y = others[column]
            system += confidence[row, column] * np.outer(y, y)
            wish += confidence[row, column] * taken[row, column] * y
        factors[row] = np.linalg.solve(system, wish)
    return factors


def loss(taken, users, items, regularization, alpha):
    """What Hu, Koren and Volinsky minimise."""
    error = (1 + alpha * taken) * (taken - users @ items.T) ** 2
    return error.sum() + regularization * ((users**2).sum() + (items**2).sum())


def item_factors(model):
    return model._learned.items.data.double().numpy()


OPTIONS = {
    "factors": st.integers(1, 4),
    "regularization": st.sampled_from([0.3, 2.0]),
    "alpha": st.sampled_from([0.0, 1.0, 20.0]),
}


def fitted(data, factors, regularization, alpha, **options):
    return data.fit(ALSRecommender(factors, regularization, alpha=alpha, **options))


@settings(max_examples=25)
@given(data=tables(), sweeps=st.integers(1, 4), **OPTIONS)
def test_each_half_of_a_sweep_solves_its_normal_equations(
    data, sweeps, factors, regularization, alpha
):
    taken = data.taken.astype(float)
    before, after = (
        item_factors(fitted(data, factors, regularization, alpha, sweeps=one))
        for one in (sweeps, sweeps + 1)
    )
    users = solved(taken, before, regularization, alpha)
    np.testing.assert_allclose(after, solved(taken.T, users, regularization, alpha), atol=1e-4)


@settings(max_examples=15)
@given(data=tables(8, 8), seed=st.integers(0, 99), **OPTIONS)
def test_the_loss_never_rises_from_sweep_to_sweep(data, seed, factors, regularization, alpha):
    taken = data.taken.astype(float)
    losses = []
    for sweeps in range(1, 7):
        model = fitted(data, factors, regularization, alpha, sweeps=sweeps, seed=seed)
        items = item_factors(model)
        users = solved(taken, items, regularization, alpha)
        losses.append(loss(taken, users, items, regularization, alpha))
    assert (np.diff(losses) <= 1e-5 * losses[0]).all()


def check(data, factors, regularization, alpha):
    """Scores and shares, with the items' factors as they were learned."""
    model = fitted(data, factors, regularization, alpha)
    items, taken = item_factors(model), data.taken.astype(float)
    scores = solved(taken, items, regularization, alpha) @ items.T
    said = (solved(taken, items, regularization, alpha).astype(np.float32) != 0).any(axis=1)
    check_scores(model, data, scores, said, atol=1e-4)
    for user in np.flatnonzero(said):
        system = (items.T * (1 + alpha * taken[user])) @ items + regularization * np.eye(factors)
        for item in range(len(items)):
            every = (1 + alpha) * items @ np.linalg.inv(system) @ items[item]
            why = check_shares(model, data, taken[user] * every, user, item)
            assert why.share.sum() == pytest.approx(why.score, abs=1e-4)
            assert why.weight.tolist() == [1.0] * int(taken[user].sum())


@settings(max_examples=20)
@given(data=tables(), **OPTIONS)
def test_scores_and_shares_are_those_of_the_users_equations(data, factors, regularization, alpha):
    check(data, factors, regularization, alpha)


@pytest.mark.parametrize("edge", EDGES)
def test_the_equations_hold_at_the_edges(edge):
    check(EDGES[edge], 2, 0.5, 1.0)


def test_the_loss_is_as_low_as_that_of_a_general_minimiser():
    from scipy.optimize import minimize

    data = table(np.random.default_rng(1).random((7, 6)) < 0.5)
    taken = data.taken.astype(float)
    model = fitted(data, 2, 0.5, 3.0, sweeps=200)
    items = item_factors(model)
    ours = loss(taken, solved(taken, items, 0.5, 3.0), items, 0.5, 3.0)

    def of_flat(flat):
        users, items = flat[:14].reshape(7, 2), flat[14:].reshape(6, 2)
        return loss(taken, users, items, 0.5, 3.0)

    starts = np.random.default_rng(0).normal(size=(8, 26))
    theirs = min(minimize(of_flat, start).fun for start in starts)
    assert ours <= theirs * 1.01


def test_a_history_without_a_user_is_folded_in_by_the_same_equations():
    data = table(np.random.default_rng(2).integers(0, 2, size=(20, 9)))
    model = fitted(data, 3, 0.5, 2.0)
    items = item_factors(model)
    taken = np.zeros((1, 9))
    taken[0, [1, 4, 7]] = 1
    wanted = (solved(taken, items, 0.5, 2.0) @ items.T)[0]
    answer = model.recommend_from_history([data.items[one] for one in (1, 4, 7)])
    places = [data.items.index(one) for one in answer.item]
    np.testing.assert_allclose(answer.score, wanted[places], atol=1e-5)
    assert sorted(places) == [0, 2, 3, 5, 6, 8]
    assert (np.diff(answer.score) <= 0).all()


def test_feedback_is_folded_in_and_the_factors_of_items_stay():
    data = table(np.random.default_rng(2).integers(0, 2, size=(20, 9)))
    model = fitted(data, 3, 0.5, 2.0)
    items = item_factors(model)
    model.update(pd.DataFrame({"user": ["new", "new"], "item": data.items[:2]}))
    taken = np.zeros((1, 9))
    taken[0, :2] = 1
    wanted = (solved(taken, items, 0.5, 2.0) @ items.T)[0]
    np.testing.assert_allclose(model.score(["new"] * 9, data.items), wanted, atol=1e-5)
    np.testing.assert_array_equal(item_factors(model), items)


def test_planted_groups_are_found():
    """Users of three groups take eight in ten of their group's items and little else."""
    rng = np.random.default_rng(7)
    user, item = np.arange(60) % 3, np.arange(30) % 3
    alike = user[:, None] == item
    data = table((rng.random((60, 30)) < np.where(alike, 0.8, 0.05)).astype(int))
    model = data.fit(ALSRecommender(3, 1.0))
    answer = model.recommend(data.users, k=30)
    for code, name in enumerate(data.users):
        missing = (alike[code] & ~data.taken[code]).sum()
        first = [data.items.index(one) for one in answer.item[answer.user == name][:missing]]
        assert all(alike[code, first])


def test_work_in_blocks_comes_to_the_same(monkeypatch):
    data = table(np.random.default_rng(5).integers(0, 2, size=(13, 11)))
    whole = item_factors(fitted(data, 4, 0.5, 1.0))
    monkeypatch.setattr(als, "_NUMBERS_AT_ONCE", 90)  # five users, and two factors, at a time
    np.testing.assert_allclose(item_factors(fitted(data, 4, 0.5, 1.0)), whole, atol=1e-5)


def test_a_seed_gives_one_result_and_another_seed_another():
    data = table(np.random.default_rng(5).integers(0, 2, size=(13, 11)))
    one, again, other = (item_factors(fitted(data, 2, 0.5, 1.0, seed=s)) for s in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)


def test_refused_options_say_what_is_expected():
    for options, message in (
        ({"factors": 0}, "factors is 0"),
        ({"regularization": 0}, "regularization is 0; expected more than 0"),
        ({"alpha": -1}, "alpha is -1; expected at least 0"),
        ({"sweeps": 0}, "sweeps is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ALSRecommender(**options)
    data = EDGES["one who took nothing"]
    with pytest.raises(ValueError, match="user 'user 1' has no history that this model can use"):
        data.fit(ALSRecommender(2)).explain("user 1", data.items[0])
