"""The NVRTC rooms of embedding_bag, quantize and pack, their kernels emulated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import nvrtc_stand_in
import oracle
import pytest
import torch
from cases import STORAGES, random, stored
from torch import Tensor

from llmrec_kernels import Ragged
from llmrec_kernels.ops.quantize.reference import DTYPES
from llmrec_kernels.ops.rows import Rows, rows_of

pytestmark = nvrtc_stand_in.emulates
KEPT = [name for name in STORAGES if name != "float64"]
BAGS = [[4, 0, 22, 4], [], [7], list(range(23)), [5, 5]]


@pytest.fixture(autouse=True)
def _emulated() -> Iterator[None]:
    with nvrtc_stand_in.installed():
        yield


def pool(
    rows: Rows, bags: list[list[int]], mode: str = "sum", weights: Tensor | None = None,
    padding: int = -1, normalize: bool = False, out_dtype: int = 0,
) -> Tensor:  # fmt: skip
    lists = Ragged.of(bags)
    pooled: Tensor = torch.ops.llmrec.embedding_bag_nvrtc(
        rows.data, rows.scale, rows.bias, rows.bits, rows.dim, lists.values, lists.offsets,
        ("sum", "mean", "max").index(mode), weights, padding, normalize, out_dtype,
    )  # fmt: skip
    return pooled


def same(found: Any, want: Any) -> None:
    for ours, theirs in zip(found, want, strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        ours, theirs = (part.contiguous().flatten() for part in (ours, theirs))
        assert torch.equal(ours.view(torch.uint8), theirs.view(torch.uint8))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("storage", KEPT)
def test_bags_have_the_bits_of_fused_sums_in_index_order(storage: str, mode: str) -> None:
    for dim in (13, 32):
        table = stored(random(23, dim), storage)
        result = pool(rows_of("table", table), BAGS, mode)
        oracle.assert_same_bits(result, oracle.pooled(table, BAGS, mode, fuse=True))
        if mode != "max":
            weights = random(sum(map(len, BAGS)), seed=3)
            shares = [part.tolist() for part in weights.split([len(bag) for bag in BAGS])]
            result = pool(rows_of("table", table), BAGS, mode, weights, padding=4)
            want = oracle.pooled(table, BAGS, mode, shares, 4, fuse=True)
            oracle.assert_same_bits(result, want)


@pytest.mark.parametrize("dim", [1, 16, 130])
def test_normalized_and_narrow_bags(dim: int) -> None:
    table = random(23, dim)
    pooled = oracle.pooled(table, BAGS, fuse=True)
    for number, dtype in enumerate((torch.float32, torch.float16, torch.bfloat16)):
        rows = rows_of("table", table)
        for normalize, want in ((False, pooled), (True, oracle.normalized(pooled))):
            found = pool(rows, BAGS, normalize=normalize, out_dtype=number)
            same([found], [torch.from_numpy(want).to(dtype)])


def test_tables_need_not_lie_side_by_side() -> None:
    wide = random(46, 30)
    for table in (wide[::2, 3:16], wide[::2, ::2], wide.t()[:23, :13]):
        want = oracle.pooled(table.contiguous(), BAGS, fuse=True)
        oracle.assert_same_bits(pool(rows_of("table", table), BAGS), want)


def test_no_bags_and_empty_bags() -> None:
    rows = rows_of("table", random(5, 4))
    assert pool(rows, []).shape == (0, 4)
    assert pool(rows, [[], []]).tolist() == [[0.0] * 4] * 2
    assert pool(rows_of("table", random(5, 0)), [[1], []]).shape == (2, 0)
    assert pool(rows_of("table", random(0, 4)), [[]], "max").tolist() == [[0.0] * 4]


def test_indices_and_offsets_that_slipped_through_read_nothing_outside() -> None:
    table, far = random(9, 8), 2**40
    indices = torch.tensor([0, -1, 9, far, 3, -far, 2, 2])
    for mode, name in enumerate(("sum", "mean", "max")):
        arguments = (table, None, None, 0, 8, indices, torch.tensor([0, 5, 8]), mode)
        pooled = torch.ops.llmrec.embedding_bag_nvrtc(*arguments, None, -1, False, 0)
        oracle.assert_same_bits(pooled, oracle.pooled(table, [[0, 3], [2, 2]], name, fuse=True))
    for bad in ([-5, 3, 2, far], [8, -(2**63), 2**63 - 1], [0, 2**63 - 1, 0]):
        pooled = torch.ops.llmrec.embedding_bag_nvrtc(
            table, None, None, 0, 8, indices[:5], torch.tensor(bad), 0, None, -1, False, 0
        )
        assert pooled.isfinite().all()


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("dtype", range(5), ids=DTYPES)
def test_quantized_rows_have_the_bits_of_the_reference(dtype: int, symmetric: bool) -> None:
    for dim, source in ((1, "float32"), (13, "float16"), (64, "bfloat16"), (300, "float32")):
        weight = stored(random(11, dim) * 10.0 ** torch.linspace(-4, 4, 11)[:, None], source)
        weight[0], weight[1, 0] = 2.0, 0.0
        for held in (weight, weight[::2], weight.t().contiguous().t()):
            found = torch.ops.llmrec.quantize_nvrtc(held, dtype, symmetric)
            same(found, torch.ops.llmrec.quantize_reference(held, dtype, symmetric))
    for shape in ((3, 0), (0, 3), (0, 0)):
        found = torch.ops.llmrec.quantize_nvrtc(torch.empty(shape), dtype, symmetric)
        same(found, torch.ops.llmrec.quantize_reference(torch.empty(shape), dtype, symmetric))


def test_a_row_with_nan_stays_in_its_row() -> None:
    weight = random(5, 7)
    weight[2, 3], weight[3, 1] = torch.nan, torch.inf
    for dtype in range(3):
        codes, numbers = torch.ops.llmrec.quantize_nvrtc(weight, dtype, True)
        clean = torch.ops.llmrec.quantize_reference(weight[[0, 1, 4]], dtype, True)[0]
        assert torch.equal(codes.view(torch.uint8)[[0, 1, 4]], clean.view(torch.uint8))
        assert numbers[:, 0].isnan().tolist() == [False, False, True, True, False]


@pytest.mark.parametrize("storage", KEPT)
def test_packed_rows_have_the_bits_of_the_reference(storage: str) -> None:
    for count, dim in ((1, 1), (17, 13), (33, 130), (16, 800)):
        vectors = random(count, dim) * 10.0 ** torch.linspace(-4, 4, count)[:, None]
        vectors[0] = 0
        rows = rows_of("items", stored(vectors, storage))
        arguments = (rows.data, rows.scale, rows.bias, rows.bits, rows.dim)
        found = torch.ops.llmrec.pack_nvrtc(*arguments)
        same(found, torch.ops.llmrec.pack_reference(*arguments))


def test_items_that_are_not_finite_have_no_norm() -> None:
    items = random(18, 5)
    items[3, 4], items[17, 0] = torch.nan, -torch.inf
    _, norms, _, unit_scale, residual = torch.ops.llmrec.pack_nvrtc(items, None, None, 0, 5)
    bad = [row in (3, 17) for row in range(18)]
    assert norms.isnan().tolist() == bad
    assert (unit_scale == 0).tolist() == bad
    assert (residual == 1).tolist() == bad
    assert [len(part) for part in torch.ops.llmrec.pack_nvrtc(items[:0], None, None, 0, 5)] == [
        0, 0, 0, 0, 0,
    ]  # fmt: skip
