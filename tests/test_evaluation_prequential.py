"""prequential(): each event is predicted from what came before it, and then learnt from."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_kernels.datasets import movielens_100k
from llmrec_kernels.evaluation import compare_paired, pool, prequential
from llmrec_kernels.recommenders import PopularityRecommender


class Popular:
    """Most taken first, equally popular items by smaller id; writes down what it is asked."""

    def __init__(self, train=None, items=()):
        self.counts = Counter(dict.fromkeys(items, 0))
        self.seen = set()
        self.log = []
        if train is not None:
            self.learn(train)

    def learn(self, frame):
        pairs = list(zip(frame.user.tolist(), frame.item.tolist(), strict=True))
        self.counts.update(item for _, item in pairs)
        self.seen.update(pairs)

    def recommend(self, users, k=10, *, filter_seen=True, allow=None, exclude=None):
        self.log.append(("recommend", list(users)))
        ranked = sorted(self.counts, key=lambda item: (-self.counts[item], item))
        rows = []
        for user in users:
            best = [item for item in ranked if not filter_seen or (user, item) not in self.seen]
            rows += [(user, item, rank) for rank, item in enumerate(best[:k], 1)]
        user, item, rank = zip(*rows, strict=True) if rows else ([], [], [])
        return SimpleNamespace(user=np.array(user), item=np.array(item), rank=np.array(rank))

    def update(self, frame):
        self.log.append(("update", frame))
        self.learn(frame)


def frame(*rows):
    return pd.DataFrame(rows, columns=["user", "item", "timestamp"])


TRAIN = frame((1, 10, 0), (2, 11, 0), (3, 11, 0))
EVENTS = frame((4, 10, 30), (1, 11, 10), (4, 11, 20), (5, 10, 40))


@st.composite
def replays(draw):
    row = st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 9))
    train = frame(*draw(st.lists(row, min_size=1, max_size=10)))
    events = frame(*draw(st.lists(row, min_size=1, max_size=25)))
    options = {
        "k": draw(st.integers(1, 4)),
        "batch": draw(st.integers(1, 5)),
        "filter_seen": draw(st.booleans()),
        "on_unknown": draw(st.sampled_from(["miss", "learn"])),
    }
    return train, events, options


@settings(deadline=None)
@given(replays())
def test_a_replay_is_that_of_a_plain_loop(drawn):
    train, events, options = drawn
    k, batch, filter_seen, on_unknown = options.values()
    model = Popular(train)
    known, had, expected = set(train.item), set(zip(train.user, train.item, strict=True)), []
    rows = sorted(events.itertuples(index=False), key=lambda row: row.timestamp)
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        for row in part:
            answer = model.recommend([row.user], k, filter_seen=filter_seen).item.tolist()
            rank = answer.index(row.item) + 1 if row.item in answer else None
            pair = (row.user, row.item)
            counts = not (filter_seen and pair in had)
            expected.append((row.item in known, pair in had, rank, counts))
            if on_unknown == "learn" or row.item in known:
                had.add(pair)
        learnt = [row for row in part if on_unknown == "learn" or row.item in known]
        model.learn(frame(*learnt))
        known |= {row.item for row in learnt}
    result = prequential(Popular(train), events, train=train, **options)
    values = [
        (1 / np.log2(rank + 1) if rank else 0.0) if counts else np.nan
        for _, _, rank, counts in expected
    ]
    assert result.events.known.tolist() == [one[0] for one in expected]
    assert result.events["repeat"].tolist() == [one[1] for one in expected]
    np.testing.assert_allclose(result.events[f"NDCG@{k}"], values)
    np.testing.assert_allclose(
        result[f"NDCG@{k}"], np.nan if np.isnan(values).all() else np.nanmean(values)
    )
    assert result.n_unknown == sum(not one[0] for one in expected)
    assert result.n_repeats == sum(one[1] for one in expected)


def test_events_come_in_the_order_of_time_and_each_is_learnt_after_it_is_predicted():
    model = Popular(TRAIN)
    result = prequential(model, EVENTS, train=TRAIN, k=1)
    kinds = [kind for kind, _ in model.log]
    assert kinds == ["recommend", "update"] * 4
    assert [users for kind, users in model.log if kind == "recommend"] == [[1], [4], [4], [5]]
    assert result.events.timestamp.tolist() == [10, 20, 30, 40]
    # 11 has been taken twice, then three and four times; user 4 has it when 10 comes.
    assert result.events["HR@1"].tolist() == [1, 1, 1, 0]
    assert (result["HR@1"], result["MRR@1"]) == (0.75, 0.75)


def test_of_events_at_one_time_the_later_row_comes_later():
    model = Popular(TRAIN)
    prequential(model, EVENTS.assign(timestamp=5), train=TRAIN)
    assert [users[0] for kind, users in model.log if kind == "recommend"] == [4, 1, 4, 5]


def test_the_rank_gives_ndcg_and_reciprocal_rank():
    events = frame((8, 10, 1), (9, 99, 2))
    result = prequential(Popular(TRAIN), events, train=TRAIN)
    assert result.events["rank"].tolist()[0] == 2
    assert np.isnan(result.events["rank"][1])
    assert result.events["NDCG@10"].tolist() == [1 / np.log2(3), 0]
    assert result.events["MRR@10"].tolist() == [0.5, 0]


def test_events_of_a_batch_do_not_know_of_each_other():
    model = Popular(TRAIN)
    result = prequential(model, EVENTS, train=TRAIN, k=1, batch=4)
    assert [kind for kind, _ in model.log] == ["recommend", "update"]
    assert model.log[0][1] == [1, 4, 5]  # each user once
    assert result.events["HR@1"].tolist() == [1, 1, 0, 0]


def test_an_unknown_item_is_a_miss_and_the_model_never_hears_of_it():
    events = frame((1, 99, 1), (2, 99, 2), (3, 10, 3))
    model = Popular(TRAIN)
    result = prequential(model, events, train=TRAIN)
    assert result.events.known.tolist() == [False, False, True]
    assert result.n_unknown == 2
    assert result["HR@10"] == pytest.approx(1 / 3)
    assert 99 not in model.counts
    assert [one.item.tolist() for kind, one in model.log if kind == "update"] == [[10]]


def test_each_event_with_an_unknown_item_is_a_miss_also_the_second_of_a_user():
    result = prequential(Popular(TRAIN), frame((1, 99, 1), (1, 99, 2)), train=TRAIN)
    assert (result.n_unknown, result.n_repeats, result["HR@10"]) == (2, 0, 0)


def test_what_the_model_recommends_it_knows():
    result = prequential(Popular(TRAIN, [99]), frame((1, 99, 1), (2, 99, 2)), train=TRAIN)
    assert result.events.known.tolist() == [True, True]
    assert result["HR@10"] == 1


def test_an_unknown_item_that_is_learnt_is_known_from_then_on():
    events = frame((1, 99, 1), (2, 99, 2))
    result = prequential(Popular(TRAIN), events, train=TRAIN, on_unknown="learn")
    assert result.events.known.tolist() == [False, True]
    assert result.events["HR@10"].tolist() == [0, 1]


@pytest.mark.parametrize("items", [[99], pd.DataFrame({"item": [99]})])
def test_items_that_the_model_knows_without_interactions_are_given_to_update(items):
    result = prequential(Popular(TRAIN, [99]), frame((1, 99, 1)), train=TRAIN, items=items)
    assert result.events.known.tolist() == [True]


def test_where_nothing_is_said_every_item_is_known():
    result = prequential(Popular(), frame((1, 7, 1), (2, 7, 2)))
    assert result.events.known.all()
    assert result.events["HR@10"].tolist() == [0, 1]


def test_a_repeat_has_no_value_where_what_is_seen_is_left_out_and_is_learnt():
    events = frame((1, 10, 1), (9, 10, 2), (9, 10, 3))
    model = Popular(TRAIN)
    result = prequential(model, events, train=TRAIN)
    np.testing.assert_array_equal(result.events["HR@10"], [np.nan, 1, np.nan])
    assert (result.n_repeats, result["HR@10"]) == (2, 1)
    assert model.counts[10] == 4
    shown = prequential(Popular(TRAIN), events, train=TRAIN, filter_seen=False)
    assert shown.events["HR@10"].tolist() == [1, 1, 1]
    assert shown.n_repeats == 2


def test_a_replay_of_repeats_alone_has_no_value():
    result = prequential(Popular(TRAIN), frame((1, 10, 1)), train=TRAIN)
    assert np.isnan(result["HR@10"])
    assert "nan" in str(result)


def test_update_gets_the_rows_with_all_their_columns():
    model = Popular(TRAIN)
    prequential(model, EVENTS.assign(rating=[1, 2, 3, 4]), train=TRAIN, batch=3)
    updates = [one for kind, one in model.log if kind == "update"]
    assert updates[0].rating.tolist() == [2, 3, 1]
    assert updates[0].columns.tolist() == ["user", "item", "timestamp", "rating"]


def test_after_each_batch_the_observer_hears_how_many_events_were_replayed():
    model, heard = Popular(TRAIN), []
    prequential(
        model, EVENTS, train=TRAIN, batch=3, observe=lambda n: heard.append((n, model.counts[11]))
    )
    assert heard == [(3, 4), (4, 4)]


def test_users_may_be_strings_and_times_dates():
    events = EVENTS.assign(
        user="u" + EVENTS.user.astype(str), timestamp=pd.to_datetime(EVENTS.timestamp, unit="D")
    )
    train = TRAIN.assign(user="u" + TRAIN.user.astype(str))
    result = prequential(Popular(train), events, train=train, k=1)
    assert result.events["HR@1"].tolist() == [1, 1, 1, 0]
    assert result.events.user.tolist() == ["u1", "u4", "u4", "u5"]


# --- means -------------------------------------------------------------------------------------


@settings(deadline=None)
@given(replays(), st.integers(1, 8))
def test_running_and_moving_means_are_those_of_slices(drawn, window):
    train, events, options = drawn
    result = prequential(Popular(train), events, train=train, **options)
    label = result.labels[1]
    values = result.events[label].to_numpy()
    running, moving = result.running(label), result.moving(label, window)
    assert running.index.tolist() == moving.index.tolist() == list(range(1, len(events) + 1))
    for number in range(1, len(values) + 1):
        for last, got in ((number, running[number]), (window, moving["mean"][number])):
            part = values[max(0, number - last) : number]
            part = part[~np.isnan(part)]
            np.testing.assert_allclose(got, part.mean() if len(part) else np.nan, atol=1e-12)
        margin = 1.959964 * part.std(ddof=1) / np.sqrt(len(part)) if len(part) > 1 else np.nan
        half = (moving.high - moving.low)[number] / 2
        np.testing.assert_allclose(half, margin, atol=1e-6)


def test_the_interval_draws_users_with_all_their_events():
    rng = np.random.default_rng(0)
    events = frame(*((int(user), 10, at) for at, user in enumerate(rng.integers(0, 40, 400))))
    hits = rng.random(40)[events.user] < 0.5  # all events of a user are alike

    class Knows(Popular):
        def recommend(self, users, k=10, **options):
            hit = hits[events.user.tolist().index(users[0])]
            return SimpleNamespace(user=users, item=[10 if hit else 11], rank=[1])

    result = prequential(Knows(), events, filter_seen=False)
    low, high = result.interval("HR@10")
    by_event = 1.96 * np.std(hits) / np.sqrt(400)
    assert high - low > 2 * 2 * by_event  # 10 events a user: √10 times as wide


def test_replays_are_compared_user_by_user_and_pooled():
    events = frame(*((user, 10 + user % 2, user) for user in range(20)))
    first = prequential(Popular(TRAIN), events, train=TRAIN, k=2, filter_seen=False)
    second = prequential(Popular(TRAIN), events, train=TRAIN, k=1, filter_seen=False)
    assert pool([first, first])["HR@2"] == 1
    with pytest.raises(KeyError, match="the report has no 'HR@2'"):
        compare_paired(first, second, "HR@2")
    assert compare_paired(first, first, "HR@2").ties == 20


def test_what_is_returned_is_a_copy():
    result = prequential(Popular(TRAIN), EVENTS, train=TRAIN)
    table = result.to_pandas()
    table.loc[:, "HR@10"] = 7.0
    assert result["HR@10"] <= 1


# --- real events, and their cost ---------------------------------------------------------------


def test_popularity_on_movielens_gets_the_same_replay_as_a_plain_loop():
    events = movielens_100k().interactions.sort_values("timestamp", kind="stable")
    train, rest = events[:20_000], events[20_000:20_300]
    ours = prequential(PopularityRecommender().fit(train), rest, train=train, batch=50)
    plain = prequential(Popular(train), rest, train=train, batch=50)
    pd.testing.assert_series_equal(ours.events["HR@10"], plain.events["HR@10"])
    assert 0 < ours["HR@10"] < 0.3


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("n_train", [10, 1000])
def test_a_model_is_asked_for_and_told_of_each_event_once_however_large_train_is(n_train, batch):
    model = Popular(items=range(7))
    events = frame(*((10**6 + one, one % 7, one) for one in range(50)))
    train = pd.DataFrame({"user": np.arange(n_train) % 9, "item": np.arange(n_train)})
    prequential(model, events, train=train, batch=batch)
    rows = Counter()
    for what, told in model.log:
        rows[what] += len(told)
    assert rows == {"recommend": 50, "update": 50}
    assert len(model.log) == 2 * -(-50 // batch)


# --- models that break their promise, and questions without an answer --------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(9, 10, 1)], "item 10 to user 9, a user nobody asked for"),
        ([(1, 11, 0)], "item 11 to user 1, with a rank outside 1 to 2"),
        ([(1, 11, 3)], "with a rank outside 1 to 2"),
        ([(1, 11, 1), (1, 11, 2)], "item 11 to user 1, for the second time"),
        ([(1, 10, 1)], "item 10 to user 1, who has taken it before"),
        ([(1, "11", 1)], "item 11 to user 1, an id of another kind than those of interactions"),
    ],
)
def test_a_model_that_breaks_its_promise_is_refused(rows, message):
    class Says(Popular):
        def recommend(self, users, k=10, **options):
            user, item, rank = zip(*rows, strict=True)
            return SimpleNamespace(user=user, item=item, rank=rank)

    with pytest.raises(ValueError, match=message):
        prequential(Says(), EVENTS, train=TRAIN, k=2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"interactions": EVENTS[:0]}, ValueError, "interactions has no rows"),
        ({"interactions": EVENTS[["user", "item"]]}, ValueError, "has no column timestamp"),
        (
            {"interactions": EVENTS.assign(timestamp=[1, 2, np.nan, 3])},
            ValueError,
            "interactions has no timestamp in row 2",
        ),
        ({"train": TRAIN[["user"]]}, ValueError, "train has no column item"),
        ({"items": pd.DataFrame({"id": [1]})}, ValueError, "items has no column item"),
        (
            {"interactions": EVENTS.astype({"timestamp": str})},
            TypeError,
            "interactions has timestamps such as '30'; expected numbers or dates",
        ),
        (
            {"interactions": EVENTS.astype({"item": str})},
            TypeError,
            "item ids are both numbers and strings, such as 10 in train and '10' in interactions",
        ),
        (
            {"interactions": EVENTS.astype({"user": str})},
            TypeError,
            "user ids are both numbers and strings, such as 1 in train and '4' in interactions",
        ),
        ({"items": {"10"}}, TypeError, "item ids are both numbers and strings"),
        ({"k": 0}, ValueError, "k is 0; expected at least 1"),
        ({"batch": 0}, ValueError, "batch is 0; expected at least 1"),
        ({"batch": 1.5}, TypeError, "batch is 1.5; expected an integer of at least 1"),
        ({"on_unknown": "skip"}, ValueError, "on_unknown is 'skip'; expected one of"),
    ],
)
def test_a_replay_that_makes_no_sense_is_refused_before_the_model_is_touched(
    change, error, message
):
    model = Popular(TRAIN)
    options = {"interactions": EVENTS, "train": TRAIN} | change
    with pytest.raises(error, match=message):
        prequential(model, **options)
    assert model.log == []


def test_a_window_that_makes_no_sense_is_refused():
    result = prequential(Popular(TRAIN), EVENTS, train=TRAIN)
    with pytest.raises(ValueError, match="window is 0; expected at least 1"):
        result.moving("HR@10", 0)
    with pytest.raises(KeyError, match="the report has no 'HR@5'"):
        result.running("HR@5")


def test_the_catalogue_may_be_listed_by_anything_that_lists():
    for items in ({11}, iter([11]), pd.Index([11]), pd.DataFrame({"item": [11]})):
        events = frame((9, 11, 1), (9, 12, 2))
        result = prequential(
            Popular(TRAIN), events, train=TRAIN[TRAIN.item != 11], items=items, k=1
        )
        assert result.n_unknown == 1
