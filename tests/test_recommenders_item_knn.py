"""`ItemKNNRecommender` against loops over items and users."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity
from small_histories import EDGES, check_scores, check_shares, real, table, tables
from test_recommenders_biases import in_turns

from llmrec_kernels.datasets import movielens_100k, movielens_100k_split, movielens_latest_small
from llmrec_kernels.evaluation import evaluate, evaluate_ratings, leave_last_out
from llmrec_kernels.recommenders import ItemKNNRecommender, UnsupportedError


def near(columns, neighbours, shrink):
    """s_ij for the items j in N(i), 0 for others, [N, N]: by loops over pairs of columns."""
    n_items = columns.shape[1]
    similar = np.zeros((n_items, n_items))
    for i in range(n_items):
        for j in range(n_items):
            lengths = np.linalg.norm(columns[:, i]) * np.linalg.norm(columns[:, j]) + shrink
            if i != j and lengths > 0:
                similar[i, j] = columns[:, i] @ columns[:, j] / lengths
        rounded = similar[i].astype(np.float32)  # what is ranked by; equal ones by their place
        order = sorted(range(n_items), key=lambda j, row=rounded: (-row[j], j))
        kept = [j for j in order if rounded[j] > 0][:neighbours]
        similar[i, [j for j in range(n_items) if j not in kept]] = 0.0
    return similar


def predicted(data, neighbours, shrink):
    """r̂, not yet cut to the range of ratings, its baseline, and each history item's share."""
    mean, users, items = in_turns(data)
    baseline = mean + users[:, None] + items
    rest = (data.ratings - baseline) * data.taken
    similar = near(rest, neighbours, shrink)
    shares = np.zeros((*data.ratings.shape, data.ratings.shape[1]))  # [U, i, j]
    for user in range(len(rest)):
        for item in range(len(items)):
            weight = (similar[item] * data.taken[user]).sum()
            if weight > 0:
                shares[user, item] = similar[item] * rest[user] / weight
    return baseline, shares


def check_implicit(data, neighbours, shrink, half_life):
    model = data.fit(ItemKNNRecommender(neighbours, shrink, half_life=half_life))
    similar = near(data.taken.astype(float), neighbours, shrink)
    weights = data.taken * (1.0 if half_life is None else 0.5 ** (data.newer() / half_life))
    scores = weights @ similar.T
    check_scores(model, data, scores)
    for user in np.flatnonzero(scores.any(axis=1)):
        for item in range(len(similar)):
            why = check_shares(model, data, weights[user] * similar[item], user, item)
            assert why.share.sum() == pytest.approx(why.score, abs=1e-5)
            places = [data.items.index(one) for one in why.source]
            np.testing.assert_allclose(why.weight, similar[item, places])


def check_ratings(data, neighbours, shrink):
    model = data.fit(ItemKNNRecommender(neighbours, shrink, feedback="ratings"))
    baseline, shares = predicted(data, neighbours, shrink)
    given = data.ratings[data.taken] if data.taken.any() else np.zeros(1)
    wanted = np.clip(baseline + shares.sum(axis=2), given.min(), given.max())
    said = data.taken.any(axis=1)
    check_scores(model, data, wanted, said)
    pairs = [(user, item) for user in data.users for item in data.items]
    np.testing.assert_allclose(
        model.predict(*zip(*pairs, strict=True)).reshape(wanted.shape), wanted, atol=1e-5
    )
    for user in np.flatnonzero(said):
        for item in range(wanted.shape[1]):
            why = check_shares(model, data, shares[user, item], user, item)
            total = baseline[user, item] + why.share.sum()
            assert why.score == pytest.approx(np.clip(total, given.min(), given.max()), abs=1e-5)


@settings(max_examples=25)
@given(
    data=tables(),
    neighbours=st.sampled_from([1, 2, 100]),
    shrink=st.sampled_from([0.0, 0.5, 10.0]),
    half_life=st.sampled_from([None, 0.5, 2.0]),
)
def test_scores_are_sums_of_similarities_to_the_history(data, neighbours, shrink, half_life):
    check_implicit(data, neighbours, shrink, half_life)


# A shrinkage above 0: with none, similarities of a pair that only one user rated are all 1 or -1,
# up to the last bit, and which of them are the nearest is chance.
@settings(max_examples=25)
@given(data=tables(), neighbours=st.sampled_from([3, 1000]), shrink=st.sampled_from([0.3, 5.0]))
def test_ratings_are_the_baseline_and_what_near_items_say(data, neighbours, shrink):
    check_ratings(data, neighbours if neighbours > 5 else data.ratings.shape[1], shrink)


def test_few_neighbours_of_ratings_are_the_nearest_ones():
    rng = np.random.default_rng(8)
    data = table(rng.integers(1, 6, size=(15, 8)) * (rng.random((15, 8)) < 0.7))
    for neighbours in (1, 2, 5):
        check_ratings(data, neighbours, 0.0)


@pytest.mark.parametrize("edge", EDGES)
def test_the_formulas_hold_at_the_edges(edge):
    check_implicit(EDGES[edge], 2, 1.0, None)
    check_implicit(EDGES[edge], 2, 0.0, 1.0)
    check_ratings(EDGES[edge], 1000, 0.5)


def test_each_item_has_its_own_hundred_neighbours():
    """The nearest are counted for the item that is scored, not for that of the history."""
    rng = np.random.default_rng(5)
    data = table((rng.random((40, 130)) < 0.4).astype(int))
    model = data.fit(ItemKNNRecommender())
    check_scores(model, data, data.taken @ near(data.taken.astype(float), 100, 10.0).T)
    assert len(model.similar_items(data.items[:1], k=130)) == 100


@settings(max_examples=25)
@given(data=tables(), k=st.integers(1, 7))
def test_similar_items_are_those_of_the_highest_cosine(data, k):
    model = data.fit(ItemKNNRecommender(shrink=0))
    cosines = cosine_similarity(data.taken.T).astype(np.float32)
    np.fill_diagonal(cosines, 0.0)
    answer = model.similar_items(data.items, k=k).to_pandas()
    for code, item in enumerate(data.items):
        rows = answer[answer.item == item]
        wanted = np.sort(cosines[code][cosines[code] > 0])[::-1][:k]
        np.testing.assert_allclose(rows.score, wanted, rtol=1e-6)
        places = [data.items.index(one) for one in rows.similar]
        np.testing.assert_allclose(cosines[code, places], wanted, rtol=1e-6)


def test_equally_near_items_come_in_the_order_of_the_items():
    data = EDGES["items all alike"]
    model = data.fit(ItemKNNRecommender(shrink=0))
    assert model.similar_items(data.items[2:3]).similar.tolist() == [*data.items[:2], data.items[3]]
    assert model.recommend(["user 3"]).item.tolist() == data.items[:3]


def test_feedback_counts_at_once_and_the_neighbours_stay():
    data = table([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 1, 1], [1, 0, 0, 0]])
    model, similar = data.fit(ItemKNNRecommender(2, 0)), near(data.taken.astype(float), 2, 0)
    model.update(pd.DataFrame({"user": ["user 3"], "item": [data.items[2]]}))
    wanted = similar[:, [0, 2]].sum(axis=1)
    assert model.score(["user 3"] * 4, data.items) == pytest.approx(wanted)


def test_refused_options_say_what_is_expected():
    with pytest.raises(ValueError, match="feedback is 'clicks'; expected one of 'implicit'"):
        ItemKNNRecommender(feedback="clicks")
    with pytest.raises(ValueError, match="neighbours is 0"):
        ItemKNNRecommender(0)
    with pytest.raises(ValueError, match="shrink is -1; expected at least 0"):
        ItemKNNRecommender(shrink=-1)
    data = EDGES["equal ratings"]
    with pytest.raises(UnsupportedError, match="ItemKNNRecommender does not predict ratings"):
        data.fit(ItemKNNRecommender()).predict(data.users[:1], data.items[:1])
    with pytest.raises(ValueError, match="interactions has no column rating"):
        ItemKNNRecommender(feedback="ratings").fit(data.frame().drop(columns="rating"))


RULERS = {movielens_100k: (0.111, 0.060), movielens_latest_small: (0.074, 0.033)}


@pytest.mark.parametrize("load", RULERS)
def test_leave_last_out_reaches_the_published_rulers(load):
    data = real(load, download=False)
    train, test = leave_last_out(data.interactions)
    report = evaluate(
        ItemKNNRecommender().fit(train, data.items), train, test, metrics=("hit_rate", "ndcg")
    )
    assert (report["HR@10"], report["NDCG@10"]) == pytest.approx(RULERS[load], abs=0.005)


def test_the_publishers_split_gives_the_published_recall_and_errors():
    data = real(movielens_100k, download=False)
    train, test = real(movielens_100k_split, "u1")
    model = ItemKNNRecommender().fit(train, data.items)
    recall = evaluate(model, train, test, k=20, metrics=("recall",))["Recall@20"]
    ndcg = evaluate(model, train, test, metrics=("ndcg",))["NDCG@10"]
    assert (recall, ndcg) == pytest.approx((0.267, 0.495), abs=0.005)
    model = ItemKNNRecommender(feedback="ratings", shrink=0).fit(train, data.items)
    report = evaluate_ratings(model, test)
    assert report["RMSE"] <= 0.932
    assert report["MAE"] <= 0.735
