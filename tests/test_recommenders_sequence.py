"""`SequenceRecommender`: networks in NumPy, losses in loops, chances by a chain that is known."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recommender_cases import Letters, everything, make_interactions, make_items
from scipy.special import erf, expit, log_softmax, softmax

from llmrec_kernels.recommenders import (
    PopularityRecommender,
    Recommender,
    SequenceRecommender,
    UnsupportedError,
    sequence_networks,
)
from llmrec_kernels.recommenders.history import History, as_rows
from llmrec_kernels.recommenders.sequence_networks import (
    ItemTable,
    NextItem,
    SequenceNetwork,
    principal,
    softmax_loss,
)
from llmrec_kernels.recommenders.sequence_windows import Sequences, read
from llmrec_kernels.training import TrainingDivergedError

QUICK = {"epochs": 30, "learning_rate": 0.03, "patience": None}


def normed(x, weights, name):
    centred = x - x.mean(axis=-1, keepdims=True)
    size = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return centred / size * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def attention(x, weights, layers, heads):
    """States of one history, [T, d], by loops over heads and places."""
    x = x + weights["positions"][: len(x)]
    for layer in range(layers):
        at = f"blocks.{layer}"
        asked = linear(normed(x, weights, f"{at}.norms.0"), weights, f"{at}.asked")
        query, key, value = np.split(asked, 3, axis=1)
        seen, size = np.zeros_like(x), x.shape[1] // heads
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            for t in range(len(x)):
                match = key[: t + 1, part] @ query[t, part] / np.sqrt(size)
                seen[t, part] = softmax(match) @ value[: t + 1, part]
        x = x + linear(seen, weights, f"{at}.told")
        wide = linear(normed(x, weights, f"{at}.norms.1"), weights, f"{at}.layer.0")
        x = x + linear(wide * (1 + erf(wide / np.sqrt(2))) / 2, weights, f"{at}.layer.3")
    return normed(x, weights, "norm")


def gru(x, weights, layers, heads):
    for layer in range(layers):
        w, u, b, c = (
            weights[f"recurrent.{kind}_l{layer}"]
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        state, states = np.zeros(x.shape[1]), []
        for one in x:
            told, own = np.split(w @ one + b, 3), np.split(u @ state + c, 3)
            reset, stay = expit(told[0] + own[0]), expit(told[1] + own[1])
            state = (1 - stay) * np.tanh(told[2] + reset * own[2]) + stay * state
            states.append(state)
        x = np.array(states)
    return normed(x, weights, "norm")


@pytest.mark.parametrize(("kind", "by_hand"), [("attention", attention), ("gru", gru)])
def test_scores_are_those_of_the_network_in_numpy(kind, by_hand):
    options = {"dim": 6, "layers": 2, "heads": 3, "max_length": 5, "training": {"epochs": 2}}
    model = SequenceRecommender(Letters(), network=kind, **options)
    seen = make_interactions(int)
    model.fit(seen, make_items(int))
    learned = model._learned
    vectors = learned.items.data.double().numpy()
    weights = {name: one.double().numpy() for name, one in learned.weights.items()}
    for user in (0, 3, 5):  # of twelve items, of four and of two
        history = seen.item[seen.user == user].to_numpy()[-5:]
        state = by_hand(vectors[history], weights, 2, 3)[-1]
        wanted = vectors @ state + learned.bias.double().numpy()
        found = model.score([user] * 12, list(range(12)))
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["attention", "gru", "lstm"])
def test_a_state_is_of_what_came_before_alone(kind):
    network = SequenceNetwork(kind, 8, 2, 2, 6, 0.3).eval()
    inputs = torch.randn(2, 6, 8)
    changed = inputs.clone()
    changed[:, 4:] = 9.0
    before, after = network(inputs), network(changed)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.isclose(before[:, 4], after[:, 4]).all()
    torch.testing.assert_close(network(inputs[:, :3]), before[:, :3])


def a_task(objective, negatives=5, n_items=9, held_out=None):
    torch.manual_seed(3)
    table, states = ItemTable(torch.zeros(n_items, 0), 4), SequenceNetwork("gru", 4, 1, 1, 3, 0.0)
    items, offsets = np.arange(12) % n_items, np.array([0, 4, 5, 12])
    sequences = Sequences.of(items, offsets, 3)
    task = NextItem(
        table, states, sequences, held_out, length=3, objective=objective, negatives=negatives
    )
    with torch.no_grad():
        table.bias.copy_(torch.randn(n_items))
    return task, table, states, sequences


@pytest.mark.parametrize("objective", ["softmax", "sampled", "binary"])
def test_losses_are_those_of_the_formulas_in_loops(objective):
    task, table, states, sequences = a_task(objective)
    windows = torch.tensor([0, 2, 3])
    torch.manual_seed(5)
    found = float(task.loss(windows).detach())
    torch.manual_seed(5)
    inputs, targets, there = sequences.batch(windows, 3)
    drawn = torch.multinomial(task._chance, 5, replacement=True).tolist()
    count = np.bincount(sequences.items, minlength=9) + 1.0
    rare = np.log(5 * count**0.75 / (count**0.75).sum())  # log m q
    vectors, bias = table.own.detach().double().numpy(), table.bias.detach().double().numpy()
    losses = []
    for row, wanted, here in zip(inputs, targets.tolist(), there.tolist(), strict=True):
        state = states(table.own[row][None])[0].detach().double().numpy()
        for t in range(3):
            if not here[t]:
                continue
            score, y = vectors @ state[t] + bias, wanted[t]
            less = score - rare
            others = [j for j in drawn if j != y]
            if objective == "softmax":
                losses.append(-log_softmax(score)[y])
            elif objective == "sampled":
                losses.append(-log_softmax([less[y], *(less[j] for j in others)])[0])
            else:
                others = [j for j in others if j not in row[: t + 1].tolist()]
                losses.append(-np.log(expit(less[y])) - np.log(expit(-less[others])).sum())
    assert len(losses) > 4
    usual = 9 / 4  # targets of a window: 3 of the first user in one, 6 of the last in three
    assert len(sequences.first) == 4
    assert found == pytest.approx(np.sum(losses) / (usual * 3), rel=1e-5)


def test_batches_that_are_accumulated_are_one_batch_as_large():
    lengths = np.random.default_rng(6).integers(2, 30, size=40)
    draw = np.random.default_rng(7)
    rows = [
        (u, i, t) for u, n in enumerate(lengths) for t, i in enumerate(draw.permutation(50)[:n])
    ]
    seen = pd.DataFrame(rows, columns=["user", "item", "timestamp"])
    fitted = [
        SequenceRecommender(
            network="gru", dim=8, dropout=0.0, training=QUICK | {"epochs": 3} | sizes
        ).fit(seen)
        for sizes in ({"batch_size": 32}, {"batch_size": 8, "accumulate": 4})
    ]
    one, parts = (model._learned.items.data for model in fitted)
    torch.testing.assert_close(one, parts, rtol=1e-4, atol=1e-5)
    one, parts = (model.training_report.epochs for model in fitted)
    assert [each.loss for each in one] == pytest.approx([each.loss for each in parts], rel=1e-5)


def test_the_loss_of_many_items_is_worked_out_in_parts_and_is_the_same(monkeypatch):
    draw = torch.Generator().manual_seed(1)
    states, vectors = (torch.randn(n, 4, generator=draw, requires_grad=True) for n in (10, 7))
    targets, bias = torch.arange(10) % 7, torch.randn(7, generator=draw, requires_grad=True)
    found = []
    for at_once in (1 << 24, 7 * 3, 1):
        monkeypatch.setattr(sequence_networks, "_SCORES_AT_ONCE", at_once)
        total = softmax_loss(states, targets, vectors, bias)
        found.append([total, *torch.autograd.grad(total, [states, vectors, bias])])
    for other in found[1:]:
        for one, wanted in zip(other, found[0], strict=True):
            torch.testing.assert_close(one, wanted)


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(0, 17), min_size=1, max_size=5), length=st.integers(1, 6))
def test_each_target_is_in_a_window_as_often_as_any_other(counts, length):
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    sequences = Sequences.of(np.arange(offsets[-1]), offsets, length)
    found = np.zeros(offsets[-1])
    for window in range(len(sequences.first)):
        shifts = range(length if sequences.shifted[window] else 1)
        for shift in shifts:
            one = sequences._replace(
                begin=sequences.begin + shift, shifted=torch.zeros_like(sequences.shifted)
            )
            inputs, targets, there = one.batch(torch.tensor([window]), length)
            assert (inputs == targets - 1)[there].all()
            np.add.at(found, targets[there].numpy(), 1 / len(shifts))
    wanted = np.ones(offsets[-1])
    wanted[offsets[:-1][np.array(counts) > 0]] = 0  # nothing comes before a user's first item
    np.testing.assert_allclose(found, wanted)
    assert sequences.targets == wanted.sum()


def a_history(counts, n_items=50, seed=0):
    draw = np.random.default_rng(seed)
    item = np.concatenate([draw.permutation(n_items)[:count] for count in counts])
    user = np.repeat(np.arange(len(counts)), counts)
    rows = as_rows(item, np.ones(len(item)), np.arange(len(item), dtype=float))
    return History(user, rows, n_items)


def test_the_last_item_of_a_tenth_of_those_with_three_is_held_out():
    counts = np.array([1, 2, 3, 20] * 12)
    history = a_history(counts)
    taken = history.popularity > 0
    sequences, held_out = read(history, taken, 4, 0)
    assert len(held_out.targets) == 2  # of 24
    assert len(sequences.items) == counts.sum() - 2
    number, rows = np.cumsum(taken) - 1, history.everyone()
    lists = [number[one].tolist() for one in np.split(rows.rows["item"], rows.offsets[1:-1])]
    ends = zip(sequences.first.tolist(), sequences.last.tolist(), strict=True)
    learned_from = [sequences.items[first - 1 : last].tolist() for first, last in set(ends)]
    for inputs, last, target in zip(*held_out, strict=True):
        kept = [*inputs[: last + 1].tolist(), int(target)]
        owners = [one for one in lists if one[-len(kept) :] == kept]
        assert len(owners) == 1
        assert len(kept) == min(5, len(owners[0]))  # the newest four, and the one held out
        owners[0].pop()
    assert sorted(learned_from) == sorted(one for one in lists if len(one) > 1)
    assert read(history, taken, 4, 0)[1].targets.tolist() == held_out.targets.tolist()
    others = [read(history, taken, 4, seed)[1].targets.tolist() for seed in range(1, 5)]
    assert any(one != held_out.targets.tolist() for one in others)
    few = a_history([2] * 40 + [3] * 9)
    assert read(few, few.popularity > 0, 4, 0)[1] is None


def test_the_map_begins_with_the_principal_axes():
    texts = np.random.default_rng(4).normal(size=(30, 5)) * [5, 3, 1, 0.2, 0.1]
    found = torch.from_numpy(texts).float() @ principal(torch.from_numpy(texts).float(), 2)
    _, strength, right = np.linalg.svd(texts, full_matrices=False)
    wanted = texts @ right[:2].T / np.sqrt((strength[:2] ** 2).sum() / 30)
    np.testing.assert_allclose(found.abs().numpy(), np.abs(wanted), atol=1e-4)
    wide = torch.from_numpy(texts).float() @ principal(torch.from_numpy(texts).float(), 8)
    assert (wide[:, 5:] == 0).all()
    assert (principal(torch.zeros(4, 3), 2) == 0).all()


def walks(n_users=60, n_items=8, length=4):
    """Each user walks a ring from another place: all items are as popular."""
    return pd.DataFrame(
        [(u, (u + step) % n_items, step) for u in range(n_users) for step in range(length)],
        columns=["user", "item", "timestamp"],
    )


@pytest.mark.parametrize(
    ("network", "objective"),
    [
        ("attention", "softmax"),
        ("attention", "sampled"),
        ("attention", "binary"),
        ("gru", "softmax"),
        ("lstm", "softmax"),
    ],
)
def test_what_comes_next_is_learned(network, objective):
    model = SequenceRecommender(
        network=network, objective=objective, dim=8, layers=1, dropout=0, negatives=4,
        training=QUICK,
    ).fit(walks())  # fmt: skip
    for first in range(8):
        history = [first, (first + 1) % 8, (first + 2) % 8]
        assert model.recommend_from_history(history, k=1).item.tolist() == [(first + 3) % 8]
    assert len(model.training_report.epochs) == 30
    assert model.training_report.epochs[-1].loss < model.training_report.epochs[0].loss / 2


def test_only_the_newest_items_are_read():
    model = SequenceRecommender(dim=4, max_length=3, training={"epochs": 1}).fit(walks())
    one = model.recommend_from_history([6, 0, 1, 2, 3], k=8)
    other = model.recommend_from_history([7, 6, 1, 2, 3], k=8)
    scores = [dict(zip(each.item, each.score, strict=True)) for each in (one, other)]
    assert scores[0][4] == scores[1][4]
    turned = model.recommend_from_history([6, 0, 3, 2, 1], k=8)
    assert dict(zip(turned.item, turned.score, strict=True))[4] != scores[0][4]


class TestItemsThatNobodyTook:
    """Item 8 has the vector of item 4, and nobody took it."""

    vectors = np.vstack([np.eye(8), np.eye(8)[4]]) + 0.01
    items = pd.DataFrame({"item": range(9)})

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        options = {"dim": 8, "layers": 1, "dropout": 0, "training": QUICK}
        return SequenceRecommender(embeddings=cls.vectors, **options).fit(walks(), cls.items)

    def test_they_come_where_their_text_says(self, model):
        best = model.recommend_from_history([1, 2, 3], k=2).item.tolist()
        assert best == [4, 8]
        again = model.recommend_from_history([3, 8], k=1).item.tolist()  # and read as such
        assert again == [5]

    def test_they_have_the_map_of_their_text_alone_and_the_mean_bias(self, model):
        learned = model._learned
        unit = self.vectors / np.linalg.norm(self.vectors, axis=1, keepdims=True)
        centred = unit[8] - unit.mean(axis=0)
        wanted = centred / np.linalg.norm(centred) @ learned.slope.numpy()
        np.testing.assert_allclose(learned.items.data[8], wanted, atol=1e-5)
        assert learned.bias[8] == pytest.approx(learned.bias[:8].mean().item(), abs=1e-5)

    def test_without_texts_nothing_is_known_of_them(self):
        model = SequenceRecommender(dim=4, training={"epochs": 1}).fit(walks(), self.items)
        assert not model._learned.items.data[8].any()
        assert len(model.recommend_from_history([3], k=9)) == 8
        assert len(model.similar_items([8], k=8)) == 0


def test_a_text_is_one_more_item():
    items = make_items(int)
    seen = make_interactions(int)
    seen = seen[seen.item != 7]
    model = SequenceRecommender(Letters(), dim=4, training={"epochs": 3}).fit(seen, items)
    asked = model.recommend_from_text(items.text[7], k=99, liked=[2, 5]).to_pandas()
    known = model.recommend_from_history([2, 5, 7], k=99).to_pandas()
    asked = asked[asked.item != 7]
    pd.testing.assert_frame_equal(
        asked[["item", "score"]].reset_index(drop=True), known[["item", "score"]], atol=1e-5
    )
    nothing = model.recommend_from_text("", k=99, liked=[2, 5]).to_pandas()
    liked = model.recommend_from_history([2, 5], k=99).to_pandas()
    pd.testing.assert_frame_equal(nothing, liked)
    assert model.recommend_from_text("").unknown_users == (None,)


@pytest.mark.parametrize("objective", ["softmax", "binary"])
def test_where_nobody_took_two_everyone_gets_what_is_popular(objective):
    seen = make_interactions(int).drop_duplicates("user")
    model = SequenceRecommender(Letters(), objective=objective).fit(seen, make_items(int))
    answer = model.recommend([1, 2])
    assert answer.unknown_users == (1, 2)
    popular = PopularityRecommender().fit(seen, make_items(int)).recommend([1, 2])
    assert answer.item.tolist() == popular.item.tolist()
    assert model.training_report is None
    assert len(model.similar_items([3], k=4)) == 4  # by their texts
    assert model.recommend_from_text("abba").unknown_users == (None,)


CHANCES = np.random.default_rng(2).dirichlet(np.full(6, 0.7), size=6) * (1 - np.eye(6))
CHANCES /= CHANCES.sum(axis=1, keepdims=True)


class TestPurchaseProbability:
    """Of a chain whose chances are known: a first item, and a second of chances by the first."""

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        draw = np.random.default_rng(3)
        rows = [(f"of {one}", one, 0) for one in range(6)]  # who are asked about
        for user in range(3000):
            first = int(draw.integers(6))
            rows += [
                (str(user), first, 0),
                (str(user), int(draw.choice(6, p=CHANCES[first])), 1),
            ]
        seen = pd.DataFrame(rows, columns=["user", "item", "timestamp"])
        training = {"epochs": 40, "batch_size": 256, "learning_rate": 0.005}
        return SequenceRecommender(
            objective="binary", dim=8, layers=1, max_length=2, dropout=0, training=training
        ).fit(seen, users=pd.DataFrame({"user": ["nobody"]}))

    def asked(self, model, users):
        pairs = [(user, item) for user in users for item in range(6)]
        found = model.purchase_probability(*zip(*pairs, strict=True))
        assert found.dtype == np.float32
        assert ((found > 0) & (found < 1)).all()
        return found.reshape(len(users), 6)

    def test_it_is_the_chance_that_the_item_comes_next(self, model):
        found = self.asked(model, [f"of {one}" for one in range(6)])
        # 500 users have each first item: shares of them deviate by .022 at most, mostly by .01.
        assert np.abs(found - CHANCES).max() < 0.08
        assert np.abs(found - CHANCES).mean() < 0.018
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=0.12)

    def test_what_was_taken_has_no_chance(self, model):
        found = self.asked(model, [f"of {one}" for one in range(6)])
        assert found.diagonal().max() < 1e-30

    def test_of_someone_without_a_history_it_is_the_share_of_the_item(self, model):
        count = model._fitted.history.popularity + 1
        np.testing.assert_allclose(self.asked(model, ["nobody"])[0], count / count.sum(), rtol=1e-4)

    def test_scores_of_another_objective_are_none(self):
        model = SequenceRecommender(dim=4, training={"epochs": 1}).fit(walks())
        with pytest.raises(UnsupportedError, match="make the model with objective='binary'"):
            model.purchase_probability([1], [1])


def test_one_class_is_refused_and_the_model_stays_as_it_was():
    model = SequenceRecommender(objective="binary", dim=4, training={"epochs": 1}).fit(walks())
    before = everything(model, int)
    whole = walks(n_users=5, n_items=3, length=3)
    with pytest.raises(ValueError, match="has one class: all 5 users took all 3 items"):
        model.fit(whole)
    assert everything(model, int) == before
    SequenceRecommender(dim=4, training={"epochs": 1}).fit(whole)


def test_a_seed_is_one_model():
    def fitted(seed):
        options = {"dim": 4, "training": {"epochs": 2, "seed": seed}}
        return everything(SequenceRecommender(Letters(), **options).fit(seen, items), int)

    seen, items = make_interactions(int), make_items(int)
    assert fitted(3) == fitted(3)
    assert fitted(3)["all"] != fitted(4)["all"]


def test_a_fit_goes_on_from_its_checkpoint_which_is_not_saved(tmp_path):
    options = {"dim": 4, "network": "gru"}
    training = {"epochs": 2, "checkpoint": str(tmp_path / "checkpoint")}
    whole = SequenceRecommender(**options, training={"epochs": 4}).fit(walks())
    SequenceRecommender(**options, training=training).fit(walks())
    model = SequenceRecommender(**options, training=training | {"epochs": 4}).fit(walks())
    assert everything(model, int) == everything(whole, int)
    with pytest.raises(ValueError, match="items"):
        SequenceRecommender(**options, training=training).fit(walks(n_items=9))
    said = (
        "architecture is gru, layers=2, dim=4, heads=2, dropout=0.2 in the checkpoint; exp.* lstm"
    )
    with pytest.raises(ValueError, match=said):
        SequenceRecommender(dim=4, network="lstm", training=training).fit(walks())
    model.save(tmp_path / "model")
    saved = json.loads((tmp_path / "model" / "model.json").read_text())["model"]["options"]
    assert saved["training"]["epochs"] == 4
    assert saved["training"]["checkpoint"] is saved["training"]["progress"] is None
    again = Recommender.load(tmp_path / "model")
    assert again.training == model.training._replace(checkpoint=None)
    assert again.training_report is None
    assert everything(again, int) == everything(model, int)


def test_a_purchase_probability_is_saved(tmp_path):
    model = SequenceRecommender(objective="binary", dim=4, training={"epochs": 1}).fit(walks())
    model.save(tmp_path)
    pairs = [1, 2, 3], [0, 5, 7]
    again = SequenceRecommender.load(tmp_path).purchase_probability(*pairs)
    assert again.tolist() == model.purchase_probability(*pairs).tolist()


@pytest.mark.parametrize(
    ("option", "bad"),
    [
        *[(one, bad) for one in ("dim", "layers", "heads", "max_length") for bad in (0, 1.5, "a")],
        *[("dropout", bad) for bad in (-0.1, 1, np.nan, "much")],
        *[("negatives", bad) for bad in (0, 2.5)],
        *[("network", bad) for bad in ("rnn", None)],
        *[("objective", bad) for bad in ("bpr", None)],
        ("heads", 3),  # of 64 dimensions
        ("training", {"epoch": 3}),
        ("training", 3),
    ],
)
def test_an_option_out_of_its_range_is_named(option, bad):
    with pytest.raises((ValueError, TypeError), match=rf"{option}.*expected"):
        SequenceRecommender(**{option: bad})


def test_what_is_no_encoder_is_refused():
    with pytest.raises(TypeError, match="encoder is 'MiniLM'; expected an object with encode"):
        SequenceRecommender("MiniLM")
    with pytest.raises(ValueError, match="embeddings has 3 rows but items has 12"):
        SequenceRecommender(embeddings=np.eye(3)).fit(make_interactions(int), make_items(int))


def test_a_training_that_diverges_is_told_and_the_model_stays_as_it_was():
    model = SequenceRecommender(dim=4, training={"epochs": 2}).fit(walks())
    before = everything(model, int)
    for rate in (1e4, 1e12, 1e30):  # the last step is the only one
        model.training = model.training._replace(learning_rate=rate, epochs=1, batch_size=256)
        with pytest.raises(TrainingDivergedError, match="diverged at epoch 1, step 1 of 1"):
            model.fit(walks(n_users=90))
        assert everything(model, int) == before
