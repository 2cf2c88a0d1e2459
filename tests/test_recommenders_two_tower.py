"""`TwoTowerRecommender`: losses in loops, scores by hand, and language models that are trained."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from recommender_cases import Letters, everything, make_interactions, make_items, name
from small_histories import real

from llmrec_kernels.datasets import movielens_100k
from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path
from llmrec_kernels.evaluation import cold_item_split, evaluate
from llmrec_kernels.recommenders import (
    FeatureEncoder,
    Recommender,
    TwoTowerRecommender,
    UnsupportedError,
    towers,
)
from llmrec_kernels.recommenders.history import History, as_rows
from llmrec_kernels.recommenders.tower_data import Taken, liked, popularity
from llmrec_kernels.recommenders.towers import Shape, Towers, TowerTask

QUICK = {"epochs": 30, "patience": None}
KINDS = ("crime", "family")


def history(seed=0, n_users=7, n_items=9):
    draw = np.random.default_rng(seed)
    user, item = np.nonzero(draw.random((n_users, n_items)) < 0.6)
    rating = draw.integers(1, 6, len(user)).astype(float)
    return History(user, as_rows(item, rating, np.arange(len(user))), n_items)


def task(loss, seen, dim=3, hidden=None, users=2):
    """A task whose towers have random weights."""
    draw = torch.Generator().manual_seed(1)
    network = Towers(Shape(4, dim, hidden, len(seen.popularity), users), None)
    with torch.no_grad():
        for one in network.parameters():
            one.copy_(torch.randn(one.shape, generator=draw) * 0.3)
    mean = seen.mean if loss == "rating" else None
    vectors = torch.randn(len(seen.popularity), 4, generator=draw)
    about = torch.randn(seen.n_users, users, generator=draw)
    parts = Taken.split(seen, mean, 0)
    given = towers.Given(vectors, *parts, about)
    return TowerTask(network, given, loss=loss, temperature=0.7, regularization=2.0), given


def drawn(given, examples):
    """Rows of these users, and which of them are shown, as the loss draws it."""
    rows = given.taken.of(examples)
    torch.manual_seed(5)
    shown = torch.rand(len(rows.items)) < 0.5
    unseen = torch.rand(len(examples)) < 0.3
    return rows, (shown & ~unseen[rows.owners]).numpy()


def penalty(network, prior):
    beyond, head = network.beyond.double().numpy(), network.head.weight.double().numpy()
    return prior * ((beyond**2).sum() + 2.0 * (head**2).sum())


@torch.no_grad()
def test_the_contrastive_loss_is_that_of_loops():
    learned, given = task("contrastive", history())
    network, examples = learned.network, torch.tensor([4, 0, 2])
    rows, shown = drawn(given, examples)
    owners, items = rows.owners.numpy(), rows.items.numpy()
    weight, counts = rows.values.double().numpy(), rows.counts.double().numpy()
    z = network.items(given.vectors, torch.arange(9)).double().numpy()[:, :-1]
    often = np.maximum(np.bincount(items, counts, 9), 0.1)
    turn, said = network.user.turn.weight.double().numpy(), network.of_users.double().numpy()
    total = 0.0
    for user in range(3):
        own = set(items[owners == user])
        taken = sum(weight[r] * z[items[r]] for r in np.flatnonzero((owners == user) & shown))
        taken = np.zeros(3) + taken
        unit = taken / max(np.linalg.norm(taken), 1e-12)
        profile = turn @ unit + given.users[examples[user]].double().numpy() @ said
        score = {i: z[i] @ profile / 0.7 + np.log(often[i]) for i in set(items)}
        others = sum(np.exp(score[i]) for i in set(items) - own)
        for row in np.flatnonzero((owners == user) & ~shown):
            mine = np.exp(score[items[row]])
            total -= counts[row] * np.log(mine / (mine + others))
    whole = float(given.taken.counts.sum())
    wanted = total / (0.5 * whole / learned.size * 3) + penalty(network, 4.0 / whole)
    torch.manual_seed(5)
    assert float(learned.loss(examples)) == pytest.approx(wanted, rel=1e-5)


@torch.no_grad()
def test_the_rating_loss_is_that_of_loops():
    learned, given = task("rating", history())
    network, examples = learned.network, torch.tensor([1, 5])
    rows, shown = drawn(given, examples)
    owners, items, rating = rows.owners.numpy(), rows.items.numpy(), rows.values.double().numpy()
    told = network.items(given.vectors, torch.arange(9)).double().numpy()
    turn, said = network.user.turn.weight.double().numpy(), network.of_users.double().numpy()
    total = 0.0
    for user in range(2):
        past = np.flatnonzero((owners == user) & shown)
        rest = rating[past] - told[items[past], -1]
        taken = (rest[:, None] * told[items[past], :-1]).sum(axis=0) / (10 + len(past))
        profile = turn @ taken + given.users[examples[user]].double().numpy() @ said
        bias = rest.sum() / (5 + len(past))
        for row in np.flatnonzero((owners == user) & ~shown):
            item = told[items[row]]
            total += (rating[row] - bias - item[-1] - item[:-1] @ profile) ** 2
    whole = len(given.taken.items)
    wanted = total / (0.5 * whole / learned.size * 2) + penalty(network, 10.0 / whole)
    torch.manual_seed(5)
    assert float(learned.loss(examples)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("loss", towers.LOSSES)
def test_one_liked_item_of_some_users_is_held_out_and_no_other(loss):
    seen = history(n_users=40)
    learned, later = Taken.split(seen, seen.mean if loss == "rating" else None, 3)
    everyone = seen.everyone()
    assert len(learned.items) + len(later.items) == len(everyone.rows)
    assert 0 < len(later.items) <= 4
    assert len(set(later.owners.tolist())) == len(later.items)
    assert later.counts.all()
    both = [(int(u), int(i)) for part in (learned, later) for u, i in zip(*part[:2], strict=True)]
    assert sorted(both) == sorted(
        zip(everyone.owners().tolist(), everyone.rows["item"].tolist(), strict=True)
    )


def shelf(n_items=12, cold=2):
    """Items of two kinds, of each the last ones new; users who like one of the kinds."""
    draw = np.random.default_rng(0)
    kind = np.arange(n_items) % 2
    vectors = np.eye(2)[kind] + 0.1 * draw.standard_normal((n_items, 2))
    known = np.arange(n_items - 2 * cold)
    rows = [
        (user, item, 5.0 if kind[item] == user % 2 else 1.0)
        for user in range(20)
        for item in draw.permutation(known)[:6]
    ]
    seen = pd.DataFrame(rows, columns=["user", "item", "rating"])
    films = pd.DataFrame({"item": np.arange(n_items), "text": [KINDS[one] for one in kind]})
    return vectors, seen, films, np.arange(n_items - 2 * cold, n_items)


@pytest.mark.parametrize("hidden", [None, 6])
@pytest.mark.parametrize("loss", towers.LOSSES)
def test_new_items_of_the_kind_that_is_liked_come_first(loss, hidden):
    vectors, seen, films, cold = shelf()
    model = TwoTowerRecommender(
        embeddings=vectors, dim=4, loss=loss, hidden=hidden, regularization=0.1, training=QUICK
    ).fit(seen, films)
    best = model.recommend([0, 1], k=2, allow=cold)
    assert (best.item % 2).tolist() == [0, 0, 1, 1]


def test_ratings_are_foretold_in_their_range_also_of_people_without_any():
    vectors, seen, films, cold = shelf()
    model = TwoTowerRecommender(
        embeddings=vectors, dim=4, loss="rating", regularization=0.1, training=QUICK
    ).fit(seen, films, pd.DataFrame({"user": [99]}))
    crime, family = model.predict([0, 0], cold[:2])
    assert 1.0 <= family < 2.5 < 3.5 < crime <= 5.0
    nobody = model.predict([99] * 4, cold)
    assert ((nobody > 2.0) & (nobody < 4.0)).all()
    with pytest.raises(UnsupportedError, match="make the model with loss='rating'"):
        TwoTowerRecommender(embeddings=vectors, training=QUICK).fit(seen, films).predict([0], [1])


def test_scores_and_shares_are_those_of_the_formula():
    items = make_items(lambda code: code)
    seen = make_interactions(lambda code: code)
    draw = np.random.default_rng(3).standard_normal((12, 5))
    model = TwoTowerRecommender(embeddings=draw, dim=4, popularity=0.5, training=QUICK)
    model.fit(seen, items)
    known = model._learned
    z, turn = known.items.data.double().numpy(), known.tower["turn.weight"].double().numpy()
    mine = seen[seen.user == 3]
    weight = (mine.rating.to_numpy() - 3.0) / 2.0
    parts = weight[:, None] * z[mine.item.to_numpy()]
    size = np.linalg.norm(parts.sum(axis=0))
    everyone = model._fitted.history.everyone()
    count = np.bincount(everyone.rows["item"], everyone.rows["rating"] >= seen.rating.mean(), 12)
    level = np.log1p(count) - np.log1p(count).mean()
    trust = model._fitted.history.popularity / (model._fitted.history.popularity + 1)
    told = model._body(model._reader.mean.new_tensor(centred(draw))) @ known.slope + known.shift
    mixed = trust * level + (1 - trust) * told[:, -1].double().numpy()
    for item in range(12):
        share = parts @ turn.T @ z[item] / size / 0.5
        score = float(model.score([3], [item])[0])
        assert score == pytest.approx(share.sum() + 0.5 * mixed[item], abs=1e-5)
        why = model.explain(3, item)
        found = dict(zip(why.source.tolist(), why.share.tolist(), strict=True))
        wanted = dict(zip(mine.item.tolist(), share.tolist(), strict=True))
        assert {one: found.get(one, 0.0) for one in wanted} == pytest.approx(wanted, abs=1e-5)


def centred(vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    moved = unit - unit.mean(axis=0)
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def test_new_items_are_where_ridge_regression_puts_them():
    vectors, seen, films, cold = shelf()
    model = TwoTowerRecommender(embeddings=vectors, dim=4, regularization=0.3, training=QUICK)
    known = model.fit(seen, films)._learned
    x, own = centred(vectors), np.arange(12) < 8
    y = np.column_stack([known.items.data, popularity(model._fitted.history)])[own]
    a = x[own] - x[own].mean(axis=0)
    slope = np.linalg.solve(a.T @ a + 0.3 * np.eye(2), a.T @ (y - y.mean(axis=0)))
    placed = (x[cold] - x[own].mean(axis=0)) @ slope + y.mean(axis=0)
    np.testing.assert_allclose(known.items.data[cold], placed[:, :-1], atol=1e-5)
    np.testing.assert_allclose(known.level[cold], placed[:, -1], atol=1e-5)


def test_real_films_that_nobody_rated_are_ranked_far_better_than_by_chance():
    data = real(movielens_100k)
    seen = data.interactions[data.interactions.user <= 300]
    cold = np.random.default_rng(0).choice(1682, 336, replace=False) + 1
    train, test = cold_item_split(seen, cold)
    known = FeatureEncoder(categories=["genres", "year"])
    model = TwoTowerRecommender(known, training={"epochs": 8}).fit(train, data.items)
    report = evaluate(model, train, test, allow=cold, relevance=4, metrics=("ndcg",))
    assert report["NDCG@10"] > 3 * 0.039  # of a random order


def test_people_of_whom_only_words_are_known_get_what_people_of_such_words_like():
    vectors, seen, films, _ = shelf()
    about = pd.DataFrame(
        {"user": np.arange(22), "text": ["aaab" if one % 2 else "dede" for one in range(22)]}
    )
    model = TwoTowerRecommender(
        Letters(), embeddings=vectors, dim=4, popularity=0.0, training={"epochs": 200}
    ).fit(seen, films, about)
    best = model.recommend([20, 21], k=3)
    assert (best.item % 2).tolist() == [0, 0, 0, 1, 1, 1]
    assert not best.unknown_users
    why = model.explain(0, 4)
    assert set(why.blocks) == {"taste", "baseline", "text"}
    assert sum(why.blocks.values()) == pytest.approx(why.score, abs=1e-5)


def test_hidden_layers_are_explained_by_integrated_gradients():
    vectors, seen, films, _ = shelf()
    model = TwoTowerRecommender(embeddings=vectors, dim=4, hidden=8, training=QUICK)
    why = model.fit(seen, films).explain(0, 9)
    assert sum(why.blocks.values()) == pytest.approx(why.score, abs=2e-5)
    assert why.share.sum() == pytest.approx(why.blocks["taste"], abs=1e-6)


def test_liked_is_what_is_rated_no_lower_than_the_mean():
    seen = history()
    rows = seen.everyone()
    assert (
        liked(rows, seen).tolist() == (rows.rows["rating"] >= rows.rows["rating"].mean()).tolist()
    )


def test_ratings_that_are_all_alike_are_refused_and_the_model_stays():
    vectors, seen, films, _ = shelf()
    model = TwoTowerRecommender(embeddings=vectors, dim=2, loss="rating", training={"epochs": 1})
    before = model.fit(seen, films).predict([0], [9])
    with pytest.raises(ValueError, match=r"120 ratings and each is 3; expected ratings of"):
        model.fit(seen.assign(rating=3.0), films)
    assert model.predict([0], [9]) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embeddings": np.eye(3), "tune": "full"}, "tune is 'full' but there is embeddings"),
        ({"encoder": Letters(), "tune": "lora"}, "there is a Letters; expected a TextEncoder"),
        ({"encoder": Letters(), "loss": "hinge"}, "loss is 'hinge'"),
        ({"encoder": Letters(), "tune": "some"}, "tune is 'some'"),
        ({"encoder": Letters(), "temperature": 0.0}, "temperature is 0.0; expected more than 0"),
        ({"encoder": Letters(), "popularity": -1.0}, "popularity is -1.0; expected at least 0"),
        ({"encoder": FeatureEncoder(Letters()), "tune": "full"}, "there is a FeatureEncoder"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TwoTowerRecommender(**options)


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    """A BERT of one layer with random weights, and MiniLM's tokenizer."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert")
    tokenizer = AutoTokenizer.from_pretrained(bundled_encoder_path())
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=64,
        )  # fmt: skip
        BertModel(config).save_pretrained(folder)
    return folder


TRAINED = {"epochs": 3, "batch_size": 8, "learning_rate": 0.1}


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_a_tuned_language_model_is_saved_with_the_towers(tune, small_model, tmp_path):
    encoder = TextEncoder(small_model, cache_dir=False)
    before = encoder.encode(["a crime in the city"])
    seen, items = make_interactions(lambda code: code), make_items(lambda code: code)
    model = TwoTowerRecommender(encoder, dim=4, tune=tune, training=TRAINED).fit(seen, items)
    assert torch.equal(encoder.encode(["a crime in the city"]), before)  # the caller's stays
    tuned = model._reader.encoder.encode(["a crime in the city"])
    assert not torch.allclose(tuned, before, atol=1e-4)
    names = model._learned.tuned
    assert all("lora_" in one for one in names) == (tune == "lora")
    model.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    assert everything(loaded, lambda code: code) == everything(model, lambda code: code)
    again = TwoTowerRecommender(encoder, dim=4, tune=tune, training=TRAINED).fit(seen, items)
    assert everything(again, lambda code: code) == everything(model, lambda code: code)


def test_items_are_where_the_tuned_model_puts_their_texts(small_model):
    seen, items = make_interactions(lambda code: code), make_items(lambda code: code)
    seen = seen[seen.item != 11]
    model = TwoTowerRecommender(
        TextEncoder(small_model, cache_dir=False), dim=4, tune="full", training=TRAINED
    ).fit(seen, items)
    place = model._reader.place(items.text[11])
    told = place @ model._learned.slope + model._learned.shift
    torch.testing.assert_close(told[0, :-1], model._learned.items.data[11], atol=1e-5, rtol=1e-4)


def test_without_peft_adapters_are_refused_with_what_to_install(small_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    model = TwoTowerRecommender(TextEncoder(small_model, cache_dir=False), tune="lora")
    with pytest.raises(ImportError, match=r"needs peft.*pip install 'llmrec-kernels\[train\]'"):
        model.fit(make_interactions(lambda code: code), make_items(lambda code: code))


def test_a_loaded_model_answers_texts_with_the_same_bits(tmp_path):
    for number, options in enumerate(({}, {"hidden": 8}, {"loss": "rating"})):
        model = TwoTowerRecommender(Letters(), dim=4, training={"epochs": 2}, **options)
        model.fit(make_interactions(name), make_items(name)).save(tmp_path / str(number))
        again = Recommender.load(tmp_path / str(number), encoder=Letters())
        for text in ("abba", "fed cab", "d", "ccc a"):
            ours, theirs = model.recommend_from_text(text), again.recommend_from_text(text)
            np.testing.assert_array_equal(ours.score, theirs.score)


def test_validation_in_blocks_is_that_of_all_users_at_once(monkeypatch):
    pairs = [(user, (5 * user + 7 * place) % 12) for user in range(60) for place in range(5)]
    seen = pd.DataFrame([(name(u), name(i)) for u, i in pairs], columns=["user", "item"])

    def report():
        model = TwoTowerRecommender(Letters(), dim=4, training={"epochs": 3})
        return model.fit(seen, make_items(name)).training_report

    whole = report()
    monkeypatch.setattr(towers, "_SCORES", 24)
    for one, other in zip(whole.epochs, report().epochs, strict=True):
        assert other.validation == pytest.approx(one.validation, rel=1e-6)
