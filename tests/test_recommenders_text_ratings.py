"""Ratings foretold from texts: what they are sums of, and what they are good for."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from recommender_cases import (
    VECTORS,
    Letters,
    everything,
    make_interactions,
    make_items,
    name,
    table,
)
from small_histories import real

from llmrec_kernels.datasets import movielens_100k
from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path
from llmrec_kernels.evaluation import cold_item_split, compare_paired, evaluate_ratings
from llmrec_kernels.recommenders import FeatureEncoder, Recommender, TextRatingRegressor
from llmrec_kernels.recommenders.rating_networks import RatingNetwork, Ratings, Sums, Told
from llmrec_kernels.studies.text_ratings import UserMeans


def made(**options):
    options = {"embeddings": VECTORS, "dim": 3, "training": {"epochs": 3}} | options
    return TextRatingRegressor(**options)


class Loops:
    """The formulas of the module, one rating after the other, with a fitted model's heads."""

    def __init__(self, model, seen):
        seen = seen.drop_duplicates(["user", "item"], keep="last")
        self.seen = list(zip(seen.user, seen.item, seen.rating, strict=True))
        self.mean = seen.rating.mean()
        unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
        moved = unit - unit.mean(0)
        centred = moved / np.linalg.norm(moved, axis=1, keepdims=True)
        weights = {key: one.double().numpy() for key, one in model._learned.weights.items()}
        told = centred @ weights["of_items.1.weight"].T
        self.beta = {name(code): told[code, 0] + weights["shift"] for code in range(len(told))}
        self.q = {name(code): told[code, 1:] for code in range(len(told))}
        self.worth = np.exp(weights["worth"])
        self.delta = {
            item: sum(r - self.text_alone(u, i, r) for u, i, r in self.seen if i == item)
            / (5 + sum(i == item for _, i, _ in self.seen))
            for item in self.beta
        }

    def text_alone(self, user, item, left_out=None):
        """μ + b + β + p · q by the user's other ratings."""
        rows = [(i, r) for u, i, r in self.seen if u == user and (left_out is None or i != item)]
        rest = [r - self.mean - self.beta[i] for i, r in rows]
        bias = sum(rest) / (self.worth[0] + len(rows))
        taste = sum(
            ((e - bias) * self.q[i] for (i, _), e in zip(rows, rest, strict=True)), np.zeros(3)
        )
        taste = taste / (self.worth[1] + len(rows))
        return self.mean + bias + self.beta[item] + taste @ self.q[item]

    def predicted(self, user, item):
        return self.text_alone(user, item) + self.delta[item]


def test_a_score_is_what_the_formulas_say():
    seen, items = make_interactions(name), make_items(name)
    model = made(training={"epochs": 30, "learning_rate": 0.05, "patience": None}).fit(seen, items)
    loops = Loops(model, seen)
    pairs = [(user, item) for user in seen.user.unique() for item in items.item]
    wanted = [loops.predicted(*pair) for pair in pairs]
    found = model.score(*zip(*pairs, strict=True))
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    clipped = model.predict(*zip(*pairs, strict=True))
    np.testing.assert_allclose(clipped, np.clip(wanted, 3.0, 5.0), atol=2e-6)
    assert np.ptp(wanted) > 0.3


def test_a_rating_is_predicted_from_the_others_alone():
    torch.manual_seed(3)
    network = RatingNetwork(4, 2, 5, 3).eval()
    with torch.no_grad():
        for one in network.parameters():
            one.normal_()
    owners = torch.tensor([0, 0, 0, 1, 2, 2])
    ratings = Ratings(owners, torch.tensor([0, 3, 2, 3, 1, 0]), torch.randn(6))
    with torch.no_grad():
        items, users = network.items(torch.randn(4, 4)), network.users(torch.randn(3, 3))
        each = Told(items.bias[ratings.items], items.taste[ratings.items])
        found = network.left_out(ratings, each, users)
        for row in range(6):
            others = [one for one in range(6) if owners[one] == owners[row] and one != row]
            q, e = each.taste[others], ratings.values[others] - each.bias[others]
            sums = Sums(torch.tensor(len(others)), e.sum(), (e[:, None] * q).sum(0), q.sum(0))
            user = Told(users.bias[owners[row]], users.taste[owners[row]])
            user = network.combined(
                Told(*(one[None] for one in user)), Sums(*(one[None] for one in sums))
            )
            wanted = user.bias[0] + each.bias[row] + user.taste[0] @ each.taste[row]
            assert found[row] == pytest.approx(float(wanted), abs=1e-5)


def test_ratings_of_some_users_keep_their_order():
    owners = torch.tensor([0, 0, 2, 2, 2, 5])
    ratings = Ratings(owners, torch.arange(6) + 10, torch.arange(6.0))
    some = ratings.of(torch.tensor([2, 1, 5, 0]))
    assert some.owners.tolist() == [0, 0, 0, 2, 3, 3]
    assert some.items.tolist() == [12, 13, 14, 15, 10, 11]
    assert some.values.tolist() == [2.0, 3.0, 4.0, 5.0, 0.0, 1.0]


def test_films_that_nobody_has_rated_are_predicted_better_than_by_how_high_users_rate():
    data = real(movielens_100k)
    held_out = np.random.default_rng(9).choice(1682, 336, replace=False) + 1
    train, test = cold_item_split(data.interactions, held_out)
    encoder = FeatureEncoder(None, categories=["genres", "year"])
    model = TextRatingRegressor(encoder, training={"epochs": 10}).fit(train, data.items)
    ours, theirs = evaluate_ratings(model, test), evaluate_ratings(UserMeans().fit(train), test)
    for label in ("RMSE", "MAE"):
        assert compare_paired(ours, theirs, label).high < 0
    report = model.training_report
    assert report.epochs[0].validation > report.epochs[report.best_epoch - 1].validation


def test_users_without_ratings_are_known_by_what_is_said_of_them():
    draw = np.random.default_rng(4)
    kinds = draw.integers(0, 2, size=60)  # who likes "a" more than "b", and who does not
    items = pd.DataFrame({"item": range(40), "text": ["aaaac", "bbbbc"] * 20})
    users = pd.DataFrame({"user": range(60), "text": np.array(["ddf", "eef"])[kinds]})
    pairs = [(u, i) for u in range(50) for i in draw.choice(40, 12, replace=False)]
    seen = pd.DataFrame(pairs, columns=["user", "item"])
    seen["rating"] = np.where(kinds[seen.user] == seen.item % 2, 5.0, 2.0)
    training = {"epochs": 40, "batch_size": 10, "learning_rate": 0.05, "patience": None}
    model = TextRatingRegressor(Letters(), dim=2, training=training).fit(seen, items, users)
    new = np.arange(50, 60)
    likes = kinds[new]
    assert (model.predict(new, likes) > model.predict(new, 1 - likes) + 1).all()
    best = model.recommend(new, k=5)
    assert best.unknown_users == ()
    assert (best.item % 2 == kinds[best.user]).all()
    why = model.explain(new[0], int(likes[0]))
    assert len(why) == 0
    assert set(why.blocks) == {"taste", "baseline", "text"}
    assert sum(why.blocks.values()) == pytest.approx(why.score, abs=1e-5)
    unsaid = TextRatingRegressor(Letters(), dim=2, training=training).fit(seen, items, users[:50])
    assert unsaid.recommend([55], k=5).unknown_users == (55,)


def test_a_text_counts_as_an_item_that_was_rated_highest():
    seen, items = make_interactions(name), make_items(name)
    model = made(embeddings=None, encoder=Letters()).fit(seen, items)
    text = items.text[4]
    told = table(model.recommend_from_text(text, k=9, liked=[name(1), name(2), name(4)]))
    twice = model.recommend_from_text(text, k=9, liked=[name(1), name(2)])
    known = model.recommend_from_history([name(1), name(2), name(4)], k=9)
    left = twice.item != name(4)
    assert twice.item[left].tolist()[:8] == known.item.tolist()[:8]
    np.testing.assert_allclose(twice.score[left][:8], known.score[:8], atol=1e-6)
    assert told["score"] != known.score.tolist()


def test_items_are_alike_by_taste_and_not_by_how_high_they_are_rated():
    vectors = VECTORS.copy()
    vectors[7] = vectors[2]
    seen = make_interactions(name)
    seen.loc[seen.item == name(7), "rating"] = 1.0
    model = made(embeddings=vectors).fit(seen, make_items(name))
    like = model.similar_items([name(2)], k=1)
    assert like.similar.tolist() == [name(7)]
    assert like.score[0] == pytest.approx(1.0)


def test_ratings_that_are_all_alike_are_refused_and_nothing_is_lost():
    seen, items = make_interactions(name), make_items(name)
    model = made().fit(seen, items)
    before, report = everything(model, name), model.training_report
    with pytest.raises(
        ValueError, match="interactions has 29 ratings and each is 4; expected ratings of at least"
    ):
        model.fit(seen.assign(rating=4.0), items)
    assert everything(model, name) == before
    assert model.training_report is report


def test_without_ratings_there_is_nothing_to_train():
    nobody = make_interactions(name)[:0].astype({"rating": float})
    model = made().fit(nobody, make_items(name), pd.DataFrame({"user": [name(1)]}))
    assert model.training_report is None
    assert model.recommend([name(1)]).unknown_users == (name(1),)
    assert model.predict([name(1)], [name(2)]).tolist() == [0.0]


def test_users_without_ratings_or_words_are_given_what_items_are_to_all():
    seen, items = make_interactions(name), make_items(name)
    model = made().fit(seen, items, pd.DataFrame({"user": [name(50)]}))
    known = model._learned
    wanted = np.clip(known.mean + known.items.data[:, -1].numpy(), 3.0, 5.0)
    found = model.predict([name(50)] * len(items), items.item)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_another_seed_is_another_network_and_the_same_is_the_same():
    def answers(seed):
        model = made(training={"epochs": 2, "seed": seed})
        return everything(model.fit(make_interactions(name), make_items(name)), name)

    assert answers(3) == answers(3)
    assert answers(3)["all"] != answers(4)["all"]


def test_a_checkpoint_is_no_part_of_a_saved_model(tmp_path):
    folder = str(tmp_path / "checkpoint")
    model = made(training={"epochs": 2, "checkpoint": folder, "progress": False})
    model.fit(make_interactions(name), make_items(name)).save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    assert loaded.training == model.training._replace(checkpoint=None, progress=None)
    assert loaded.training_report is None
    said = "".join(one.read_text() for one in (tmp_path / "model").glob("*.json"))
    assert json.loads(said)
    assert "checkpoint/" not in said
    assert folder not in said


@pytest.mark.parametrize(
    ("option", "bad"), [("dim", 0), ("dim", 2.5), ("hidden", 0), ("training", {"epoch": 3})]
)
def test_an_option_out_of_its_range_is_named(option, bad):
    with pytest.raises((ValueError, TypeError), match=option):
        made(**{option: bad})


SENTENCES = pd.DataFrame(
    {
        "item": range(12),
        "text": [
            *(f"A love story by the sea, part {part}." for part in range(6)),
            *(f"A war between robots in space, part {part}." for part in range(6)),
        ],
    }
)


def opinions():
    """Users of two kinds on the first five films of each kind."""
    pairs = [(user, film) for user in range(12) for film in range(12) if film % 6 < 5]
    seen = pd.DataFrame(pairs, columns=["user", "item"])
    liked = (seen.user % 2 == 0) == (seen.item < 6)
    return seen.assign(rating=np.where(liked, 5.0, 1.0) - (seen.item + seen.user) % 2 / 2)


@pytest.fixture(scope="module", params=["full", "lora"])
def tuned(request):
    if request.param == "lora":
        pytest.importorskip("peft")
    encoder = TextEncoder(bundled_encoder_path(), cache_dir=False)
    before = encoder.encode(SENTENCES.text.tolist())
    training = {"epochs": 2, "batch_size": 4, "seed": 1}
    model = TextRatingRegressor(encoder, dim=2, tune=request.param, training=training)
    model.fit(opinions(), SENTENCES)
    return model, before


def test_a_language_model_that_is_tuned_moves_and_the_encoder_stays(tuned):
    model, before = tuned
    assert torch.equal(model.encoder.encode(SENTENCES.text.tolist()), before)
    moved = model._reader.encoder.encode(SENTENCES.text.tolist())
    difference = (torch.nn.functional.normalize(before) - moved).norm(dim=1)
    assert (difference > 1e-3).all()
    lora = model.tune == "lora"
    assert all(("lora_" in name) is lora for name in model._learned.tuned)


def test_a_text_is_read_by_the_tuned_model_as_the_items_were(tuned):
    model, _ = tuned
    for code in (0, 11):
        told = model._network.items(model._reader.place(SENTENCES.text[code]))
        np.testing.assert_allclose(told.bias, model._learned.expected[[code]], atol=1e-5)
        np.testing.assert_allclose(told.taste[0], model._learned.items.data[code, :2], atol=1e-5)


def test_a_tuned_model_answers_the_same_when_it_is_loaded(tuned, tmp_path):
    model, _ = tuned
    model.save(tmp_path)
    loaded = Recommender.load(tmp_path)
    for ask in (
        lambda one: one.recommend([0, 1], k=3),
        lambda one: one.recommend_from_text("love"),
    ):
        assert table(ask(loaded)) == table(ask(model))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "tune is 'full' but there is embeddings; expected a TextEncoder"),
        ({"embeddings": None, "encoder": Letters()}, "there is a Letters; expected a TextEncoder"),
    ],
)
def test_without_a_language_model_there_is_nothing_to_tune(options, said):
    with pytest.raises(ValueError, match=said):
        made(tune="full", **options)
