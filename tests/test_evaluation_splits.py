"""Splits: nothing of the test is in train, nothing is lost, and time runs forward."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_kernels.datasets import movielens_100k
from llmrec_kernels.evaluation import cold_item_split, leave_last_out, ratio_split


@st.composite
def interactions(draw):
    """Draw some users and items, equal times and repeated pairs included, with an odd index."""
    rows = draw(
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8), st.integers(0, 6)), max_size=60)
    )
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
            "no column timestamp; its columns",
        ),
        (lambda f: leave_last_out(f[["timestamp"]]), "interactions has no column user"),
        (lambda f: ratio_split(f[["item"]], by="random"), "interactions has no column user"),
        (lambda f: ratio_split(f[["user"]]), "interactions has no column timestamp"),
        (lambda f: ratio_split(f, 0.0), "test_ratio must lie between 0 and 1; got 0.0"),
        (lambda f: ratio_split(f, 1.0), "test_ratio must lie between 0 and 1; got 1.0"),
        (lambda f: ratio_split(f, float("nan")), "test_ratio must lie"),
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
