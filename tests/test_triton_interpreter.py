"""The interpreter of Triton kernels computes as a GPU does, and refuses what a GPU would let pass.

Arithmetic is compared with torch, NumPy or exact fractions, over all patterns of short formats;
faults in memory and races are planted in kernels that do little else.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import pytest
import torch
import triton_interpreter
from torch import Tensor
from triton_interpreter import KernelError, checked, interpreter, tl, triton

triton_interpreter.install()

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
FLOAT8 = {torch.float8_e4m3fn: 448, torch.float8_e5m2: 57344}  # and the largest number
SHORT = [torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def _races() -> Iterator[None]:
    """Each kernel here passes all checks but the one that it is about."""
    with checked():
        yield


@triton.jit
def apply(inputs, out, n, BLOCK: tl.constexpr, FUNCTION: tl.constexpr):
    i = tl.arange(0, BLOCK)
    result = FUNCTION(*[tl.load(x + i, mask=i < n) for x in inputs])
    j = tl.arange(0, result.numel.value)
    tl.store(out + j, tl.reshape(result, j.shape), mask=j < n)


@triton.jit
def perform(x, y, FUNCTION: tl.constexpr):
    FUNCTION(x, y)


def run(function: Callable, *inputs: Tensor, dtype: torch.dtype, size: int | None = None) -> Tensor:
    """A function of blocks that hold all of the inputs, in a kernel; `size` elements come back."""
    n = inputs[0].numel()
    out = torch.empty(size or n, dtype=dtype)
    apply[(1,)](inputs, out, n, triton.next_power_of_2(n), function)
    return out


def cast(values: Tensor, dtype: torch.dtype) -> Tensor:
    return run(lambda x: x, values, dtype=dtype)


def random(seed: int, low: int, high: int, *shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def every(dtype: torch.dtype) -> Tensor:
    """All patterns of a dtype of up to 16 bits."""
    patterns = torch.arange(2 ** (8 * dtype.itemsize), dtype=torch.int32)
    return patterns.to(INTEGERS[dtype.itemsize]).view(dtype)


def around(dtype: torch.dtype) -> Tensor:
    """float32 that are hard to round to a dtype: its numbers, ties, their neighbours, others."""
    numbers = every(dtype).float()
    numbers = numbers[numbers.isfinite()].unique()
    ties = numbers[:-1] + (numbers[1:] - numbers[:-1]) / 2
    beside = [ties.nextafter(torch.tensor(sign * torch.inf)) for sign in (1, -1)]
    largest = torch.tensor([0x7F7F7FFF, 0x7F7F8000, 0x7F800000, 0x7FC00000], dtype=torch.int32)
    bits = torch.cat([largest, -largest, random(1, -(2**31), 2**31, 2**16, dtype=torch.int32)])
    return torch.cat([numbers, ties, *beside, bits.view(torch.float32)])


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """The same bits, but for those of NaN."""
    nan, bits = expected.double().isnan(), INTEGERS[expected.element_size()]
    assert actual.dtype == expected.dtype
    assert torch.equal(actual.double().isnan(), nan)
    assert torch.equal(actual.view(bits)[~nan], expected.view(bits)[~nan])


@pytest.mark.parametrize("target", [torch.float32, *SHORT])
@pytest.mark.parametrize("source", [*SHORT, *FLOAT8])
def test_every_short_float_has_its_value_in_other_formats(source, target) -> None:
    assert_same(cast(every(source), target), every(source).to(target))


def test_bfloat16_is_rounded_to_nearest_even() -> None:
    values = around(torch.bfloat16)
    assert_same(cast(values, torch.bfloat16), values.bfloat16())


@pytest.mark.parametrize("source", [torch.float32, *SHORT])
@pytest.mark.parametrize("target", FLOAT8)
def test_float8_is_rounded_to_nearest_even_and_saturates(source, target) -> None:
    values = around(target).to(source)
    expected = values.float().clamp(-FLOAT8[target], FLOAT8[target]).to(target)
    assert_same(cast(values, target), expected)


def test_wide_numbers_are_rounded_to_bfloat16_once() -> None:
    """Rounded to float32 before, each of these would be a tie, and go the other way."""
    wide = torch.tensor([1 + 2**-8 + 2**-40, -1 - 3 * 2**-8 + 2**-40], dtype=torch.float64)
    assert cast(wide, torch.bfloat16).tolist() == [1 + 2**-7, -1 - 2**-7]
    assert cast(torch.tensor([2**30 + 2**22 + 1]), torch.bfloat16).item() == 2**30 + 2**23


FUNCTIONS = {
    **{name: getattr(operator, name) for name in ("add", "sub", "mul", "eq", "ne", "lt", "ge")},
    "true_divide": operator.truediv,
    "fmin": lambda x, y: tl.minimum(x, y),
    "fmax": lambda x, y: tl.maximum(x, y),
    "maximum": lambda x, y: tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL),
}


@pytest.mark.parametrize("dtype", SHORT)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_arithmetic_of_every_short_float_is_that_of_torch(name, dtype) -> None:
    x = every(dtype)
    y = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(2))]
    expected = getattr(torch, name)(1 * x.float(), 1 * y.float()).to(dtype)  # 1 * NaN is quiet
    actual = run(FUNCTIONS[name], x, y, dtype=dtype)
    assert_same(actual + 0, expected + 0)  # which of two zeros is the larger is open


def test_constants_and_clamp_are_those_of_bfloat16() -> None:
    x = every(torch.bfloat16)
    expected = (x * 1.5 + 0.25).clamp(-2, 2)
    actual = run(lambda x: tl.clamp(x * 1.5 + 0.25, -2, 2), x, dtype=torch.bfloat16)
    assert_same(actual, expected.where(~expected.isnan(), -2))


def test_float_and_bool_arguments_are_as_in_a_compiled_kernel() -> None:
    out = torch.empty(1, dtype=torch.float64)
    perform[(1,)](out, 0.1, lambda out, scale: tl.store(out, scale * scale))
    assert out.item() == np.float32(0.1) * np.float32(0.1) != 0.1 * 0.1
    perform[(1,)](out, True, lambda out, flag: tl.store(out, tl.where(flag, 1, 2)))
    assert out.item() == 1


@pytest.mark.parametrize("dtype", FLOAT8)
def test_arithmetic_in_float8_is_refused(dtype) -> None:
    with pytest.raises(interpreter.InterpreterError, match=r"add of fp8.* does not compile"):
        run(operator.add, every(dtype), every(dtype), dtype=dtype)


def nearest(exact: Fraction, dtype: torch.dtype) -> float:
    """The number of a dtype nearest to a fraction, which is well within its range."""
    bits = torch.tensor(float(exact)).to(dtype).view(INTEGERS[dtype.itemsize])
    near = [(bits + step).view(dtype).item() for step in (-1, 0, 1)]
    parity = {number: int(bits + step) % 2 for number, step in zip(near, (-1, 0, 1), strict=True)}
    return min(near, key=lambda number: (abs(Fraction(number) - exact), parity[number]))


@pytest.mark.parametrize("dtype", [torch.float32, *SHORT])
def test_fma_is_rounded_once(dtype) -> None:
    x, y = (random(3, 2**23, 2**24, 2, 512, dtype=torch.float32) / 2**23).to(dtype)
    z = random(4, 1, 2**10, 512, dtype=torch.float32).to(dtype) / 2**10
    z[:256] = -x[:256] * y[:256] * (1 + 2**-6)  # most of the product cancels
    if dtype == torch.float32:  # a tie, were it not for an addend that float64 has no room for
        x[0], y[0], z[0] = 257 * 2**-8, 65281 * 2**-16, 2**-80
    out = run(lambda x, y, z: tl.fma(x, y, z), x, y, z, dtype=dtype)
    for a, b, c, result in zip(*(values.tolist() for values in (x, y, z, out)), strict=True):
        assert result == nearest(Fraction(a) * Fraction(b) + Fraction(c), dtype)


def dot(a: Tensor, b: Tensor, dtype: torch.dtype, precision: str | None = None) -> Tensor:
    def function(*inputs):
        return tl.dot(*(tl.reshape(x, (32, 32)) for x in inputs), input_precision=precision)

    return run(function, a, b, dtype=dtype).view(32, 32)


@pytest.mark.parametrize("dtype", [*SHORT, *FLOAT8])
def test_dot_of_short_floats_multiplies_values_and_adds_in_float32(dtype) -> None:
    a, b = random(6, -8, 9, 2, 32, 32, dtype=dtype)
    a[0], b[:, 0] = 64, 2.0**-6  # then a sum of float16 has no room for 31 more
    b[0, 0] = 64
    assert torch.equal(dot(a, b, torch.float32), a.float() @ b.float())


def test_dot_of_int8_is_exact() -> None:
    lowest = torch.full((32, 32), -128, dtype=torch.int8)
    assert (dot(lowest, lowest, torch.int32) == 32 * 2**14).all()


def test_dot_of_float32_has_the_bits_of_its_precision() -> None:
    a, one = torch.full((32, 32), 1 + 2.0**-12), torch.eye(32)
    assert torch.equal(dot(a, one, torch.float32, "ieee"), a)
    assert (dot(a, one, torch.float32) == 1).all()  # tf32


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bfloat16])
def test_topk_and_sort_are_those_of_numpy(dtype) -> None:
    x = random(7, -99, 99, 4, 64, dtype=dtype)
    best = run(lambda x: tl.topk(tl.reshape(x, (4, 64)), 8), x, dtype=dtype, size=32)
    ordered = run(lambda x: tl.sort(tl.reshape(x, (4, 64))), x, dtype=dtype)
    expected = np.sort(x.double().numpy(), axis=1)
    assert np.array_equal(ordered.view(4, 64).double(), expected)
    assert np.array_equal(best.view(4, 8).double(), expected[:, :-9:-1])


@pytest.mark.parametrize("dtype", [torch.int32, torch.float32, *SHORT])
def test_sums_extremes_and_their_first_places(dtype) -> None:
    x = torch.tensor([1, 3, 3, -2, -2, 0, 1, 2], dtype=dtype)
    expected = {"sum": 6, "max": 3, "min": -2, "argmax": 1, "argmin": 3}
    for name, value in expected.items():
        actual = run(lambda x, f=name: getattr(tl, f)(x, 0) + x * 0, x, dtype=dtype)
        assert actual.tolist() == 8 * [value], name
    assert run(lambda x: tl.cumsum(x, 0), x, dtype=dtype).tolist() == x.cumsum(0).tolist()


@pytest.mark.parametrize("dtype", SHORT)
def test_sums_of_short_floats_are_rounded_at_each_step(dtype) -> None:
    x = random(8, 0, 2**10, 64, dtype=torch.float32).div(2**10).to(dtype)
    total = x[0]
    for term in x[1:]:
        total = total + term
    assert (run(lambda x: tl.sum(x, 0) + x * 0, x, dtype=dtype) == total).all()


@triton.jit
def first_of_largest(value, index, other, place):
    better = (value > other) | ((value == other) & (index < place))
    return tl.where(better, value, other), tl.where(better, index, place)


@pytest.mark.parametrize(("axis", "size"), [(0, 16), (1, 8), (None, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reductions_take_the_function_of_the_kernel(dtype, axis, size) -> None:
    def function(x):
        x, places = (tl.reshape(each, (8, 16)) for each in (x, tl.arange(0, 128)))
        return tl.reduce((x, places), axis, first_of_largest, keep_dims=True)

    x = random(9, -3, 4, 8, 16, dtype=dtype)
    table, numbers = x.float().numpy(), np.arange(128).reshape(8, 16)
    index = table.argmax(axis=axis, keepdims=True)
    expected = (index if axis is None else np.take_along_axis(numbers, index, axis)).ravel()
    places = run(lambda x: function(x)[1], x, dtype=torch.int32, size=size)
    values = run(lambda x: function(x)[0], x, dtype=dtype, size=size)
    assert np.array_equal(places, expected)
    assert torch.equal(values, x.ravel()[places])


@triton.jit
def chained(scale, offset, next_scale, next_offset):
    return scale * next_scale, offset * next_scale + next_offset


@pytest.mark.parametrize("reverse", [False, True])
def test_scans_take_the_function_of_the_kernel(reverse) -> None:
    def function(a, b):
        pair = tl.reshape(a, (4, 8)), tl.reshape(b, (4, 8))
        return tl.associative_scan(pair, 1, chained, reverse=reverse)[1]

    a, b = random(10, -3, 4, 2, 4, 8, dtype=torch.int64)
    expected, state = torch.empty_like(a), torch.zeros_like(a[:, 0])
    for step in reversed(range(8)) if reverse else range(8):
        state = expected[:, step] = state * a[:, step] + b[:, step]
    assert torch.equal(run(function, a, b, dtype=torch.int64).view(4, 8), expected)


@triton.jit
def copy(x, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i, mask=i < n), mask=i < n)


def padded(size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A view between sevens."""
    return torch.full((size + 4,), 7, dtype=dtype)[2:-2]


def test_an_access_behind_the_end_is_an_error_and_not_made() -> None:
    x, out = torch.arange(16.0), padded(12)
    copy[(2,)](x, out, 12, BLOCK=8)
    assert torch.equal(out, x[:12])
    message = r"{} by program \(1, 0, 0\): 2 of 6 addresses .* first is at byte 56 of {}'s storage"
    with pytest.raises(KernelError, match=message.format("store", "out")):
        copy[(2,)](x, out, 14, BLOCK=8)
    assert (out._base[14:] == 7).all()
    with pytest.raises(KernelError, match=message.format("load", "x")):
        copy[(2,)](out, x, 14, BLOCK=8)


def test_memory_between_the_rows_of_a_view_is_outside() -> None:
    with pytest.raises(KernelError, match=r"load by .*: 6 of 30 addresses"):
        copy[(1,)](torch.zeros(4, 8)[:, :6], torch.empty(32), 30, BLOCK=32)


ACCESSES = {
    "load": lambda x: tl.load(x),
    "store": lambda x: tl.store(x, 1),
    "atomic": lambda x: tl.atomic_add(x, 1),
    "compare and swap": lambda x: tl.atomic_cas(x, 7, 1),
}


@pytest.mark.parametrize("access", ACCESSES.values(), ids=ACCESSES)
@pytest.mark.parametrize("position", [-1, 4, -(2**60)])
def test_addresses_before_and_behind_are_outside(access, position) -> None:
    counts = padded(4, dtype=torch.int32)
    with pytest.raises(KernelError, match="in no tensor's elements"):
        perform[(1,)](counts, position, lambda x, position: access(x + position))
    assert (counts._base == 7).all()


def test_a_misaligned_access_is_an_error() -> None:
    x, out = torch.arange(8, dtype=torch.int8), torch.empty(1, dtype=torch.int32)

    def word(offset):
        return lambda x, out: tl.store(out, tl.load((x[0] + offset).to(tl.pointer_type(tl.int32))))

    perform[(1,)]((x,), out, word(4))
    assert out.item() == 0x07060504
    with pytest.raises(KernelError, match=r"load by .*: 1 of 1 addresses are no multiple of 4"):
        perform[(1,)]((x,), out, word(2))


def test_what_a_mask_hides_is_undefined() -> None:
    assert run(lambda x: tl.sum(x, 0) + x, torch.ones(12), dtype=torch.float32).isnan().all()


def test_storages_that_share_memory_are_refused() -> None:
    numbers = np.zeros(8, dtype=np.float32)
    with pytest.raises(ValueError, match="share memory"):
        copy[(1,)](torch.from_numpy(numbers), torch.from_numpy(numbers[4:]), 4, BLOCK=4)


def meet(x: Tensor, y: Tensor, first: str, second: str) -> None:
    """One program accesses x twice, and another y."""

    def function(x, y):
        if tl.program_id(1) == 1:
            ACCESSES[first](x)
            ACCESSES[first](x)
        elif tl.program_id(1) == 2:
            ACCESSES[second](y)

    perform[(1, 3)](x, y, function)


@pytest.mark.parametrize("second", ["load", "store", "atomic"])
@pytest.mark.parametrize("first", ["load", "store", "atomic"])
def test_a_store_races_with_what_another_program_does(first, second) -> None:
    x = torch.zeros(2, dtype=torch.int32)
    meet(x, x[1:], first, second)
    if "store" not in (first, second):
        meet(x, x, first, second)
        return
    message = rf"{second} by program \(0, 2, 0\) races with {first} by program \(0, 1, 0\) in x"
    with pytest.raises(KernelError, match=message):
        meet(x, x, first, second)
    with checked(races=False):
        meet(x, x, first, second)


def test_one_byte_in_common_is_a_race() -> None:
    x = torch.zeros(2, dtype=torch.int32)
    with pytest.raises(KernelError, match=r"store by .* races with load by .* in x"):
        meet(x, x.view(torch.int8)[3:], "load", "store")


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float32])
def test_atomics_of_many_programs_add_up(dtype) -> None:
    x = torch.zeros(3, dtype=dtype)
    perform[(4,)](x, 0, lambda x, y: tl.atomic_add(x + tl.arange(0, 8) % 2, 1))
    perform[(4,)](x, 2, lambda x, y: tl.atomic_max(x + y, tl.program_id(0)))
    assert x.tolist() == [16, 16, 3]


def test_a_store_that_names_an_address_twice_is_an_error() -> None:
    def halve(x, y):
        tl.store(x + tl.arange(0, 8) // 2, 1)

    with pytest.raises(KernelError, match=r"store by program \(0, 0, 0\): 4 of 8 .* duplicates"):
        perform[(1,)](torch.zeros(4), 0, halve)
    with checked(races=False):
        perform[(1,)](torch.zeros(4), 0, halve)


def test_another_triton_is_refused_with_what_it_lacks(monkeypatch) -> None:
    triton_interpreter.install()  # a second time, to no effect
    monkeypatch.delattr(triton_interpreter.Builder.__base__, "create_dot")
    with pytest.raises(RuntimeError, match=r"InterpreterBuilder of Triton .* has no create_dot"):
        triton_interpreter.install()


def test_a_launch_leaves_the_language_as_it_was() -> None:
    cast(torch.zeros(8), torch.float16)
    run(lambda x: tl.sort(x), torch.zeros(8), dtype=torch.float32)
    assert all(map(tl.core.is_builtin, (tl.load, tl.core.load, tl.tensor.__add__)))
