"""`UserKNNRecommender` against loops over pairs of users."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_histories import EDGES, check_scores, table, tables
from test_recommenders_biases import in_turns

from llmrec_kernels.recommenders import UnsupportedError, UserKNNRecommender


def near(rows, neighbours, shrink):
    """s_uv for the users v in N(u), 0 for others, [U, U]: users are neighbours of themselves."""
    similar = np.zeros((len(rows), len(rows)))
    for u in range(len(rows)):
        for v in range(len(rows)):
            lengths = np.linalg.norm(rows[u]) * np.linalg.norm(rows[v]) + shrink
            if lengths > 0:
                similar[u, v] = rows[u] @ rows[v] / lengths
        rounded = similar[u].astype(np.float32)  # what is ranked by; equal ones by their place
        order = sorted(range(len(rows)), key=lambda v, row=rounded: (-row[v], v))
        kept = [v for v in order if rounded[v] > 0][:neighbours]
        similar[u, [v for v in range(len(rows)) if v not in kept]] = 0.0
    return similar


def check_neighbours(model, data, votes, user, item):
    """That an explanation has these neighbours with these shares, [U]."""
    why = model.explain(data.users[user], data.items[item])
    assert (why.kind, why.user, why.item) == ("neighbour", data.users[user], data.items[item])
    found = dict(zip(why.source.tolist(), why.share, strict=True))
    every = [found.get(one, 0.0) for one in data.users]
    np.testing.assert_allclose(every, votes, atol=1e-5)
    assert (np.diff(why.share) <= 0).all()
    return why


def check_implicit(data, neighbours, shrink):
    model = data.fit(UserKNNRecommender(neighbours, shrink))
    similar = near(data.taken.astype(float), neighbours, shrink)
    scores = similar @ data.taken
    check_scores(model, data, scores)
    for user in np.flatnonzero(scores.any(axis=1)):
        for item in range(scores.shape[1]):
            votes = similar[user] * data.taken[:, item]
            why = check_neighbours(model, data, votes, user, item)
            assert why.share.sum() == pytest.approx(why.score, abs=1e-5)
            codes = [data.users.index(one) for one in why.source]
            np.testing.assert_allclose(why.weight, similar[user, codes])


def check_ratings(data, neighbours, shrink):
    model = data.fit(UserKNNRecommender(neighbours, shrink, feedback="ratings"))
    mean, users, items = in_turns(data)
    baseline = mean + users[:, None] + items
    rest = (data.ratings - baseline) * data.taken
    similar = near(rest, neighbours, shrink)
    shares = np.zeros((*rest.shape, len(users)))  # [U, i, v]
    for u in range(len(users)):
        for i in range(len(items)):
            weight = (similar[u] * data.taken[:, i]).sum()
            if weight > 0:
                shares[u, i] = similar[u] * rest[:, i] / weight
    given = data.ratings[data.taken] if data.taken.any() else np.zeros(1)
    wanted = np.clip(baseline + shares.sum(axis=2), given.min(), given.max())
    said = data.taken.any(axis=1)
    check_scores(model, data, wanted, said)
    pairs = [(user, item) for user in data.users for item in data.items]
    found = model.predict(*zip(*pairs, strict=True)).reshape(wanted.shape)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    for u in np.flatnonzero(said):
        for i in range(len(items)):
            why = check_neighbours(model, data, shares[u, i], u, i)
            total = np.clip(baseline[u, i] + why.share.sum(), given.min(), given.max())
            assert why.score == pytest.approx(total, abs=1e-5)


@settings(max_examples=25)
@given(
    data=tables(),
    neighbours=st.sampled_from([1, 2, 100]),
    shrink=st.sampled_from([0.0, 0.5, 10.0]),
)
def test_scores_are_sums_of_the_similarities_of_who_took_the_item(data, neighbours, shrink):
    check_implicit(data, neighbours, shrink)


@settings(max_examples=25)
@given(data=tables(), shrink=st.sampled_from([0.3, 5.0]))
def test_ratings_are_the_baseline_and_what_near_users_say(data, shrink):
    check_ratings(data, 1000, shrink)


def test_few_neighbours_are_the_nearest_ones():
    rng = np.random.default_rng(8)
    data = table(rng.integers(1, 6, size=(9, 14)) * (rng.random((9, 14)) < 0.7))
    for neighbours in (1, 2, 5):
        check_implicit(data, neighbours, 1.0)
        check_ratings(data, neighbours, 0.0)


@pytest.mark.parametrize("edge", EDGES)
def test_the_formulas_hold_at_the_edges(edge):
    check_implicit(EDGES[edge], 2, 1.0)
    check_implicit(EDGES[edge], 2, 0.0)
    check_ratings(EDGES[edge], 1000, 0.5)


@settings(max_examples=25)
@given(data=tables(), news=tables(), feedback=st.sampled_from(["implicit", "ratings"]))
def test_what_one_user_takes_counts_at_once_for_all(data, news, feedback):
    """However little or much comes: what it comes to is worked out from the final histories."""
    n_users = max(len(data.ratings), len(news.ratings))
    both = np.zeros((n_users, data.ratings.shape[1]), dtype=int)
    both[: len(data.ratings)] = data.ratings
    for user, item in zip(*np.nonzero(news.ratings), strict=True):
        if item < both.shape[1]:
            both[user, item] = news.ratings[user, item]
    after = table(both)
    changed = both.copy()
    changed[: len(data.ratings)] *= both[: len(data.ratings)] != data.ratings
    late = table(changed)
    model = data.fit(
        UserKNNRecommender(2 if feedback == "implicit" else 1000, 0.5, feedback=feedback)
    )
    frame = late.frame()
    model.update(
        frame.assign(item=[after.items[late.items.index(one)] for one in frame.item], timestamp=99)
    )
    if feedback == "implicit":
        known = [
            user
            for code, user in enumerate(after.users)
            if after.taken[code].any() or code < len(data.ratings)
        ]
        scores = near(after.taken.astype(float), 2, 0.5) @ after.taken
        rows = [after.users.index(user) for user in known]
        for row, user in zip(rows, known, strict=True):
            wanted = scores[row] if scores[row].any() else after.taken.sum(axis=0)
            found = model.score([user] * len(after.items), after.items)
            np.testing.assert_allclose(found, wanted, atol=1e-5)
    else:
        mean, _, items = in_turns(data)  # these stay
        rest = np.zeros(both.shape)
        users = np.zeros(n_users)
        for u in range(n_users):
            own = after.taken[u]
            users[u] = (both[u] - mean - items)[own].sum() / (5 + own.sum())
            rest[u, own] = (both[u] - mean - users[u] - items)[own]
        similar = near(rest, 1000, 0.5)
        given = data.ratings[data.taken] if data.taken.any() else np.zeros(1)
        for u in np.flatnonzero(after.taken.any(axis=1)):
            for i in range(both.shape[1]):
                weight = (similar[u] * after.taken[:, i]).sum()
                said = similar[u] @ rest[:, i] / weight if weight > 0 else 0.0
                wanted = np.clip(mean + users[u] + items[i] + said, given.min(), given.max())
                found = model.predict([after.users[u]], [after.items[i]])
                assert found[0] == pytest.approx(wanted, abs=1e-4)


def test_someone_known_by_a_history_alone_is_compared_with_all_users():
    data = EDGES["an item nobody took"]
    similar = near(np.vstack([data.taken, [1, 0, 1, 0]]).astype(float), 100, 1.0)[-1, :-1]
    wanted = similar @ data.taken
    model = data.fit(UserKNNRecommender(shrink=1.0))
    answer = model.recommend_from_history([data.items[0], data.items[2]])
    assert answer.item.tolist() == [data.items[1], data.items[3]]
    assert answer.score == pytest.approx(wanted[[1, 3]])


def test_equal_scores_come_in_the_order_of_the_items():
    data = EDGES["items all alike"]
    assert data.fit(UserKNNRecommender()).recommend(["user 3"]).item.tolist() == data.items[:3]


def test_of_equally_near_users_the_first_ones_count():
    data = table([[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1], [1, 0, 0, 0]])
    model = data.fit(UserKNNRecommender(2, 0.0))  # of whom the user is one
    assert model.explain("user 3", data.items[0]).source.tolist() == ["user 3", "user 0"]
    assert model.recommend(["user 3"], k=1).item.tolist() == data.items[1:2]


def test_refused_questions_say_what_is_expected():
    data = EDGES["one who took nothing"]
    model = data.fit(UserKNNRecommender())
    with pytest.raises(UnsupportedError, match="UserKNNRecommender does not predict ratings"):
        model.predict(data.users[:1], data.items[:1])
    with pytest.raises(UnsupportedError, match="does not compare items"):
        model.similar_items(data.items[:1])
    with pytest.raises(ValueError, match="user 'user 1' has no history that this model can use"):
        model.explain("user 1", data.items[0])
    frame = pd.DataFrame({"user": ["user 1"], "item": [data.items[0]]})
    with pytest.raises(ValueError, match="interactions has no column rating"):
        data.fit(UserKNNRecommender(feedback="ratings")).update(frame)


def test_layers_of_changed_histories_answer_as_a_refit_does():
    draw = np.random.default_rng(11)
    rows = pd.DataFrame({"user": draw.integers(0, 40, 900), "item": draw.integers(0, 30, 900)})
    rows["timestamp"] = range(900)
    items = pd.DataFrame({"item": range(30)})
    model = UserKNNRecommender(7, 1.0).fit(rows[:700], items)
    depth = 0
    for start in range(700, 900, 3):
        model.update(rows[start : start + 3])
        answer = model.recommend([0, 7, 39], k=5).to_pandas()
        depth = max(depth, len(model._compared.layers))
        again = UserKNNRecommender(7, 1.0).fit(rows[: start + 3], items)
        pd.testing.assert_frame_equal(answer, again.recommend([0, 7, 39], k=5).to_pandas())
    assert 1 < depth < 8  # few layers, and yet each event is not laid out with all before it
