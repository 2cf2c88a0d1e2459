"""`embedding_bag` pools in float32 in the order of the indices, as torch defines each mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F
from cases import SETTINGS, STORAGES, fuses, random, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llmrec_kernels import embedding_bag, quantize

OPS = ("embedding_bag", "quantize")

ROWS, DIM = 23, 13
BAGS = [[4, 0, 22, 4], [], [7], list(range(ROWS)), [5, 5], []]


def flat(bags: list[list[int]], dtype: torch.dtype = torch.int64) -> tuple[Tensor, Tensor]:
    """Indices and the beginnings of the bags."""
    starts = np.cumsum([0, *map(len, bags)])[:-1]
    indices = [row for bag in bags for row in bag]
    return torch.tensor(indices, dtype=dtype), torch.tensor(starts, dtype=dtype)


def split(weights: Tensor, bags: list[list[int]]) -> list[list[float]]:
    return [part.tolist() for part in weights.split([len(bag) for bag in bags])]


def weights_of(bags: list[list[int]], seed: int = 3) -> Tensor:
    return random(sum(map(len, bags)), seed=seed)


# ---- forward, bit for bit ----


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("storage", STORAGES)
def test_every_storage_is_pooled_in_index_order(backend: str, storage: str, mode: str) -> None:
    table = stored(random(ROWS, DIM), storage)
    result = embedding_bag(table, *flat(BAGS), mode=mode, backend=backend)
    oracle.assert_same_bits(result, oracle.pooled(table, BAGS, mode, fuse=fuses(backend)))


@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8", "int4"])
def test_weighted_rows_are_pooled_in_index_order(backend: str, storage: str, mode: str) -> None:
    table, weights = stored(random(ROWS, DIM), storage), weights_of(BAGS)
    result = embedding_bag(
        table, *flat(BAGS), mode=mode, per_sample_weights=weights, backend=backend
    )
    oracle.assert_same_bits(
        result, oracle.pooled(table, BAGS, mode, split(weights, BAGS), fuse=fuses(backend))
    )


@pytest.mark.parametrize("dim", [0, 1, 7, 8, 9, 31, 64, 383])
def test_any_dimension_is_pooled(backend: str, dim: int) -> None:
    for dtype in ("int8", "int4"):
        table = quantize(random(ROWS, dim), dtype, backend=backend)
        result = embedding_bag(table, *flat(BAGS), backend=backend)
        oracle.assert_same_bits(result, oracle.pooled(table, BAGS, fuse=fuses(backend)))


def test_long_bags_keep_the_order_of_their_indices(backend: str) -> None:
    table = random(500, 40) * 10.0 ** torch.arange(-10, 10).repeat(25)[:, None]
    order = torch.randint(500, (30000,), generator=torch.Generator().manual_seed(1)).tolist()
    bags = [order[:25000], order[25000:25001], order[25001:]]
    for mode in ("sum", "mean"):
        result = embedding_bag(table, *flat(bags), mode=mode, backend=backend)
        oracle.assert_same_bits(result, oracle.pooled(table, bags, mode, fuse=fuses(backend)))
    backwards = [bag[::-1] for bag in bags]
    result = embedding_bag(table, *flat(backwards), backend=backend)
    oracle.assert_same_bits(result, oracle.pooled(table, backwards, fuse=fuses(backend)))


def test_an_empty_bag_is_zeros_in_every_mode(backend: str) -> None:
    for mode in ("sum", "mean", "max"):
        table = random(ROWS, DIM) - 10
        result = embedding_bag(table, *flat([[], [1], []]), mode=mode, backend=backend)
        assert result[0].tolist() == result[2].tolist() == [0.0] * DIM
        assert bool((result[1] < 0).all())
        empty = torch.empty(0, dtype=torch.int64)
        assert embedding_bag(table, empty, empty, mode=mode, backend=backend).shape == (0, DIM)
        assert embedding_bag(
            table[:0], empty, torch.tensor([0]), mode=mode, backend=backend
        ).tolist()
        zeros = embedding_bag(table, empty.view(2, 0), mode=mode, backend=backend)
        assert zeros.tolist() == [[0.0] * DIM] * 2


@pytest.mark.parametrize("padding", [4, 0, 22, -1, -ROWS])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_padding_does_not_count(backend: str, mode: str, padding: int) -> None:
    table, bags = random(ROWS, DIM), [*BAGS, [padding % ROWS] * 3]
    options = {"mode": mode, "padding_idx": padding, "backend": backend}
    result = embedding_bag(table, *flat(bags), **options)
    want = oracle.pooled(table, bags, mode, padding=padding % ROWS, fuse=fuses(backend))
    oracle.assert_same_bits(result, want)
    if mode != "max":
        weights = weights_of(bags)
        result = embedding_bag(table, *flat(bags), per_sample_weights=weights, **options)
        want = oracle.pooled(
            table, bags, mode, split(weights, bags), padding % ROWS, fuse=fuses(backend)
        )
        oracle.assert_same_bits(result, want)


def test_a_mean_of_weights_that_cancel_is_zeros(backend: str) -> None:
    weights = torch.tensor([1.0, -1.0, 0.0, 2.0])
    table, (indices, offsets) = random(ROWS, DIM), flat([[1, 2], [3], [4]])
    result = embedding_bag(
        table, indices, offsets, mode="mean", per_sample_weights=weights, backend=backend
    )
    assert result[:2].tolist() == [[0.0] * DIM] * 2
    oracle.assert_same_bits(result[2], oracle.widen(table[4]) * np.float32(2) / np.float32(2))


def test_two_dimensional_indices_are_bags_of_one_length(backend: str) -> None:
    table, grid = random(ROWS, DIM), torch.tensor([[3, 1, 3], [0, 22, 5]])
    for indices in (grid, grid.int(), grid.T.contiguous().T, grid.repeat_interleave(2, 1)[:, ::2]):
        result = embedding_bag(table, indices, backend=backend)
        oracle.assert_same_bits(result, oracle.pooled(table, grid.tolist(), fuse=fuses(backend)))
    weights = random(2, 3, seed=2)
    result = embedding_bag(
        table, grid, per_sample_weights=weights.T.contiguous().T, mode="mean", backend=backend
    )
    want = oracle.pooled(table, grid.tolist(), "mean", weights.tolist(), fuse=fuses(backend))
    oracle.assert_same_bits(result, want)


def test_the_last_offset_may_be_given(backend: str) -> None:
    table, (indices, offsets) = random(ROWS, DIM), flat(BAGS)
    bounds = torch.cat([offsets, torch.tensor([len(indices)])])
    result = embedding_bag(table, indices, bounds, include_last_offset=True, backend=backend)
    oracle.assert_same_bits(result, oracle.pooled(table, BAGS, fuse=fuses(backend)))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_indices_of_any_integer_type(backend: str, dtype: torch.dtype) -> None:
    table = random(ROWS, DIM)
    result = embedding_bag(table, *flat(BAGS, dtype), backend=backend)
    oracle.assert_same_bits(result, oracle.pooled(table, BAGS, fuse=fuses(backend)))


def test_normalized_bags_have_length_one_or_zero(backend: str) -> None:
    table, bags = random(ROWS, DIM) * 10.0 ** torch.arange(-12, 11)[:, None], [*BAGS, [0], [22]]
    for mode in ("sum", "mean", "max"):
        result = embedding_bag(table, *flat(bags), mode=mode, normalize=True, backend=backend)
        want = oracle.normalized(oracle.pooled(table, bags, mode, fuse=fuses(backend)))
        oracle.assert_same_bits(result, want)
        lengths = result.double().norm(dim=1)
        expected = torch.tensor([float(len(bag) > 0) for bag in bags]).double()
        torch.testing.assert_close(lengths, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_result_is_rounded_once_to_its_dtype(backend: str, dtype: torch.dtype) -> None:
    table = random(ROWS, DIM).bfloat16()
    for normalize in (False, True):
        options = {"mode": "mean", "normalize": normalize, "backend": backend}
        wide = embedding_bag(table, *flat(BAGS), **options)
        narrow = embedding_bag(table, *flat(BAGS), out_dtype=dtype, **options)
        assert narrow.dtype == dtype
        assert torch.equal(narrow, wide.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_to_a_narrow_dtype_is_that_of_torch(backend: str, dtype: torch.dtype) -> None:
    exact = torch.arange(0, 2**15, dtype=torch.int16).view(dtype)
    exact = exact[exact.isfinite()].float()
    halfway = (exact[1:] + exact[:-1]) / 2
    beside = [halfway.nextafter(torch.tensor(float(x))) for x in (0, torch.inf)]
    largest = torch.finfo(dtype).max * torch.tensor([1.0, 1.0002, 1.0005, 1.001, 1.002, 1.004])
    numbers = torch.cat([exact, halfway, *beside, largest, torch.full((1,), 1e-45)])
    numbers = torch.cat([numbers, -numbers])[:, None]
    each = torch.arange(len(numbers))
    rounded = embedding_bag(numbers, each[:, None], out_dtype=dtype, backend=backend)
    want = (numbers + 0.0).to(dtype).view(torch.int16)
    oracle.assert_same_bits(rounded.view(torch.int16), want.numpy())


def test_memory_layout_changes_nothing(backend: str) -> None:
    table, (indices, offsets), weights = random(ROWS, DIM), flat(BAGS), weights_of(BAGS)
    want = oracle.pooled(table, BAGS, "sum", split(weights, BAGS), fuse=fuses(backend))
    for change in (
        lambda t: t.repeat_interleave(2, dim=-1)[..., ::2],
        lambda t: torch.cat([t[:1], t])[1:],
        lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0),
        lambda t: t.flip(0).numpy()[::-1],
    ):
        result = embedding_bag(
            change(table), change(indices), change(offsets), per_sample_weights=change(weights),
            backend=backend,
        )  # fmt: skip
        oracle.assert_same_bits(torch.as_tensor(result), want)


def test_results_come_back_in_the_library_of_the_indices(backend: str) -> None:
    table, (indices, offsets) = random(ROWS, DIM), flat(BAGS)
    array = embedding_bag(table, indices.numpy(), offsets.numpy(), backend=backend)
    assert isinstance(array, np.ndarray)
    tensor = embedding_bag(table.numpy(), indices, offsets, backend=backend)
    oracle.assert_same_bits(tensor, array)


@pytest.mark.parametrize("setting", [name for name in SETTINGS if name != "small tiles"])
def test_no_setting_of_torch_changes_a_bit(backend: str, setting: str) -> None:
    table, (indices, offsets), weights = random(ROWS, DIM), flat(BAGS), weights_of(BAGS)
    for mode, share in (("mean", weights), ("mean", None), ("max", None)):
        with SETTINGS[setting]():
            result = embedding_bag(
                table, indices, offsets, mode=mode, per_sample_weights=share, backend=backend
            )
        split_share = None if share is None else split(share, BAGS)
        oracle.assert_same_bits(
            result, oracle.pooled(table, BAGS, mode, split_share, fuse=fuses(backend))
        )


@settings(max_examples=100)
@given(
    bags=st.lists(st.lists(st.integers(0, 9), max_size=8), max_size=8),
    storage=st.sampled_from(STORAGES),
    mode=st.sampled_from(["sum", "mean", "max"]),
    dim=st.integers(0, 20),
    weighted=st.booleans(),
    padding=st.none() | st.integers(-10, 9),
    normalize=st.booleans(),
)
def test_any_bags_are_pooled_bit_for_bit(
    backend: str, bags: list[list[int]], storage: str, mode: str, dim: int, weighted: bool,
    padding: int | None, normalize: bool,
) -> None:  # fmt: skip
    table = random(10, dim) * torch.tensor([1, 1, 1e-3, 1e-42, 1e3, 0, -1, 1, 30, 1])[:, None]
    rows = stored(table, storage)
    weights = weights_of(bags) if weighted and mode != "max" else None
    result = embedding_bag(
        rows, *flat(bags), mode=mode, per_sample_weights=weights, padding_idx=padding,
        normalize=normalize, backend=backend,
    )  # fmt: skip
    shares = None if weights is None else split(weights, bags)
    hidden = None if padding is None else padding % 10
    want = oracle.pooled(rows, bags, mode, shares, hidden, fuse=fuses(backend))
    want = oracle.normalized(want) if normalize else want
    if mode == "max":  # of 0.0 and -0.0 either is the maximum
        want, result = want + np.float32(0), result + 0.0
    oracle.assert_same_bits(result, want)


# ---- torch is the judge ----


@pytest.mark.parametrize("padding", [None, 5])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_values_and_gradients_are_those_of_torch(
    backend: str, mode: str, weighted: bool, padding: int | None
) -> None:
    if weighted and mode != "sum":
        weighted = False  # torch has weights for sums only
    indices, offsets = flat(BAGS)
    results = []
    for run in (embedding_bag, F.embedding_bag):
        table = random(ROWS, DIM).requires_grad_()
        weights = weights_of(BAGS).requires_grad_() if weighted else None
        order = (table, indices) if run is embedding_bag else (indices, table)
        options: dict[str, Any] = {"backend": backend} if run is embedding_bag else {}
        pooled = run(
            *order, offsets, mode=mode, per_sample_weights=weights, padding_idx=padding, **options
        )
        (pooled * random(len(BAGS), DIM, seed=8)).sum().backward()
        results.append((pooled, table.grad, None if weights is None else weights.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def formula(table: Tensor, weights: Tensor, mode: str, normalize: bool) -> Tensor:
    rows = []
    for number, bag in enumerate(BAGS):
        share = weights.split([len(bag) for bag in BAGS])[number].double()
        total = (table.double()[bag] * share[:, None]).sum(0)
        total = total / share.sum() if mode == "mean" and bag else total
        rows.append(total / total.norm() if normalize and bag else total)
    return torch.stack(rows)


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_gradients_are_those_of_differences(backend: str, mode: str) -> None:
    bags = [[4, 0, 2, 4], [], [1]]

    def pool(table: Tensor, weights: Tensor) -> Tensor:
        return embedding_bag(
            table, *flat(bags), mode=mode, per_sample_weights=weights, backend=backend
        )

    # Pooling is float32, so that smaller differences would be nothing but rounding.
    leaves = [random(5, 3).double(), weights_of(bags).abs().double() + 1]
    leaves = [values.requires_grad_() for values in leaves]
    assert torch.autograd.gradcheck(pool, leaves, eps=2**-7, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradients_of_weighted_and_normalized_bags(
    backend: str, dtype: torch.dtype, mode: str, normalize: bool
) -> None:
    table = random(ROWS, DIM).to(dtype).requires_grad_()
    weights = (weights_of(BAGS).abs() + 0.1).requires_grad_()
    pooled = embedding_bag(
        table, *flat(BAGS), mode=mode, per_sample_weights=weights, normalize=normalize,
        backend=backend,
    )  # fmt: skip
    factors = random(len(BAGS), DIM, seed=8)
    actual = torch.autograd.grad((pooled * factors).sum(), [table, weights])
    wanted = formula(table, weights, mode, normalize) * factors
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    for got, want in zip(actual, torch.autograd.grad(wanted.sum(), [table, weights]), strict=True):
        assert got.dtype == want.dtype
        torch.testing.assert_close(got, want, atol=tolerance, rtol=tolerance)


def test_a_bag_of_length_zero_gives_no_gradient_of_its_norm(backend: str) -> None:
    table = torch.zeros(3, 2, requires_grad=True)
    embedding_bag(
        table, torch.tensor([[0, 1], [2, 2]]), normalize=True, backend=backend
    ).sum().backward()
    assert table.grad is not None
    assert table.grad.tolist() == [[0.0, 0.0]] * 3


def test_gradients_reach_the_weights_of_a_quantized_table(backend: str) -> None:
    table = quantize(random(ROWS, DIM), backend=backend)
    gradients = []
    for rows in (table, table.dequantize()):
        weights = weights_of(BAGS).requires_grad_()
        pooled = embedding_bag(rows, *flat(BAGS), per_sample_weights=weights, backend=backend)
        gradients.append(torch.autograd.grad(pooled.pow(2).sum(), weights)[0])
    torch.testing.assert_close(*gradients)


def test_narrow_results_pass_gradients_too(backend: str) -> None:
    table = random(ROWS, DIM).requires_grad_()
    pooled = embedding_bag(table, *flat(BAGS), out_dtype=torch.bfloat16, backend=backend)
    pooled.float().sum().backward()
    counts = torch.bincount(flat(BAGS)[0], minlength=ROWS).float()
    assert torch.equal(table.grad, counts[:, None].expand(ROWS, DIM))


def test_a_mean_counts_more_entries_than_float32_can(backend: str) -> None:
    count = 2**24 + 2**22
    indices = torch.zeros(count, dtype=torch.int64)
    indices[:1000] = 1
    found = embedding_bag(
        torch.tensor([[0.0], [1.0]]), indices, torch.tensor([0]), mode="mean", backend=backend
    )
    assert found.item() == torch.tensor(1000 / count, dtype=torch.float32).item()
