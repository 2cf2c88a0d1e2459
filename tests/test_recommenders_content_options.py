"""User biases, questions in words, features and private profiles of `ContentRecommender`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp
from test_recommenders_content import ITEMS, NOBODY, SEEN, VECTORS, WORDS, Words, cosines, unit

from llmrec_kernels.recommenders import ContentRecommender, UnsupportedError
from llmrec_kernels.recommenders.base import Recommender
from llmrec_kernels.recommenders.features import FeatureEncoder
from llmrec_kernels.recommenders.privacy import GaussianProfile


def biases(seen):
    """Each user's mean rating over the mean of all, both with five ratings of the latter more."""
    mean = seen.rating.mean()
    return {
        user: (sum(own.rating) + 5 * mean) / (len(own) + 5) / mean
        for user, own in seen.groupby("user")
    }


@pytest.mark.parametrize("options", [{}, {"pooling": "mean"}, {"interests": 2}])
def test_a_users_bias_multiplies_every_score_and_changes_no_list(options):
    seen = SEEN.assign(rating=[5.0, 5.0, 4.0, 5.0, 1.0])
    plain, biased = (
        ContentRecommender(embeddings=VECTORS, user_bias=one, **options).fit(seen, ITEMS)
        for one in (False, True)
    )
    for user, bias in biases(seen).items():
        scores = plain.score([user] * 8, ITEMS.item)
        np.testing.assert_allclose(biased.score([user] * 8, ITEMS.item), bias * scores, atol=1e-6)
        answers = [model.recommend([user], k=8) for model in (plain, biased)]
        assert answers[0].item.tolist() == answers[1].item.tolist()
        for item in ITEMS.item:
            why = biased.explain(user, item)
            assert why.share.sum() == pytest.approx(why.score, abs=1e-5)


def test_a_users_bias_follows_feedback():
    model = ContentRecommender(embeddings=VECTORS, user_bias=True).fit(SEEN, ITEMS)
    news = pd.DataFrame(
        {"user": ["bob", "eve"], "item": ["film 3", "film 4"], "rating": [5, 1], "timestamp": 99}
    )
    whole = pd.concat([SEEN, news])
    again = ContentRecommender(embeddings=VECTORS, user_bias=True).fit(whole, ITEMS)
    pairs = [(user, item) for user in ("ann", "bob", "eve") for item in ITEMS.item]
    found = model.update(news).score(*zip(*pairs, strict=True))
    np.testing.assert_allclose(found, again.score(*zip(*pairs, strict=True)), atol=1e-6)


def test_a_bias_that_would_turn_lists_round_is_refused_and_changes_nothing():
    bad = SEEN.assign(rating=[5.0, -2.0, 4.0, 1.0, 3.0])
    model = ContentRecommender(embeddings=VECTORS, user_bias=True)
    with pytest.raises(
        ValueError, match=r"interactions has a rating of -2\.0; expected at least 0"
    ):
        model.fit(bad, ITEMS)
    with pytest.raises(ValueError, match=r"the mean of the ratings is 0.0; expected more than 0"):
        model.fit(SEEN.assign(rating=0.0), ITEMS)
    before = model.fit(SEEN, ITEMS).recommend(["ann", "bob"]).to_pandas()
    with pytest.raises(ValueError, match=r"interactions has a rating of -2\.0"):
        model.update(bad)
    pd.testing.assert_frame_equal(model.recommend(["ann", "bob"]).to_pandas(), before)


def word_vectors(texts):
    """Where texts are among `WORDS`: unit vectors of words less their mean, of length 1 again."""
    catalogue = unit(Words().encode(WORDS.text))
    return unit(unit(Words().encode(texts)) - catalogue.mean(axis=0))


@pytest.mark.parametrize("user_bias", [False, True])
@pytest.mark.parametrize("liked", [[], [2], [1, 4]])
def test_a_text_counts_as_one_more_item_that_was_liked(liked, user_bias):
    seen = pd.DataFrame({"user": [1, 2, 2], "item": [1, 2, 3], "rating": [4.0, 2.0, 3.0]})
    model = ContentRecommender(Words(), user_bias=user_bias).fit(seen, WORDS)
    items = word_vectors(WORDS.text)
    profile = word_vectors(["a dog in the war"])[0] + sum(items[one - 1] for one in liked)
    wanted = items @ unit(profile)
    if user_bias:  # what is liked counts as rated as high as the highest
        wanted *= (4.0 * len(liked) + 5 * 3.0) / (len(liked) + 5) / 3.0
    answer = model.recommend_from_text("a dog in the war", liked=liked)
    assert sorted([*answer.item, *liked]) == [1, 2, 3, 4]
    np.testing.assert_allclose(answer.score, wanted[answer.item - 1], atol=1e-6)
    assert (np.diff(answer.score) <= 0).all()


FILMS = WORDS.assign(genres=["sf|action", "drama", None, "sf"])


def feature_blocks():
    """Text and genres of `FILMS` as blocks: unit vectors, centred, at length 1, by weight."""
    ones = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0], [0, 0, 1]])  # action, drama, sf
    known = ones.any(axis=1)
    genres = np.zeros(ones.shape)
    genres[known] = unit(unit(ones[known]) - unit(ones[known]).mean(axis=0))
    return {"text": word_vectors(FILMS.text), "genres": np.sqrt(0.25) * genres}


def test_features_count_by_their_weights_and_each_has_its_share():
    encoder = FeatureEncoder(Words(), categories=["genres"], weights={"genres": 0.25})
    seen = pd.DataFrame({"user": [7, 7, 8], "item": [1, 2, 3], "rating": [5.0, 3.0, 2.0]})
    model = ContentRecommender(encoder).fit(seen, FILMS)
    blocks = feature_blocks()
    lengths = np.linalg.norm(np.hstack(list(blocks.values())), axis=1, keepdims=True)
    x = {name: block / lengths for name, block in blocks.items()}
    for user, weights in ((7, [3 / 4, 1 / 4, 0, 0]), (8, [0, 0, 1, 0])):
        profile = {name: np.array(weights) @ block for name, block in x.items()}
        length = np.linalg.norm(np.concatenate(list(profile.values())))
        for item in range(4):
            why = model.explain(user, item + 1)
            wanted = {name: float(x[name][item] @ profile[name]) / length for name in x}
            assert why.blocks == pytest.approx(wanted, abs=1e-5)
            assert why.score == pytest.approx(sum(wanted.values()), abs=1e-5)
            assert why.share.sum() == pytest.approx(why.score, abs=1e-5)


def test_a_sentence_is_compared_with_the_text_block_alone():
    encoder = FeatureEncoder(Words(), categories=["genres"], weights={"genres": 0.25})
    model = ContentRecommender(encoder).fit(NOBODY, FILMS)
    blocks = feature_blocks()
    lengths = np.linalg.norm(np.hstack(list(blocks.values())), axis=1)
    wanted = blocks["text"] @ word_vectors(["space dog"])[0] / lengths
    answer = model.recommend_from_text("space dog")
    np.testing.assert_allclose(answer.score, wanted[answer.item - 1], atol=1e-6)
    assert len(answer) == 4
    numbers_only = FeatureEncoder(categories=["genres"])
    with pytest.raises(UnsupportedError, match="ContentRecommender reads no text"):
        ContentRecommender(numbers_only).fit(NOBODY, FILMS).recommend_from_text("space")


SECRET = bytes(range(32))


def private(epsilon=1.0, secret=SECRET, **options):
    noise = GaussianProfile(epsilon, 1e-5, secret=secret)
    return ContentRecommender(embeddings=VECTORS, privacy=noise, **options).fit(SEEN, ITEMS)


# The ratings are from 1 to 5: of a range of 4, ann's make 1, 1/4, 3/4 and 0.
SHARES = {
    "rating": [0.75, 0, 1, 0, 0, 0.25, 0, 0],
    "mean": [1, 0, 1, 0, 0, 1, 0, 1],
}


@pytest.mark.parametrize("pooling", SHARES)
def test_with_hardly_any_noise_private_scores_are_those_of_sums_within_the_clip(pooling):
    model = private(1e7, pooling=pooling)
    found = model.score(["ann"] * 8, ITEMS.item)
    np.testing.assert_allclose(found, cosines(SHARES[pooling]), atol=0.02)


def test_noise_is_of_the_size_that_was_asked_for():
    """Seen from the scores of one user with 250 secrets, beside draws of our own."""
    sigma = GaussianProfile(20.0, 1e-5).sigma
    x = unit(unit(VECTORS) - unit(VECTORS).mean(axis=0))
    draws = np.random.default_rng(0).normal(scale=sigma, size=(20_000, 6))
    wanted = unit(x[1] * 0.5 + draws) @ x[1]  # bob rated film 1 with 3, half of the range
    models = [private(20.0, secret=bytes([one]) * 16) for one in range(250)]
    found = [model.score(["bob"], ["film 1"])[0] for model in models]
    assert ks_2samp(found, wanted).pvalue > 1e-4


def test_private_answers_are_the_same_when_asked_again_and_after_a_restart(tmp_path):
    model = private()
    first = model.recommend(["ann", "bob"], k=8).to_pandas()
    pd.testing.assert_frame_equal(model.recommend(["ann", "bob"], k=8).to_pandas(), first)
    model.save(tmp_path / "model")
    noise = GaussianProfile(1.0, 1e-5, secret=SECRET)
    loaded = Recommender.load(tmp_path / "model", privacy=noise)
    pd.testing.assert_frame_equal(loaded.recommend(["ann", "bob"], k=8).to_pandas(), first)
    other = Recommender.load(tmp_path / "model").recommend(["ann", "bob"], k=8).to_pandas()
    assert other.score.tolist() != first.score.tolist()


def test_what_was_liked_is_private_also_beside_a_text():
    noise = GaussianProfile(1.0, 1e-5, secret=SECRET)
    model = ContentRecommender(Words(), privacy=noise).fit(NOBODY, WORDS)
    plain = ContentRecommender(Words()).fit(NOBODY, WORDS)
    alone, beside = (model.recommend_from_text("space", liked=one) for one in ([], [2]))
    assert alone.score.tolist() == plain.recommend_from_text("space").score.tolist()
    assert beside.score.tolist() != plain.recommend_from_text("space", liked=[2]).score.tolist()
    assert beside.score.tolist() == model.recommend_from_text("space", liked=[2]).score.tolist()
    hardly = GaussianProfile(1e7, 1e-5, secret=SECRET)
    model = ContentRecommender(Words(), privacy=hardly).fit(NOBODY, WORDS)
    found = model.recommend_from_text("space", liked=[2])
    wanted = plain.recommend_from_text("space", liked=[2])
    assert found.item.tolist() == wanted.item.tolist()
    np.testing.assert_allclose(found.score, wanted.score, atol=0.02)


def test_a_private_profile_is_not_explained_and_no_item_moves_the_weight_of_another():
    with pytest.raises(UnsupportedError, match="the profile has noise for privacy"):
        private().explain("ann", "film 0")
    noise = GaussianProfile(1.0, 1e-5, secret=SECRET)
    for options in ({"pooling": "recency"}, {"interests": 2}):
        with pytest.raises(ValueError, match="privacy is given with pooling"):
            ContentRecommender(embeddings=VECTORS, privacy=noise, **options)


def test_a_private_profile_does_not_tell_who_took_nothing():
    users = pd.DataFrame({"user": ["eve", "pat"]})
    noise = GaussianProfile(1.0, 1e-5, secret=SECRET)
    model = ContentRecommender(embeddings=VECTORS, privacy=noise).fit(SEEN, ITEMS, users)
    answer = model.recommend(["eve", "pat", "ann", "stranger"], filter_seen=False)
    assert answer.unknown_users == ("stranger",)
    eve, pat = (answer.score[answer.user == one].tolist() for one in ("eve", "pat"))
    assert eve != pat  # noise of their own


def test_the_same_history_of_another_user_has_other_noise():
    rows = SEEN[SEEN.user == "ann"]
    twins = pd.concat([rows, rows.assign(user="twin")])
    noise = GaussianProfile(1.0, 1e-5, secret=SECRET)
    model = ContentRecommender(embeddings=VECTORS, privacy=noise).fit(twins, ITEMS)
    answer = model.recommend(["ann", "twin"])
    ann, twin = (answer.score[answer.user == one].tolist() for one in ("ann", "twin"))
    assert ann != twin
    assert answer.score.tolist() == model.recommend(["ann", "twin"]).score.tolist()
