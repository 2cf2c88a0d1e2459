"""Metrics beyond accuracy: the same numbers as plain loops and as other libraries."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics.pairwise
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_kernels.evaluation import (
    PAD,
    exposure,
    gini,
    intra_list_diversity,
    novelty,
    popularity_groups,
)

N_ITEMS = 12


@st.composite
def lists_of_items(draw):
    """Draw the lists of some users, short and empty ones included, padded, and a k."""
    width = draw(st.integers(1, 6))
    one = st.lists(st.integers(0, N_ITEMS - 1), unique=True, max_size=width)
    lists = draw(st.lists(one, min_size=1, max_size=5))
    padded = np.array([row + [PAD] * (width - len(row)) for row in lists])
    return padded, draw(st.integers(1, width))


counts = st.lists(st.integers(0, 9), min_size=N_ITEMS, max_size=N_ITEMS)


def shown(row, k):
    return [item for item in row[:k] if item != PAD]


@settings(deadline=None)
@given(lists_of_items())
def test_gini_is_that_of_the_double_sum(drawn):
    lists, k = drawn
    times = [sum(item in shown(row, k) for row in lists) for item in range(N_ITEMS)]
    if not sum(times):
        assert np.isnan(gini(lists, N_ITEMS, k))
        return
    differences = sum(abs(a - b) for a in times for b in times)
    expected = differences / (2 * N_ITEMS**2 * np.mean(times))
    assert gini(lists, N_ITEMS, k) == pytest.approx(expected, abs=1e-12)


def test_gini_is_0_where_all_are_shown_alike_and_nearly_1_where_one_is():
    assert gini([[0, 1], [2, 3]], 4, 2) == 0
    assert gini(np.zeros((9, 1), int), 100, 1) == pytest.approx(0.99)
    assert gini([[7]], 1, 1) == 0


@settings(deadline=None)
@given(lists_of_items(), counts)
def test_novelty_is_the_mean_self_information_in_bits(drawn, popularity):
    lists, k = drawn
    total = max(sum(popularity), 1)
    for row, ours in zip(lists, novelty(lists, popularity, k), strict=True):
        bits = [-np.log2(max(popularity[item], 1) / total) for item in shown(row, k)]
        np.testing.assert_allclose(ours, np.mean(bits) if bits else np.nan, atol=1e-12)


def test_mean_novelty_of_shares_is_the_entropy_of_scipy():
    popularity = np.array([8, 4, 2, 2])
    values = novelty([[0], [1], [2], [3]], popularity, 1)
    weighted = (values * popularity / popularity.sum()).sum()
    assert weighted == pytest.approx(scipy.stats.entropy(popularity, base=2))


@settings(deadline=None)
@given(lists_of_items(), st.integers(0, 2**32 - 1))
def test_diversity_is_one_less_the_mean_pairwise_cosine_of_scikit_learn(drawn, seed):
    lists, k = drawn
    vectors = np.random.default_rng(seed).normal(size=(N_ITEMS, 3))
    vectors[seed % N_ITEMS] = 0  # its cosine with any is 0
    cosines = sklearn.metrics.pairwise.cosine_similarity(vectors)
    ours = intra_list_diversity(lists, vectors, k)
    for row, value in zip(lists, ours, strict=True):
        items = shown(row, k)
        pairs = [cosines[a, b] for a in items for b in items if a != b]
        np.testing.assert_allclose(value, 1 - np.mean(pairs) if pairs else np.nan, atol=1e-12)


def test_diversity_is_the_same_in_slices(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 5))
    lists = np.array([rng.permutation(40)[:6] for _ in range(30)])
    whole = intra_list_diversity(lists, vectors, 6)
    monkeypatch.setattr("llmrec_kernels.evaluation.metrics.beyond._NUMBERS_AT_ONCE", 70)
    np.testing.assert_array_equal(intra_list_diversity(lists, vectors, 6), whole)


@settings(deadline=None)
@given(counts)
def test_each_group_begins_at_its_third_of_all_interactions(popularity):
    group = popularity_groups(popularity)
    for item, count in enumerate(popularity):
        before = sum(other for other in popularity if other > count)
        third = sum(3 * before >= part * sum(popularity) for part in (1, 2))
        assert group[item] == (third if count else 2)


def test_of_items_whose_shares_add_up_each_group_has_a_third():
    popularity = np.array([1] * 30 + [30] + [3] * 10)
    group = popularity_groups(popularity)
    assert [popularity[group == one].sum() for one in range(3)] == [30, 30, 30]


@settings(deadline=None)
@given(lists_of_items(), st.lists(st.integers(0, 3), min_size=N_ITEMS, max_size=N_ITEMS))
def test_exposure_is_the_share_of_places(drawn, group):
    lists, k = drawn
    shares = exposure(lists, group, k)
    assert shares.shape == (len(lists), max(group) + 1)
    for row, ours in zip(lists, shares, strict=True):
        items = shown(row, k)
        if not items:
            assert np.isnan(ours).all()
            continue
        expected = [np.mean([group[item] == one for item in items]) for one in range(len(ours))]
        np.testing.assert_allclose(ours, expected)
        assert ours.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gini([[1, 2]], 1, 2), "n_items must be.*got 1, and 2 different"),
        (lambda: novelty([[0]], [-1.0], 1), "popularity must be finite numbers of at least 0"),
        (lambda: novelty([[0]], [[1.0]], 1), r"popularity must.*shape \[1, 1\]"),
        (lambda: novelty([[0]], [1.0], 2), "k must be at least 1 and recommended"),
        (lambda: intra_list_diversity([[0]], [1.0], 1), r"vectors must be finite.*\[1\]"),
        (lambda: intra_list_diversity([[0]], [[np.nan]], 1), "vectors must be finite"),
        (lambda: exposure([[0]], [-1], 1), "group must be integers from 0 on"),
        (lambda: exposure([[0]], [0.5], 1), "group must be integers.*float64"),
    ],
)
def test_what_has_no_metric_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("item", [3, -2])
def test_an_item_without_a_row_is_refused(item):
    for metric, rows in ((novelty, [1, 1, 1]), (exposure, [0, 0, 0])):
        with pytest.raises(IndexError, match=f"recommended has {item}; expected rows from 0 to 2"):
            metric([[item]], rows, 1)


def test_no_users_have_no_values():
    nobody = np.empty((0, 2), dtype=int)
    assert novelty(nobody, [1.0], 2).shape == (0,)
    assert intra_list_diversity(nobody, [[1.0]], 2).shape == (0,)
    assert exposure(nobody, [0], 2).shape == (0, 1)
