"""`AlignedRecommender` against NumPy's SVD and the ridge regression of scikit-learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from small_histories import EDGES, check_scores, check_shares, table, tables

from llmrec_kernels.recommenders import AlignedRecommender, UnsupportedError

FEATURES = np.random.default_rng(11).normal(size=(40, 4)) + 0.5


def unit(rows):
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 1e-7)


def lifted(data):
    """Ratings less the lowest, [U, N]; ones where that leaves nothing of any."""
    lowest = data.ratings[data.taken].min() if data.taken.any() else 0
    above = (data.ratings - lowest) * data.taken
    return above.astype(float) if above.any() else data.taken.astype(float)


class Aligned:
    """The formulas of the module with dense matrices."""

    def __init__(self, data, embeddings, factors, regularization):
        n_items = data.ratings.shape[1]
        count = data.taken.sum(axis=0)
        known = count > 0
        _, strength, right = np.linalg.svd(lifted(data), full_matrices=False)
        rank = min(factors, int((strength > 1e-9).sum()))
        strength = np.append(strength, 0.0)
        self.gap = strength[rank - 1] - strength[rank] if rank else 1.0
        v = np.zeros((n_items, factors))
        v[:, :rank] = right[:rank].T
        z = np.log(1.0 + count)
        self.x = unit(unit(embeddings) - unit(embeddings).mean(axis=0))
        told = np.zeros((n_items, factors + 1))
        if known.any():
            v /= np.sqrt((v[known] ** 2).sum(axis=1).mean())
            spread = z[known].std()
            z = (z - z[known].mean()) / spread if spread > 1e-9 else 0.0 * z
            self.ridge = Ridge(alpha=regularization)
            self.ridge.fit(self.x[known], np.column_stack([v, z])[known])
            told = self.ridge.predict(self.x)
        trust = (count / (count + 1.0))[:, None]
        mixed = trust * np.column_stack([v, z]) + (1 - trust) * told
        self.v, self.z, self.told = mixed[:, :-1], mixed[:, -1], told[:, :-1]

    def weights(self, data):
        above = lifted(data)
        raw = np.where(above.any(axis=1, keepdims=True), above, data.taken)
        total = raw.sum(axis=1, keepdims=True)
        return np.divide(raw, total, out=np.zeros_like(raw), where=total > 0)


def is_defined(data, factors):
    """Whether the factors, and the direction of each profile, are clear from rounding."""
    wanted = Aligned(data, FEATURES[: data.ratings.shape[1]], factors, 1.0)
    lengths = np.linalg.norm(wanted.weights(data) @ wanted.v, axis=1)
    return wanted.gap > 0.05 and ((lengths > 1e-3) == data.taken.any(axis=1)).all()


def check(data, factors, regularization, popularity):
    embeddings = FEATURES[: data.ratings.shape[1]]
    wanted = Aligned(data, embeddings, factors, regularization)
    options = {"factors": factors, "regularization": regularization, "popularity": popularity}
    model = data.fit(AlignedRecommender(embeddings=embeddings, **options))
    weights = wanted.weights(data)
    summed = weights @ wanted.v
    scores = unit(summed) @ wanted.v.T + popularity * wanted.z
    check_scores(model, data, scores, summed.any(axis=1), atol=2e-4)
    for user in np.flatnonzero(summed.any(axis=1)):
        for item in range(len(wanted.z)):
            shares = weights[user] * (wanted.v @ wanted.v[item]) / np.linalg.norm(summed[user])
            why = check_shares(model, data, shares, user, item)
            assert why.blocks["popularity"] == pytest.approx(popularity * wanted.z[item], abs=2e-4)
            assert why.blocks["taste"] == pytest.approx(why.share.sum(), abs=1e-5)
            assert sum(why.blocks.values()) == pytest.approx(why.score, abs=1e-5)


@settings(max_examples=30)
@given(
    data=tables(7, 7),
    factors=st.integers(1, 4),
    regularization=st.sampled_from([0.5, 10.0]),
    popularity=st.sampled_from([0.0, 0.05, 2.0]),
)
def test_items_are_where_clicks_and_texts_put_them(data, factors, regularization, popularity):
    assume(is_defined(data, factors))
    check(data, factors, regularization, popularity)


@pytest.mark.parametrize(
    ("edge", "factors"),
    [(edge, f) for edge, data in EDGES.items() for f in (1, 2, 16) if is_defined(data, f)],
)
def test_the_formulas_hold_at_the_edges(edge, factors):
    check(EDGES[edge], factors, 1.0, 0.5)


def test_a_table_too_large_to_be_taken_apart_whole_gives_the_same():
    rng = np.random.default_rng(9)
    group, kind = rng.integers(0, 4, size=1100), rng.integers(0, 4, size=1000)
    chance = np.where(group[:, None] == kind, 0.4, 0.02) * rng.random(1000)
    data = table(rng.integers(1, 6, size=chance.shape) * (rng.random(chance.shape) < chance))
    embeddings = rng.normal(size=(1000, 6))
    wanted = Aligned(data, embeddings, 4, 10.0)
    assert wanted.gap > 1
    model = AlignedRecommender(embeddings=embeddings, factors=4, popularity=0.5)
    model.fit(data.frame(), data.catalogue())
    some = np.flatnonzero(data.taken.any(axis=1))[:9]
    scores = unit(wanted.weights(data)[some] @ wanted.v) @ wanted.v.T + 0.5 * wanted.z
    found = [model.score([data.users[one]] * 1000, data.items) for one in some]
    np.testing.assert_allclose(found, scores, atol=1e-4)


def clicks(rng, n_users, n_items):
    return rng.integers(1, 6, size=(n_users, n_items)) * (rng.random((n_users, n_items)) < 0.5)


def similarities(model, items):
    """Cosines between all items by what the model knows of them."""
    found = model.similar_items(items, k=len(items)).to_pandas()
    return found.set_index(["item", "similar"]).score


def test_items_of_many_clicks_are_where_the_svd_puts_them():
    rng = np.random.default_rng(1)
    data = table(clicks(rng, 400, 12))
    model = data.fit(AlignedRecommender(embeddings=FEATURES[:12], factors=5))
    places = np.linalg.svd(lifted(data), full_matrices=False)[2][:5].T
    wanted = unit(places) @ unit(places).T
    for (item, other), cosine in similarities(model, data.items).items():
        one, two = data.items.index(item), data.items.index(other)
        assert cosine == pytest.approx(wanted[one, two], abs=0.03)


def test_a_new_item_is_where_the_ridge_regression_puts_its_text():
    rng = np.random.default_rng(2)
    ratings = np.hstack([clicks(rng, 60, 20), np.zeros((60, 1), dtype=int)])
    data = table(ratings)
    embeddings = FEATURES[:21].copy()
    embeddings[20] = 3.0 * embeddings[4]  # the text of a known item, at another length
    model = data.fit(
        AlignedRecommender(embeddings=embeddings, factors=3, regularization=2.0, popularity=0)
    )
    wanted = Aligned(data, embeddings, 3, 2.0)
    told = wanted.ridge.predict(wanted.x[[4]])[0, :-1]
    profiles = unit(wanted.weights(data) @ wanted.v)
    found = model.score(data.users, [data.items[20]] * 60)
    np.testing.assert_allclose(found, profiles @ told, atol=1e-5)
    told_cosines = unit(told) @ unit(wanted.v[:20]).T
    found = similarities(model, data.items)[data.items[20]]
    for item, cosine in found.items():
        assert cosine == pytest.approx(told_cosines[data.items.index(item)], abs=1e-5)


def test_items_with_the_same_users_are_in_the_same_place():
    """Also where there are more factors than the clicks have directions."""
    data = table([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]] * 5)
    same = np.tile(FEATURES[:1], (4, 1))  # texts say nothing
    model = data.fit(AlignedRecommender(embeddings=same, factors=4))
    alike = similarities(model, data.items)
    assert alike[data.items[0], data.items[1]] == pytest.approx(1.0, abs=1e-3)


def test_ratings_that_are_all_alike_count_as_taken():
    data = table(4 * (clicks(np.random.default_rng(3), 30, 8) > 0))
    other = data._replace(ratings=np.minimum(data.ratings, 1))
    one, two = (
        each.fit(AlignedRecommender(embeddings=FEATURES[:8], factors=3)) for each in (data, other)
    )
    answers = [model.recommend(data.users, k=8) for model in (one, two)]
    np.testing.assert_array_equal(answers[0].item, answers[1].item)
    np.testing.assert_array_equal(answers[0].score, answers[1].score)


class Words:
    """A text encoder: which of a few words come."""

    words = ("space", "crime", "love", "war", "dog")

    def encode(self, texts):
        rows = [[text.split().count(word) for word in self.words] for text in texts]
        return np.array(rows, dtype=np.float64).reshape(len(rows), -1)


TEXTS = ["space war", "crime love", "love dog dog", "space space", "war crime", "dog space love"]


def test_a_text_is_one_more_item_that_was_liked():
    data = table(clicks(np.random.default_rng(5), 30, 6))
    items = data.catalogue().assign(text=TEXTS)
    model = AlignedRecommender(Words(), factors=3, regularization=0.5, popularity=0.1)
    model.fit(data.frame(), items)
    wanted = Aligned(data, Words().encode(TEXTS), 3, 0.5)
    question = "a dog in a war"
    raw = unit(Words().encode(TEXTS))
    x = unit(unit(Words().encode([question])) - raw.mean(axis=0))
    told = wanted.ridge.predict(x)[0, :-1]
    for liked in ([], [2], [0, 3]):
        profile = unit(told + wanted.v[liked].sum(axis=0))
        scores = wanted.v @ profile + 0.1 * wanted.z
        answer = model.recommend_from_text(question, liked=[data.items[one] for one in liked])
        places = [data.items.index(one) for one in answer.item]
        assert sorted(places + liked) == list(range(6))
        np.testing.assert_allclose(answer.score, scores[places], atol=1e-5)
        assert (np.diff(answer.score) <= 0).all()


def test_without_an_encoder_there_is_no_question_in_words():
    data = EDGES["equal ratings"]
    model = data.fit(AlignedRecommender(embeddings=FEATURES[:4]))
    with pytest.raises(UnsupportedError, match="AlignedRecommender reads no text"):
        model.recommend_from_text("space")


def test_feedback_moves_the_profile_and_no_item():
    data = table(clicks(np.random.default_rng(6), 40, 8))
    model = data.fit(AlignedRecommender(embeddings=FEATURES[:8], factors=3, popularity=0))
    before = similarities(model, data.items)
    model.update(pd.DataFrame({"user": ["new"], "item": data.items[:1], "rating": [5.0]}))
    pd.testing.assert_series_equal(similarities(model, data.items), before)
    wanted = Aligned(data, FEATURES[:8], 3, 10.0)
    found = model.score(["new"] * 8, data.items)
    np.testing.assert_allclose(found, wanted.v @ unit(wanted.v[0]), atol=1e-5)


def test_refused_options_say_what_is_expected():
    for options, message in (
        ({"factors": 0}, "factors is 0"),
        ({"regularization": 0}, "regularization is 0; expected more than 0"),
        ({"popularity": -1}, "popularity is -1; expected at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            AlignedRecommender(embeddings=FEATURES, **options)
    data = EDGES["one who took nothing"]
    model = data.fit(AlignedRecommender(embeddings=FEATURES[:4]))
    with pytest.raises(ValueError, match="user 'user 1' has no history that this model can use"):
        model.explain("user 1", data.items[0])
