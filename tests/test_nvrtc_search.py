"""The NVRTC rooms of cosine_topk and candidate_scores, their kernels emulated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import nvrtc_stand_in
import oracle
import pytest
import torch
from cases import STORAGES, random, stored
from nvrtc_stand_in import TOPK
from torch import Tensor

from llmrec_kernels import Ragged, pack
from llmrec_kernels.ops.cosine_topk.nvrtc_plan import Tuning
from llmrec_kernels.ops.rows import Rows, rows_of

pytestmark = nvrtc_stand_in.emulates
KEPT = [name for name in STORAGES if name != "float64"]
LISTS = [[3, 0, 29, 3], [], [7], list(range(30)), [5, 5, 5, 4]]
PLAIN = (None, None, 0.0, None, None)


@pytest.fixture(autouse=True)
def _emulated() -> Iterator[None]:
    with nvrtc_stand_in.installed():
        yield


def search(
    queries: Tensor, rows: Rows, k: int, metric: str = "cosine", item_bias: Tensor | None = None,
    item_scale: Tensor | None = None, filters: Any = (None,) * 5, exact: bool = True,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    found: tuple[Tensor, Tensor] = torch.ops.llmrec.cosine_topk_nvrtc(
        queries, rows.data, rows.scale, rows.bias, rows.inverse_norms,
        *(rows.sketch or (None,) * 3), rows.bits, k, ("cosine", "dot").index(metric), item_bias,
        item_scale, *filters, exact,
    )  # fmt: skip
    return found


def check(queries: Tensor, items: Any, k: int, may: Any = None, **options: Any) -> None:
    """Ids and the bits of scores are the oracle's."""
    scores, ids = search(queries, rows_of("items", items), k, **options)
    options.pop("filters", None)
    options = {name: value for name, value in options.items() if value is not None}
    want_scores, want_ids = oracle.best(oracle.scores(queries, items, **options), k, may)
    assert ids.tolist() == want_ids.tolist()
    oracle.assert_same_bits(scores, want_scores)


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("storage", KEPT)
def test_every_storage_is_searched_exactly(storage: str, metric: str) -> None:
    items = stored(random(150, 13, seed=1), storage)
    bias, scale = random(150, seed=2), random(150, seed=3)
    for held in (items, pack(items)):
        check(random(3, 13), held, 4, metric=metric, item_bias=bias, item_scale=scale)


@pytest.mark.parametrize(
    ("count", "items", "dim", "k"),
    [(1, 1, 1, 1), (1, 700, 40, 5), (3, 130, 70, 300), (20, 300, 9, 2), (40, 200, 64, 3)],
)
def test_any_shape_is_searched(count: int, items: int, dim: int, k: int) -> None:
    check(random(count, dim), pack(random(items, dim, seed=1)), k)
    check(random(count, dim), random(items, dim, seed=1), k)


@pytest.mark.parametrize(
    "tuning",
    [
        Tuning(capacity=32),
        Tuning(chunk_bytes=1024),
        Tuning(round_queries=3),
        Tuning(capacity=32, chunk_bytes=2048, round_queries=2),
    ],
)
def test_no_result_depends_on_how_a_call_is_cut_up(tuning: Tuning) -> None:
    lists = Ragged.of([[query, 7, 500] for query in range(7)])
    may = np.ones((7, 600), dtype=bool)
    for query in range(7):
        may[query, [query, 7, 500]] = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TOPK, "TUNING", tuning)
        items = random(1, 8, seed=1) + 0.01 * random(600, 8, seed=2)  # nearly equal
        given = (lists.values, lists.offsets, None, None, None)
        for held in (items, pack(items)):
            check(random(7, 8), held, 2, may, filters=given)


def test_lengths_that_no_bound_covers_are_searched_exactly() -> None:
    items = random(301, 6, seed=1) * 10.0 ** torch.linspace(-30, 30, 301)[:, None]
    queries = random(4, 6) * torch.tensor([1, 1e-25, 1e25, 0])[:, None]
    for metric in ("cosine", "dot"):
        check(queries, items, 5, metric=metric)


FILTERED = torch.tensor([-3, 0, 7, 7, 64, 99, 200, 2**40, 31, 32])
BOUNDS = torch.tensor([0, 4, 4, 10])


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("mask", ["none", "for all", "for each"])
@pytest.mark.parametrize("allow", [False, True])
def test_filters(allow: bool, mask: str, lists: bool) -> None:
    items, may = random(100, 6, seed=1), np.ones((3, 100), dtype=bool)
    bounds = BOUNDS if lists else None
    split = FILTERED.tensor_split(BOUNDS[1:-1])
    real = [[i for i in part.tolist() if 0 <= i < 100] for part in split]
    named = real if lists else [[i for i in FILTERED.tolist() if 0 <= i < 100]] * 3
    dense = None
    if mask != "none":
        shape = (100,) if mask == "for all" else (3, 100)
        dense = torch.rand(shape, generator=torch.Generator().manual_seed(4)) < 0.4
        may &= dense.numpy()
    for row, ids in enumerate(named):
        listed = np.isin(np.arange(100), ids)
        may[row] &= listed if allow else ~listed
    given = (
        (None, None, dense, FILTERED, bounds) if allow else (FILTERED, bounds, dense, None, None)
    )
    check(random(3, 6), items, 12, may, filters=given)


def test_no_ids_exclude_nothing_and_allow_nothing() -> None:
    none = torch.empty(0, dtype=torch.int64)
    queries, items = random(2, 6), random(50, 6, seed=1)
    check(queries, items, 5, filters=(none, None, None, None, None))
    nothing = np.zeros((2, 50), dtype=bool)
    check(queries, items, 5, nothing, filters=(None, None, None, none, None))
    lists = (none, torch.zeros(3, dtype=torch.int64))
    check(queries, items, 5, nothing, filters=(None, None, None, *lists))


def test_what_is_not_there_is_not_found() -> None:
    assert [len(part) for part in search(random(0, 4), rows_of("items", random(9, 4)), 3)] == [0, 0]
    for items in (random(0, 4), pack(random(0, 4))):
        nothing = (torch.tensor([1]), None, torch.ones(0, dtype=torch.bool), None, None)
        search(random(2, 4), rows_of("items", items), 3, filters=nothing)
        scores, ids = search(random(2, 4), rows_of("items", items), 3)
        assert ids.tolist() == [[-1] * 3] * 2
        assert scores.tolist() == [[-np.inf] * 3] * 2


def test_items_with_nan_that_slipped_through_are_never_returned() -> None:
    items = random(90, 6, seed=1)
    items[4, 2], items[80, 0] = torch.nan, torch.inf
    may = np.ones((3, 90), dtype=bool)
    may[:, [4, 80]] = False
    queries = random(3, 6)
    scores, ids = search(queries, rows_of("items", items), 90)
    want = oracle.best(oracle.scores(queries, items.nan_to_num(0, 0, 0)), 90, may)
    assert ids.tolist() == want[1].tolist()
    assert not scores.isnan().any()


def test_fast_scores_are_the_estimates_of_the_scan() -> None:
    queries, items = random(4, 32), random(300, 32, seed=1)
    scores, ids = search(queries, rows_of("items", items), 10, exact=False)
    exact = np.take_along_axis(oracle.scores(queries, items), ids.numpy(), axis=1)
    np.testing.assert_allclose(scores.numpy(), exact, atol=2e-2)


def test_tensors_need_not_lie_side_by_side() -> None:
    columns, wide = random(100, 3, seed=2), random(200, 12, seed=1)
    queries = random(6, 12)[::2, ::2]
    for items in (wide[::2, 3:9], wide[::2, ::2], stored(wide[::2, ::2], "bfloat16")):
        check(queries, items, 9, item_bias=columns[:, 1], item_scale=columns[:, 2])
    codes = pack(wide[:100])
    rows = codes.rows()
    assert rows.sketch is not None
    odd = torch.empty(rows.sketch.codes.numel() + 1, dtype=torch.int8)[1:]
    odd = odd.view_as(rows.sketch.codes).copy_(rows.sketch.codes)
    shifted = rows._replace(sketch=rows.sketch._replace(codes=odd))  # at no multiple of 16 bytes
    ours, theirs = (search(random(3, 12), held, 5) for held in (shifted, rows))
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_subnormal_numbers_are_numbers() -> None:
    """What NVRTC's -ftz=true, which CuPy adds, would take for zero; see also its compiled code."""
    check(torch.ones(1, 3), random(40, 3, seed=1) * 1e-39, 5, metric="cosine")


def of_candidates(
    queries: Tensor, rows: Rows, lists: list[list[int]], metric: str, terms: Any, *k: int
) -> Any:
    ragged = Ragged.of(lists)
    return torch.ops.llmrec.candidate_scores_nvrtc(
        queries, rows.data, rows.scale, rows.bias, rows.inverse_norms, rows.bits, ragged.values,
        ragged.offsets, ("cosine", "dot").index(metric), *terms, *k,
    )  # fmt: skip


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("storage", KEPT)
def test_candidates_have_the_reference_score(storage: str, metric: str) -> None:
    queries, vectors = random(5, 11), random(30, 11, seed=1)
    queries[4], vectors[5] = 0, 0
    columns = random(30, 4, seed=2)
    full = (columns[:5, 0], columns[:, 1], 0.25, columns[:5, 2], columns[:, 3])
    names = ("query_bias", "item_bias", "offset", "query_scale", "item_scale")
    for items in (stored(vectors, storage), pack(stored(vectors, storage))):
        for terms in (full, PLAIN):
            options = {n: t for n, t in zip(names, terms, strict=True) if t is not None}
            table = oracle.scores(queries, items, metric=metric, **options)
            want = np.concatenate([table[query, ids] for query, ids in enumerate(LISTS)])
            scores = of_candidates(queries, rows_of("items", items), LISTS, metric, terms)
            oracle.assert_same_bits(scores, want)


@pytest.mark.parametrize("k", [1, 3, 40, 3000])
def test_the_best_candidates_are_those_of_the_reference(k: int) -> None:
    queries, items = random(5, 6), random(6, 6, seed=1).repeat(5, 1)
    rows, lists = rows_of("items", items), [LISTS[0], list(range(30)) * 90, *LISTS[2:]]
    ragged = Ragged.of(lists)
    arguments = (queries, rows.data, None, None, None, 0, ragged.values, ragged.offsets, 0, *PLAIN)
    want = torch.ops.llmrec.candidate_scores_reference(*arguments, k)
    found = torch.ops.llmrec.candidate_scores_nvrtc(*arguments, k)
    for ours, theirs in zip(found, want, strict=True):
        assert torch.equal(ours, theirs)


def test_candidates_that_slipped_through_have_no_score() -> None:
    items = random(30, 4, seed=1)
    items[3, 1], items[4, 0] = torch.nan, torch.inf
    rows, lists = rows_of("items", items), [[0, -1, 30, 3, 4, 2**40, 1]]
    scores = of_candidates(random(1, 4), rows, lists, "cosine", PLAIN)
    assert scores.isfinite().tolist() == [True, False, False, False, False, False, True]
    assert not scores.isnan().any()
    scores, ids = of_candidates(random(1, 4), rows, lists, "cosine", PLAIN, 4)
    assert sorted(ids[0].tolist()) == [-1, -1, 0, 1]
    for bad in ([-5, 3, 2, 2**40], [9, 9, -(2**40), 0], [2**63 - 1, -(2**63), 0, 8]):
        arguments = (random(3, 4), items, None, None, None, 0, torch.arange(8), torch.tensor(bad))
        for k in ((), (2,), (300,)):
            found = torch.ops.llmrec.candidate_scores_nvrtc(*arguments, 0, *PLAIN, *k)
            assert not (found[0] if k else found).isnan().any()


def test_no_queries_or_no_candidates_have_no_results() -> None:
    rows = rows_of("items", random(30, 4))
    assert of_candidates(random(0, 4), rows, [], "dot", PLAIN).shape == (0,)
    assert of_candidates(random(2, 4), rows, [[], []], "dot", PLAIN).shape == (0,)
    scores, ids = of_candidates(random(2, 4), rows, [[], []], "dot", PLAIN, 2)
    assert (scores.tolist(), ids.tolist()) == ([[-np.inf] * 2] * 2, [[-1] * 2] * 2)
