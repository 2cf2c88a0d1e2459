"""`quantize` rounds each row to its nearest codes, within an error that is stated."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
import torch
from cases import SETTINGS, random
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.utils._python_dispatch import TorchDispatchMode

from llmrec_kernels import QuantizedTable, embedding_bag, quantize
from llmrec_kernels.ops.quantize import reference

OPS = ("quantize",)

DTYPES = ("int8", "int4")
SCHEMES = ("affine", "symmetric")
STORED = {"int8": torch.float32, "int4": torch.float16}
TOP = {
    ("int8", "affine"): 255,
    ("int4", "affine"): 15,
    ("int8", "symmetric"): 127,
    ("int4", "symmetric"): 7,
}
both = pytest.mark.parametrize("dtype", DTYPES)
schemes = pytest.mark.parametrize("scheme", SCHEMES)


def stated_error(weight: np.ndarray, table: QuantizedTable) -> np.ndarray:
    """The bound of the documentation for each row, [V, 1] float64, without the last rounding."""
    scale = table.scale.double().numpy()[:, None]
    unit, smallest = (2.0**-24, 2.0**-149) if table.dtype == "int8" else (2.0**-11, 2.0**-24)
    top = TOP[table.dtype, table.scheme]
    error = scale / 2 + top * np.maximum(unit * scale, smallest / 2)
    if table.bias is not None and table.dtype == "int4":
        low = np.abs(weight.min(axis=1, initial=np.inf)[:, None].astype(np.float64))
        error = error + np.maximum(unit * low, smallest / 2)
    return error


def check_error(weight: np.ndarray, table: QuantizedTable) -> None:
    values = table.dequantize().numpy().astype(np.float64)
    exact = weight.astype(np.float64)
    if weight.size == 0:
        assert values.shape == weight.shape
        return
    # Two float32 roundings: of scale x code, and of the sum with the bias.
    product = TOP[table.dtype, table.scheme] * table.scale.double().numpy()[:, None]
    rounding = 2.0**-24 * (np.abs(values) + product) + 2.0**-149
    error = np.abs(values - exact)
    assert (error <= stated_error(weight, table) + rounding).all()
    # A row that is too narrow for its scale's type is still no farther off than it is wide.
    low, high = exact.min(axis=1), exact.max(axis=1)
    width = high - low if table.scheme == "affine" else np.maximum(high, -low)
    base = 2.0**-11 * np.abs(low) + 2.0**-25 if table.dtype == "int4" else 0.0
    assert (error <= (width + base)[:, None] + rounding).all()


@both
@schemes
@pytest.mark.parametrize("dim", [0, 1, 2, 3, 8, 65, 384])
def test_the_error_is_within_the_stated_bound(
    backend: str, dtype: str, scheme: str, dim: int
) -> None:
    for weight in (
        random(50, dim),
        random(50, dim) * 0.01 + 3,
        random(50, dim) * 10.0 ** torch.arange(-45, 5)[:, None],
        torch.rand(50, dim, generator=torch.Generator().manual_seed(1)) - 1,
        torch.full((2, dim), 0.3),
        torch.zeros(2, dim),
    ):
        table = quantize(weight, dtype, scheme=scheme, backend=backend)
        assert table.shape == weight.shape
        check_error(weight.numpy(), table)


POOL = [0.0, -0.0, 1.0, -1.0, 0.5, 1 / 3, 1e-45, -1e-45, 1e-40, 1e-38, 1e-8, 6e-8, 1e-4, 100.0]
POOL += [1 + 2**-23, 1 - 2**-24, 65504.0, -65000.0, 1e9, 1e30, -1e36]
ELEMENTS = {
    dtype: st.sampled_from([float(np.float32(x)) for x in POOL if abs(x) <= largest])
    for dtype, largest in (("int8", 1e36), ("int4", 65504.0))
}


@settings(max_examples=150)
@given(data=st.data(), dtype=st.sampled_from(DTYPES), scheme=st.sampled_from(SCHEMES))
def test_the_error_is_within_the_stated_bound_for_any_row(
    backend: str, data: st.DataObject, dtype: str, scheme: str
) -> None:
    shape = data.draw(st.tuples(st.integers(0, 5), st.integers(0, 9)))
    elements = ELEMENTS[dtype]
    weight = data.draw(arrays(np.float32, shape, elements=elements, fill=elements))
    table = quantize(weight, dtype, scheme=scheme, backend=backend)
    check_error(weight, table)
    oracle.assert_same_bits(table.dequantize(), oracle.widen(table))
    reference = quantize(weight, dtype, scheme=scheme, backend="reference")
    assert torch.equal(table.codes, reference.codes)
    oracle.assert_same_bits(table.scale.float(), reference.scale.float().numpy())
    assert table.bias is None or torch.equal(table.bias, reference.bias)


@both
@schemes
def test_codes_are_the_nearest_ties_to_even(backend: str, dtype: str, scheme: str) -> None:
    table = quantize(random(40, 33), dtype, scheme=scheme, backend=backend)
    low = table.bias.double()[:, None] if table.bias is not None else 0.0
    top = TOP[dtype, scheme]
    bottom = -top if scheme == "symmetric" else 0
    nearest = np.rint(
        (random(40, 33).double() - low).numpy() / table.scale.double().numpy()[:, None]
    )
    codes = QuantizedTable(
        table.codes, torch.ones_like(table.scale),
        None if table.bias is None else torch.zeros_like(table.scale), dtype, 33,
    )  # fmt: skip
    assert np.array_equal(codes.dequantize().numpy(), nearest.clip(bottom, top))


def test_a_tie_goes_to_the_even_code(backend: str) -> None:
    weight = torch.tensor([[-127.0, 0.5, 1.5, 2.5, -0.5, -1.5]])
    table = quantize(weight, scheme="symmetric", backend=backend)
    assert table.codes.tolist() == [[-127, 0, 2, 2, 0, -2]]
    weight = torch.tensor([[0.0, 15.0, 0.5, 1.5, 2.5, 14.5]])
    table = quantize(weight, "int4", backend=backend)
    assert table.codes.tolist() == [[0 | 15 << 4, 0 | 2 << 4, 2 | 14 << 4]]


@pytest.mark.parametrize("name", ["normal", "uniform", "shifted", "mixed"])
def test_rows_are_those_of_torch_prepack(backend: str, name: str) -> None:
    weight = {
        "normal": random(800, 66),
        "uniform": torch.rand(800, 64, generator=torch.Generator().manual_seed(1)),
        "shifted": random(800, 64) * 0.01 + 3,
        "mixed": random(800, 64) * 10.0 ** (torch.arange(800) % 4)[:, None],
    }[name]
    packed = torch.ops.quantized.embedding_bag_4bit_prepack(weight)
    table = quantize(weight, "int4", backend=backend)
    stored = packed[:, -4:].contiguous().view(torch.float16)
    assert torch.equal(table.codes, packed[:, :-4])
    assert torch.equal(torch.stack([table.scale, table.bias], 1), stored)
    packed = torch.ops.quantized.embedding_bag_byte_prepack(weight)
    table = quantize(weight, "int8", backend=backend)
    stored = packed[:, -8:].contiguous().view(torch.float32)
    assert torch.equal(torch.stack([table.scale, table.bias], 1), stored)
    # torch divides by the range plus 1e-8: a code beside a tie may be its neighbour.
    difference = (table.codes.int() - packed[:, :-8].int()).abs()
    assert difference.max() <= 1
    assert difference.double().mean() < 1e-3


def test_rows_that_torch_packed_read_as_torch_reads_them() -> None:
    weight = random(300, 48) * 10.0 ** (torch.arange(300) % 7 - 3)[:, None]
    packed = torch.ops.quantized.embedding_bag_4bit_prepack(weight)
    scale, bias = packed[:, -4:].contiguous().view(torch.float16).unbind(1)
    table = QuantizedTable(packed[:, :-4], scale.clone(), bias.clone(), "int4", 48)
    assert torch.equal(table.dequantize(), torch.ops.quantized.embedding_bag_4bit_unpack(packed))
    packed = torch.ops.quantized.embedding_bag_byte_prepack(weight)
    scale, bias = packed[:, -8:].contiguous().view(torch.float32).unbind(1)
    table = QuantizedTable(packed[:, :-8], scale.clone(), bias.clone(), "int8", 48)
    theirs = torch.ops.quantized.embedding_bag_byte_unpack(packed)
    # torch may fuse the multiply and the add, and so round once where we round twice
    tolerance = 2.0**-24 * (255 * scale + bias.abs())[:, None]
    assert bool(((table.dequantize() - theirs).abs() <= tolerance).all())


@both
@schemes
@pytest.mark.parametrize("dim", [1, 7, 64])
def test_what_a_table_takes_is_what_it_says(
    backend: str, dtype: str, scheme: str, dim: int
) -> None:
    table = quantize(random(20, dim), dtype, scheme=scheme, backend=backend)
    row = dim if dtype == "int8" else (dim + 1) // 2
    metadata = {"int8": 4, "int4": 2}[dtype] * (2 if scheme == "affine" else 1)
    assert table.nbytes == 20 * (row + metadata)
    tensors = [t for t in (table.codes, table.scale, table.bias) if t is not None]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors}
    assert table.nbytes == sum(storage.nbytes() for storage in storages.values())
    assert (table.bias is None) == (scheme == "symmetric")
    assert table.scale.dtype == STORED[dtype]
    assert (len(table), table.shape, table.scheme) == (20, (20, dim), scheme)
    assert str(table.device) == "cpu"


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@both
def test_narrow_and_wide_tables_are_read_as_float32(
    backend: str, dtype: str, kind: torch.dtype
) -> None:
    weight = random(20, 9).to(kind)
    table = quantize(weight, dtype, backend=backend)
    same = quantize(weight.float(), dtype, backend=backend)
    assert torch.equal(table.codes, same.codes)
    assert torch.equal(table.scale, same.scale)


@both
@schemes
def test_constant_rows_come_back_exactly(backend: str, dtype: str, scheme: str) -> None:
    values = torch.tensor([0.0, -0.0, 1.0, -2.5, 0.25, 1000.0])[:, None].expand(6, 5)
    table = quantize(values, dtype, scheme=scheme, backend=backend)
    if scheme == "affine":
        assert torch.equal(table.dequantize(), values)
    torch.testing.assert_close(table.dequantize(), values, rtol=1e-3, atol=0)
    assert bool((table.scale > 0).all())


def test_memory_layout_and_settings_change_nothing(backend: str) -> None:
    weight = random(300, 40)
    expected = quantize(weight, "int4", backend=backend)
    layouts = [weight.T.contiguous().T, weight.repeat_interleave(2, 1)[:, ::2]]
    layouts += [weight.flip(0).numpy()[::-1], torch.cat([weight[:1], weight])[1:]]
    tables = [quantize(layout, "int4", backend=backend) for layout in layouts]
    for setting in SETTINGS.values():
        with setting():
            tables.append(quantize(weight, "int4", backend=backend))
    for table in tables:
        assert torch.equal(table.codes, expected.codes)
        assert torch.equal(table.scale, expected.scale)
        assert torch.equal(table.bias, expected.bias)


def test_many_rows_are_quantized_one_by_one(backend: str) -> None:
    weight = random(5000, 300)  # several blocks
    whole = quantize(weight, backend=backend)
    for row in (0, 3494, 3495, 3496, 4999):
        single = quantize(weight[row : row + 1], backend=backend)
        assert torch.equal(single.codes[0], whole.codes[row])
        assert single.scale[0] == whole.scale[row]


@schemes
def test_a_range_that_the_scale_cannot_hold_is_refused_by_row(backend: str, scheme: str) -> None:
    weight = torch.ones(9, 4)
    weight[7, 2] = 65504.0 * 20
    with pytest.raises(ValueError, match=r"weight .* row 7 .*int4.*scale the weights down"):
        quantize(weight, "int4", scheme=scheme, backend=backend)
    quantize(weight, "int8", scheme=scheme, backend=backend)


def test_a_range_beyond_float32_is_refused(backend: str) -> None:
    weight = torch.tensor([[0.0, 1.0], [-3e38, 3e38]])
    with pytest.raises(ValueError, match=r"weight .* row 1 .*int8"):
        quantize(weight, "int8", backend=backend)
    with pytest.raises(ValueError, match=r"weight .* row 0 .*int4"):
        quantize(weight[1:], "int4", backend=backend)


def test_a_table_moves_between_devices() -> None:
    table = quantize(random(3, 5), "int4")
    assert table.to("meta").codes.device.type == "meta"
    assert torch.equal(table.to("cpu").dequantize(), table.dequantize())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": torch.zeros(3, 4, dtype=torch.int8)}, "codes .*int8.*expected 4 of torch.uint8"),
        ({"codes": torch.zeros(3, 5, dtype=torch.uint8)}, "codes has 5 columns"),
        ({"codes": torch.zeros(3, dtype=torch.uint8)}, "codes has shape"),
        ({"scale": torch.ones(2)}, r"scale has shape \[2\]"),
        ({"scale": torch.ones(3).half()}, "scale .*float16.*expected .*float32"),
        ({"bias": torch.ones(3, 1)}, "bias has shape"),
        ({"bias": torch.ones(3, device="meta")}, "bias is on meta"),
        ({"dtype": "int2"}, "dtype is 'int2'; expected one of 'int8', 'int4'"),
        ({"dtype": "int4"}, "codes has 4 columns"),
    ],
)
def test_a_table_whose_parts_do_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    parts = {"codes": torch.zeros(3, 4, dtype=torch.uint8), "scale": torch.ones(3)}
    parts |= {"bias": torch.zeros(3), "dtype": "int8", "dim": 4}
    QuantizedTable(**parts)
    with pytest.raises(ValueError, match=message):
        QuantizedTable(**{**parts, **change})


# ---- floating-point formats ----

FLOATS = ("fp8_e4m3", "float16", "bfloat16")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("dim", [0, 1, 7, 16, 33])
def test_floats_are_within_half_a_unit_of_their_last_place(
    backend: str, dtype: str, dim: int
) -> None:
    weight = random(40, dim) * 10.0 ** (torch.arange(40) % 9 - 4)[:, None]
    table = quantize(weight, dtype, backend=backend)
    assert (table.shape, table.bias, table.dtype) == (weight.shape, None, dtype)
    exact = weight.double().numpy()
    values = table.dequantize().double().numpy()
    if dtype == "fp8_e4m3":
        scale = table.scale.double().numpy()[:, None]
        bound = np.maximum(2.0**-4 * np.abs(exact), 2.0**-10 * scale) * (1 + 2.0**-20)
    elif dtype == "float16":
        bound = np.maximum(2.0**-11 * np.abs(exact), 2.0**-25)
    else:
        bound = 2.0**-8 * np.abs(exact)
    assert (np.abs(values - exact) <= bound).all()
    oracle.assert_same_bits(table.dequantize(), oracle.widen(table))


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_round_as_torch_rounds(backend: str, dtype: str) -> None:
    kind = {"fp8_e4m3": torch.float8_e4m3fn, "float16": torch.float16, "bfloat16": torch.bfloat16}
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).float()
    every = every[every.isfinite() & (every.abs() < (448 if dtype == "fp8_e4m3" else 65504))]
    beside = [every.nextafter(torch.tensor(0.0)), every * 1.0625, every * 1.00390625]
    near = torch.cat([every, *beside])
    rows = torch.cat([near.clamp(-448, 448), torch.zeros(-len(near) % 64)]).view(-1, 64)
    rows = torch.cat([torch.full((len(rows), 1), 448.0), rows], dim=1)  # a scale of 1
    table = quantize(rows, dtype, backend=backend)
    want = rows.to(kind[dtype])
    width = torch.uint8 if dtype == "fp8_e4m3" else torch.int16
    assert torch.equal(table.codes.view(width), want.view(width))


class DividesAsAGpu(TorchDispatchMode):
    """By a number, torch's CUDA kernel multiplies with its reciprocal, which rounds twice."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.div.Tensor and (number := self.number(args[1])) is not None:
            reciprocal = torch.ones((), dtype=args[0].dtype) / torch.full_like(args[0], number)
            return args[0] * reciprocal
        return func(*args, **(kwargs or {}))

    @staticmethod
    def number(by: Any) -> float | None:
        if isinstance(by, torch.Tensor):
            return by.item() if by.dim() == 0 else None
        return float(by)


@pytest.mark.parametrize("dtype", [*DTYPES, "fp8_e4m3"])
@schemes
def test_the_reference_has_the_same_bits_on_a_gpu(dtype: str, scheme: str) -> None:
    call = (random(2000, 3), reference.DTYPES.index(dtype), scheme == "symmetric")
    codes, numbers = reference.quantize(*call)
    with DividesAsAGpu():
        found = reference.quantize(*call)
    assert torch.equal(found[0].view(torch.uint8), codes.view(torch.uint8))
    assert torch.equal(found[1], numbers)


@pytest.mark.parametrize(("dtype", "largest"), [("float16", 65520.0), ("bfloat16", 3.4e38)])
def test_elements_beyond_a_float_format_are_refused_by_row(
    backend: str, dtype: str, largest: float
) -> None:
    weight = torch.ones(5, 20)
    weight[3, 17] = largest
    with pytest.raises(ValueError, match=rf"weight .* row 3 .*{dtype}.*scale the weights down"):
        quantize(weight, dtype, backend=backend)
    weight[3, 17] = -0.99 * largest
    assert bool(quantize(weight, dtype, backend=backend).dequantize().isfinite().all())


@pytest.mark.parametrize("dtype", [*DTYPES, *FLOATS])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_refused_wherever_it_is(backend: str, dtype: str, bad: float) -> None:
    for place in (0, 15, 16, 18):
        weight = random(6, 19)
        weight[4, place] = bad
        with pytest.raises(ValueError, match="weight holds NaN or Inf in row 4"):
            quantize(weight, dtype, backend=backend)


# ---- state and rows of other libraries ----


@pytest.mark.parametrize("dtype", [*DTYPES, *FLOATS])
@schemes
def test_a_state_dict_holds_the_whole_table(dtype: str, scheme: str) -> None:
    table = quantize(random(5, 7), dtype, scheme=scheme)
    again = QuantizedTable.from_state_dict(table.state_dict())
    assert torch.equal(again.dequantize(), table.dequantize())
    for change in ({"more": 1}, {"dim": None}):
        state = {**table.state_dict(), **change}
        state = {name: value for name, value in state.items() if value is not None}
        with pytest.raises(ValueError, match=r"state has the entries .*expected codes"):
            QuantizedTable.from_state_dict(state)


@both
@pytest.mark.parametrize("dim", [8, 66])
def test_rows_of_torch_come_and_go_without_a_change(dtype: str, dim: int) -> None:
    name = {"int8": "byte", "int4": "4bit"}[dtype]
    prepack, unpack = (
        getattr(torch.ops.quantized, f"embedding_bag_{name}_{what}")
        for what in ("prepack", "unpack")
    )
    packed = prepack(random(50, dim) * 3 + 1)
    table = QuantizedTable.from_rows(packed, dtype, dim)
    assert torch.equal(table.to_rows(), packed)
    torch.testing.assert_close(table.dequantize(), unpack(packed), rtol=0, atol=1e-5)
    ours = quantize(random(50, dim), dtype)
    torch.testing.assert_close(unpack(ours.to_rows()), ours.dequantize(), rtol=0, atol=1e-5)
    lookup = getattr(torch.ops.quantized, f"embedding_bag_{name}_rowwise_offsets")
    indices, offsets = torch.tensor([3, 4, 49]), torch.tensor([0, 1])
    torch.testing.assert_close(
        lookup(ours.to_rows(), indices, offsets), embedding_bag(ours, indices, offsets)
    )


@both
@pytest.mark.parametrize("dim", [1, 7, 8])
def test_rows_of_fbgemm_come_and_go_without_a_change(dtype: str, dim: int) -> None:
    table = quantize(random(9, dim).round(), dtype)
    halves = [number.half().to(number.dtype) for number in (table.scale, table.bias)]
    table = QuantizedTable(table.codes, *halves, dtype, dim)  # type: ignore[arg-type]
    rows = table.to_rows("fbgemm", alignment=16)
    assert rows.shape[1] % 16 == 0
    numbers = rows[:, :4].contiguous().view(torch.float16)
    assert torch.equal(numbers.float(), torch.stack(halves, 1).float())
    width = dim if dtype == "int8" else (dim + 1) // 2
    assert torch.equal(rows[:, 4 : 4 + width], table.codes)
    again = QuantizedTable.from_rows(rows, dtype, dim, layout="fbgemm")
    assert torch.equal(again.dequantize(), table.dequantize())


def test_rows_that_do_not_fit_a_layout_are_refused() -> None:
    table = quantize(random(5, 8))
    with pytest.raises(ValueError, match=r"scale or bias of row 0 is no torch.float16"):
        table.to_rows("fbgemm")
    with pytest.raises(ValueError, match="the table is symmetric"):
        quantize(random(5, 8), scheme="symmetric").to_rows()
    with pytest.raises(ValueError, match="dtype is 'float16'; expected 'int8' or 'int4'"):
        quantize(random(5, 8), "float16").to_rows()
    with pytest.raises(ValueError, match="layout is 'onnx'; expected one of"):
        table.to_rows("onnx")
    with pytest.raises(ValueError, match=r"rows has 16 columns of torch.uint8; expected 17 of"):
        QuantizedTable.from_rows(table.to_rows(), "int8", 9)
    with pytest.raises(ValueError, match="alignment is 8; expected 1"):
        table.to_rows(alignment=8)
