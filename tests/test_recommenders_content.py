"""What is particular to `ContentRecommender`; the rest is in the contract suite."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_kernels.datasets import movielens_100k
from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path
from llmrec_kernels.evaluation import cold_item_split, evaluate, leave_last_out
from llmrec_kernels.recommenders import ContentRecommender, UnsupportedError

ITEMS = pd.DataFrame({"item": [f"film {code}" for code in range(8)]})
VECTORS = np.random.default_rng(3).normal(size=(8, 6)) + 1.0
SEEN = pd.DataFrame(
    {
        "user": ["ann"] * 4 + ["bob"],
        "item": ["film 2", "film 5", "film 0", "film 7", "film 1"],
        "rating": [5.0, 2.0, 4.0, 1.0, 3.0],
        "timestamp": [40, 20, 10, 30, 5],
    }
)


class Words:
    """A text encoder: which of a few words come."""

    words = ("space", "crime", "love", "war", "dog")

    def encode(self, texts):
        rows = [[text.split().count(word) for word in self.words] for text in texts]
        return np.array(rows, dtype=np.float64).reshape(len(rows), -1)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def cosines(weights, centre=True):
    """Score of each item with the profile that these weights of items 0 to 7 make."""
    vectors = unit(VECTORS)
    if centre:
        vectors = unit(vectors - vectors.mean(axis=0))
    return vectors @ unit(np.asarray(weights, dtype=np.float64) @ vectors)


# Ann took, in time: film 0 (rated 4), film 5 (2), film 7 (1), film 2 (5). The lowest rating is 1.
PROFILES = {
    "mean": ({"pooling": "mean"}, [1, 0, 1, 0, 0, 1, 0, 1]),
    "by rating": ({"pooling": "rating"}, [3, 0, 4, 0, 0, 1, 0, 0]),
    "by rating, liked": ({"pooling": "rating", "min_rating": 3}, [3, 0, 4, 0, 0, 0, 0, 0]),
    "recent": ({"pooling": "recency", "half_life": 2}, [0.5**1.5, 0, 1, 0, 0, 0.5, 0, 0.5**0.5]),
    "recent, liked": (
        {"pooling": "recency", "half_life": 1, "min_rating": 2},
        [0.25, 0, 1, 0, 0, 0.5, 0, 0],
    ),
    "liked": ({"pooling": "mean", "min_rating": 4}, [1, 0, 1, 0, 0, 0, 0, 0]),
    "uncentred": ({"pooling": "mean", "centre": False}, [1, 0, 1, 0, 0, 1, 0, 1]),
}


@pytest.mark.parametrize("name", PROFILES)
def test_the_score_is_the_cosine_with_the_weighted_mean_of_the_history(name):
    options, weights = PROFILES[name]
    model = ContentRecommender(embeddings=VECTORS, **options).fit(SEEN, ITEMS)
    wanted = cosines(weights, options.get("centre", True))
    assert model.score(["ann"] * 8, ITEMS.item) == pytest.approx(wanted, abs=1e-5)
    answer = model.recommend(["ann"], k=8, filter_seen=False)
    assert answer.score.tolist() == pytest.approx(np.sort(wanted)[::-1], abs=1e-5)
    place = {item: code for code, item in enumerate(ITEMS.item)}
    assert answer.score == pytest.approx(wanted[[place[one] for one in answer.item]], abs=1e-5)


def test_a_history_without_ratings_counts_as_liked_and_all_alike():
    model = ContentRecommender(embeddings=VECTORS, min_rating=4).fit(SEEN, ITEMS)
    answer = model.recommend_from_history(["film 3", "film 4"], k=8)
    wanted = cosines([0, 0, 0, 1, 1, 0, 0, 0])
    assert dict(zip(answer.item, answer.score, strict=True)) == pytest.approx(
        {f"film {i}": wanted[i] for i in (0, 1, 2, 5, 6, 7)}, abs=1e-5
    )


def test_equal_ratings_are_weighed_as_no_ratings_at_all():
    alike = SEEN.assign(rating=1.0)
    models = [
        ContentRecommender(embeddings=VECTORS).fit(alike, ITEMS),
        ContentRecommender(embeddings=VECTORS).fit(alike.drop(columns="rating"), ITEMS),
        ContentRecommender(embeddings=VECTORS, pooling="mean").fit(SEEN, ITEMS),
    ]
    answers = [model.recommend(["ann", "bob"]).score.tolist() for model in models]
    assert answers[0] == answers[1] == answers[2]


def test_a_user_who_gave_only_the_lowest_rating_is_pooled_evenly():
    model = ContentRecommender(embeddings=VECTORS).fit(SEEN.assign(rating=[5, 5, 5, 5, 1]), ITEMS)
    assert model.score(["bob"], ["film 1"])[0] == pytest.approx(1.0)


def test_a_user_who_liked_nothing_gets_what_is_popular():
    model = ContentRecommender(embeddings=VECTORS, min_rating=4).fit(SEEN, ITEMS)
    answer = model.recommend(["bob", "ann"], k=3)
    assert answer.unknown_users == ("bob",)
    assert answer.item[:3].tolist() == ["film 0", "film 2", "film 5"]
    assert model.score(["bob"], ["film 0"]).tolist() == [1.0]
    with pytest.raises(ValueError, match="user 'bob' has no history that this model can use"):
        model.explain("bob", "film 0")


@settings(deadline=None, max_examples=40)
@given(
    taken=st.lists(
        st.tuples(st.integers(0, 7), st.integers(1, 5)), min_size=1, max_size=8, unique_by=min
    ),
    pooling=st.sampled_from(["mean", "rating", "recency"]),
    centre=st.booleans(),
)
def test_the_shares_of_an_explanation_add_up_to_the_score(taken, pooling, centre):
    seen = pd.DataFrame(
        {
            "user": 1,
            "item": [f"film {item}" for item, _ in taken],
            "rating": [rating for _, rating in taken],
        }
    )
    model = ContentRecommender(embeddings=VECTORS, pooling=pooling, centre=centre)
    model.fit(seen, ITEMS)
    for item in ITEMS.item:
        why = model.explain(1, item)
        assert why.share.sum() == pytest.approx(why.score, abs=1e-5)
        assert why.score == model.score([1], [item])[0]
        assert why.weight.sum() == pytest.approx(1.0)
        assert set(why.source) <= set(seen.item)
        assert (np.diff(why.share) <= 0).all()


def test_an_explanation_is_of_known_ids():
    model = ContentRecommender(embeddings=VECTORS).fit(SEEN, ITEMS)
    with pytest.raises(IndexError, match="user holds 'eve', which is no user"):
        model.explain("eve", "film 0")
    with pytest.raises(IndexError, match="item holds 'film 9', which is no item"):
        model.explain("ann", "film 9")
    frame = model.explain("ann", "film 3").to_pandas()
    assert list(frame.columns) == ["history", "weight", "share"]
    assert dict(zip(frame.history, frame.weight, strict=True)) == pytest.approx(
        {"film 2": 4 / 8, "film 0": 3 / 8, "film 5": 1 / 8}
    )


def test_similar_items_are_others_by_cosine():
    model = ContentRecommender(embeddings=VECTORS).fit(SEEN, ITEMS)
    answer = model.similar_items(["film 3", "film 0"], k=99).to_pandas()
    assert list(answer.columns) == ["item", "similar", "score", "rank"]
    for code, rows in zip((3, 0), (answer[:7], answer[7:]), strict=True):
        wanted = cosines(np.eye(8)[code])
        order = [one for one in np.argsort(-wanted) if one != code]
        assert rows.item.tolist() == [f"film {code}"] * 7
        assert rows.similar.tolist() == [f"film {one}" for one in order]
        assert rows.score.tolist() == pytest.approx(wanted[order], abs=1e-5)
        assert rows["rank"].tolist() == list(range(1, 8))
    assert len(model.similar_items([])) == 0
    with pytest.raises(IndexError, match="items holds 'film 9'"):
        model.similar_items(["film 9"])


WORDS = pd.DataFrame(
    {"item": [1, 2, 3, 4], "text": ["space war", "crime love", "love dog dog", "space space"]}
)
NOBODY = pd.DataFrame({"user": [], "item": []})


def test_a_sentence_finds_items_whose_text_is_like_it():
    model = ContentRecommender(Words()).fit(NOBODY, WORDS)
    answer = model.recommend_from_text("a film with space in it", k=2)
    assert answer.item.tolist() == [4, 1]
    assert set(answer.user) == {None}
    assert answer.unknown_users == ()
    nothing = model.recommend_from_text("kitchen")
    assert nothing.unknown_users == (None,)
    with pytest.raises(TypeError, match="text is a list; expected one string"):
        model.recommend_from_text(["space"])


def test_the_text_of_an_item_finds_that_item():
    model = ContentRecommender(Words()).fit(NOBODY, WORDS)
    for item, text in zip(WORDS.item, WORDS.text, strict=True):
        answer = model.recommend_from_text(text, k=1)
        assert answer.item.tolist() == [item]
        assert answer.score[0] == pytest.approx(1.0, abs=1e-5)


def test_given_embeddings_can_go_with_an_encoder_for_questions():
    vectors = Words().encode(WORDS.text)
    model = ContentRecommender(Words(), embeddings=vectors).fit(NOBODY, WORDS[["item"]])
    assert model.recommend_from_text("dog", k=1).item.tolist() == [3]


def test_without_an_encoder_there_is_no_question_in_words():
    model = ContentRecommender(embeddings=VECTORS).fit(SEEN, ITEMS)
    with pytest.raises(UnsupportedError, match="ContentRecommender reads no text"):
        model.recommend_from_text("space")


def test_items_that_nobody_took_are_recommended():
    held_out = ITEMS.item[[3, 4, 6]]
    model = ContentRecommender(embeddings=VECTORS).fit(SEEN, ITEMS)
    answer = model.recommend(["ann"], allow=held_out)
    assert set(answer.item) == set(held_out)
    assert answer.unknown_users == ()


def test_equal_scores_come_in_the_order_of_the_items_frame():
    vectors = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    items = pd.DataFrame({"item": [9, 3, 7, 5]})
    seen = pd.DataFrame({"user": [1], "item": [3], "rating": [5]})
    model = ContentRecommender(embeddings=vectors).fit(seen, items)
    assert model.recommend([1]).item.tolist() == [9, 7, 5]


def test_texts_that_say_nothing_are_not_made_to_say_something_by_centring():
    texts = WORDS.assign(text=["", "crime love", "space love", ""])
    seen = pd.DataFrame({"user": [1, 2], "item": [2, 1], "rating": [5, 5]})
    model = ContentRecommender(Words()).fit(seen, texts)
    assert model.score([1, 1], [1, 4]).tolist() == [0.0, 0.0]
    assert model.recommend([2]).unknown_users == (2,)  # took only what nothing is known of
    assert len(model.similar_items([1])) == 0


def test_a_catalogue_of_equal_texts_is_answered_with_what_is_popular():
    texts = WORDS.assign(text="crime love")
    seen = pd.DataFrame({"user": [1, 2], "item": [2, 3], "rating": [5, 5]})
    answer = ContentRecommender(Words()).fit(seen, texts).recommend([1])
    assert answer.unknown_users == (1,)
    assert answer.item.tolist() == [3, 1, 4]


def test_directions_that_are_rounding_alone_are_no_directions():
    # One direction in eight lengths: unit vectors that differ in their last bits.
    vectors = torch.linspace(0.1, 7.3, 8)[:, None] * torch.tensor(VECTORS[0]).float()
    assert len(torch.nn.functional.normalize(vectors).unique(dim=0)) > 1
    model = ContentRecommender(embeddings=vectors).fit(SEEN, ITEMS)
    assert model.recommend(["ann", "bob"]).unknown_users == ("ann", "bob")
    # A profile of two opposites.
    vectors = VECTORS.copy()
    vectors[1] = -3 * vectors[0]
    model = ContentRecommender(embeddings=vectors, pooling="mean", centre=False)
    model.fit(pd.DataFrame({"user": [1, 1], "item": ["film 0", "film 1"]}), ITEMS)
    assert model.recommend([1]).unknown_users == (1,)


def test_refused_options_say_what_is_expected():
    with pytest.raises(ValueError, match="neither an encoder nor embeddings"):
        ContentRecommender()
    with pytest.raises(TypeError, match=r"encoder is 'minilm'; expected an object with encode"):
        ContentRecommender("minilm")
    with pytest.raises(ValueError, match="pooling is 'max'; expected one of 'mean', 'rating'"):
        ContentRecommender(Words(), pooling="max")
    with pytest.raises(ValueError, match="half_life is 0; expected more than 0"):
        ContentRecommender(Words(), half_life=0)
    with pytest.raises(TypeError, match="min_rating is 'good'; expected a number"):
        ContentRecommender(Words(), min_rating="good")
    with pytest.raises(ValueError, match=r"embeddings has shape \[3\]"):
        ContentRecommender(embeddings=np.ones(3))
    with pytest.raises(ValueError, match="embeddings holds NaN or Inf in row 1"):
        ContentRecommender(embeddings=np.array([[1.0], [np.nan]]))


class Returns:
    def __init__(self, vectors):
        self.vectors = vectors

    def encode(self, texts):
        return self.vectors


BAD_FITS = {
    "embeddings of other items": (
        lambda: ContentRecommender(embeddings=VECTORS[:3]),
        WORDS,
        ValueError,
        "embeddings has 3 rows but items has 4",
    ),
    "no items": (lambda: ContentRecommender(Words()), None, ValueError, "items is None"),
    "embeddings of no items": (
        lambda: ContentRecommender(embeddings=VECTORS[:3]),
        None,
        ValueError,
        "items is None",
    ),
    "no texts": (
        lambda: ContentRecommender(Words()),
        WORDS[["item"]],
        ValueError,
        "items has no column text",
    ),
    "a missing text": (
        lambda: ContentRecommender(Words()),
        WORDS.assign(text=["space", None, "dog", "war"]),
        ValueError,
        "items has .* for text in row 1; expected a string",
    ),
    "an encoder with rows missing": (
        lambda: ContentRecommender(Returns(torch.ones(3, 2))),
        WORDS,
        ValueError,
        "encoder's result has 3 rows for 4 texts",
    ),
    "an encoder that fails": (
        lambda: ContentRecommender(Returns(torch.full((4, 2), torch.nan))),
        WORDS,
        ValueError,
        "encoder's result holds NaN or Inf in row 0",
    ),
    "an encoder that returns lists": (
        lambda: ContentRecommender(Returns([[1.0]] * 4)),
        WORDS,
        TypeError,
        "encoder's result is a list",
    ),
}


@pytest.mark.parametrize("name", BAD_FITS)
def test_a_refused_fit_says_why(name):
    make, items, error, message = BAD_FITS[name]
    seen = pd.DataFrame({"user": [1, 1, 2, 2], "item": [1, 2, 3, 4], "rating": 4})
    with pytest.raises(error, match=message):
        make().fit(seen, items)


def test_liking_needs_ratings():
    model = ContentRecommender(embeddings=VECTORS, min_rating=4)
    with pytest.raises(ValueError, match="interactions has no column rating"):
        model.fit(SEEN.drop(columns="rating"), ITEMS)


def test_an_encoder_that_fails_later_leaves_the_model_as_it_was():
    encoder = Words()
    model = ContentRecommender(encoder).fit(
        pd.DataFrame({"user": [7], "item": [1], "rating": [5]}), WORDS
    )
    before = model.recommend([7]).to_pandas()
    model.encoder = Returns(torch.full((2, 2), torch.nan))
    with pytest.raises(ValueError, match="NaN"):
        model.fit(NOBODY, WORDS[:2])
    pd.testing.assert_frame_equal(model.recommend([7]).to_pandas(), before)


@pytest.fixture(scope="module")
def movielens():
    data = movielens_100k()
    encoder = TextEncoder(bundled_encoder_path())
    return data, encoder.encode(data.items.text)


def cold_items_ndcg(movielens, seeds, **options):
    data, vectors = movielens
    values = []
    for seed in seeds:
        held_out = np.random.default_rng(seed).choice(1682, 336, replace=False) + 1
        train, test = cold_item_split(data.interactions, held_out)
        model = ContentRecommender(embeddings=vectors, **options).fit(train, data.items)
        report = evaluate(model, train, test, relevance=4, allow=held_out, metrics=("ndcg",))
        values.append(report["NDCG@10"])
    return np.mean(values)


@pytest.mark.parametrize("options", [{}, {"pooling": "mean", "min_rating": 4}])
def test_cold_items_reach_the_published_ruler(movielens, options):
    assert cold_items_ndcg(movielens, range(5), **options) >= 0.215


def test_centring_more_than_doubles_the_ranking_of_cold_items(movielens):
    raw, centred = (cold_items_ndcg(movielens, [0], centre=centre) for centre in (False, True))
    assert centred > 2 * raw


def test_on_warm_users_content_alone_stays_near_its_measured_place(movielens):
    data, vectors = movielens
    train, test = leave_last_out(data.interactions)
    model = ContentRecommender(embeddings=vectors).fit(train, data.items)
    report = evaluate(model, train, test, metrics=("hit_rate", "ndcg"))
    assert report["HR@10"] >= 0.05
    assert report["NDCG@10"] >= 0.025


def test_two_items_without_a_text_are_not_alike() -> None:
    films = pd.DataFrame({"item": [1, 2, 3, 4], "text": ["", " ", "space opera", "tax law"]})
    nobody = pd.DataFrame({"user": [], "item": []})
    encoder = TextEncoder(bundled_encoder_path(), cache_dir=False)
    model = ContentRecommender(encoder).fit(nobody, films)
    assert len(model.similar_items([1], k=3)) == 0


def test_a_default_dtype_of_float64_changes_nothing() -> None:
    films = pd.DataFrame({"item": [1, 2, 3]})
    seen = pd.DataFrame({"user": ["a"], "item": [1]})
    vectors = torch.eye(3)
    torch.set_default_dtype(torch.float64)
    try:
        model = ContentRecommender(embeddings=vectors).fit(seen, films)
        assert len(model.recommend(["a", "unknown"], k=2)) == 4
    finally:
        torch.set_default_dtype(torch.float32)
