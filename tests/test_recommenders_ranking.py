"""The ranking of rows of scores against NumPy's lexsort."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llmrec_kernels.index.filters import Positions
from llmrec_kernels.ops import TopK
from llmrec_kernels.ragged import Ragged
from llmrec_kernels.recommenders import ranking
from llmrec_kernels.recommenders.filters import Filters

SCORES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 1e-45, -1e-45, 3e38, -3e38]),
    st.floats(width=32, allow_nan=False),
)
ROWS = st.tuples(st.integers(0, 4), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=SCORES)
)
NO_FILTERS = Filters(None, None)


def positions(lists):
    """A list of places for each row."""
    made = Ragged.of(lists)
    return Positions(made.values, made.offsets)


def best_by_sorting(scores, k, shown):
    """By lexsort: scores descending, places ascending; -inf and -1 where nothing is left."""
    top = np.full((len(scores), k), -np.inf, dtype=np.float32), np.full((len(scores), k), -1)
    for row, (values, left) in enumerate(zip(scores, shown, strict=True)):
        places = np.flatnonzero(left)
        order = places[np.lexsort((places, -values[places]))][:k]
        top[0][row, : len(order)], top[1][row, : len(order)] = values[order], order
    return top


def check(scores, k, filters, shown):
    found = ranking.best(torch.from_numpy(scores), k, filters)
    wanted = best_by_sorting(scores, k, shown)
    np.testing.assert_array_equal(found.scores.numpy(), wanted[0])
    np.testing.assert_array_equal(found.ids.numpy(), wanted[1])


@settings(max_examples=150)
@given(scores=ROWS, data=st.data())
def test_the_best_are_those_of_a_sort_whatever_is_filtered(scores, data):
    count, n_items = scores.shape
    k = data.draw(st.integers(1, n_items))
    places = st.lists(st.integers(0, n_items - 1), max_size=5, unique=True)
    lists = st.lists(places, min_size=count, max_size=count)
    shown = np.ones(scores.shape, dtype=bool)
    exclude = allow = None
    if count and data.draw(st.booleans()):
        hidden = data.draw(lists)
        exclude = positions(hidden)
        for row, one in enumerate(hidden):
            shown[row, one] = False
    kind = data.draw(st.sampled_from(["none", "all alike", "each"]))
    if kind == "all alike":
        mask = data.draw(arrays(bool, n_items))
        allow = torch.from_numpy(mask)
        shown &= mask
    elif kind == "each" and count:
        permitted = data.draw(lists)
        allow = positions(permitted)
        for row, one in enumerate(permitted):
            shown[row] &= np.isin(np.arange(n_items), one)
    check(scores, k, Filters(exclude, allow), shown)


def test_minus_zero_is_zero_and_equal_scores_come_by_place():
    scores = np.array([[-0.0, 0.0, -0.0, 1e-45, -1e-45]], dtype=np.float32)
    answer = ranking.best(torch.from_numpy(scores), 5, NO_FILTERS)
    assert answer.ids.tolist() == [[3, 0, 1, 2, 4]]


def test_an_item_of_minus_infinity_is_an_item_and_a_hidden_one_is_not():
    scores = torch.tensor([[-torch.inf, 5.0, -torch.inf]])
    answer = ranking.best(scores, 3, Filters(positions([[1]]), None))
    assert answer.ids.tolist() == [[0, 2, -1]]
    assert answer.scores.tolist() == [[-np.inf] * 3]


def test_the_scores_given_stay_as_they_were():
    scores = torch.tensor([[-0.0, 2.0]])
    ranking.best(scores, 2, Filters(positions([[1]]), None))
    assert scores.tolist() == [[0.0, 2.0]]
    assert torch.signbit(scores).tolist() == [[True, False]]


@pytest.mark.parametrize("n_items", [1, 70_000])
def test_many_equal_scores_come_in_order(n_items):
    scores = np.ones((2, n_items), dtype=np.float32)
    check(scores, min(n_items, 1000), NO_FILTERS, scores > 0)


@settings(max_examples=100)
@given(
    several=st.integers(1, 3),
    count=st.integers(1, 3),
    seed=st.integers(0, 999),
    k=st.integers(1, 6),
)
def test_the_best_of_several_lines_are_those_of_their_maximum(several, count, seed, k):
    rng = np.random.default_rng(seed)
    lines = rng.integers(-2, 3, size=(count, several, 6)).astype(np.float32)
    shown = np.repeat(rng.random((count, 6)) < 0.8, several, axis=0)
    scores, ids = best_by_sorting(lines.reshape(-1, 6), k, shown)
    found = ranking.merged(TopK(torch.from_numpy(scores), torch.from_numpy(ids)), several)
    wanted = best_by_sorting(lines.max(axis=1), k, shown[::several])
    np.testing.assert_array_equal(found.scores.numpy(), wanted[0])
    np.testing.assert_array_equal(found.ids.numpy(), wanted[1])


def test_scores_of_pairs_are_taken_row_by_row():
    scores = torch.arange(12.0).view(3, 4)
    pairs = Ragged.of([[3, 0, 3], [], [1]])
    assert ranking.taken(scores, pairs).tolist() == [3.0, 0.0, 3.0, 9.0]


def test_only_scores_above_a_bound_stay():
    topk = TopK(torch.tensor([[2.0, 0.5, 0.0]]), torch.tensor([[4, 1, 7]]))
    assert ranking.above(topk, 0.5).ids.tolist() == [[4, -1, -1]]
