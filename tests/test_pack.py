"""`pack` copies the items once, checked, with the inverse norm and an int8 sketch of each row."""

from __future__ import annotations

import importlib
from fractions import Fraction
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from cases import SETTINGS, STORAGES, random, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llmrec_kernels import PackedItems, QuantizedTable, cosine_topk, pack

OPS = ("pack", "cosine_topk", "quantize")


def assert_sketched(packed: PackedItems, source: Any) -> None:
    """The sketch is that of the definition, bit for bit."""
    assert packed.sketch is not None
    codes, _, unit_scale, residual = oracle.sketch(oracle.widen(source))
    oracle.assert_same_bits(packed.sketch.codes, oracle.interleaved(codes))
    oracle.assert_same_bits(packed.sketch.unit_scale, unit_scale)
    oracle.assert_same_bits(packed.sketch.residual, residual)


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
    packed = pack(stored(random(32, 11), storage), backend=backend)
    assert (len(packed), packed.shape, packed.dim) == (32, (32, 11), 11)
    row = {"float16": 22, "bfloat16": 22, "int8": 11 + 8, "int8-symmetric": 11 + 4, "int4": 6 + 4}
    row |= {"int4-symmetric": 6 + 2, "fp8_e4m3": 11 + 4}
    assert packed.nbytes == held(packed) == 32 * (row.get(storage, 44) + 8 + 12 + 8)
    packed.append(stored(random(1, 11), storage), backend=backend)  # with room for 31 more
    assert packed.nbytes == held(packed) == 64 * (row.get(storage, 44) + 8 + 12 + 8)


def held(packed: PackedItems) -> int:
    return sum(part.untyped_storage().nbytes() for part in oracle.parts(packed))


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
    assert_sketched(packed, rows)


def test_no_rows_and_no_columns_are_packed(backend: str) -> None:
    assert pack(random(0, 5), backend=backend).shape == (0, 5)
    packed = pack(random(3, 0), backend=backend)
    assert packed.inverse_norms.tolist() == [0.0] * 3
    for shape in ((0, 5), (3, 0), (0, 0)):
        assert_sketched(pack(random(*shape), backend=backend), random(*shape))


def test_settings_of_torch_change_nothing(backend: str) -> None:
    rows = random(700, 65)
    expected = pack(rows, backend=backend)
    oracle.assert_same_bits(expected.inverse_norms, oracle.inverse_norms(rows.numpy()))
    oracle.assert_same_bits(expected.data, rows.numpy())
    assert_sketched(expected, rows)
    for setting in SETTINGS.values():
        with setting():
            packed = pack(rows, backend=backend)
        oracle.assert_same_pack(packed, expected)


def test_a_pack_has_no_gradient(backend: str) -> None:
    packed = pack(random(3, 4).requires_grad_(), backend=backend)
    assert isinstance(packed, PackedItems)
    assert not any(part.requires_grad for part in oracle.parts(packed))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_items_that_are_not_finite_are_refused_by_row(
    backend: str, bad: float, dtype: torch.dtype
) -> None:
    rows = random(5000, 70).to(dtype)
    rows[4321, 69] = bad
    with pytest.raises(ValueError, match="items holds NaN or Inf in row 4321"):
        pack(rows, backend=backend)


# ---- the sketch ----

# Finite, whatever is stored: float16 ends at 65504, int4's float16 scale and int8's own far below.
LARGEST = {"float16": 6e4, "int4": 1e4, "int4-symmetric": 1e4, "int8": 1e37, "int8-symmetric": 1e37}


def hard_rows(dim: int) -> torch.Tensor:
    """Rows that round badly, [n, dim] float32."""
    noise = random(6, dim, seed=dim)
    places = torch.arange(dim)
    halves = places % 120 - 59.5  # the largest of 127 makes them ties between two codes
    halves[0] = 127
    outlier, one_hot, cliff = noise[0].clone(), torch.zeros(dim), torch.full((dim,), 1e-45)
    outlier[dim // 2], one_hot[-1], cliff[0] = 1e4, -3.0, 1e30
    ends = [2.0**exponent for exponent in (-100, 100)]
    ends += [
        float(np.nextafter(np.float32(end), np.float32(to))) for end in ends for to in (0, 9e9)
    ]
    magnitudes = [1.0, 0.1, -7.0, 1e-45, 3e-42, 1e-38, 1e-30, 1e30, 1e31, 3e38]
    magnitudes += [float(end) for end in ends]
    rows = [torch.zeros(dim), -torch.zeros(dim), outlier, one_hot, cliff, halves, -halves * 2.0**-9]
    rows += [torch.full((dim,), magnitude) for magnitude in magnitudes]
    rows += [noise[n] * scale for n, scale in enumerate((1e-44, 1e-31, 1e-8, 1e8, 1e29, 1e37))]
    rows += [0.5**places * (-1.0) ** places, 1.0 / (1 + places), places.float()]
    # Within a rounding of ties, where a division that rounds twice shows.
    largest = 1 + torch.rand(30, 1, generator=torch.Generator().manual_seed(dim))
    close = largest * halves / 127
    # 1 of 128 is left out, which a float32 holds; the margin makes it the next one.
    even = torch.tensor([127, 15, 5, 2, 0.5, 0.5, 0.5, 0.5] + [0.0] * dim)[:dim]
    return torch.cat([torch.stack([*rows, even]), close])


@pytest.mark.parametrize("dim", [1, 7, 8, 21])
@pytest.mark.parametrize("storage", STORAGES)
def test_the_sketch_is_that_of_the_definition(backend: str, storage: str, dim: int) -> None:
    largest = LARGEST.get(storage, 3.3e38)
    rows = torch.cat([hard_rows(dim), random(9, dim)]).clamp(-largest, largest)
    source = stored(rows, storage)
    assert_sketched(pack(source, backend=backend), source)


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
def test_codes_with_any_scale_are_sketched(backend: str, dtype: str, scheme: str) -> None:
    scale = [0.0, 1e-45, 1e-40, 1e-33, 1e-20, 0.1, 1.0, 1e20, 1e28, 1e36]
    if dtype == "int4":
        scale = [0.0, 6e-8, 1e-6, 1e-3, 0.1, 1.0, 3.0, 4e3]
    table = stored(random(len(scale), 13), f"{dtype}-{scheme}" if scheme == "symmetric" else dtype)
    scales = torch.tensor(scale).to(table.scale.dtype)
    bias = None if table.bias is None else -7 * scales
    table = QuantizedTable(table.codes, scales, bias, dtype, 13)
    assert_sketched(pack(table, backend=backend), table)


@settings(max_examples=60)
@given(data=st.data(), count=st.integers(0, 35), dim=st.integers(0, 10))
def test_any_rows_are_sketched_by_the_definition(
    backend: str, data: st.DataObject, count: int, dim: int
) -> None:
    numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
    rows = data.draw(arrays(np.float32, (count, dim), elements=numbers))
    assert_sketched(pack(rows, backend=backend), rows)


def test_many_rows_are_sketched_as_few_are(backend: str) -> None:
    rows = random(5000, 70) * torch.logspace(-30, 30, 5000)[:, None]
    packed, step = pack(rows, backend=backend), 48
    assert packed.sketch is not None
    for start in range(0, 5000, step):
        few = pack(rows[start : start + step], backend=backend).sketch
        assert few is not None
        part = packed.sketch.codes[start // 16 : start // 16 + step // 16]
        assert torch.equal(part, few.codes)
        assert torch.equal(packed.sketch.unit_scale[start : start + step], few.unit_scale)
        assert torch.equal(packed.sketch.residual[start : start + step], few.residual)


def test_long_rows_have_small_codes(backend: str) -> None:
    rows = random(3, 70_000) * torch.tensor([1.0, 0.0, 1e20])[:, None]
    packed = pack(rows, backend=backend)
    assert_sketched(packed, rows)
    assert packed.sketch is not None
    assert int(packed.sketch.codes.abs().max()) == 120


def test_rows_too_long_for_any_code_have_none(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dim = 2**31 // 255 + 1
    if backend == "reference":  # takes seconds for that: the bound comes to the row instead
        reference = importlib.import_module("llmrec_kernels.ops.pack.reference")
        monkeypatch.setattr(reference, "_CODE_OF_A_QUERY", 2**31)
        dim = 11
    rows = torch.zeros(2, dim)
    rows[1] = 1.0
    packed = pack(rows, backend=backend)
    assert packed.sketch is not None
    assert not bool(packed.sketch.codes.any())
    assert packed.sketch.unit_scale.tolist() == [0.0, 0.0]
    assert packed.sketch.residual.tolist() == [0.0, 1.0]


def exact(vector: Any) -> list[Fraction]:
    return [Fraction(float(number)) for number in vector]


def dot(a: list[Fraction], b: list[Fraction]) -> Fraction:
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))


def assert_bounded(backend: str, rows: np.ndarray[Any, Any]) -> None:
    """|q . x - step (q . codes)| <= |q| residual |x| in rational numbers, squared."""
    sketch = pack(rows, backend=backend).sketch
    assert sketch is not None
    step, dim = oracle.sketch(rows)[1], rows.shape[1]
    noise = random(2, dim, seed=len(rows)).numpy()
    for i, row in enumerate(rows):
        codes = exact(sketch.codes[i // 16, :, i % 16].flatten()[:dim])
        x, bound = exact(row), Fraction(float(sketch.residual[i]))
        errors = [a - Fraction(float(step[i])) * b for a, b in zip(x, codes, strict=True)]
        # The last two leave the least room: the row's own errors, and their signs.
        queries = [*map(exact, noise), x, exact(np.sign(row)), errors]
        queries += [[Fraction((e > 0) - (e < 0)) for e in errors]]
        for q in queries:
            assert dot(q, errors) ** 2 <= dot(q, q) * bound**2 * dot(x, x)


@pytest.mark.parametrize("dim", [1, 6, 19])
def test_no_query_is_further_off_than_the_residual_says(backend: str, dim: int) -> None:
    assert_bounded(backend, torch.cat([hard_rows(dim), random(40, dim)]).numpy())


@settings(max_examples=40)
@given(data=st.data(), dim=st.integers(1, 9))
def test_no_query_is_further_off_than_the_residual_of_any_row(
    backend: str, data: st.DataObject, dim: int
) -> None:
    numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
    assert_bounded(backend, data.draw(arrays(np.float32, (3, dim), elements=numbers)))
