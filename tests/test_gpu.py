"""What a GPU answers: `pytest -m gpu`, skipped with the reason where there is none.

Ids, scores and codes are those of the CPU, bit for bit. tests/test_gpu_runtime.py has the rest:
streams, graphs, devices, memory. With LLMREC_GPU_DRY_RUN=1 both run on the CPU (gpu_dry_run.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import oracle
import pytest
import torch
from cases import fuses, random, stored
from gpu_dry_run import (
    BACKENDS,
    DEVICE,
    DRY_RUN,
    cuda,
    needs_gpu,
    operator,
    require,
    spoil,
    there,
    unchecked,
    unchecked_offsets,
)
from torch import Tensor

from llmrec_kernels import (
    QuantizedTable,
    Ragged,
    candidate_scores,
    cosine_topk,
    embedding_bag,
    pack,
)
from llmrec_kernels import quantize as quantized

pytestmark = needs_gpu
STORAGES = ("float32", "float16", "bfloat16", "int8", "int8-symmetric", "int4", "int4-symmetric")
STORAGES += ("fp8_e4m3",)
MANY = 2_000 if DRY_RUN else 20_000  # items


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def same_topk(found: Any, want: Any) -> None:
    """The same ids, and the same bits of scores."""
    assert torch.equal(found.ids.cpu(), want.ids.cpu())
    assert torch.equal(found.scores.cpu(), want.scores.cpu())


def same_bytes(found: Tensor, want: Tensor) -> None:
    assert (found.shape, found.dtype) == (want.shape, want.dtype)
    whole = torch.contiguous_format
    ours, theirs = (t.cpu().clone(memory_format=whole).view(torch.uint8) for t in (found, want))
    assert torch.equal(ours, theirs)


def same_bags(backend: str, found: Tensor, want: Tensor, rounds_once: bool) -> None:
    """The same bits, where products are not rounded before they are added, or the CPU fuses too."""
    if rounds_once or (fuses_here() and backend != "reference"):
        assert torch.equal(found.cpu(), want)
    else:
        torch.testing.assert_close(found.cpu(), want, rtol=1e-5, atol=1e-4)


def fuses_here() -> bool:
    try:
        return fuses("cpu")
    except ValueError:  # there is no compiled extension
        return False


def lists_of(count: int, items: int, length: int = 5) -> Ragged:
    """A list for each query, the first one empty."""
    return Ragged.of([[(7 * row + 3 * i) % items for i in range(length * (row > 0))]
                      for row in range(count)])  # fmt: skip


def check_topk(backend: str, queries: Tensor, items: Any, k: int, **options: Any) -> None:
    """The GPU finds what the CPU finds; tensors and lists among the options go there too."""
    moved = {
        name: there(value) if isinstance(value, Tensor | Ragged) else value
        for name, value in options.items()
    }
    found = cosine_topk(there(queries), there(items), k, backend=backend, **moved)
    same_topk(found, cosine_topk(queries, items, k, **options))


# ---- top-K ----


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("storage", STORAGES)
def test_topk_is_that_of_the_cpu(backend: str, storage: str, metric: str) -> None:
    require(backend, "cosine_topk")
    items = stored(random(MANY, 100, seed=1), storage)
    bias, scale = random(MANY, seed=2), random(MANY, seed=3)
    for count, k in ((1, 10), (17, 100), (70, 100), (300, 3), (2, 1500)):
        check_topk(
            backend, random(count, 100), items, k, metric=metric, item_bias=bias,
            item_scale=scale, exclude=lists_of(count, MANY),
        )  # fmt: skip


@pytest.mark.parametrize("k", [1, 2, 31, 32, 33, 256, 257, 1024, 2048, 2049, 5000, 7000])
def test_any_k_is_that_of_the_cpu(backend: str, k: int) -> None:
    require(backend, "cosine_topk")
    items = random(6_000, 24, seed=1)
    items[3_000:] = items[:3_000]  # equal scores, by smaller id
    check_topk(backend, random(40, 24), items, k)
    check_topk(backend, random(2, 24), items, k, metric="dot")


@pytest.mark.parametrize("storage", ["float32", "float16", "int8", "int4"])
@pytest.mark.parametrize("dim", [1, 2, 3, 7, 31, 33, 65, 127, 129, 1000, 1537])
def test_any_dimension_is_scored_as_on_the_cpu(backend: str, dim: int, storage: str) -> None:
    require(backend, "cosine_topk", "candidate_scores", "embedding_bag")
    items, queries = stored(random(333, dim, seed=1), storage), random(35, dim)
    check_topk(backend, queries, items, 10)
    check_topk(backend, queries[:3], items, 10, metric="dot")
    lists = lists_of(35, 333)
    found = candidate_scores(there(queries), there(items), there(lists), backend=backend)
    assert torch.equal(found.cpu(), candidate_scores(queries, items, lists))
    grid = torch.arange(60).view(12, 5)
    bags = embedding_bag(there(items), there(grid), backend=backend)
    same_bags(backend, bags, embedding_bag(items, grid), storage.startswith("float"))


def packed_there(items: Any) -> Any:
    """Items packed on the GPU by whichever backend packs there: each has the same bits."""
    return pack(there(items))


@pytest.mark.filterwarnings("ignore:pack runs as plain torch")
@pytest.mark.parametrize("storage", STORAGES)
def test_packed_items_are_searched_as_on_the_cpu(backend: str, storage: str) -> None:
    require(backend, "cosine_topk", "candidate_scores")
    items, lists = stored(random(5_003, 77, seed=1), storage), lists_of(40, 5_003)
    queries, held = random(40, 77), packed_there(items)
    for metric in ("cosine", "dot"):
        want = cosine_topk(queries, items, 50, metric=metric)
        found = cosine_topk(there(queries), held, 50, metric=metric, backend=backend)
        same_topk(found, want)
    scores = candidate_scores(there(queries), held, there(lists), backend=backend)
    assert torch.equal(scores.cpu(), candidate_scores(queries, items, lists))


FILTERS: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "nothing excluded": lambda b, n: {"exclude": torch.empty(0, dtype=torch.int64)},
    "ids excluded": lambda b, n: {"exclude": torch.arange(0, n + 50, 3)},  # some do not exist
    "everything excluded": lambda b, n: {"exclude": torch.arange(n)},
    "lists excluded": lambda b, n: {"exclude": lists_of(b, n, 90)},
    "a mask allowed": lambda b, n: {"allow": torch.arange(n) % 100 == 7},
    "masks allowed": lambda b, n: {"allow": random(b, n, seed=9) > 1},
    "ids allowed": lambda b, n: {"allow": torch.arange(5, n, 41)},
    "nothing allowed": lambda b, n: {"allow": torch.empty(0, dtype=torch.int64)},
    "lists allowed": lambda b, n: {"allow": lists_of(b, n, 30)},
    "a mask and lists": lambda b, n: {
        "allow": torch.arange(n) % 5 == 1, "exclude": lists_of(b, n, 60),
    },
    "masks and ids": lambda b, n: {
        "allow": random(b, n, seed=9) > 0, "exclude": torch.arange(0, n, 2),
    },
    "lists and lists": lambda b, n: {"allow": lists_of(b, n, 40), "exclude": lists_of(b, n, 9)},
}  # fmt: skip


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_leaves_what_it_leaves_on_the_cpu(backend: str, name: str) -> None:
    require(backend, "cosine_topk")
    items = random(3_001, 40, seed=1)
    for count, k in ((1, 10), (33, 10), (130, 60), (3, 3_100)):
        check_topk(backend, random(count, 40), items, k, **FILTERS[name](count, 3_001))


def test_fast_precision_finds_most_of_the_best(backend: str) -> None:
    require(backend, "cosine_topk")
    items, queries = random(MANY, 128, seed=1), random(50, 128)
    want = cosine_topk(queries, items, 50).ids
    found = cosine_topk(there(queries), there(items), 50, precision="fast", backend=backend)
    hits = (found.ids.cpu()[:, :, None] == want[:, None, :]).any(dim=2).float().mean()
    assert hits > 0.9


# ---- lookups ----


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("storage", STORAGES)
def test_bags_are_those_of_the_cpu(backend: str, storage: str, mode: str) -> None:
    require(backend, "embedding_bag")
    table, grid = stored(random(5_000, 200), storage), torch.arange(6_000).view(300, 20) * 7 % 5_000
    plain = mode == "max" or storage in ("float32", "float16", "bfloat16")
    choices: tuple[dict[str, Any], ...] = (
        {}, {"padding_idx": 7}, {"normalize": True}, {"out_dtype": torch.bfloat16}
    )  # fmt: skip
    for options in choices:
        want = embedding_bag(table, grid, mode=mode, **options)
        found = embedding_bag(there(table), there(grid), mode=mode, backend=backend, **options)
        if "normalize" in options or "out_dtype" in options:
            torch.testing.assert_close(found.cpu(), want, atol=1e-4, rtol=1e-2)
        else:
            same_bags(backend, found, want, plain)


@pytest.mark.parametrize("storage", ["float32", "int8", "int4"])
def test_weighted_ragged_and_long_bags_are_those_of_the_cpu(backend: str, storage: str) -> None:
    require(backend, "embedding_bag")
    table = stored(random(900, 61), storage)
    offsets = torch.tensor([0, 0, 1, 4, 4, 40, 9_000, 9_000])  # empty, short and long bags
    indices = torch.arange(9_001) * 11 % 900
    weights = random(9_001, seed=5)
    for mode, weight in (("sum", weights), ("mean", weights.abs()), ("max", None), ("mean", None)):
        arguments = (indices, offsets, weight)
        want, found = (
            embedding_bag(rows, at, starts, mode=mode, per_sample_weights=shares, backend=name)
            for rows, (at, starts, shares), name in (
                (table, arguments, None),
                (there(table), map(there, arguments), backend),
            )
        )
        torch.testing.assert_close(found.cpu(), want, rtol=1e-4, atol=1e-3)
        assert not found[[0, 3, 6]].any()  # the empty ones


@pytest.mark.parametrize("storage", STORAGES)
def test_candidates_are_those_of_the_cpu(backend: str, storage: str) -> None:
    require(backend, "candidate_scores")
    items, queries = stored(random(5_000, 200), storage), random(30, 200, seed=1)
    lists = Ragged(torch.arange(3_000) * 13 % 5_000, torch.arange(31) * 100)
    terms = {"query_bias": random(30, seed=2), "item_bias": random(5_000, seed=3),
             "query_scale": random(30, seed=4), "item_scale": random(5_000, seed=5)}  # fmt: skip
    moved = {name: there(value) for name, value in terms.items()}
    for metric in ("cosine", "dot"):
        for k in (None, 7, 300):
            want = candidate_scores(queries, items, lists, metric=metric, offset=0.5, k=k, **terms)
            found = candidate_scores(
                there(queries), there(items), there(lists), metric=metric, offset=0.5, k=k,
                backend=backend, **moved,
            )  # fmt: skip
            if k is None:
                assert torch.equal(found.cpu(), want)
            else:
                same_topk(found, want)


def test_gradients_are_those_of_the_cpu(backend: str) -> None:
    require(backend, "candidate_scores", "embedding_bag")
    lists, grid, gradients = lists_of(6, 50), torch.arange(18).view(6, 3), []
    for place, name in (("cpu", None), (DEVICE, backend)):
        queries, items = (
            vectors.to(place).requires_grad_() for vectors in (random(6, 9), random(50, 9, seed=1))
        )
        users = queries + embedding_bag(items, grid.to(place), mode="mean", backend=name)
        scores = candidate_scores(users, items, lists.to(place), backend=name)
        gradients.append(torch.autograd.grad(scores.square().sum(), (queries, items)))
    for want, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found.cpu(), want)


# ---- codes ----


@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
@pytest.mark.parametrize("dtype", ["int8", "int4", "fp8_e4m3", "float16", "bfloat16"])
def test_codes_are_those_of_the_cpu(backend: str, dtype: str, scheme: str) -> None:
    require(backend, "quantize")
    for rows, dim in ((3_000, 130), (65, 33), (3, 1), (1, 1_537)):
        weight = random(rows, dim) * 3
        weight[0] = 2.5  # a row of one value
        found = quantized(there(weight), dtype, scheme=scheme, backend=backend)
        for name, value in quantized(weight, dtype, scheme=scheme).state_dict().items():
            if isinstance(value, Tensor):
                same_bytes(found.state_dict()[name], value)


@pytest.mark.parametrize("storage", STORAGES)
def test_packs_are_those_of_the_cpu(backend: str, storage: str) -> None:
    """Rows, norms, and every number of the sketch, codes behind the last row included."""
    require(backend, "pack")
    for rows, dim in ((1_003, 77), (16, 4), (5, 1), (33, 1_025)):
        vectors = random(rows, dim)
        vectors[0] = 0
        items = stored(vectors, storage)
        parts = (oracle.parts(held) for held in (pack(there(items), backend=backend), pack(items)))
        for found, want in zip(*parts, strict=True):
            same_bytes(found, want)


# ---- where tensors lie, and empty ones ----


def shifted(tensor: Tensor) -> Tensor:
    """The same contents one element behind a fresh allocation: at no multiple of 16 bytes."""
    room = torch.empty(tensor.numel() + 1, dtype=tensor.dtype, device=tensor.device)
    view = room[1:].view(tensor.shape)
    view.copy_(tensor)
    return view


def shifted_table(table: Any) -> Any:
    if isinstance(table, Tensor):
        return shifted(table)
    codes, scale, bias = (
        None if part is None else shifted(part) for part in (table.codes, table.scale, table.bias)
    )
    return QuantizedTable(codes, scale, bias, table.dtype, table.dim)


@pytest.mark.parametrize("dim", [64, 61])
@pytest.mark.parametrize("storage", STORAGES)
def test_unaligned_tensors_are_read_as_they_lie(backend: str, storage: str, dim: int) -> None:
    require(backend, "cosine_topk", "candidate_scores", "embedding_bag", "quantize")
    items, queries, lists = stored(random(777, dim), storage), random(35, dim), lists_of(35, 777)
    far, asked = shifted_table(there(items)), shifted(there(queries))
    ids = Ragged(shifted(there(lists.values)), shifted(there(lists.offsets)))
    mask, bias = torch.arange(777) % 3 == 1, random(777, seed=3)
    found = cosine_topk(asked, far, 20, allow=shifted(there(mask)), exclude=ids,
                        item_bias=shifted(there(bias)), backend=backend)  # fmt: skip
    same_topk(found, cosine_topk(queries, items, 20, allow=mask, exclude=lists, item_bias=bias))
    scores = candidate_scores(asked, far, ids, backend=backend)
    assert torch.equal(scores.cpu(), candidate_scores(queries, items, lists))
    bags = embedding_bag(far, ids.values, ids.offsets[:-1], mode="max", backend=backend)
    want = embedding_bag(items, lists.values, lists.offsets[:-1], mode="max")
    assert torch.equal(bags.cpu(), want)
    codes = quantized(asked, "int8", backend=backend).codes
    assert torch.equal(codes.cpu(), quantized(queries, "int8").codes)


def test_strided_rows_and_columns_are_read_as_they_lie(backend: str) -> None:
    require(backend, "cosine_topk", "embedding_bag", "quantize")
    wide = random(900, 80)
    for view in (wide[:, 3:40], wide[::2, 1:], wide.T[:60], wide[5:5].reshape(0, 80)):
        held = there(wide).as_strided(view.shape, view.stride(), view.storage_offset())
        queries = view[:7].clone()
        same_topk(
            cosine_topk(there(queries), held, 9, backend=backend), cosine_topk(queries, view, 9)
        )
        codes = quantized(held, "int4", backend=backend).codes
        assert torch.equal(codes.cpu(), quantized(view, "int4").codes)
        if view.shape[0]:
            grid = torch.arange(20).view(4, 5)
            bags = embedding_bag(held, there(grid), backend=backend)
            assert torch.equal(bags.cpu(), embedding_bag(view, grid))


def test_empty_tensors_have_empty_answers(backend: str) -> None:
    require(backend, "cosine_topk", "candidate_scores", "embedding_bag", "quantize")
    none = torch.empty(0, dtype=torch.int64)
    for count, items in ((0, 9), (3, 0), (0, 0)):
        queries, vectors = random(count, 8), random(items, 8)
        check_topk(backend, queries, vectors, 4)
        check_topk(backend, queries, vectors, 4, exclude=Ragged.of([[]] * count))
        nobody = there(Ragged(none, torch.zeros(count + 1, dtype=torch.int64)))
        scores = candidate_scores(there(queries), there(vectors), nobody, backend=backend)
        assert scores.shape == (0,)
        best = candidate_scores(there(queries), there(vectors), nobody, k=3, backend=backend)
        assert (best.ids == -1).all()
        assert (best.scores == -math.inf).all()
        bags = embedding_bag(there(vectors), nobody.values, nobody.offsets[:-1], backend=backend)
        assert bags.shape == (count, 8)
        assert not bags.any()
        assert quantized(there(vectors), "int8", backend=backend).shape == (items, 8)


def test_an_empty_pack_is_that_of_the_cpu(backend: str) -> None:
    require(backend, "pack")
    packs = (pack(there(random(0, 8)), backend=backend), pack(random(0, 8)))
    for found, want in zip(*map(oracle.parts, packs), strict=True):
        same_bytes(found, want)


# ---- contents that nobody looked at ----


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_a_row_that_is_not_finite_is_never_found_and_spoils_no_other(
    backend: str, metric: str, value: float
) -> None:
    require(backend, "cosine_topk", "candidate_scores")
    items, queries, bad = random(3_000, 48, seed=1), random(40, 48), [0, 1_234, 2_999]
    want = cosine_topk(queries, items, 20, metric=metric, exclude=bad)
    spoilt, asked = there(items).clone(), there(queries).clone()
    for row in bad:
        spoil(spoilt, row, value)
    spoil(asked, 33, value)
    found = cosine_topk(asked, spoilt, 20, metric=metric, backend=backend)
    assert not found.scores.isnan().any()
    sound = torch.arange(40) != 33
    assert torch.equal(found.ids.cpu()[sound], want.ids[sound])
    assert torch.equal(found.scores.cpu()[sound], want.scores[sound])
    whole = torch.arange(3_000)[None].expand(2, -1).flatten()
    lists = Ragged(there(whole), there(torch.arange(3) * 3_000))
    best = candidate_scores(asked[32:34], spoilt, lists, metric=metric, k=20, backend=backend)
    assert not best.scores.isnan().any()
    assert torch.equal(best.ids[0].cpu(), want.ids[32])


def test_indices_and_offsets_that_slipped_through_read_nothing_outside(backend: str) -> None:
    """Below the public functions, which check what they can; compute-sanitizer sees the rest."""
    require(backend, "embedding_bag", "candidate_scores")
    table, far = there(random(9, 8)), 2**40
    pool, score = (operator(op, backend) for op in ("embedding_bag", "candidate_scores"))
    wrong = unchecked([0, -1, 9, far, 3, -far, 2, 2], 9)
    for bad in ([0, 5, 8], [-5, 3, far], [2**63 - 1, -(2**63), 0]):
        offsets = unchecked_offsets(bad, 8)
        bags = pool(table, None, None, 0, 8, wrong, offsets, 0, None, -1, False, 0)
        assert bags.isfinite().all()
        arguments = (table[:2], table, None, None, None, 0, wrong, offsets, 0)
        terms = (None, None, 0.0, None, None)
        assert not score(*arguments, *terms).isnan().any()
        for k in (2, 300):
            assert not score(*arguments, *terms, k)[0].isnan().any()
    cuda.synchronize()  # a fault is reported here


def test_lists_that_slipped_through_hide_and_show_nothing_outside(backend: str) -> None:
    require(backend, "cosine_topk")
    items, queries = random(500, 16, seed=1), random(3, 16)
    for name in ("exclude", "allow"):
        ids = unchecked([4, -1, 500, 2**40, 9, 9, 3], 500)
        lists = Ragged(ids, there(torch.tensor([0, 2, 2, 7])))
        for some in (ids, lists):
            found = cosine_topk(there(queries), there(items), 10, backend=backend, **{name: some})
            assert ((found.ids >= -1) & (found.ids < 500)).all()
            assert not found.scores.isnan().any()
    cuda.synchronize()
