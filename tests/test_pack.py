"""`pack` copies the items once, checked, with the inverse norm of each row at hand."""

from __future__ import annotations

from typing import Any

import oracle
import pytest
import torch
from cases import SETTINGS, STORAGES, random, stored

from llmrec_kernels import PackedItems, cosine_topk, pack

OPS = ("pack", "cosine_topk", "quantize")


@pytest.mark.parametrize("storage", STORAGES)
def test_a_pack_scores_as_its_source_does(backend: str, storage: str) -> None:
    queries, items = random(4, 19), stored(random(60, 19, seed=1), storage)
    packed = pack(items, backend=backend)
    for metric in ("cosine", "dot"):
        of_pack = cosine_topk(queries, packed, 61, metric=metric, backend=backend)
        of_source = cosine_topk(queries, items, 61, metric=metric, backend=backend)
        oracle.assert_same_bits(of_pack.ids, of_source.ids.numpy())
        oracle.assert_same_bits(of_pack.scores, of_source.scores.numpy())


@pytest.mark.parametrize("storage", STORAGES)
def test_inverse_norms_are_those_of_the_definition(backend: str, storage: str) -> None:
    rows = random(40, 21, seed=1)
    rows[3] = 0
    packed = pack(stored(rows, storage), backend=backend)
    oracle.assert_same_bits(
        packed.inverse_norms, oracle.inverse_norms(oracle.widen(stored(rows, storage)))
    )


@pytest.mark.parametrize("magnitude", [1e-45, 1e-38, 1e-20, 1e20, 3e38])
def test_inverse_norms_neither_overflow_nor_vanish(backend: str, magnitude: float) -> None:
    rows = torch.full((2, 9), magnitude)
    packed = pack(rows, backend=backend)
    oracle.assert_same_bits(packed.inverse_norms, oracle.inverse_norms(rows.numpy()))
    assert bool((packed.inverse_norms > 0).all())


@pytest.mark.parametrize("storage", STORAGES)
def test_changing_the_source_does_not_change_the_pack(backend: str, storage: str) -> None:
    queries, items = random(4, 8), stored(random(60, 8, seed=1), storage)
    packed = pack(items, backend=backend)
    before = cosine_topk(queries, packed, 9, backend=backend)
    if isinstance(items, torch.Tensor):
        parts = [items]
    else:
        parts = [part for part in (items.codes, items.scale, items.bias) if part is not None]
    for part in parts:
        part.zero_()
    after = cosine_topk(queries, packed, 9, backend=backend)
    assert torch.equal(before.ids, after.ids)
    assert torch.equal(before.scores, after.scores)


@pytest.mark.parametrize("storage", STORAGES)
def test_what_a_pack_takes_is_what_it_says(backend: str, storage: str) -> None:
    packed = pack(stored(random(20, 10), storage), backend=backend)
    parts = (packed.data, packed.scale, packed.bias, packed.inverse_norms)
    held = sum(part.untyped_storage().nbytes() for part in parts if part is not None)
    assert packed.nbytes == held
    assert (len(packed), packed.shape, packed.dim) == (20, (20, 10), 10)
    narrow = {"float16": 2, "bfloat16": 2}.get(storage, 4)
    if not storage.startswith("int"):
        assert packed.nbytes == 20 * (10 * narrow + 8)


@pytest.mark.parametrize(
    "layout",
    [
        lambda t: t.T.contiguous().T,
        lambda t: t.repeat_interleave(2, 1)[:, ::2],
        lambda t: torch.cat([t[:1], t])[1:],
        lambda t: t.flip(0).numpy()[::-1],
        lambda t: t[:1].expand(30, 12),
    ],
)
def test_any_memory_layout_is_packed_densely(backend: str, layout: Any) -> None:
    rows = layout(random(30, 12))
    packed = pack(rows, backend=backend)
    assert packed.data.is_contiguous()
    oracle.assert_same_bits(packed.data, oracle.widen(rows))


def test_no_rows_and_no_columns_are_packed(backend: str) -> None:
    assert pack(random(0, 5), backend=backend).shape == (0, 5)
    packed = pack(random(3, 0), backend=backend)
    assert packed.inverse_norms.tolist() == [0.0] * 3


def test_settings_of_torch_change_nothing(backend: str) -> None:
    rows = random(700, 65)
    expected = oracle.inverse_norms(rows.numpy())
    for setting in SETTINGS.values():
        with setting():
            packed = pack(rows, backend=backend)
        oracle.assert_same_bits(packed.inverse_norms, expected)
        oracle.assert_same_bits(packed.data, rows.numpy())


def test_a_pack_has_no_gradient(backend: str) -> None:
    packed = pack(random(3, 4).requires_grad_(), backend=backend)
    assert isinstance(packed, PackedItems)
    assert not packed.data.requires_grad
    assert not packed.inverse_norms.requires_grad


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_items_that_are_not_finite_are_refused_by_row(
    backend: str, bad: float, dtype: torch.dtype
) -> None:
    rows = random(5000, 70).to(dtype)
    rows[4321, 69] = bad
    with pytest.raises(ValueError, match="items holds NaN or Inf in row 4321"):
        pack(rows, backend=backend)
