"""`cosine_topk` returns the ids and the scores, bit for bit, of the reference score sorted."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
import torch
from cases import STORAGES, random, stored, tiles
from cases import check_topk as check
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llmrec_kernels import QuantizedTable, Ragged, cosine_topk, pack

OPS = ("cosine_topk", "pack", "quantize")


# ---- the score ----


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("storage", STORAGES)
def test_every_storage_gives_the_reference_score(
    backend: str, storage: str, packed: bool, metric: str
) -> None:
    items = stored(random(60, 19, seed=1), storage)
    items = pack(items, backend=backend) if packed else items
    check(backend, random(4, 19), items, 7, metric=metric)


@pytest.mark.parametrize("dim", [0, 1, 2, 7, 8, 9, 15, 16, 17, 33, 64, 100, 383, 384])
@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int4"])
def test_any_dimension_gives_the_reference_score(backend: str, storage: str, dim: int) -> None:
    check(backend, random(3, dim), stored(random(40, dim, seed=1), storage), 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_queries_are_read_as_float32(backend: str, dtype: torch.dtype) -> None:
    check(backend, random(3, 10).to(dtype), random(20, 10, seed=1), 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_number_of_a_narrow_type_is_widened_exactly(backend: str, dtype: torch.dtype) -> None:
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    numbers = numbers[numbers.isfinite()][:, None]
    scores, ids = cosine_topk(
        torch.ones(1, 1), numbers, len(numbers), metric="dot", backend=backend
    )
    oracle.assert_same_bits(scores[0], numbers[ids[0], 0].float().numpy() + np.float32(0))
    assert bool((scores[0, 1:] <= scores[0, :-1]).all())


def test_scale_is_applied_before_bias(backend: str) -> None:
    scale, bias = random(50, seed=2), random(50, seed=3)
    for given_options in ({"item_scale": scale}, {"item_bias": bias}):
        check(backend, random(4, 6), random(50, 6, seed=1), 9, **given_options)
    options = {"item_scale": scale, "item_bias": bias}
    check(backend, random(4, 6), random(50, 6, seed=1), 9, metric="dot", **options)


def test_scores_are_within_one_rounding_of_the_real_numbers(backend: str) -> None:
    queries, items = random(4, 200), random(50, 200, seed=1)
    scores, ids = cosine_topk(queries, items, 50, backend=backend)
    real = np.take_along_axis(oracle.real_scores(queries, items), ids.numpy(), axis=1)
    np.testing.assert_allclose(scores.numpy(), real, rtol=2**-24 * 1.001, atol=1e-15)


def test_cosine_with_a_zero_vector_is_zero(backend: str) -> None:
    items = torch.tensor([[0.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    scores, ids = check(backend, torch.tensor([[1.0, 0.0], [0.0, -0.0]]), items, 3)
    assert scores.tolist() == [[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]]
    assert ids.tolist() == [[2, 0, 1], [0, 1, 2]]


@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_huge_tiny_and_mixed_magnitudes_stay_exact(backend: str, metric: str) -> None:
    scales = [1e-45, 1e-40, 1e-38, 1e-30, 1e-19, 1.0, 1e18, 1e19, 1e30, 1e37]
    directions = random(8, 12, seed=1)
    items = torch.cat([directions * scale for scale in scales] + [torch.full((2, 12), 3.4e38)])
    assert bool(items.isfinite().all())
    for query_scale in (1e-42, 1.0, 1e30):
        queries = directions[:3] * query_scale + 0
        for k in (1, 5, len(items)):
            check(backend, queries, items, k, metric=metric)
            check(backend, queries, pack(items, backend=backend), k, metric=metric)


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("dim", [16, 64, 400])
def test_a_float32_sum_that_overflows_on_the_way_misleads_nobody(
    backend: str, dim: int, metric: str
) -> None:
    half = dim // 2
    cancels = torch.cat([torch.full((half,), 3e38), torch.full((half,), -3e38)])
    wins = torch.cat([torch.full((half,), -3e38), torch.full((half,), 3.4e38)])
    ordinary = torch.full((dim,), 1e30)
    interleaved = torch.stack([cancels[:half], cancels[half:]], 1).flatten()
    items = torch.stack([cancels, -cancels, interleaved, ordinary, wins, -wins, wins.flip(0)])
    for k in (1, 2, 3, 7):
        check(backend, torch.ones(3, dim), items, k, metric=metric)
        check(backend, torch.ones(3, dim), items[:4], min(k, 4), metric=metric)


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("dim", [3, 100, 400])
def test_products_that_underflow_mislead_nobody(backend: str, dim: int, metric: str) -> None:
    smallest = torch.full((dim,), 1e-45)  # a unit query of 0.05 rounds its products to 0
    single = torch.zeros(dim)
    single[0] = 1e-45  # and one of 0.58 to the whole
    slanted = torch.ones(dim)
    slanted[: dim // 3] = 0.1
    items = torch.stack([single, slanted * 1e-30, smallest, slanted, -smallest])
    for k in (1, 2, 5):
        check(backend, torch.ones(2, dim), items, k, metric=metric)
        check(backend, torch.ones(2, dim), items[:2], min(k, 2), metric=metric)


def test_a_score_too_large_for_float32_is_infinite_and_ranked(backend: str) -> None:
    items = torch.tensor([[1e30], [-1e30], [2e30], [1.0]])
    scores, ids = check(backend, torch.tensor([[1e30]]), items, 5, metric="dot")
    assert ids.tolist() == [[0, 2, 3, 1, -1]]
    assert scores.tolist()[0][:2] == [float("inf")] * 2


# ---- order, ties and padding ----


def test_equal_scores_come_in_id_order(backend: str) -> None:
    items = torch.ones(300, 3)
    assert check(backend, torch.ones(2, 3), items, 4).ids.tolist() == [[0, 1, 2, 3]] * 2
    assert check(backend, -torch.ones(1, 3), items, 4).ids.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("k", [1, 10, 700, 2500])
def test_plateaus_of_thousands_of_equal_scores_are_cut_by_id(backend: str, k: int) -> None:
    directions = random(4, 8, seed=5)
    which = torch.randint(4, (6000,), generator=torch.Generator().manual_seed(1))
    check(backend, torch.cat([directions[:2], -directions[:1]]), directions[which], k)
    with tiles(scores=1000):
        check(backend, directions[:2], directions[which], k)


def test_near_ties_below_float32_matmul_accuracy_are_ranked_right(backend: str) -> None:
    items = random(30, 64, seed=1).repeat(60, 1)
    items += 2e-7 * random(1800, 64, seed=2) * items.abs()
    check(backend, random(5, 64), items, 40)


@pytest.mark.parametrize("k", [1, 2, 9, 10, 11, 25, 3000])
def test_more_than_there_are_is_padded_with_minus_one(backend: str, k: int) -> None:
    scores, ids = check(backend, random(3, 4), random(10, 4, seed=1), k)
    assert ids.shape == scores.shape == (3, k)
    assert bool((ids[:, 10:] == -1).all())
    assert bool((scores[:, 10:] == -torch.inf).all())


def test_no_queries_and_no_items_are_fine(backend: str) -> None:
    check(backend, random(0, 4), random(10, 4), 3)
    check(backend, random(2, 4), random(0, 4), 3)
    check(backend, random(0, 4), random(0, 4), 1)
    check(backend, random(1, 4), random(1, 4, seed=1), 1)


# ---- everything at once ----

PLAIN = [0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 3.0, 1 / 3, 0.1, 1 + 2**-23, 1 - 2**-24, -7.25]
EXTREME = [1e-45, -1e-45, 1e-38, 1e-20, 1e20, -1e20, 1e30, 3.4028234e38, -3.4028234e38]


def floats(draw: st.DrawFn, pool: list[float], *shape: int) -> torch.Tensor:
    """Mostly one number, so that scores tie, and a few others."""
    single = st.sampled_from([float(np.float32(value)) for value in pool])
    return torch.from_numpy(draw(arrays(np.float32, shape, elements=single, fill=single)))


@st.composite
def tables(draw: st.DrawFn, width: int, dim: int) -> Any:
    """Items in any storage; quantized ones with scales that `quantize` would seldom choose."""
    storage = draw(st.sampled_from(STORAGES))
    if storage in ("float32", "float64"):
        return stored(floats(draw, PLAIN + EXTREME, width, dim), storage)
    if storage in ("float16", "bfloat16"):
        return stored(floats(draw, PLAIN, width, dim), storage)
    dtype, _, scheme = storage.partition("-")
    seed = draw(st.integers(0, 2**16))
    signed = dtype == "int8" and scheme == "symmetric"
    low, high = (-127, 128) if signed else (0, 256)
    codes = torch.randint(
        low,
        high,
        (width, (dim + 1) // 2 if dtype == "int4" else dim),
        generator=torch.Generator().manual_seed(seed),
        dtype=torch.int8 if signed else torch.uint8,
    )
    kind = torch.float16 if dtype == "int4" else torch.float32
    extremes = [6e-8, 1e-5, 4000.0] if dtype == "int4" else [1e-42, 1e-30, 1e30]
    scale = floats(draw, [1.0, 0.5, 1 / 3, 0.1, *extremes], width).to(kind)
    if dtype == "fp8_e4m3":
        codes = codes.where(codes & 127 < 127, 0).view(torch.float8_e4m3fn)  # all but NaN
        return QuantizedTable(codes, scale, None, dtype, dim)
    bias = None if scheme else floats(draw, PLAIN, width).to(kind)
    return QuantizedTable(codes, scale, bias, dtype, dim)


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    count, width, dim = draw(st.tuples(st.integers(0, 4), st.integers(0, 40), st.integers(0, 18)))
    one_list = st.lists(st.integers(0, width - 1), max_size=50) if width else st.just([])
    lists = st.lists(one_list, min_size=count, max_size=count)
    exclude, allow = draw(st.none() | lists), draw(st.none() | lists)
    options: dict[str, Any] = {"metric": draw(st.sampled_from(["cosine", "dot"]))}
    if draw(st.booleans()):
        options["item_bias"] = floats(draw, [*PLAIN, 1e30, -1e-45], width)
    if draw(st.booleans()):
        options["item_scale"] = floats(draw, [*PLAIN, 1e-30, 1e38], width)
    may = oracle.permitted(count, width, exclude=exclude, allow=allow)
    if exclude is not None:
        options["exclude"] = Ragged.of(exclude)
    if allow is not None:
        options["allow"] = Ragged.of(allow)
        if draw(st.booleans()):
            options["allow"] = torch.from_numpy(oracle.permitted(count, width, allow=allow))
    return {
        "queries": floats(draw, draw(st.sampled_from([PLAIN, PLAIN + EXTREME])), count, dim),
        "items": draw(tables(width, dim)),
        "k": draw(st.integers(1, width + 3)),
        "may": may,
        **options,
    }


@settings(max_examples=100)
@given(problem=problems(), packed=st.booleans(), step=st.integers(1, 200), block=st.integers(1, 5))
def test_any_input_gives_the_reference_result(
    backend: str, problem: dict[str, Any], packed: bool, step: int, block: int
) -> None:
    problem = dict(problem)
    if packed:
        problem["items"] = pack(problem["items"], backend=backend)
    with tiles(scores=step, queries=block):
        check(backend, **problem)
