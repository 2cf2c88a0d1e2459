"""The replay of the studies: it predicts before it learns, and weights follow what is planted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_kernels.recommenders import (
    ContentRecommender,
    HybridRecommender,
    ItemKNNRecommender,
    PopularityRecommender,
    UserKNNRecommender,
)
from llmrec_kernels.studies import replay

N_GROUPS, GROUP = 6, 8
N_ITEMS = N_GROUPS * GROUP


def planted(n_users=90, each=6, seed=0):
    """Each user takes items of one group alone: who knows the groups can foresee it."""
    rng = np.random.default_rng(seed)
    rows = [
        (user, group * GROUP + int(place))
        for user in range(n_users)
        for group in [int(rng.integers(N_GROUPS))]
        for place in rng.permutation(GROUP)[:each]
    ]
    frame = pd.DataFrame(rows, columns=["user", "item"]).assign(rating=1.0)
    return frame.assign(timestamp=np.arange(len(frame)))


def task(**options):
    return replay.Task(planted(**options), pd.DataFrame({"item": range(N_ITEMS)}))


def knows(seed=1):
    """A part whose vectors are those of the groups, apart from a little noise."""
    noise = np.random.default_rng(seed).normal(scale=0.05, size=(N_ITEMS, N_GROUPS))
    return ContentRecommender(
        embeddings=np.repeat(np.eye(N_GROUPS), GROUP, axis=0) + noise, pooling="mean"
    )


def guesses(seed=2):
    """A part whose vectors say nothing."""
    vectors = np.random.default_rng(seed).normal(size=(N_ITEMS, N_GROUPS))
    return ContentRecommender(embeddings=vectors, pooling="mean")


def adaptive(parts, rate=0.1, **options):
    return HybridRecommender(parts, adaptive=True, rate=rate, **options)


def shares(weights):
    return weights.div(weights.sum(axis=1), axis=0)


def test_weights_move_to_the_part_that_is_planted_better():
    for fusion in ("weighted", "ranks"):
        model = adaptive({"guesses": guesses(), "knows": knows()}, fusion=fusion)
        found = replay.replayed(model, task(), 60, 540, batch=4)
        share = shares(found.weights)
        assert found.weights.iloc[0].tolist() == [1.0, 1.0]
        assert share["knows"].iloc[-1] > 0.95
        assert np.allclose(found.weights.sum(axis=1), 2)
        assert share["knows"].iloc[: len(share) // 4].is_monotonic_increasing


def test_weights_come_back_when_another_part_becomes_the_better_one():
    """Halfway the groups are mixed up, and the other part has the new ones."""
    mixed = np.random.default_rng(5).permutation(N_ITEMS)
    events = planted(n_users=120)
    late = events.index >= 360
    events.loc[late, "item"] = mixed[events.loc[late, "item"]]
    new = np.repeat(np.eye(N_GROUPS), GROUP, axis=0)[np.argsort(mixed)]
    parts = {"old": knows(), "new": ContentRecommender(embeddings=new, pooling="mean")}
    mixed_task = replay.Task(events, pd.DataFrame({"item": range(N_ITEMS)}))
    found = replay.replayed(adaptive(parts), mixed_task, 60, 720, batch=4)
    share = shares(found.weights)
    assert share["old"].loc[300] > 0.9
    assert share["new"].iloc[-1] > 0.9


def test_weights_stay_put_where_parts_are_equal():
    parts = {"one": knows(), "other": knows(), "third": knows()}
    given_weights = {"one": 2.0, "other": 1.0, "third": 0.5}
    model = adaptive(parts, weights=given_weights)
    weights = replay.replayed(model, task(), 60, 540, batch=7).weights
    assert np.allclose(weights, list(given_weights.values()), rtol=1e-9)


def test_weights_that_are_fixed_do_not_move():
    model = HybridRecommender({"guesses": guesses(), "knows": knows()}, weights={"knows": 0.3})
    assert (replay.replayed(model, task(), 60, 300).weights == [1.0, 0.3]).all(axis=None)


class Recording(PopularityRecommender):
    """Notes what it is asked and told, in order."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def fit(self, interactions, items=None, users=None):
        self.calls.append(("fit", list(zip(interactions.user, interactions.item, strict=True))))
        return super().fit(interactions, items, users)

    def recommend(self, users, k=10, **options):
        self.calls.append(("asked", list(users)))
        return super().recommend(users, k, **options)

    def update(self, interactions):
        self.calls.append(("told", list(zip(interactions.user, interactions.item, strict=True))))
        return super().update(interactions)


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_every_event_is_predicted_before_it_is_learned(batch):
    model, some = Recording(), task(n_users=12)
    replay.replayed(model, some, 20, 60, batch=batch)
    pairs = list(zip(some.events.user, some.events.item, strict=True))
    assert model.calls[0] == ("fit", pairs[:20])
    told = []
    for (kind, asked), (then, news) in zip(model.calls[1::2], model.calls[2::2], strict=True):
        assert (kind, then) == ("asked", "told")
        assert set(asked) == {user for user, _ in news}
        told += news
    assert told == pairs[20:60]


def test_a_model_that_learned_too_early_would_have_had_the_items():
    """Popularity of items that come once each: never foreseen, though all are known by then."""
    events = pd.DataFrame({"user": range(40), "item": range(40), "timestamp": range(40)})
    some = replay.Task(events.assign(rating=1.0), pd.DataFrame({"item": range(39, -1, -1)}))
    for batch in (1, 10):
        result = replay.replayed(PopularityRecommender(), some, 20, 40, batch=batch).result
        # The first ones of the catalogue are the last events: equal scores come in its order.
        popular = result.events["rank"].notna()
        assert not popular[:-10].any()


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 60), st.integers(0, 5))
def test_batches_of_one_and_of_many_see_the_same_events(batch, seed):
    some = task(n_users=9, seed=seed)
    ends = {}
    for size in (1, batch):
        model = UserKNNRecommender(5, 1.0)
        found = replay.replayed(model, some, 20, 54, batch=size)
        assert found.result.events["item"].tolist() == some.events["item"][20:54].tolist()
        ends[size] = model.recommend(list(range(9)), k=5).to_pandas()
    pd.testing.assert_frame_equal(ends[1], ends[batch])


def test_weights_are_noted_after_each_batch():
    model = adaptive({"guesses": guesses(), "knows": knows()})
    found = replay.replayed(model, task(), 60, 85, batch=10)
    assert found.weights.index.tolist() == [0, 10, 20, 25]
    assert found.weights.iloc[-1].to_dict() == model.current_weights
    later = (found.weights.loc[20] + found.weights.loc[25]) / 2
    assert found.settled_weights() == pytest.approx(later.to_dict())


def test_items_with_few_interactions_are_left_out_and_time_decides():
    frame = pd.DataFrame(
        {"user": [1, 2, 3, 4], "item": ["a", "b", "a", "a"], "timestamp": [5, 1, 2, 2]}
    )
    kept = replay.frequent(frame, pd.DataFrame({"item": ["b", "a", "c"]}), 2)
    assert kept.events.user.tolist() == [3, 4, 1]
    assert kept.items.item.tolist() == ["a"]


def test_costs_have_a_row_a_model_and_a_column_a_batch_and_size():
    makes = {"popularity": PopularityRecommender, "items": ItemKNNRecommender}
    costs = replay.update_costs(task(), makes, sizes=(50, 100), batches=(1, 3))
    for table in costs:
        assert table.columns.tolist() == ["1 on 50", "1 on 100", "3 on 50", "3 on 100"]
        assert (table[:2].map(lambda text: int(text.replace(",", ""))) > 0).all(axis=None)
    assert costs.updates.index.tolist() == ["popularity", "items", replay.LENGTHS]
    assert costs.questions.index.tolist() == ["popularity", "items"]
    # Each user has six events in a row: those from the 51st on find from 0 to 5 before them.
    assert costs.updates.loc[replay.LENGTHS, "1 on 50"] == "2"


def test_each_update_is_followed_by_a_question_for_the_user_of_its_last_event():
    model, some = Recording(), task()
    replay.update_costs(some, {"it": lambda: model}, sizes=(50,), batches=(4,))
    pairs = list(zip(some.events.user, some.events.item, strict=True))
    batches = [pairs[start : start + 4] for start in range(50, 50 + 4 * replay.REPEATS, 4)]
    asked = [[("told", batch), ("asked", [batch[-1][0]])] for batch in batches]
    assert model.calls[1:] == [call for calls in asked for call in calls]


@pytest.mark.parametrize("slow", ["update", "recommend"])
def test_what_is_put_off_until_it_is_asked_counts_with_the_question(slow, monkeypatch):
    """By a clock that stands still but in what is slow: no test waits."""
    now = [0.0]

    class Slow(PopularityRecommender):
        def update(self, interactions):
            now[0] += 0.001 * (slow == "update")
            return super().update(interactions)

        def recommend(self, users, k=10, **options):
            now[0] += 0.001 * (slow == "recommend")
            return super().recommend(users, k, **options)

    monkeypatch.setattr(replay.time, "perf_counter", lambda: now[0])
    costs = replay.update_costs(task(), {"it": Slow}, sizes=(50,), batches=(2,))
    found = costs.updates.loc["it", "2 on 50"], costs.questions.loc["it", "2 on 50"]
    assert found == (("500", "0") if slow == "update" else ("0", "1,000"))


def test_an_update_does_no_work_in_proportion_to_the_model(monkeypatch):
    """However many users are known, only the histories of those in the events are touched."""
    from llmrec_kernels.recommenders import history, user_knn

    sizes = []
    of = history.History.of

    def counted(self, users):
        sizes.append(len(users))
        return of(self, users)

    events = planted(n_users=400)
    model = HybridRecommender({"users": UserKNNRecommender(5), "popular": PopularityRecommender()})
    model.fit(events, task().items)
    monkeypatch.setattr(history.History, "of", counted)
    monkeypatch.setattr(user_knn.Others, "of", None)  # laid out when asked, not when told
    for user in range(0, 400, 40):
        model.update(pd.DataFrame({"user": [user, 1000 + user], "item": [1, 2]}))
    assert max(sizes) == 2


def test_the_study_compares_the_adaptive_hybrid_with_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(replay, "REPEATS", 2)
    parts = {"knows": knows, "guesses": guesses, "popularity": PopularityRecommender}
    study = replay.study_of(
        task(n_users=120), parts, rates=(0.05, 0.2), batch=3, window=100, sizes=(100, 400)
    )
    choice, quality, paired, costs, questions = (table.frame for table in study.tables)
    assert choice.index.tolist() == ["β = 0.05", "β = 0.2"]
    assert quality.index.tolist() == [
        replay.ADAPTIVE,
        replay.EQUAL,
        replay.MEAN,
        replay.LAST,
        *parts,
    ]
    assert paired.index.tolist() == quality.index.tolist()[1:]
    assert quality[replay.NDCG]["knows"] > quality[replay.NDCG]["guesses"] + 0.1
    gain = quality[replay.NDCG][replay.ADAPTIVE] - quality[replay.NDCG]["guesses"]
    assert paired[replay.NDCG]["guesses"].startswith(f"{gain:+.4f} [".replace("0.", ".", 1))
    assert costs.index.tolist() == [*parts, "fixed hybrid", replay.ADAPTIVE, replay.LENGTHS]
    assert questions.index.tolist() == [*parts, "fixed hybrid", replay.ADAPTIVE]
    assert "720 ratings of the 48 items" in study.protocol
    assert "on knows" in study.findings
    assert "as much as a recommendation for each of these users" in study.findings
    study.write_pictures(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "replay-weights.svg",
        "replay-quality.svg",
    }
    assert study.markdown().startswith("## Feedback")


def test_an_adaptive_hybrid_asks_its_parts_about_each_user_of_a_batch_when_it_learns():
    """What the findings say of its cost: a fixed one asks nothing."""

    class Asked(PopularityRecommender):
        def _rows(self, histories):
            users.append(len(histories.offsets) - 1)
            return super()._rows(histories)

    batch = pd.DataFrame({"user": [0, 0, 1], "item": [40, 41, 42], "rating": 1.0, "timestamp": 999})
    for is_adaptive, expected in ((True, [2]), (False, [])):
        users = []
        model = HybridRecommender({"asked": Asked(), "knows": knows()}, adaptive=is_adaptive)
        model.fit(task().events, task().items)
        users.clear()
        model.update(batch)
        assert users == expected
