"""Splits: nothing of the test is in train, nothing is lost, and time runs forward."""

import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_kernels.datasets import movielens_100k
from llmrec_kernels.evaluation import (
    cold_item_split,
    cold_user_split,
    k_fold,
    leave_last_out,
    random_split,
    ratio_split,
    time_split,
)


@st.composite
def interactions(draw):
    """Draw some users and items, equal times and repeated pairs included, with an odd index."""
    row = st.tuples(st.integers(0, 5), st.integers(0, 8), st.integers(0, 6))
    rows = draw(st.lists(row, min_size=1, max_size=60))
    frame = pd.DataFrame(rows, columns=["user", "item", "timestamp"], dtype=np.int64)
    if draw(st.booleans()):
        frame["user"] = "u" + frame["user"].astype(str)
    frame["rating"] = 1.0
    return frame.set_index(np.arange(len(frame), 0, -1) * 3)


def assert_divides(whole, train, test):
    """Check that every row is in one part, unchanged, in the order of the whole."""
    assert not set(train.index) & set(test.index)
    in_test = whole.index.isin(test.index)
    pd.testing.assert_frame_equal(train, whole[~in_test])
    pd.testing.assert_frame_equal(test, whole[in_test])


def time_of(whole, part):
    """Order rows as the contract does: by time, and at one time by position."""
    positions = whole.index.get_indexer(part.index)
    return list(zip(part.timestamp, positions, strict=True))


def assert_test_comes_after_train(whole, train, test):
    for user in test.user.unique():
        before = time_of(whole, train[train.user == user])
        after = time_of(whole, test[test.user == user])
        assert max(before) < min(after)


@settings(deadline=None)
@given(interactions())
def test_leave_last_out_holds_out_the_last_of_each_user_with_two_or_more(whole):
    train, test = leave_last_out(whole)
    assert_divides(whole, train, test)
    counts = whole.user.value_counts()
    assert sorted(test.user) == sorted(counts.index[counts > 1])
    assert_test_comes_after_train(whole, train, test)


def test_of_interactions_at_one_time_the_later_row_is_the_last():
    whole = pd.DataFrame({"user": 1, "item": [5, 6, 7], "timestamp": [9, 9, 2]})
    assert leave_last_out(whole)[1].item.tolist() == [6]


@settings(deadline=None)
@given(interactions(), st.integers(2, 4))
def test_the_nth_last_is_held_out_of_what_is_left_without_the_later_ones(whole, nth):
    train, test = whole, None
    for _ in range(nth):
        whole_before = train
        train, test = leave_last_out(whole_before)
    ours = leave_last_out(whole, nth=nth)
    pd.testing.assert_frame_equal(ours[0], train)
    pd.testing.assert_frame_equal(ours[1], test)


def test_what_is_chosen_on_the_second_last_never_sees_the_last():
    whole = pd.DataFrame({"user": 1, "item": [5, 6, 7], "timestamp": [1, 2, 3]})
    train, test = leave_last_out(whole, nth=2)
    assert (train.item.tolist(), test.item.tolist()) == ([5], [6])


@settings(deadline=None)
@given(interactions(), st.floats(0.01, 0.99), st.sampled_from(["time", "random"]))
def test_ratio_split_holds_out_the_share_of_each_user(whole, ratio, by):
    train, test = ratio_split(whole, ratio, by=by, seed=3)
    assert_divides(whole, train, test)
    held_out = test.user.value_counts()
    for user, count in whole.user.value_counts().items():
        assert held_out.get(user, 0) == pytest.approx(count * ratio, abs=1)
        assert held_out.get(user, 0) <= count * ratio + 1e-6
        assert held_out.get(user, 0) < count  # every user stays in train
    if by == "time":
        assert_test_comes_after_train(whole, train, test)


@pytest.mark.parametrize(("ratio", "held_out"), [(0.29, 29), (0.57, 57), (0.2, 20), (0.999, 99)])
def test_ratio_split_counts_as_on_paper(ratio, held_out):
    whole = pd.DataFrame({"user": 1, "item": range(100), "timestamp": range(100)})
    assert len(ratio_split(whole, ratio)[1]) == held_out


def test_a_random_ratio_split_is_a_function_of_its_seed():
    whole = pd.DataFrame({"user": 1, "item": range(100)})  # no timestamp is needed
    draws = [ratio_split(whole, by="random", seed=seed)[1].item.tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert draws[0] != list(range(80, 100))


def test_a_random_ratio_split_takes_each_interaction_equally_often():
    whole = pd.DataFrame({"user": 1, "item": range(10)})
    taken = [ratio_split(whole, 0.3, by="random", seed=seed)[1].item for seed in range(500)]
    share = pd.concat(taken).value_counts().reindex(range(10), fill_value=0) / 500
    assert share.between(0.2, 0.4).all()  # 0.3 within five standard deviations


@settings(deadline=None)
@given(interactions(), st.floats(0.01, 0.99), st.integers(0, 9))
def test_random_split_holds_out_the_share_of_all_rows(whole, ratio, seed):
    train, test = random_split(whole, ratio, seed=seed)
    assert_divides(whole, train, test)
    assert len(test) == int(len(whole) * ratio + 1e-9)
    pd.testing.assert_frame_equal(test, random_split(whole, ratio, seed=seed)[1])


def test_random_split_takes_each_row_equally_often():
    whole = pd.DataFrame({"item": range(10)})
    taken = pd.concat([random_split(whole, 0.3, seed=seed)[1].item for seed in range(500)])
    assert (taken.value_counts().reindex(range(10), fill_value=0) / 500).between(0.2, 0.4).all()


@settings(deadline=None)
@given(interactions(), st.integers(2, 6))
def test_each_row_is_in_the_test_of_one_fold(whole, folds):
    if len(whole) < folds:
        with pytest.raises(ValueError, match=f"has {len(whole)} rows; expected at least one for"):
            k_fold(whole, folds)
        return
    parts = list(k_fold(whole, folds, seed=1))
    assert len(parts) == folds
    for train, test in parts:
        assert_divides(whole, train, test)
    tests = pd.concat([test for _, test in parts])
    assert sorted(tests.index) == sorted(whole.index)
    sizes = [len(test) for _, test in parts]
    assert max(sizes) - min(sizes) <= 1


def test_folds_are_a_function_of_their_seed():
    whole = pd.DataFrame({"item": range(100)})
    draws = [[test.item.tolist() for _, test in k_fold(whole, seed=seed)] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


@settings(deadline=None)
@given(interactions(), st.floats(0.01, 0.99))
def test_time_split_holds_out_the_latest_and_divides_no_moment(whole, ratio):
    allowed = int(len(whole) * ratio + 1e-9)
    times = sorted(whole.timestamp)
    fitting = [at for at in set(times) if 0 < sum(time >= at for time in times) <= allowed]
    if not fitting or min(fitting) == times[0]:
        with pytest.raises(ValueError, match=r"leaves nothing for test: the .* interactions run"):
            time_split(whole, test_ratio=ratio)
        return
    train, test = time_split(whole, test_ratio=ratio)
    assert_divides(whole, train, test)
    assert train.timestamp.max() < test.timestamp.min() == min(fitting)
    pd.testing.assert_frame_equal(test, time_split(whole, at=min(fitting))[1])


def test_time_split_takes_dates():
    times = pd.to_datetime(["2020-01-01", "2021-06-01", "2021-01-01"])
    whole = pd.DataFrame({"user": 1, "item": [1, 2, 3], "timestamp": times})
    assert time_split(whole, at=pd.Timestamp("2021-01-01"))[1].item.tolist() == [2, 3]


@settings(deadline=None)
@given(interactions(), st.integers(0, 4), st.floats(0.2, 0.99))
def test_cold_users_are_known_by_their_first_events_alone(whole, history, ratio):
    n_cold = int(whole.user.nunique() * ratio + 1e-9)
    if not n_cold:
        with pytest.raises(ValueError, match="holds out none of the"):
            cold_user_split(whole, test_ratio=ratio, history=history)
        return
    train, known, test = cold_user_split(whole, test_ratio=ratio, history=history, seed=2)
    rest = whole[~whole.index.isin(train.index)]
    assert_divides(whole, train, rest)
    assert_divides(rest, known, test)
    assert rest.user.nunique() == n_cold
    assert not set(rest.user) & set(train.user)
    for _, theirs in rest.groupby("user"):
        first = sorted(time_of(whole, theirs))[:history]
        mine = known[known.user == theirs.user.iloc[0]]
        expected = first if history else []
        assert sorted(time_of(whole, mine)) == expected


def test_the_cold_users_drawn_do_not_depend_on_the_order_of_rows():
    whole = pd.DataFrame({"user": np.arange(50) % 10, "item": range(50), "timestamp": range(50)})
    users = [
        set(cold_user_split(rows, test_ratio=0.3, history=1)[2].user)
        for rows in (whole, whole.iloc[::-1])
    ]
    assert users[0] == users[1]
    assert users[0] != set(cold_user_split(whole, test_ratio=0.3, history=1, seed=1)[2].user)


def test_a_moment_of_another_kind_than_the_times_is_refused():
    whole = pd.DataFrame({"user": [1, 2], "timestamp": [1, 2]})
    with pytest.raises(TypeError, match="at is 'noon'; expected a moment that compares with"):
        time_split(whole, at="noon")


def test_cold_users_are_drawn_among_ids_of_several_kinds():
    whole = pd.DataFrame({"user": pd.Series([1, "a", 2, "b"], dtype=object), "timestamp": 0})
    assert len(cold_user_split(whole, test_ratio=0.5, history=0)[2]) == 2


def test_cold_users_of_no_history_need_no_times():
    whole = pd.DataFrame({"user": ["a", "b"], "item": [1, 2]})
    train, known, test = cold_user_split(whole, ["b", "z"], history=0)
    assert (train.user.tolist(), len(known), test.user.tolist()) == (["a"], 0, ["b"])


@pytest.mark.parametrize(
    "split",
    [
        leave_last_out,
        lambda f: leave_last_out(f, nth=2),
        ratio_split,
        random_split,
        lambda f: cold_item_split(f, [8]),
        lambda f: cold_user_split(f, [2], history=1),
    ],
)
def test_one_user_and_one_item_are_divided_like_any_other(split):
    whole = pd.DataFrame({"user": [2], "item": [8], "timestamp": [1]})
    assert sum(map(len, split(whole))) == 1


@settings(deadline=None)
@given(interactions(), st.lists(st.integers(0, 12), max_size=6))
def test_cold_item_split_keeps_no_trace_of_the_held_out_items(whole, held_out):
    if held_out and not set(held_out) & set(whole.item):
        with pytest.raises(ValueError, match="none of them is in"):
            cold_item_split(whole, held_out)
        return
    train, test = cold_item_split(whole, held_out)
    assert_divides(whole, train, test)
    assert not set(train.item) & set(held_out)
    assert set(test.item) <= set(held_out)


def test_cold_item_split_takes_string_ids():
    whole = pd.DataFrame({"user": [1, 1], "item": ["a", "b"]})
    assert cold_item_split(whole, np.array(["b", "z"]))[1].item.tolist() == ["b"]


def test_splits_of_movielens_have_the_sizes_of_the_protocols():
    whole = movielens_100k().interactions
    train, test = leave_last_out(whole)
    assert (len(train), len(test)) == (99_057, 943)
    assert_divides(whole, train, test)
    held_out = np.random.default_rng(0).choice(1682, 336, replace=False) + 1
    train, test = cold_item_split(whole, held_out)
    assert_divides(whole, train, test)
    assert test.item.nunique() == 336
    for by in ("time", "random"):
        assert_divides(whole, *ratio_split(whole, by=by))


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (
            lambda f: leave_last_out(f[["user", "item"]]),
            "no column timestamp; its columns are user, item. random_split, k_fold",
        ),
        (lambda f: time_split(f[["user"]], at=1), "no column timestamp; its columns are user"),
        (lambda f: cold_user_split(f[["user"]], [1]), "no column timestamp"),
        (lambda f: leave_last_out(f, nth=0), "nth is 0; expected at least 1"),
        (lambda f: leave_last_out(f.assign(timestamp=[1, np.nan])), "no timestamp in row 1"),
        (lambda f: leave_last_out(f[:0]), "interactions has no rows"),
        (lambda f: ratio_split(f[:0]), "interactions has no rows"),
        (lambda f: random_split(f[:0]), "interactions has no rows"),
        (lambda f: k_fold(f[:0]), "interactions has no rows"),
        (lambda f: time_split(f[:0], at=1), "interactions has no rows"),
        (lambda f: cold_item_split(f[:0], [1]), "interactions has no rows"),
        (lambda f: cold_user_split(f[:0], [1]), "interactions has no rows"),
        (lambda f: random_split(f, 1.0), "test_ratio must lie between 0 and 1; got 1.0"),
        (lambda f: k_fold(f, 1), "folds is 1; expected at least 2"),
        (lambda f: k_fold(f, 3), "interactions has 2 rows; expected at least one for each of 3"),
        (lambda f: time_split(f), "give one of at and test_ratio; got at=None"),
        (lambda f: time_split(f, at=1, test_ratio=0.5), "give one of at and test_ratio"),
        (lambda f: time_split(f, at=1), "at=1 leaves nothing for train.* run from 1 to 2"),
        (lambda f: time_split(f, at=3), "at=3 leaves nothing for test"),
        (lambda f: cold_user_split(f), "give one of held_out and test_ratio"),
        (lambda f: cold_user_split(f, [1], history=-1), "history is -1; expected at least 0"),
        (lambda f: cold_user_split(f, ["1"]), "none of them is in interactions, whose users"),
        (lambda f: cold_user_split(f, test_ratio=0.5), "holds out none of the 1 users"),
        (lambda f: leave_last_out(f[["timestamp"]]), "interactions has no column user"),
        (lambda f: ratio_split(f[["item"]], by="random"), "interactions has no column user"),
        (lambda f: ratio_split(f[["user"]]), "interactions has no column timestamp"),
        (lambda f: ratio_split(f, 0.0), "test_ratio must lie between 0 and 1; got 0.0"),
        (lambda f: ratio_split(f, 1.0), "test_ratio must lie between 0 and 1; got 1.0"),
        (lambda f: ratio_split(f, float("nan")), "test_ratio is nan; expected a finite number"),
        (lambda f: ratio_split(f, by="random", seed=-1), "seed is -1; expected at least 0"),
        (lambda f: random_split(f, 0.5, seed=-1), "seed is -1; expected at least 0"),
        (lambda f: k_fold(f, 2, seed=-1), "seed is -1; expected at least 0"),
        (
            lambda f: cold_user_split(f, test_ratio=0.5, seed=-1),
            "seed is -1; expected at least 0",
        ),
        (lambda f: ratio_split(f, by="item"), "by must be 'time' or 'random'; got 'item'"),
        (lambda f: cold_item_split(f[["user"]], [1]), "interactions has no column item"),
        (lambda f: cold_item_split(f, 336), "held_out must be a 1-D array of item ids; got 336"),
        (lambda f: cold_item_split(f, ["7"]), "none of them is in interactions.*int64"),
    ],
)
def test_what_cannot_be_split_is_refused(split, message):
    frame = pd.DataFrame({"user": [1, 1], "item": [7, 8], "timestamp": [1, 2]})
    with pytest.raises(ValueError, match=message):
        split(frame)


@pytest.mark.parametrize(
    "split",
    [
        leave_last_out,
        ratio_split,
        lambda f: time_split(f, at="9"),
        lambda f: time_split(f, test_ratio=0.5),
        lambda f: cold_user_split(f, [1], history=1),
    ],
)
def test_timestamps_that_are_text_are_refused_since_10_would_come_before_9(split):
    frame = pd.DataFrame({"user": [1, 1], "item": [7, 8], "timestamp": ["9", "10"]})
    message = "interactions has timestamps such as '9'; expected numbers or dates: convert them"
    for kind in (object, "str", "category"):
        with pytest.raises(TypeError, match=message):
            split(frame.astype({"timestamp": kind}))


@pytest.mark.parametrize(
    "times",
    [
        [9, 10],
        [9.5, 10.0],
        pd.to_datetime(["2020-01-09", "2020-01-10"]),
        pd.to_datetime(["2020-01-09", "2020-01-10"], utc=True),
        pd.Series([datetime.date(2020, 1, 9), datetime.date(2020, 1, 10)], dtype=object),
        pd.Series([9, 10], dtype=object),
        pd.to_timedelta([9, 10], unit="h"),
    ],
)
def test_numbers_and_dates_of_every_type_are_times(times):
    frame = pd.DataFrame({"user": [1, 1], "item": [7, 8], "timestamp": times})
    assert leave_last_out(frame.iloc[::-1])[1].item.tolist() == [8]


@pytest.mark.parametrize("share", ["0.2", None, [0.2]])
def test_a_share_that_is_no_number_is_refused(share):
    frame = pd.DataFrame({"user": [1, 1], "item": [7, 8], "timestamp": [1, 2]})
    for split in (ratio_split, random_split):
        with pytest.raises(TypeError, match=r"test_ratio is .*; expected a number"):
            split(frame, share)
