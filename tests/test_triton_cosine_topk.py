"""The Triton top-K, every access checked, against the oracle."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from cases import random, stored
from torch import Tensor
from triton_rooms import KEPT, room

from llmrec_kernels import pack
from llmrec_kernels.ops.rows import Rows, rows_of

pytestmark = pytest.mark.usefixtures("races")
ROOM = room("cosine_topk")


def search(
    queries: Tensor, rows: Rows, k: int, metric: str = "cosine", item_bias: Tensor | None = None,
    item_scale: Tensor | None = None, filters: Any = (None,) * 5, exact: bool = True,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    found: tuple[Tensor, Tensor] = torch.ops.llmrec.cosine_topk_triton(
        queries, rows.data, rows.scale, rows.bias, rows.inverse_norms, None, None, None, rows.bits,
        k, ("cosine", "dot").index(metric), item_bias, item_scale, *filters, exact,
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
    check(random(3, 13), items, 4, metric=metric, item_bias=bias, item_scale=scale)


@pytest.mark.parametrize(
    ("count", "items", "dim", "k"),
    [(1, 1, 1, 1), (2, 65, 3, 65), (17, 200, 64, 3), (3, 130, 70, 300)],
)
def test_any_shape_is_searched(count: int, items: int, dim: int, k: int) -> None:
    check(random(count, dim), pack(random(items, dim, seed=1)), k)


def test_equal_scores_come_by_smaller_id_and_zero_queries_too() -> None:
    items = random(5, 6, seed=1).repeat(40, 1)
    queries = torch.cat([random(2, 6), torch.zeros(1, 6)])
    check(queries, items, 7)


def test_lengths_that_no_bound_covers_are_searched_exactly() -> None:
    items = random(301, 6, seed=1) * 10.0 ** torch.linspace(-30, 30, 301)[:, None]
    queries = random(4, 6) * torch.tensor([1, 1e-25, 1e25, 0])[:, None]
    for metric in ("cosine", "dot"):
        check(queries, items, 5, metric=metric)


def test_queries_come_in_batches_of_bounded_workspace() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ROOM, "WORKSPACE", 1 << 10)  # 16 queries
        patch.setattr(ROOM, "SPARE", 1)
        check(random(37, 8), pack(random(300, 8, seed=1)), 2)


@pytest.mark.parametrize("allow", [False, True])
def test_lists_of_other_batches_are_passed_over(allow: bool) -> None:
    lists = torch.arange(40 * 5).view(40, 5) % 107 - 40  # some are in no word of their row
    offsets, may = torch.arange(41) * 5, np.full((40, 64), not allow)
    for row, ids in enumerate(lists.tolist()):
        may[row, [item for item in ids if 0 <= item < 64]] = allow
    given = (None, None, None, lists.flatten(), offsets) if allow else (
        lists.flatten(), offsets, None, None, None
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ROOM, "WORKSPACE", 1 << 10)  # 16 queries
        check(random(40, 5), random(64, 5, seed=1), 4, may, filters=given)


def test_results_beyond_what_a_program_keeps_come_in_passes() -> None:
    items, queries = random(4, 5, seed=1).repeat(40, 1), random(2, 5) * 1e-25  # nothing is certain
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ROOM, "MOST_IN_KERNEL", 64)
        check(queries, items, 150)


FILTERED = torch.tensor([-3, 0, 7, 7, 64, 99, 200, 2**40, 31, 32])
BOUNDS = torch.tensor([0, 4, 4, 10])


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("mask", ["none", "for all", "for each"])
@pytest.mark.parametrize("allow", [False, True])
def test_filters(allow: bool, mask: str, lists: bool) -> None:
    if allow and mask != "none":
        pytest.skip("allowed ids and a mask never come together")
    items, may = random(100, 6, seed=1), np.ones((3, 100), dtype=bool)
    bounds = BOUNDS if lists else None
    real = [
        [i for i in part.tolist() if 0 <= i < 100] for part in FILTERED.tensor_split(BOUNDS[1:-1])
    ]
    named = real if lists else [[i for i in FILTERED.tolist() if 0 <= i < 100]] * 3
    dense = None
    if mask != "none":
        shape = (100,) if mask == "for all" else (3, 100)
        dense = torch.rand(shape, generator=torch.Generator().manual_seed(4)) < 0.2
        may &= dense.numpy()
    for row, ids in enumerate(named):
        listed = np.isin(np.arange(100), ids)
        may[row] &= listed if allow else ~listed
    given = (None, None, None, FILTERED, bounds) if allow else (FILTERED, bounds, dense, None, None)
    check(random(3, 6), items, 12, may, filters=given)


def test_items_with_nan_that_slipped_through_are_never_returned() -> None:
    items = random(90, 6, seed=1)
    items[4, 2], items[80, 0] = torch.nan, torch.inf
    may = np.ones((3, 90), dtype=bool)
    may[:, [4, 80]] = False
    queries = random(3, 6)
    scores, ids = search(queries, rows_of("items", items), 90)
    clean = items.nan_to_num(0, 0, 0)
    want = oracle.best(oracle.scores(queries, clean), 90, may)
    assert ids.tolist() == want[1].tolist()
    assert not scores.isnan().any()


def test_fast_scores_are_the_estimates_of_the_scan() -> None:
    queries, items = random(4, 32), random(300, 32, seed=1)
    scores, ids = search(queries, rows_of("items", items), 10, exact=False)
    exact = np.take_along_axis(oracle.scores(queries, items), ids.numpy(), axis=1)
    np.testing.assert_allclose(scores.numpy(), exact, atol=2e-3)


def test_the_certificate_decides_and_is_needed() -> None:
    """Estimates that are wrong by more than their bound lose winners."""
    items = random(1, 16, seed=1) + 1e-4 * random(400, 16, seed=2)  # nearly equal
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ROOM, "SPARE", 1)
        check(random(2, 16), items, 3)
        patch.setattr(ROOM, "bound_of", lambda dim: 0.0)
        with pytest.raises(AssertionError):
            check(random(2, 16), items, 3)


def test_fast_finds_what_filters_leave() -> None:
    items, allowed = random(600, 8, seed=1), torch.tensor([3, 200, 599])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ROOM, "SPARE", 1)
        given = (None, None, None, allowed, None)
        _, ids = search(random(3, 8), rows_of("items", items), 3, filters=given, exact=False)
    assert [sorted(row) for row in ids.tolist()] == [allowed.tolist()] * 3


def test_fast_prefers_any_estimate_to_none() -> None:
    bias = torch.zeros(300)
    bias[::2] = torch.nan
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ROOM, "SPARE", 1)
        rows = rows_of("items", random(300, 8, seed=1))
        scores, ids = search(random(3, 8), rows, 5, item_bias=bias, exact=False)
    assert (ids % 2 == 1).all()
    assert scores.isfinite().all()


def test_fast_knows_nothing_of_what_no_float32_bounds() -> None:
    queries, items = random(3, 8), random(60, 8, seed=1)
    items[7] *= 1e-25
    items[9] *= 1e25
    items[12, 3] = torch.inf
    bias = torch.zeros(60)
    bias[3], bias[5], bias[11] = torch.nan, -torch.inf, torch.inf
    scores, ids = search(queries, rows_of("items", items), 60, item_bias=bias, exact=False)
    assert scores[:, :56].isfinite().all()
    known = sorted({*range(60)} - {3, 5, 11, 12})
    assert [sorted(row) for row in ids.tolist()] == [[-1] * 4 + known] * 3
    assert (scores[(ids == 7) | (ids == 9)] == 0).all()
    queries[1, 0] = torch.nan
    scores, ids = search(queries, rows_of("items", items), 4, exact=False)
    assert ids[1].tolist() == [-1] * 4
    assert not scores.isnan().any()


def test_terms_need_not_lie_side_by_side() -> None:
    columns = random(100, 3, seed=2)
    check(
        random(3, 6), random(100, 6, seed=1), 9, item_bias=columns[:, 1], item_scale=columns[:, 2]
    )
    check(random(3, 6), random(100, 6, seed=1), 9, item_scale=torch.full((1,), 2.0).expand(100))


def test_what_cancels_is_added_in_the_order_of_the_reference() -> None:
    queries, items = torch.ones(1, 200), torch.zeros(40, 200)
    items[0, 0], items[0, 64], items[0, 128] = 1e17, 1, -1e17
    items[1:, 5] = torch.tensor([0.5, 0.25, *[0.1] * 37])
    check(queries, items, 4, metric="dot")
    check(queries, items[:3], 3, metric="dot")


def test_scores_beyond_float32_still_rank() -> None:
    check(random(2, 4) * 1e20, random(100, 4, seed=1) * 1e20, 100, metric="dot")


def test_as_many_items_as_a_key_can_name() -> None:
    """Two of very many programs of the exact search, over rows that are all the same memory."""
    kernels = importlib.import_module("llmrec_kernels.ops.cosine_topk.triton_kernels")
    items, parts = ROOM.MOST_ITEMS, 2**26
    best = torch.zeros(2 * 64, dtype=torch.int64)
    kernels.search_exactly[(1, 2)](
        torch.ones(1, 1), torch.ones(1, 1), None, None, None, None, None, None,
        torch.zeros(1, dtype=torch.int8), torch.tensor([2**63 - 1]), best, items, parts,
        0, 1, 0, 1, 0, STORAGE=0, IS_COSINE=True, PAIRS=64, COLUMNS=8, KEPT=64,
    )  # fmt: skip
    assert ROOM.opened(best[64:])[1].tolist() == list(range(32, 64)) + [-1] * 32
