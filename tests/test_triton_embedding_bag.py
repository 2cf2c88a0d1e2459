"""The Triton bags, every access checked, against the oracle."""

from __future__ import annotations

import oracle
import pytest
import torch
from cases import random, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from triton_rooms import KEPT, room

from llmrec_kernels import Ragged
from llmrec_kernels.ops.rows import Rows, rows_of

pytestmark = pytest.mark.usefixtures("races")
room("embedding_bag")
BAGS = [[4, 0, 22, 4], [], [7], list(range(23)), [5, 5]]


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
    for bad in ([-5, 3, 2, far], [8, -(2**63), 2**63 - 1], [0, 2**63 - 1, 0]):
        pooled = torch.ops.llmrec.embedding_bag_triton(
            table, None, None, 0, 8, indices[:5], torch.tensor(bad), 0, None, -1, False, 0
        )
        assert pooled.isfinite().all()


def test_what_is_no_number_has_no_direction() -> None:
    table, bags = random(4, 9), [[0, 1], [2], [3, 0], []]
    table[1, 4], table[2, 3] = torch.nan, torch.inf
    lists = Ragged.of(bags)
    arguments = (table, None, None, 0, 9, lists.values, lists.offsets, 0, None, -1, True, 0)
    want = torch.ops.llmrec.embedding_bag_reference(*arguments)
    found = torch.ops.llmrec.embedding_bag_triton(*arguments)
    assert want[0].isnan().all()
    torch.testing.assert_close(found, want, equal_nan=True, rtol=2e-7, atol=0)


def test_nan_and_infinity_pass_through_bags() -> None:
    table = random(6, 5)
    table[1, 2], table[2, 3], table[3, 3] = torch.nan, torch.inf, -torch.inf
    bags = [[0, 1], [1, 0], [2, 3], [2, 0], [4, 5]]
    for mode in ("sum", "mean", "max"):
        want = torch.from_numpy(oracle.pooled(table, bags, mode, fuse=True))
        result = pool(rows_of("table", table), bags, mode)
        torch.testing.assert_close(result, want, equal_nan=True, atol=0, rtol=0)
