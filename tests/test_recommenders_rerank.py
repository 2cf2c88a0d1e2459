"""Reranking: the same lists as a plain loop and as trying all lists, and what always holds."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmrec_kernels.recommenders.rerank import QuotaRecommendations, Unmet, mmr, quota
from llmrec_kernels.recommenders.results import Recommendations


def recommended(lists, unknown=()):
    """Recommendations of a dict of user to (item, score) pairs, best first."""
    rows = [
        (user, item, score, rank + 1)
        for user, pairs in lists.items()
        for rank, (item, score) in enumerate(pairs)
    ]
    user, item, score, rank = zip(*rows, strict=True) if rows else ([], [], [], [])
    return Recommendations(
        np.array(user, dtype=None if user else np.int64),
        np.array(item, dtype=None if item else np.int64),
        np.array(score, dtype=np.float32),
        np.array(rank, dtype=np.int64),
        tuple(unknown),
    )


def lists_of(recommendations):
    """Each user's items in order; ranks are checked on the way."""
    lists = {}
    for user, item, rank in zip(
        recommendations.user, recommendations.item, recommendations.rank, strict=True
    ):
        lists.setdefault(user, []).append(item)
        assert rank == len(lists[user])
    return lists


@st.composite
def candidates(draw, n_items=14):
    """Draw the lists of some users, of any length, scores in descending order with ties."""
    lists = {}
    for user in range(draw(st.integers(0, 4))):
        items = draw(st.lists(st.integers(0, n_items - 1), unique=True, min_size=1, max_size=9))
        scores = draw(st.lists(st.integers(-8, 8), min_size=len(items), max_size=len(items)))
        lists[user] = list(zip(items, sorted(scores, reverse=True), strict=True))
    return lists


def shortfall(chosen, pairs, vectors, trade_off):
    """How far the worst choice of a list is from the best one there was, in the paper's words."""
    scores = dict(pairs)
    low, span = min(scores.values()), max(scores.values()) - min(scores.values())

    def gain(item, before):
        near = [cosine(vectors[item], vectors[other]) for other in before]
        relevance = (scores[item] - low) / (span or 1.0)
        return trade_off * relevance - (1 - trade_off) * (max(near) if near else 0.0)

    worst = 0.0
    for place, item in enumerate(chosen):
        before = chosen[:place]
        best = max(gain(other, before) for other in scores if other not in before)
        worst = max(worst, best - gain(item, before))
    return worst


def cosine(a, b):
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return a @ b / lengths if lengths else 0.0


@given(candidates(), st.integers(1, 10), st.floats(0, 1), st.integers(0, 1000))
def test_mmr_makes_the_choices_of_the_paper(lists, k, trade_off, seed):
    vectors = np.random.default_rng(seed).normal(size=(14, 5)) + 0.5
    got = lists_of(mmr(recommended(lists), range(14), vectors, k, trade_off=trade_off))
    for user, pairs in lists.items():
        assert shortfall(got[user], pairs, vectors, trade_off) < 1e-6  # rounding of float32


@given(candidates(), st.integers(1, 10), st.floats(0, 1), st.integers(0, 1000))
def test_mmr_gives_some_of_the_candidates_once_with_their_scores(lists, k, trade_off, seed):
    vectors = np.random.default_rng(seed).integers(-1, 2, size=(14, 2)).astype(np.float64)
    given_lists = recommended(lists)
    got = mmr(given_lists, range(14), vectors, k, trade_off=trade_off)
    assert list(lists_of(got)) == list(lists)
    for user, items in lists_of(got).items():
        assert len(items) == len(set(items)) == min(k, len(lists[user]))
        assert set(items) <= {item for item, _ in lists[user]}
    scores = {(user, item): score for user, pairs in lists.items() for item, score in pairs}
    assert got.score.tolist() == [scores[pair] for pair in zip(got.user, got.item, strict=True)]


@given(candidates(), st.integers(1, 10))
def test_mmr_of_scores_alone_leaves_the_order(lists, k):
    got = mmr(recommended(lists), range(14), np.eye(14), k, trade_off=1.0)
    assert lists_of(got) == {u: [item for item, _ in pairs[:k]] for u, pairs in lists.items()}


def test_mmr_of_diversity_alone_begins_with_the_best_and_goes_on_with_the_least_alike():
    vectors = np.array([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [0.0, 1.0]])
    pairs = [(0, 4.0), (1, 3.0), (3, 2.0), (2, 1.0)]
    got = mmr(recommended({5: pairs}), range(4), vectors, 4, trade_off=0.0)
    assert got.item.tolist() == [0, 2, 3, 1]


def test_mmr_does_not_depend_on_the_unit_of_scores():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(14, 3))
    pairs = [(item, float(20 - item)) for item in range(14)]
    shifted = [(item, 1000 * score - 7) for item, score in pairs]
    one, other = (mmr(recommended({1: p}), range(14), vectors, 8) for p in (pairs, shifted))
    assert one.item.tolist() == other.item.tolist() != list(range(8))


def test_an_item_without_a_vector_direction_is_like_nothing():
    pairs = [(0, 1.0), (1, 1.0), (2, 1.0)]
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    assert mmr(recommended({1: pairs}), range(3), vectors, 3).item.tolist() == [0, 2, 1]


def test_ids_are_of_any_kind_and_users_may_be_asked_for_twice_or_be_nobody():
    one = recommended({"ann": [("heat", 2.0), ("big", 1.0)]}, unknown=["ann"])
    twice = Recommendations(
        np.array([None, None, None, None], dtype=object),
        *(np.concatenate([getattr(one, name)] * 2) for name in ("item", "score", "rank")),
        one.unknown_users,
    )
    got = mmr(twice, ["big", "heat"], torch.eye(2), 1)
    assert got.item.tolist() == ["heat", "heat"]
    assert got.user.tolist() == [None, None]
    assert got.unknown_users == ("ann",)
    within = quota(twice, {"big": 1, "heat": 2}, {1: (1, 1)}, 1)
    assert within.item.tolist() == ["big", "big"]
    assert within.unknown_users == ("ann",)


def test_lists_in_blocks_are_the_same(monkeypatch):
    rng = np.random.default_rng(1)
    lists = {
        user: [
            (item, float(50 - rank)) for rank, item in enumerate(rng.permutation(40)[: 5 + user])
        ]
        for user in range(20)
    }
    vectors = rng.normal(size=(40, 6))
    whole = mmr(recommended(lists), range(40), vectors, 10)
    monkeypatch.setattr("llmrec_kernels.recommenders.rerank._BLOCK", 500)
    assert lists_of(mmr(recommended(lists), range(40), vectors, 10)) == lists_of(whole)


GROUPS = {item: "abc"[item % 3] if item < 12 else None for item in range(14)}


@st.composite
def shares(draw):
    """Draw bounds for some of the groups that some list of k could meet."""
    k = draw(st.integers(1, 6))
    quotas, room = {}, k
    for group in draw(st.lists(st.sampled_from("abc"), unique=True)):
        least = draw(st.integers(0, room))
        quotas[group] = (least / k, draw(st.integers(least, k)) / k)
        room -= least
    return quotas, k


def best_list(pairs, quotas, k):
    """Try all lists: the fullest within the bounds, then the best, then the first; and if met.

    Where no list meets the lower bounds, those are lowered to the candidates there are.
    """
    counts = {g: sum(GROUPS[item] == g for item, _ in pairs) for g in quotas}
    bounds = {g: (min(round(lo * k), counts[g]), round(hi * k)) for g, (lo, hi) in quotas.items()}

    def within(some):
        held = [GROUPS[pairs[place][0]] for place in some]
        return all(low <= held.count(group) <= high for group, (low, high) in bounds.items())

    for size in range(min(k, len(pairs)), -1, -1):
        lists = [some for some in combinations(range(len(pairs)), size) if within(some)]
        if lists:
            best = max(sum(pairs[place][1] for place in some) for some in lists)
            return [some for some in lists if sum(pairs[p][1] for p in some) == best]
    return [()]


@given(candidates(), shares())
def test_quotas_give_the_best_of_all_lists_within_them_in_the_order_of_scores(lists, drawn):
    quotas, k = drawn
    got = quota(recommended(lists), GROUPS, quotas, k)
    chosen = lists_of(got)
    for user, pairs in lists.items():
        allowed = [[pairs[place][0] for place in some] for some in best_list(pairs, quotas, k)]
        assert chosen.get(user, []) in allowed


@given(candidates(), shares())
def test_quotas_hold_or_are_told_of(lists, drawn):
    quotas, k = drawn
    got = quota(recommended(lists), GROUPS, quotas, k)
    chosen = lists_of(got)
    unmet = []
    for user, pairs in lists.items():
        held = [GROUPS[item] for item in chosen.get(user, [])]
        for group, (least, most) in quotas.items():
            assert held.count(group) <= round(most * k)
            if held.count(group) < round(least * k):
                unmet.append(Unmet(user, group, round(least * k), held.count(group)))
                assert held.count(group) == sum(GROUPS[item] == group for item, _ in pairs)
    assert got.unmet == tuple(unmet)
    assert isinstance(got, QuotaRecommendations)


@given(candidates(), st.integers(1, 10))
def test_without_quotas_the_first_k_remain(lists, k):
    got = quota(recommended(lists), GROUPS, {}, k)
    assert lists_of(got) == {u: [item for item, _ in pairs[:k]] for u, pairs in lists.items()}
    assert got.unmet == ()


def test_shares_of_k_are_as_many_items_as_one_would_count():
    k = 100  # 0.07 * 100 is above 7 in floating point, and 0.29 * 100 below 29
    lists = {1: [(item, float(-item)) for item in range(2 * k)]}
    groups = {item: item < k for item in range(2 * k)}
    for percent in range(101):
        got = quota(recommended(lists), groups, {False: (percent / 100, percent / 100)}, k)
        assert sum(item >= k for item in got.item) == percent
        assert len(got) == k


def test_an_upper_bound_is_kept_with_a_shorter_list():
    pairs = [(0, 3.0), (3, 2.0), (6, 1.0)]  # all of group a
    got = quota(recommended({1: pairs}), GROUPS, {"a": (0.0, 0.5)}, 4)
    assert got.item.tolist() == [0, 3]
    assert got.unmet == ()
    assert len(quota(recommended({1: pairs}), GROUPS, {"a": (0.0, 0.0)}, 4)) == 0


def test_nothing_is_chosen_from_nothing():
    nothing = recommended({})
    assert len(mmr(nothing, [1], torch.ones(1, 2))) == 0
    assert len(quota(nothing, GROUPS, {"a": (0.5, 1.0)})) == 0


BEST = recommended({1: [(0, 2.0), (1, 1.0)]})


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"k": 0}, ValueError, "k is 0; expected at least 1"),
        ({"trade_off": 1.5}, ValueError, r"trade_off is 1\.5; expected a number from 0 to 1"),
        ({"trade_off": math.nan}, ValueError, "trade_off is nan; expected a finite number"),
        ({"items": [0]}, ValueError, "items has 1 ids but vectors has 2 rows"),
        ({"items": [0, 0]}, ValueError, "items has 0 twice; expected each item once"),
        ({"items": [0, 7]}, IndexError, "items lacks 1, which is recommended; give its vector too"),
        ({"items": ["0", "1"]}, IndexError, "items lacks 0, which is recommended"),
        ({"vectors": torch.full((2, 2), torch.nan)}, ValueError, "vectors holds NaN or Inf in row"),
        ({"vectors": torch.ones(2)}, ValueError, r"vectors has shape \[2\]; expected \[n, d\]"),
        (
            {"recommendations": [1]},
            TypeError,
            "recommendations is a list; expected Recommendations",
        ),
        (
            {"recommendations": recommended({1: [(0, math.nan)]})},
            ValueError,
            "recommendations has score nan in row 0; expected a number",
        ),
    ],
)
def test_mmr_refuses_bad_arguments(arguments, error, sentence):
    good = {"recommendations": BEST, "items": [0, 1], "vectors": torch.eye(2), "k": 1}
    with pytest.raises(error, match=sentence):
        mmr(**{**good, **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"k": 0}, ValueError, "k is 0; expected at least 1"),
        ({"groups": [1]}, TypeError, "groups is a list; expected a mapping of item to group"),
        ({"groups": {0: "a"}}, IndexError, "groups lacks 1, which is recommended; None is for no"),
        (
            {"groups": {0: ["a"], 1: "a"}},
            TypeError,
            "groups has what is no single group: unhashable typ",
        ),
        ({"quotas": ["a"]}, TypeError, "quotas is a list; expected a mapping of group to"),
        ({"quotas": {"z": (0, 1)}}, ValueError, "quotas has 'z', a group that no item has"),
        ({"quotas": {"a": 0.5}}, TypeError, r"quotas\['a'\] is 0\.5; expected a pair"),
        ({"quotas": {"a": (0.5, 0.2)}}, ValueError, r"is \(0\.5, 0\.2\); expected 0 <= least"),
        ({"quotas": {"a": (-0.5, 0.2)}}, ValueError, "expected 0 <= least <= largest <= 1"),
        ({"quotas": {"a": (0.5, 2)}}, ValueError, "expected 0 <= least <= largest <= 1"),
        ({"quotas": {"a": (0.25, 0.3)}}, ValueError, "no whole number of 2 items is within it"),
        ({"quotas": {"a": ("0", 1)}}, TypeError, r"quotas\['a'\] is '0'; expected a number"),
        (
            {"quotas": {"a": (1, 1), "b": (0.5, 1)}},
            ValueError,
            "the quotas ask for at least 3 items; a list has k = 2",
        ),
        (
            {"recommendations": [1]},
            TypeError,
            "recommendations is a list; expected Recommendations",
        ),
    ],
)
def test_quota_refuses_bad_arguments(arguments, error, sentence):
    good = {"recommendations": BEST, "groups": GROUPS, "quotas": {"a": (0.5, 1)}, "k": 2}
    with pytest.raises(error, match=sentence):
        quota(**{**good, **arguments})


@pytest.mark.parametrize("ranks", [[2, 3], [1, 3], [1, 2, 2], [0, 1]])
def test_lists_that_are_not_ranked_from_one_are_refused(ranks):
    n = len(ranks)
    odd = Recommendations(
        np.ones(n, dtype=np.int64),
        np.arange(n),
        np.zeros(n, dtype=np.float32),
        np.array(ranks),
        (),
    )
    with pytest.raises(ValueError, match=r"recommendations has rank \d in row \d; expected each"):
        mmr(odd, range(n), torch.eye(n))
