"""`EASERecommender` against the closed form written out with dense matrices."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_histories import EDGES, check_scores, check_shares, real, table, tables

from llmrec_kernels.datasets import movielens_100k
from llmrec_kernels.evaluation import evaluate, leave_last_out
from llmrec_kernels.recommenders import EASERecommender


def item_weights(data, regularization):
    """B of the paper: -P_ij / P_jj beside the diagonal, P the inverse of the ridged Gram matrix."""
    x = data.taken.astype(np.float64)
    inverse = np.linalg.inv(x.T @ x + regularization * np.eye(x.shape[1]))
    weights = np.zeros_like(inverse)
    for i in range(len(inverse)):
        for j in range(len(inverse)):
            if i != j:
                weights[i, j] = -inverse[i, j] / inverse[j, j]
    return weights


def history_weights(data, half_life):
    return data.taken * (1.0 if half_life is None else 0.5 ** (data.newer() / half_life))


def check(data, regularization, half_life):
    model = data.fit(EASERecommender(regularization, half_life=half_life))
    weights, taken = item_weights(data, regularization), history_weights(data, half_life)
    check_scores(model, data, taken @ weights)
    for user in np.flatnonzero((taken @ weights).any(axis=1)):
        for item in range(len(weights)):
            why = check_shares(model, data, taken[user] * weights[:, item], user, item)
            assert why.score == model.score([why.user], [why.item])[0]
            assert why.share.sum() == pytest.approx(why.score, abs=1e-5)
            weight = dict(zip(why.source.tolist(), why.weight, strict=True))
            own = np.flatnonzero(data.taken[user])
            assert weight == pytest.approx({data.items[one]: taken[user, one] for one in own})


@settings(max_examples=40)
@given(
    data=tables(),
    regularization=st.sampled_from([0.5, 2.0, 200.0]),
    half_life=st.sampled_from([None, 0.5, 2.0]),
)
def test_scores_and_shares_are_those_of_the_closed_form(data, regularization, half_life):
    check(data, regularization, half_life)


@pytest.mark.parametrize("edge", EDGES)
def test_the_closed_form_holds_at_the_edges(edge):
    check(EDGES[edge], 1.0, None)
    check(EDGES[edge], 1.0, 1.5)


def test_the_weights_are_the_best_of_all_with_a_zero_diagonal():
    """By the objective itself: |X - X B|² + λ |B|² rises in every direction without diagonal."""
    rng = np.random.default_rng(3)
    data = table(rng.integers(0, 2, size=(30, 6)))
    x, eye = data.taken.astype(float), np.eye(6)
    model = data.fit(EASERecommender(2.0))
    one_each = [model.recommend_from_history([item], k=6) for item in data.items]
    best = np.zeros((6, 6))
    for row, answer in enumerate(one_each):
        best[row, [data.items.index(one) for one in answer.item]] = answer.score

    def objective(weights):
        return ((x - x @ weights) ** 2).sum() + 2.0 * (weights**2).sum()

    for _ in range(50):
        step = rng.normal(size=(6, 6)) * (1 - eye) * 1e-2
        assert objective(best + step) > objective(best)


def test_what_counts_is_that_an_item_was_taken_not_how_it_was_rated():
    data = table(np.random.default_rng(0).integers(0, 6, size=(8, 5)))
    rated, alike = data.fit(EASERecommender(1.0)), data._replace(ratings=1 * data.taken)
    unrated = alike.fit(EASERecommender(1.0))
    np.testing.assert_array_equal(
        rated.recommend(data.users).score, unrated.recommend(data.users).score
    )


@settings(max_examples=25)
@given(data=tables(), k=st.integers(1, 7))
def test_similar_items_are_the_largest_positive_weights_of_a_row(data, k):
    weights = item_weights(data, 1.0).astype(np.float32)
    answer = data.fit(EASERecommender(1.0)).similar_items(data.items, k=k).to_pandas()
    for code, item in enumerate(data.items):
        rows = answer[answer.item == item]
        places = [data.items.index(one) for one in rows.similar]
        positive = [one for one in np.argsort(-weights[code]) if weights[code, one] > 1e-6]
        assert code not in places
        assert len(places) >= min(k, len(positive))
        np.testing.assert_allclose(
            rows.score, np.sort(weights[code])[::-1][: len(places)], atol=1e-6
        )
        np.testing.assert_allclose(rows.score, weights[code, places], atol=1e-6)


def test_a_penalty_too_small_for_the_numbers_is_refused():
    data = EDGES["items all alike"]
    with pytest.raises(ValueError, match="regularization is 1e-30; too little for"):
        data.fit(EASERecommender(1e-30))


def test_there_is_nothing_to_share_out_where_a_history_says_nothing():
    data = EDGES["one who took nothing"]
    model = data.fit(EASERecommender(1.0))
    with pytest.raises(ValueError, match="user 'user 1' has no history that this model can use"):
        model.explain("user 1", data.items[0])


def test_refused_options_say_what_is_expected():
    with pytest.raises(ValueError, match="regularization is 0; expected more than 0"):
        EASERecommender(0)
    with pytest.raises(ValueError, match="half_life is 0; expected more than 0, or None"):
        EASERecommender(half_life=0)


def test_leave_last_out_reaches_the_published_ruler():
    data = real(movielens_100k, download=False)
    train, test = leave_last_out(data.interactions)
    report = evaluate(EASERecommender().fit(train, data.items), train, test)
    assert report["HR@10"] == pytest.approx(0.143, abs=0.005)
    assert report["NDCG@10"] == pytest.approx(0.073, abs=0.005)


def test_feedback_counts_at_once_and_the_weights_of_items_stay():
    data = table([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 1, 1], [1, 0, 0, 0]])
    model, weights = data.fit(EASERecommender(1.0)), item_weights(data, 1.0)
    model.update(pd.DataFrame({"user": ["user 3", "new"], "item": [data.items[2]] * 2}))
    np.testing.assert_allclose(
        model.score(["user 3"] * 4, data.items), weights[[0, 2]].sum(0), atol=1e-6
    )
    np.testing.assert_allclose(model.score(["new"] * 4, data.items), weights[2], atol=1e-6)
