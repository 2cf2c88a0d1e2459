"""`ItemIndex` in memory: its answers, its errors, and what a change costs."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from index_model import METRICS, Model, pairs

from llmrec_kernels import ItemIndex, Ragged, cosine_topk, pack
from llmrec_kernels.index import STORAGES, search


@pytest.mark.parametrize("metric", METRICS)
def test_a_plateau_of_thousands_is_cut_by_the_smallest_ids(metric):
    generator = np.random.default_rng(0)
    ids = generator.choice(100_000, 6_000, replace=False) - 50_000
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]).repeat(2_000, 1)
    index = ItemIndex(2, metric=metric)
    for start in range(0, 6_000, 1_000):  # in no order of ids
        index.add(ids[start : start + 1_000], vectors[start : start + 1_000])
    index.remove(ids[:1_500])
    ids, vectors = ids[1_500:], vectors[1_500:]
    on_axis = np.sort(ids[vectors[:, 0].numpy() == 1])
    queries = torch.tensor([[2.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    found = index.search(queries, 40).ids.numpy()
    assert found[0].tolist() == on_axis[:40].tolist()
    assert found[1].tolist() == found[2].tolist() == np.sort(ids)[:40].tolist()
    some = on_axis[:7]
    found = index.search(queries, 40, exclude=[some, [], some]).ids.numpy()
    assert found[0].tolist() == on_axis[7:47].tolist()
    assert found[2].tolist() == np.setdiff1d(ids, some)[:40].tolist()


@settings(deadline=None, max_examples=50)
@given(
    data=st.data(),
    count=st.integers(1, 60),
    k=st.integers(1, 70),
    storage=st.sampled_from(STORAGES),
)
def test_real_vectors_come_back_in_the_reference_order(data, count, k, storage):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    vectors = torch.randn(count, 7, generator=generator)
    vectors[count // 2 :] = vectors[: count - count // 2].clone()  # every second one comes twice
    ids = torch.randperm(count * 3, generator=generator)[:count] - count
    index = ItemIndex(7, storage=storage)
    for start in range(0, count, 9):
        index.add(ids[start : start + 9], vectors[start : start + 9])
    rows = {one: (row, 0.0, 1.0) for one, row in zip(ids.tolist(), vectors.tolist(), strict=True)}
    queries = torch.randn(5, 7, generator=generator)
    assert pairs(index.search(queries, k)) == Model("cosine", storage, rows).search(queries, k)


def test_equal_scores_stay_in_id_order_when_the_last_row_fills_a_hole():
    index = ItemIndex(1)
    index.add(range(5), torch.ones(5, 1))
    index.remove([1])
    assert index.search(torch.ones(1, 1), 3).ids.tolist() == [[0, 2, 3]]
    assert index.search(torch.ones(1, 1), 9).ids.tolist() == [[0, 2, 3, 4] + [-1] * 5]


def test_ids_added_out_of_order_cost_no_second_look_where_scores_differ(monkeypatch):
    index = ItemIndex(4)
    index.add([5, 9], torch.randn(2, 4))
    index.add([1, 7], torch.randn(2, 4))
    monkeypatch.setattr(search.PartSearch, "_at", None)
    monkeypatch.setattr(search, "MORE", 1)
    assert index.search(torch.randn(3, 4), 2).ids.shape == (3, 2)


def test_a_change_costs_the_same_in_a_small_index_and_in_a_large_one():
    def seconds(count):
        index = ItemIndex(16)
        index.add(np.arange(count), torch.randn(count, 16))
        best = np.inf
        for _ in range(5):
            start = time.perf_counter()
            for one in range(20):
                index.add([count + one], torch.ones(1, 16))
                index.update([one], torch.ones(1, 16))
                index.remove([count + one])
            best = min(best, time.perf_counter() - start)
        return best

    seconds(1_000)
    # 400 times the rows; a cost in proportion to them would be many times as large.
    assert seconds(400_000) < 5 * seconds(1_000)


def test_storage_shrinks_when_items_go():
    index = ItemIndex(8)
    index.add(range(4_096), torch.randn(4_096, 8))
    index.remove(range(4_090))
    assert index.stats().memory_bytes < 16 * 200
    assert sorted(index.search(torch.randn(1, 8), 6).ids[0].tolist()) == list(range(4_090, 4_096))


def test_an_index_changes_in_and_out_of_inference_mode():
    vectors = torch.randn(40, 3)
    with torch.inference_mode():
        index = ItemIndex(3)
    index.add([], vectors[:0])
    with torch.inference_mode():
        index.add(range(20), vectors[:20])
    index.add(range(20, 40), vectors[20:])
    with torch.inference_mode():
        index.remove([7, 39])
        index.update([3], vectors[7:8], bias=torch.ones(1))
    index.update([4], vectors[7:8], scale=torch.ones(1))
    index.remove([5])
    left = [one for one in range(39) if one not in (5, 7)]
    vectors[3] = vectors[4] = vectors[7]
    assert torch.equal(index.vectors(left), vectors[left])
    assert index.search(torch.ones(1, 3), 1, allow=[3, 4]).ids.tolist() == [[3]]


@pytest.mark.parametrize("storage", STORAGES)
def test_narrow_storage_is_searched_as_it_is_kept(storage):
    vectors, queries = torch.randn(50, 6), torch.randn(4, 6)
    index = ItemIndex(6, storage=storage)
    index.add(torch.arange(50), vectors)
    kept = index.vectors(range(50))
    found, wanted = index.search(queries, 9), cosine_topk(queries, pack(kept), 9)
    assert torch.equal(found.ids, wanted.ids)
    assert torch.equal(found.scores, wanted.scores)
    assert (kept - vectors).abs().max() < (0.3 if storage == "int4" else 0.02)


def test_what_was_added_is_a_copy():
    vectors = torch.ones(2, 3)
    index = ItemIndex(3)
    index.add([1, 2], vectors)
    vectors.zero_()
    assert torch.equal(index.vectors([2]), torch.ones(1, 3))
    index.vectors([2]).zero_()
    assert torch.equal(index.vectors([2]), torch.ones(1, 3))


def test_numpy_in_numpy_out():
    index = ItemIndex(3)
    index.add(np.array([4, 2]), np.eye(3, dtype=np.float64)[:2], bias=np.array([0.5, 0.0]))
    scores, ids = index.search(np.eye(3, dtype=np.float32)[:1], 2)
    assert isinstance(scores, np.ndarray)
    assert ids.tolist() == [[4, 2]]
    assert scores.tolist() == [[1.5, 0.0]]
    assert isinstance(index.vectors(np.array([2])), np.ndarray)


def test_an_id_of_minus_one_is_told_from_padding_by_its_score():
    index = ItemIndex(2)
    index.add([-1], torch.ones(1, 2))
    scores, ids = index.search(torch.ones(1, 2), 2)
    assert ids.tolist() == [[-1, -1]]
    assert scores[0, 0] == 1
    assert scores[0, 1] == -torch.inf


def test_an_empty_index_and_no_queries_give_empty_answers():
    index = ItemIndex(2)
    assert index.search(torch.ones(2, 2), 3).ids.tolist() == [[-1] * 3] * 2
    index.add([3], torch.ones(1, 2))
    assert index.search(torch.ones(0, 2), 3).ids.shape == (0, 3)
    index.add([], torch.ones(0, 2))
    index.remove([])
    assert len(index) == 1
    assert index.vectors([]).shape == (0, 2)


def test_unknown_ids_are_ignored_in_exclude_and_refused_in_allow():
    index = ItemIndex(2)
    index.add([3, 4], torch.ones(2, 2))
    assert index.search(torch.ones(1, 2), 2, exclude=[4, 99, -1]).ids.tolist() == [[3, -1]]
    with pytest.raises(IndexError, match="allow holds 99, which is not in the index"):
        index.search(torch.ones(1, 2), 2, allow=[3, 99])
    with pytest.raises(IndexError, match="allow holds -1"):
        index.search(torch.ones(1, 2), 2, allow=[[-1]])


BAD_CHANGES = {
    "an id twice": (lambda i: i.add([7, 7], torch.ones(2, 2)), ValueError, "7 more than once"),
    "a known id": (lambda i: i.add([8, 3], torch.ones(2, 2)), ValueError, "3, which is in"),
    "text ids": (lambda i: i.add(["a"], torch.ones(1, 2)), TypeError, "ids.0. is 'a'"),
    "float ids": (lambda i: i.add(np.ones(1), torch.ones(1, 2)), ValueError, "ids has dtype"),
    "too few vectors": (lambda i: i.add([7, 8], torch.ones(1, 2)), ValueError, r"expected \[2, 2"),
    "other columns": (lambda i: i.add([7], torch.ones(1, 3)), ValueError, r"expected \[1, 2"),
    "integers": (lambda i: i.add([7], torch.ones(1, 2).long()), ValueError, "vectors has dtype"),
    "NaN": (
        lambda i: i.add([7, 8], torch.tensor([[0.0, 1.0], [torch.nan, 1.0]])),
        ValueError,
        "vectors holds NaN or Inf in row 1",
    ),
    "a short bias": (
        lambda i: i.add([7], torch.ones(1, 2), bias=torch.ones(2)),
        ValueError,
        "bias has 2 entries",
    ),
    "an infinite scale": (
        lambda i: i.add([7], torch.ones(1, 2), scale=torch.tensor([torch.inf])),
        ValueError,
        "scale holds NaN or Inf",
    ),
    "updating an unknown id": (
        lambda i: i.update([3, 99], torch.ones(2, 2)),
        IndexError,
        "99, which is not in the index",
    ),
    "updating with NaN": (
        lambda i: i.update([3], torch.full((1, 2), torch.nan)),
        ValueError,
        "vectors holds NaN",
    ),
    "updating a vector with a bad bias": (
        lambda i: i.update([3], torch.zeros(1, 2), bias=torch.tensor([torch.nan])),
        ValueError,
        "bias holds NaN",
    ),
    "updating nothing": (lambda i: i.update([3]), ValueError, "nothing to change"),
    "removing an unknown id": (lambda i: i.remove([3, 99]), IndexError, "99, which is not"),
    "removing an id twice": (lambda i: i.remove([3, 3]), ValueError, "3 more than once"),
}


@pytest.mark.parametrize("name", BAD_CHANGES)
def test_a_refused_change_leaves_the_index_as_it_was(name):
    change, error, message = BAD_CHANGES[name]
    index = ItemIndex(2)
    index.add([5, 3], torch.tensor([[1.0, 2.0], [3.0, 4.0]]), bias=torch.tensor([0.5, -0.5]))
    before = pairs(index.search(torch.ones(1, 2), 9))
    with pytest.raises(error, match=message):
        change(index)
    assert pairs(index.search(torch.ones(1, 2), 9)) == before
    assert len(index) == 2
    assert 7 not in index
    index.add([7, 8], torch.ones(2, 2))
    assert len(index) == 4


@pytest.mark.parametrize("storage", ["float16", "int4"])
def test_vectors_too_large_for_the_storage_are_refused(storage):
    index = ItemIndex(2, storage=storage)
    with pytest.raises(ValueError, match=r"vectors (holds|spans) .* in row 1"):
        index.add([1, 2], torch.tensor([[1.0, 2.0], [-1e9, 1e9]]))
    assert len(index) == 0


BAD_SEARCHES = {
    "other columns": (lambda i: i.search(torch.ones(1, 3), 1), ValueError, "index has 2"),
    "one dimension": (lambda i: i.search(torch.ones(2), 1), ValueError, r"queries has shape \[2\]"),
    "a list": (lambda i: i.search([[1.0, 2.0]], 1), TypeError, "queries is a list"),
    "NaN": (
        lambda i: i.search(torch.full((1, 2), torch.nan), 1),
        ValueError,
        "queries holds NaN or Inf in row 0",
    ),
    "k of zero": (lambda i: i.search(torch.ones(1, 2), 0), ValueError, "k is 0"),
    "half a k": (lambda i: i.search(torch.ones(1, 2), 1.5), TypeError, "k is 1.5"),
    "a precision": (
        lambda i: i.search(torch.ones(1, 2), 1, precision="best"),
        ValueError,
        "precision is 'best'",
    ),
    "a mask": (
        lambda i: i.search(torch.ones(1, 2), 1, allow=torch.ones(1, dtype=torch.bool)),
        TypeError,
        "allow is a bool mask",
    ),
    "too many lists": (
        lambda i: i.search(torch.ones(1, 2), 1, exclude=[[3], [3]]),
        ValueError,
        "exclude has 2 lists but there are 1 queries",
    ),
    "falling offsets": (
        lambda i: i.search(
            torch.ones(2, 2), 1, exclude=Ragged(torch.tensor([3]), torch.tensor([0, 1, 0]))
        ),
        ValueError,
        "exclude offsets goes down",
    ),
}


@pytest.mark.parametrize("name", BAD_SEARCHES)
@pytest.mark.parametrize("ascending", [True, False])
def test_a_bad_search_says_what_is_wrong(name, ascending):
    search, error, message = BAD_SEARCHES[name]
    index = ItemIndex(2)
    for one in [3, 5] if ascending else [5, 3]:
        index.add([one], torch.ones(1, 2))
    with pytest.raises(error, match=message):
        search(index)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"dim": 2, "metric": "euclid"}, "metric is 'euclid'; expected one of 'cosine', 'dot'"),
        ({"dim": 2, "storage": "float64"}, "storage is 'float64'; expected one of 'float32'"),
    ],
)
def test_a_bad_index_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ItemIndex(**options)
