"""The Triton kernels in the repaired interpreter, every access checked, against the oracle.

The operators are called below the public functions, whose dispatch takes Triton on a GPU alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import oracle
import pytest
import torch
import triton_interpreter
from cases import STORAGES, random, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llmrec_kernels import Ragged, pack, quantize
from llmrec_kernels.ops.quantize.reference import DTYPES
from llmrec_kernels.ops.rows import Rows, rows_of

triton_interpreter.install()
OPS = ("cosine_topk", "candidate_scores", "embedding_bag", "quantize")
ROOMS = {op: importlib.import_module(f"llmrec_kernels.ops.{op}.triton") for op in OPS}
BAGS = [[4, 0, 22, 4], [], [7], list(range(23)), [5, 5]]
KEPT = [name for name in STORAGES if name != "float64"]


@pytest.fixture(autouse=True)
def _races() -> Iterator[None]:
    with triton_interpreter.checked():
        yield


def rows_in(vectors: Tensor, storage: str) -> Rows:
    return rows_of("items", stored(vectors, storage))


# ---- bags ----


def pool(
    rows: Rows, bags: list[list[int]], mode: str = "sum", weights: Tensor | None = None,
    padding: int = -1, normalize: bool = False, out_dtype: int = 0,
) -> Tensor:  # fmt: skip
    lists = Ragged.of(bags)
    kind = ("sum", "mean", "max").index(mode)
    pooled: Tensor = torch.ops.llmrec.embedding_bag_triton(
        rows.data, rows.scale, rows.bias, rows.bits, rows.dim, lists.values, lists.offsets, kind,
        weights, padding, normalize, out_dtype,
    )  # fmt: skip
    return pooled


def shares(weights: Tensor, bags: list[list[int]]) -> list[list[float]]:
    return [part.tolist() for part in weights.split([len(bag) for bag in bags])]


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("storage", KEPT)
def test_bags_have_the_bits_of_fused_sums_in_index_order(storage: str, mode: str) -> None:
    table = stored(random(23, 13), storage)
    result = pool(rows_of("table", table), BAGS, mode)
    oracle.assert_same_bits(result, oracle.pooled(table, BAGS, mode, fuse=True))
    if mode != "max":
        weights = random(sum(map(len, BAGS)), seed=3)
        result = pool(rows_of("table", table), BAGS, mode, weights, padding=4)
        want = oracle.pooled(table, BAGS, mode, shares(weights, BAGS), 4, fuse=True)
        oracle.assert_same_bits(result, want)


@settings(max_examples=15)
@given(
    bags=st.lists(st.lists(st.integers(0, 9), max_size=7), min_size=1, max_size=9),
    storage=st.sampled_from(KEPT),
    dim=st.integers(1, 40),
    mode=st.sampled_from(["sum", "mean", "max"]),
)
def test_any_bags_are_pooled(bags: list[list[int]], storage: str, dim: int, mode: str) -> None:
    table = stored(random(10, dim), storage)
    result = pool(rows_of("table", table), bags, mode)
    oracle.assert_same_bits(result, oracle.pooled(table, bags, mode, fuse=True))


@pytest.mark.parametrize("dim", [1, 16, 130, 300])
def test_normalized_and_narrow_bags(dim: int) -> None:
    table = random(23, dim)
    for number, dtype in enumerate((torch.float32, torch.float16, torch.bfloat16)):
        result = pool(rows_of("table", table), BAGS, normalize=True, out_dtype=number)
        want = torch.from_numpy(oracle.normalized(oracle.pooled(table, BAGS, fuse=True)))
        assert result.dtype == dtype
        torch.testing.assert_close(
            result, want.to(dtype), atol=0, rtol=0.01 * (number == 2) + 2e-7 + 1e-3 * (number == 1)
        )


def test_indices_and_offsets_that_slipped_through_read_nothing_outside() -> None:
    table, far = random(9, 8), 2**40
    indices = torch.tensor([0, -1, 9, far, 3, -far, 2, 2])
    for mode in (0, 1, 2):
        arguments = (table, None, None, 0, 8, indices, torch.tensor([0, 5, 8]), mode)
        pooled = torch.ops.llmrec.embedding_bag_triton(*arguments, None, -1, False, 0)
        names = ("sum", "mean", "max")
        want = oracle.pooled(table, [[0, 3], [2, 2]], names[mode], fuse=True)
        oracle.assert_same_bits(pooled, want)
    bad = torch.tensor([-5, 3, 2, far])
    pooled = torch.ops.llmrec.embedding_bag_triton(
        table, None, None, 0, 8, indices, bad, 0, None, -1, False, 0
    )
    assert pooled.isfinite().all()


def test_nan_and_infinity_pass_through_bags() -> None:
    table = random(6, 5)
    table[1, 2], table[2, 3], table[3, 3] = torch.nan, torch.inf, -torch.inf
    bags = [[0, 1], [2, 3], [2, 0], [4, 5]]
    for mode in ("sum", "mean", "max"):
        want = torch.from_numpy(oracle.pooled(table, bags, mode, fuse=True))
        result = pool(rows_of("table", table), bags, mode)
        torch.testing.assert_close(result, want, equal_nan=True, atol=0, rtol=0)


# ---- quantization ----


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("dtype", range(5), ids=DTYPES)
def test_quantized_rows_have_the_bits_of_the_reference(dtype: int, symmetric: bool) -> None:
    for dim, source in ((1, "float32"), (13, "float16"), (64, "bfloat16"), (300, "float32")):
        weight = stored(random(11, dim) * 10.0 ** torch.linspace(-4, 4, 11)[:, None], source)
        weight[0], weight[1, 0] = 2.0, 0.0
        found = torch.ops.llmrec.quantize_triton(weight, dtype, symmetric)
        want = torch.ops.llmrec.quantize_reference(weight, dtype, symmetric)
        for ours, theirs in zip(found, want, strict=True):
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours.view(torch.uint8), theirs.contiguous().view(torch.uint8))


def test_every_half_way_number_is_rounded_to_even() -> None:
    codes = torch.arange(256.0)
    weight = torch.cat([codes, codes[:-1] + 0.5])[None]
    found = torch.ops.llmrec.quantize_triton(weight, 0, False)
    assert torch.equal(found[0], torch.ops.llmrec.quantize_reference(weight, 0, False)[0])


def test_a_row_with_nan_stays_in_its_row() -> None:
    weight = random(5, 7)
    weight[2, 3], weight[3, 1] = torch.nan, torch.inf
    for dtype in range(5):
        clean = torch.ops.llmrec.quantize_reference(weight[[0, 1, 4]], dtype, True)[0]
        found = torch.ops.llmrec.quantize_triton(weight, dtype, True)[0].view(torch.uint8)
        assert torch.equal(found[[0, 1, 4]], clean.view(torch.uint8))


# ---- candidates ----

TERMS = (random(5, seed=2), random(30, seed=3), 0.25, random(5, seed=4), random(30, seed=5))
LISTS = [[3, 0, 29, 3], [], [7], list(range(30)), [5, 5, 5, 4]]


def of_candidates(
    queries: Tensor, rows: Rows, lists: list[list[int]], metric: str, terms: Any, *k: int
) -> Any:
    ragged = Ragged.of(lists)
    return torch.ops.llmrec.candidate_scores_triton(
        queries, rows.data, rows.scale, rows.bias, rows.inverse_norms, rows.bits, ragged.values,
        ragged.offsets, ("cosine", "dot").index(metric), *terms, *k,
    )  # fmt: skip


def expected_candidates(queries: Tensor, items: Any, metric: str, terms: Any) -> np.ndarray:
    names = ("query_bias", "item_bias", "offset", "query_scale", "item_scale")
    options = {n: t for n, t in zip(names, terms, strict=True) if t is not None}
    table = oracle.scores(queries, items, metric=metric, **options)
    rows = [table[query, ids] for query, ids in enumerate(LISTS)]
    return np.concatenate([*rows])


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("storage", KEPT)
def test_candidates_have_the_reference_score(storage: str, packed: bool, metric: str) -> None:
    queries, vectors = random(5, 11), random(30, 11, seed=1)
    queries[4], vectors[5] = 0, 0
    items = stored(vectors, storage)
    items = pack(items) if packed else items
    for terms in (TERMS, (None, None, 0.0, None, None)):
        scores = of_candidates(queries, rows_of("items", items), LISTS, metric, terms)
        want = expected_candidates(queries, items, metric, terms)
        np.testing.assert_allclose(scores.numpy(), want, rtol=2e-7, atol=1e-12)


@pytest.mark.parametrize("k", [1, 3, 40, 300])
def test_the_best_candidates_with_ties_by_id(k: int) -> None:
    queries, items = random(5, 6), random(6, 6, seed=1).repeat(5, 1)
    rows = rows_of("items", items)
    scores, ids = of_candidates(queries, rows, LISTS, "cosine", (None, None, 0.0, None, None), k)
    values = of_candidates(queries, rows, LISTS, "cosine", (None, None, 0.0, None, None)).numpy()
    start = 0
    for row, listed in enumerate(LISTS):
        mine = values[start : start + len(listed)]
        order = np.lexsort((listed, -mine))[:k] if listed else []
        padding = k - len(order)
        assert ids[row].tolist() == [*(listed[entry] for entry in order), *[-1] * padding]
        assert scores[row].tolist() == [*(float(mine[e]) for e in order), *[-np.inf] * padding]
        start += len(listed)


def test_long_lists_are_shared_by_several_programs() -> None:
    queries, items = random(2, 3), random(50, 3, seed=1)
    entries = torch.randint(50, (9000,), generator=torch.Generator().manual_seed(2)).tolist()
    plain = (None, None, 0.0, None, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ROOMS["candidate_scores"], "PART", 700)
        found = of_candidates(queries, rows_of("items", items), [entries, [1, 2]], "dot", plain, 5)
    values = oracle.scores(queries, items, metric="dot")
    order = np.lexsort((entries, -values[0, entries]))[:5]
    assert found[1][0].tolist() == [entries[place] for place in order]
    assert found[1][1].tolist()[2:] == [-1] * 3


def test_candidates_that_slipped_through_have_no_score() -> None:
    items = random(30, 4, seed=1)
    items[3, 1], items[4, 0] = torch.nan, torch.inf
    lists, plain = [[0, -1, 30, 3, 4, 2**40, 1]], (None, None, 0.0, None, None)
    for metric in ("cosine", "dot"):
        scores = of_candidates(random(1, 4), rows_of("items", items), lists, metric, plain)
        assert scores.isfinite().tolist() == [True, False, False, False, False, False, True]
        assert not scores.isnan().any()
        _, ids = of_candidates(random(1, 4), rows_of("items", items), lists, metric, plain, 4)
        assert sorted(ids[0].tolist()) == [-1, -1, 0, 1]


# ---- top-k ----


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
    """Ids are the oracle's; scores are, up to their last bit."""
    scores, ids = search(queries, rows_of("items", items), k, **options)
    options.pop("filters", None)
    options = {name: value for name, value in options.items() if value is not None}
    want_scores, want_ids = oracle.best(oracle.scores(queries, items, **options), k, may)
    assert ids.tolist() == want_ids.tolist()
    np.testing.assert_allclose(scores.numpy(), want_scores, rtol=2e-7, atol=1e-12)


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
    items = random(100, 6, seed=1) * 10.0 ** torch.linspace(-30, 30, 100)[:, None]
    queries = random(4, 6) * torch.tensor([1, 1e-25, 1e25, 0])[:, None]
    for metric in ("cosine", "dot"):
        check(queries, items, 5, metric=metric)


def test_queries_come_in_batches_of_bounded_workspace() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ROOMS["cosine_topk"], "WORKSPACE", 1 << 15)
        patch.setattr(ROOMS["cosine_topk"], "SPARE", 1)
        check(random(7, 8), pack(random(300, 8, seed=1)), 2)


def test_results_beyond_what_a_program_keeps_come_in_passes() -> None:
    items = random(4, 5, seed=1).repeat(20, 1)  # ties: nothing is certain
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ROOMS["cosine_topk"], "MOST_IN_KERNEL", 16)
        check(random(2, 5), items, 50)


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
        patch.setattr(ROOMS["cosine_topk"], "SPARE", 1)
        check(random(2, 16), items, 3)
        patch.setattr(ROOMS["cosine_topk"], "bound_of", lambda dim: 0.0)
        with pytest.raises(AssertionError):
            check(random(2, 16), items, 3)


# ---- torch ----


def calls() -> dict[str, tuple[Any, ...]]:
    rows, lists = rows_of("items", quantize(random(40, 8))), Ragged.of([[1, 2], [39]])
    of_rows = (rows.data, rows.scale, rows.bias)
    queries, none = random(2, 8), (None,) * 5
    plain = (0, None, None, 0.0, None, None)
    pairs = (queries, *of_rows, None, 8, lists.values, lists.offsets, *plain)
    return {
        "embedding_bag": (*of_rows, 8, 8, lists.values, lists.offsets, 0, None, -1, True, 0),
        "quantize": (random(5, 8), 0, False),
        "candidate_scores": pairs,
        "candidate_scores.topk": (*pairs, 2),
        "cosine_topk": (queries, *of_rows, None, None, None, None, 8, 3, 0, None, None,
                        lists.values, lists.offsets, *none[2:], True),
    }  # fmt: skip


def operator_of(name: str) -> Any:
    op, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.llmrec, f"{op}_triton"), overload or "default")


@pytest.mark.parametrize("name", calls())
def test_they_are_operators_that_torch_knows(name: str) -> None:
    torch.library.opcheck(
        operator_of(name), calls()[name], test_utils=("test_schema", "test_faketensor")
    )


@pytest.mark.parametrize("name", calls())
def test_torch_compile_traces_through_them(name: str) -> None:
    op, arguments = operator_of(name), calls()[name]
    compiled = torch.compile(lambda *a: op(*a), fullgraph=True, backend="aot_eager")
    ours, plain = compiled(*arguments), op(*arguments)
    for one, other in zip(
        *((x if isinstance(x, tuple) else (x,)) for x in (ours, plain)), strict=True
    ):
        assert torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


@pytest.mark.parametrize("name", calls())
def test_no_launch_waits_for_the_device(name: str) -> None:
    """Without contents nothing can: a tensor of none refuses to become a number or a shape."""
    op, _, overload = name.partition(".")
    run = ROOMS[op].candidate_topk if overload else getattr(ROOMS[op], op)
    launched = []
    with pytest.MonkeyPatch.context() as patch:
        kind = type(triton_interpreter.triton.jit(lambda: None))
        patch.setattr(
            kind, "__getitem__", lambda kernel, grid: lambda *a, **k: launched.append(grid)
        )
        bare = [a.to("meta") if isinstance(a, Tensor) else a for a in calls()[name]]
        run(*bare)
        for wait in (
            lambda: bare[0].sum().item(),
            lambda: bare[0].cpu(),
            lambda: bare[0].nonzero(),
        ):
            with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
                wait()
    assert launched
