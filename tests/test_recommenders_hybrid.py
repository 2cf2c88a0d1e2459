"""`HybridRecommender` against its formulas, of the scores of parts that were fitted alone."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_histories import EDGES, check_scores, table, tables

from llmrec_kernels.recommenders import (
    ContentRecommender,
    EASERecommender,
    HybridRecommender,
    ItemKNNRecommender,
    PopularityRecommender,
    UnsupportedError,
)
from llmrec_kernels.recommenders.base import Recommender

MAKE = {
    "ease": lambda: EASERecommender(1.0),
    "items": lambda: ItemKNNRecommender(3, 0.5),
    "popular": PopularityRecommender,
}
LEAST = 0.01


def hybrid(**options):
    return HybridRecommender({name: make() for name, make in MAKE.items()}, **options)


def alone(data):
    return [data.fit(make()) for make in MAKE.values()]


def row(part, user, items):
    """What a part alone scores each item with, [N]; zeros where it can only say what is popular."""
    answer = part.recommend([user], k=len(items), filter_seen=False)
    scores = dict(zip(answer.item.tolist(), answer.score.tolist(), strict=True))
    said = user not in answer.unknown_users
    return np.array([scores[item] if said else 0.0 for item in items])


def standardised(scores, unseen):
    counted = scores[unseen] if unseen.any() else scores
    spread = np.sqrt(((counted - counted.mean()) ** 2).mean())
    if spread <= 1e-6 * np.abs(scores).max():
        return np.zeros(len(scores))
    return (scores - counted.mean()) / spread


def reciprocal(scores, unseen):
    if not scores.any():
        return np.zeros(len(scores))
    given = np.zeros(len(scores))
    for item in range(len(scores)):
        others = [other for other in range(len(scores)) if unseen[other] and other != item]
        ahead = sum((-scores[other], other) < (-scores[item], item) for other in others)
        given[item] = 1 / (60 + 1 + ahead)
    return given


ALIKE = {"weighted": standardised, "ranks": reciprocal}


def shares(parts, user, items, unseen, fusion):
    """What each part says of each item, in the same unit, [P, N]."""
    return np.array([ALIKE[fusion](row(part, user, items), unseen) for part in parts])


def check(data, weights, fusion):
    named = dict(zip(MAKE, weights, strict=True))
    model = data.fit(hybrid(weights=named, fusion=fusion))
    assert model.current_weights == named
    parts = alone(data)
    weighted = np.array(
        [
            np.array(weights)[:, None] * shares(parts, user, data.items, ~taken, fusion)
            for user, taken in zip(data.users, data.taken, strict=True)
        ]
    )
    scores = weighted.sum(axis=1)
    check_scores(model, data, scores)
    for user in np.flatnonzero(scores.any(axis=1)):
        for item in range(scores.shape[1]):
            why = model.explain(data.users[user], data.items[item])
            assert why.kind == "part"
            wanted = dict(zip(MAKE, weighted[user, :, item], strict=True))
            assert dict(zip(why.source, why.share, strict=True)) == pytest.approx(wanted, abs=1e-5)
            assert dict(zip(why.source, why.weight, strict=True)) == named
            assert why.share.sum() == pytest.approx(why.score, abs=1e-5)
            assert (np.diff(why.share) <= 0).all()


WEIGHTS = st.tuples(*[st.sampled_from([0.0, 0.5, 1.0, 3.0])] * 3).filter(any)


@settings(max_examples=30)
@given(data=tables(), weights=WEIGHTS, fusion=st.sampled_from(["weighted", "ranks"]))
def test_scores_are_the_weighted_sum_of_what_the_parts_say(data, weights, fusion):
    check(data, weights, fusion)


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("fusion", ["weighted", "ranks"])
def test_the_formulas_hold_at_the_edges(edge, fusion):
    check(EDGES[edge], (1.0, 2.0, 0.5), fusion)


@settings(max_examples=20)
@given(data=tables(), fusion=st.sampled_from(["weighted", "ranks"]), seed=st.integers(0, 99))
def test_what_is_filtered_changes_no_score(data, fusion, seed):
    model = data.fit(hybrid(fusion=fusion))
    allow = np.random.default_rng(seed).permutation(data.items)[:3].tolist()
    every = model.recommend(data.users, k=9).to_pandas().set_index(["user", "item"]).score
    for filters in ({"allow": allow}, {"exclude": allow}):
        some = model.recommend(data.users, k=9, **filters)
        assert set(some.item) <= set(data.items)
        for user, item, score in zip(some.user, some.item, some.score, strict=True):
            assert score == every[user, item]
            assert (item in allow) == ("allow" in filters)


@pytest.mark.parametrize("fusion", ["weighted", "ranks"])
def test_a_part_that_says_nothing_gives_nothing(fusion):
    data = table([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]])
    parts = {"items": ItemKNNRecommender(shrink=0), "popular": PopularityRecommender()}
    model = data.fit(HybridRecommender(parts, fusion=fusion))
    wanted = ALIKE[fusion](data.taken.sum(axis=0).astype(float), ~data.taken[2])
    assert model.score(["user 2"] * 4, data.items) == pytest.approx(wanted)
    why = model.explain("user 2", data.items[0])
    assert dict(zip(why.source, why.share, strict=True))["items"] == 0
    assert model.recommend(["user 2"]).unknown_users == ()
    assert model.recommend(["nobody"]).unknown_users == ("nobody",)


def errors_of(weights, said, unseen, item):
    """e_p = Σ_j π_j z_p(j) - z_p(i), π the softmax of the weighted mean over what is not taken."""
    left = np.flatnonzero(unseen)
    mean = [sum(w * z[j] for w, z in zip(weights, said, strict=True)) / sum(weights) for j in left]
    likely = np.array([math.exp(one) for one in mean])
    likely /= likely.sum()
    return np.array([(likely * z[left]).sum() - z[item] for z in said])


def moved(weights, errors, rate):
    total = sum(weights)
    mean = sum(w * e for w, e in zip(weights, errors, strict=True)) / total
    steps = [2 / (1 + math.exp(-rate * (mean - e))) for e in errors]
    weights = np.array([w * step for w, step in zip(weights, steps, strict=True)])
    weights = np.maximum(weights * total / weights.sum(), LEAST * total)
    return weights * total / weights.sum()


def replayed(data, events, rate, fusion, batch):
    """The weights after events, with parts of our own that are told of them in the same way."""
    parts, weights = alone(data), np.array([1.0, 2.0, 0.5])
    taken = {user: set(np.flatnonzero(data.taken[code])) for code, user in enumerate(data.users)}
    for start in range(0, len(events), batch):
        some = events[start : start + batch]
        before = {user: set(taken.get(user, ())) for user, _ in some}
        for user, item in some:
            unseen = np.array([one not in before[user] for one in range(len(data.items))])
            said = shares(parts, user, data.items, unseen, fusion)
            said = np.array([standardised(one, unseen) for one in said])
            if unseen[item] and said.any():
                weights = moved(weights, errors_of(weights, said, unseen, item), rate)
            taken.setdefault(user, set()).add(item)
        for part in parts:
            part.update(frame_of(data, some))
    return weights


def frame_of(data, events):
    return pd.DataFrame(
        {
            "user": [user for user, _ in events],
            "item": [data.items[item] for _, item in events],
            "timestamp": 99.0,
        }
    )


@settings(max_examples=20)
@given(
    data=tables(),
    events=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 5)), min_size=1, max_size=6),
    rate=st.sampled_from([0.03, 1.0, 30.0]),
    fusion=st.sampled_from(["weighted", "ranks"]),
    batch=st.sampled_from([1, 6]),
)
def test_adaptive_weights_follow_the_formula_event_by_event(data, events, rate, fusion, batch):
    events = [(f"user {user}", item % len(data.items)) for user, item in events]
    start = dict(zip(MAKE, [1.0, 2.0, 0.5], strict=True))
    model = data.fit(hybrid(adaptive=True, rate=rate, fusion=fusion, weights=start))
    for one in range(0, len(events), batch):
        model.update(frame_of(data, events[one : one + batch]))
    wanted = replayed(data, events, rate, fusion, batch)
    found = list(model.current_weights.values())
    assert found == pytest.approx(wanted, rel=1e-5)
    assert sum(found) == pytest.approx(3.5)
    assert min(found) >= LEAST * 3.5 / (1 + 2 * LEAST)


def test_an_event_by_hand():
    """Of two parts one expects what comes, the other the opposite."""
    data = table([[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1], [1, 0, 0]])
    parts = {"items": ItemKNNRecommender(shrink=0), "popular": PopularityRecommender()}
    model = data.fit(HybridRecommender(parts, adaptive=True, rate=0.5))
    # User 6 took item 0; of items 1 and 2 the neighbours prefer 1, and 2 is popular. Standardised
    # over two items that is (1, -1) and (-1, 1): their mean is 0, and each is as likely as the
    # other, so that the errors are 0 - 1 and 0 + 1, and the weights move by 2 / (1 + exp(-/+ .5)).
    model.update(pd.DataFrame({"user": ["user 6"], "item": data.items[1:2], "timestamp": [99]}))
    up, down = 2 / (1 + math.exp(-0.5)), 2 / (1 + math.exp(0.5))
    assert model.current_weights == pytest.approx({"items": up, "popular": down})


def planted(rng):
    """Users of two groups take the items of their group, in an order of chance."""
    rows = [
        (f"user {user}", f"item {item}")
        for user in range(30)
        for item in rng.permutation(np.arange(user % 2, 24, 2))[:8]
    ]
    rng.shuffle(rows)
    return pd.DataFrame(rows, columns=["user", "item"]).assign(timestamp=np.arange(len(rows)))


def test_weight_moves_to_the_part_that_predicts():
    rng = np.random.default_rng(0)
    events = planted(rng)
    items = pd.DataFrame({"item": [f"item {code}" for code in range(24)]})
    parts = {
        "noise": ContentRecommender(embeddings=rng.normal(size=(24, 8))),
        "neighbours": ItemKNNRecommender(),
    }
    model = HybridRecommender(parts, adaptive=True, rate=0.1).fit(events[:120], items)
    for event in range(120, len(events)):
        model.update(events[event : event + 1])
    assert model.current_weights["neighbours"] > 1.5
    assert sum(model.current_weights.values()) == pytest.approx(2.0)


def test_an_event_counts_once_and_in_the_order_of_time_however_events_are_batched():
    draw = np.random.default_rng(5)
    known = pd.DataFrame({"user": draw.integers(0, 6, 40), "item": draw.integers(0, 12, 40)})
    known["timestamp"] = range(40)
    later = pd.DataFrame(
        {"user": [0, 1, 2, 3], "item": [1, 4, 7, 9], "timestamp": [50, 51, 52, 53]}
    )

    def weights(*batches):
        parts = {"popular": PopularityRecommender(), "items": ItemKNNRecommender(5, 1.0)}
        model = HybridRecommender(parts, adaptive=True, rate=0.5)
        model.fit(known, pd.DataFrame({"item": range(12)}))
        for batch in batches:
            model.update(batch)
        return model.current_weights

    once = weights(later)
    assert once != {"popular": 1.0, "items": 1.0}
    assert weights(pd.concat([later, later])) == once
    assert weights(later, later) == once
    assert weights(later[::-1]) == once


def test_without_adaptive_the_weights_stay():
    data = EDGES["an item nobody took"]
    model = data.fit(hybrid(weights={"ease": 2.0}))
    model.update(frame_of(data, [("user 0", 3), ("new", 1)]))
    assert model.current_weights == {"ease": 2.0, "items": 1.0, "popular": 1.0}


def test_learned_weights_are_saved_and_go_on_learning(tmp_path):
    data = table(np.random.default_rng(3).integers(0, 2, size=(8, 6)))
    model = data.fit(hybrid(adaptive=True, rate=1.0))
    model.update(frame_of(data, list(zip(data.users, [0, 1, 2, 3, 4, 5, 0, 1], strict=True))))
    assert len(set(model.current_weights.values())) > 1
    model.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    assert loaded.current_weights == model.current_weights
    for one in (model, loaded):
        one.update(frame_of(data, [("user 2", code) for code in range(6)]))
    assert loaded.current_weights == model.current_weights
    pd.testing.assert_frame_equal(
        loaded.recommend(data.users).to_pandas(), model.recommend(data.users).to_pandas()
    )


def test_a_new_fit_begins_with_the_weights_given():
    data, given = table(np.random.default_rng(3).integers(0, 2, size=(8, 6))), {"ease": 2.0}
    model = data.fit(hybrid(adaptive=True, rate=1.0, weights=given))
    model.update(frame_of(data, list(zip(data.users, [0, 1, 2, 3, 4, 5, 0, 1], strict=True))))
    assert model.current_weights["ease"] != 2.0
    assert data.fit(model).current_weights == {"ease": 2.0, "items": 1.0, "popular": 1.0}


class Words:
    """A text encoder: which of a few words come."""

    words = ("space", "crime", "love", "war", "dog")

    def encode(self, texts):
        rows = [[text.split().count(word) for word in self.words] for text in texts]
        return np.array(rows, dtype=np.float64).reshape(len(rows), -1)


TEXTS = ["space war", "crime love", "love dog dog", "space space", "war crime", "dog space love"]


@pytest.mark.parametrize("fusion", ["weighted", "ranks"])
@pytest.mark.parametrize("liked", [[], [2], [0, 3]])
def test_a_text_is_read_by_the_parts_that_read_and_the_others_go_by_what_was_liked(fusion, liked):
    data = table(np.random.default_rng(1).integers(0, 2, size=(12, 6)))
    items = data.catalogue().assign(text=TEXTS)
    made = {"content": ContentRecommender(Words()), "items": ItemKNNRecommender(shrink=0)}
    model = HybridRecommender(made, weights={"items": 2.0}, fusion=fusion).fit(data.frame(), items)
    liked_ids = [data.items[one] for one in liked]
    content = ContentRecommender(Words()).fit(data.frame(), items)
    neighbours = ItemKNNRecommender(shrink=0).fit(data.frame(), items)
    answers = [
        (1.0, content.recommend_from_text("dog in space", liked=liked_ids)),
        (2.0, neighbours.recommend_from_history(liked_ids)),
    ]
    left = np.array([one for one in range(6) if one not in liked])
    wanted = np.zeros(len(left))
    for weight, answer in answers:
        if not answer.unknown_users:
            scores = dict(zip(answer.item.tolist(), answer.score.tolist(), strict=True))
            own = np.array([scores[data.items[one]] for one in left])
            wanted += weight * ALIKE[fusion](own, np.ones(len(left), dtype=bool))
    found = model.recommend_from_text("dog in space", liked=liked_ids)
    places = [data.items.index(one) for one in found.item]
    assert sorted(places) == left.tolist()
    np.testing.assert_allclose(found.score, wanted[np.searchsorted(left, places)], atol=1e-5)
    assert (np.diff(found.score) <= 0).all()


def test_where_no_part_reads_there_is_no_question_in_words():
    with pytest.raises(UnsupportedError, match="HybridRecommender reads no text"):
        EDGES["equal ratings"].fit(hybrid()).recommend_from_text("space")


def test_refused_options_say_what_is_expected():
    same = PopularityRecommender()
    for make, error, message in (
        (lambda: HybridRecommender([same]), TypeError, "parts is a list; expected recommenders"),
        (lambda: HybridRecommender({"a": same}), ValueError, "parts has 1 recommenders"),
        (lambda: HybridRecommender({"a": same, "b": same}), ValueError, "one recommender twice"),
        (lambda: HybridRecommender({"a": same, 1: same}), TypeError, "parts has the name 1"),
        (lambda: HybridRecommender({"a": same, "b": 1}), TypeError, r"parts\['b'\] is 1"),
        (lambda: hybrid(weights={"x": 1}), ValueError, "weights has 'x'; the parts are ease"),
        (lambda: hybrid(weights={"ease": -1}), ValueError, "expected at least 0"),
        (lambda: hybrid(weights=dict.fromkeys(MAKE, 0)), ValueError, "all weights are 0"),
        (lambda: hybrid(fusion="mean"), ValueError, "fusion is 'mean'"),
        (lambda: hybrid(rate=0), ValueError, "rate is 0; expected more than 0"),
    ):
        with pytest.raises(error, match=message):
            make()
