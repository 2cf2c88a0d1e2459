"""Triton kernels on the CPU, with repaired arithmetic and every access to memory checked.

With TRITON_INTERPRET=1 Triton runs a kernel in NumPy, program after program. As it comes (3.7.1)
that is no evidence: it computes with the bit patterns of bfloat16, rounds tl.fma twice, and reads
and writes whatever an address names. `install` repairs it for the whole process:

*   bfloat16 and float8 (e4m3, e5m2): casts round to nearest even, and float8 saturates;
    arithmetic, comparisons, reductions and tl.dot take the values that the bits stand for.
    Arithmetic in float8 is refused, as it is by the compiler.
*   tl.dot of float32 drops the bits that tf32 drops, unless input_precision says otherwise;
    tl.fma rounds once; tl.minimum, tl.maximum and tl.clamp pass NaN on only where told to.
*   Float arguments are float32 and bool arguments int1, as they are to a compiled kernel.
*   Reductions and scans by a kernel's own function take all rows at once, in the stock order, and
    tl is patched once a launch: tl.topk and tl.sort become usable.
*   Each address that a mask lets through must be a multiple of the element's size, and in an
    element of a tensor that was passed to the launch; otherwise `KernelError` ends the launch.
    What a mask hides and no `other` replaces is NaN or -1: Triton leaves it undefined.

Within `checked()` it also ends where the order of programs or threads would matter: a plain store
to a byte that another program loads, stores or updates atomically, and a store that names an
address twice. Atomics are no race with each other, nor with plain loads. An order that a kernel
makes of its own, as by a counter that the last program waits for, is not known here.

What still differs from a GPU: a * b + c is rounded twice unless written as tl.fma, division and
roots are correctly rounded, sums have one order, loop variables are Python's integers, and shapes
that the compiler refuses pass.

Triton reads TRITON_INTERPRET when `triton.jit` decorates a function. Importing this module sets
it: import it before modules with kernels. Triton's own device functions, which torch may have
imported before, are decorated again. There is no way back; tests that compile kernels do so in a
subprocess without the variable.

    triton_interpreter.install()
    with triton_interpreter.checked():
        kernels.scale[(4,)](x, y, len(x), BLOCK=32)
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import as_strided

os.environ["TRITON_INTERPRET"] = "1"
# Skips whoever imports this: pytest itself does, in search of doctests.
triton = pytest.importorskip("triton", reason="Triton is not installed")

import triton.language as tl  # noqa: E402
from triton.runtime import interpreter  # noqa: E402

Array = np.ndarray[Any, Any]
TensorHandle = interpreter.TensorHandle
stock_implicit_cvt, stock_patch_lang = interpreter._implicit_cvt, interpreter._patch_lang

find_races = False
launch: Launch | None = None  # the one that runs now


class KernelError(Exception):
    """An access that a kernel must not make. The launch ends before it is made."""


def install() -> None:
    """Repair the interpreter of this process, and check the memory of every launch."""
    for repaired in (Builder, Reduce, Scan, Executor):
        stock = repaired.__base__
        if missing := {name for name in vars(repaired) if not hasattr(stock, name)} - {"get_bf16"}:
            raise RuntimeError(
                f"{stock.__module__}.{stock.__name__} of Triton {triton.__version__} has no "
                f"{', '.join(missing)}: {__file__} repairs Triton 3.7.1, adapt it"
            )
    interpreter.interpreter_builder.__class__ = Builder
    interpreter.ReduceOps, interpreter.ScanOps = Reduce, Scan
    interpreter.GridExecutor = Executor
    interpreter._implicit_cvt, interpreter._patch_lang = implicit_cvt, patch_lang
    if not isinstance(tl.sum, interpreter.InterpretedFunction):
        for name in ("triton.language.standard", "triton.language.random", "triton.language"):
            importlib.reload(sys.modules[name])


@contextlib.contextmanager
def checked(*, races: bool = True) -> Iterator[None]:
    """Look for races in the launches within; with races=False, do not."""
    global find_races
    before, find_races = find_races, races
    try:
        yield
    finally:
        find_races = before


# Formats that NumPy lacks and Triton keeps in unsigned integers; torch knows their values.
# float8 saturates, infinities included, as cvt.rn.satfinite does.
BITS = {
    tl.bfloat16: (torch.bfloat16, torch.uint16, np.inf),
    tl.float8e4nv: (torch.float8_e4m3fn, torch.uint8, 448),
    tl.float8e5: (torch.float8_e5m2, torch.uint8, 57344),
}


def decode(data: Array, dtype: Any) -> Array:
    """The numbers that an array stands for: in float32 where NumPy lacks the dtype."""
    if dtype in BITS:
        return torch.from_numpy(np.array(data)).view(BITS[dtype][0]).to(torch.float32).numpy()
    if dtype.is_fp8():
        raise NotImplementedError(f"{dtype}: of float8, only e4m3 and e5m2 are interpreted")
    return data


def encode(values: Array, dtype: Any) -> Array:
    """The array that stands for the numbers, each rounded once to nearest even."""
    if dtype in BITS:
        narrow, bits, largest = BITS[dtype]
        single = odd_float32(values.astype(np.float64)).clip(-largest, largest)
        return torch.from_numpy(np.asarray(single)).to(narrow).view(bits).numpy()
    return values.astype(interpreter._get_np_dtype(dtype), copy=False)


def odd_float32(values: Array) -> Array:
    """float64 rounded toward zero and then, if inexact, to odd: it can be rounded once more.

    Boldo and Melquiond, Emulation of FMA and correctly rounded sums (2008).
    """
    near = values.astype(np.float32)
    inexact = (near != values) & ~np.isnan(values)
    bits = near.view(np.uint32) - (np.abs(near) > np.abs(values))
    return (bits | inexact).view(np.float32)


def fused(x: Array, y: Array, z: Array) -> Array:
    """x y + z in float64, rounded to odd. The product of shorter floats is exact there."""
    product, wide = np.multiply(x, y, dtype=np.float64), z.astype(np.float64)
    near = product + wide
    part = near - product
    error = (product - (near - part)) + (wide - part)
    odd = np.nextafter(near, np.where(error > 0, np.inf, -np.inf))
    even = near.view(np.uint64) % 2 == 0
    return np.where(np.isfinite(near) & (error != 0) & even, odd, near)


def implicit_cvt(argument: Any) -> Any:
    """An argument of the launch as the kernel sees it."""
    for python, dtype in ((bool, tl.int1), (float, tl.float32)):
        if isinstance(argument, python):
            value = np.array([argument], interpreter._get_np_dtype(dtype))
            return tl.tensor(TensorHandle(value, dtype), dtype)
    return stock_implicit_cvt(argument)


class Builder(interpreter.InterpreterBuilder):
    """What the operations of tl end in."""

    def get_bf16(self, value):  # for constants; Triton 3.7.1 has none
        return TensorHandle(encode(np.array([value]), tl.bfloat16), tl.bfloat16)

    def cast_impl(self, source, target):
        dtype = target.scalar
        return TensorHandle(encode(decode(source.data, source.dtype.scalar), dtype), dtype)

    def create_fp_to_fp(self, source, target, rounding):
        if rounding == interpreter._ir.ROUNDING_MODE.RTZ:
            raise NotImplementedError("fp_downcast_rounding='rtz' is not interpreted")
        return self.cast_impl(source, target)

    def binary_op(self, lhs, rhs, op):
        return elementwise(op, lhs, rhs)

    def create_minnumf(self, lhs, rhs):
        return self.binary_op(lhs, rhs, np.fmin)

    def create_maxnumf(self, lhs, rhs):
        return self.binary_op(lhs, rhs, np.fmax)

    def create_clampf(self, x, low, high, propagate_nan):
        every = propagate_nan == tl.PropagateNan.ALL
        larger, smaller = (np.maximum, np.minimum) if every else (np.fmax, np.fmin)
        return self.binary_op(self.binary_op(x, low, larger), high, smaller)

    def create_fma(self, x, y, z):
        if z.dtype.scalar == tl.float64:
            raise NotImplementedError("tl.fma of float64 is not interpreted")
        return elementwise(fused, x, y, z)

    def create_dot(self, a, b, total, precision, *rest):
        def widen(handle):
            values = np.ascontiguousarray(decode(handle.data, dtype := handle.dtype.scalar))
            if dtype == tl.float32 and precision == interpreter._ir.INPUT_PRECISION.TF32:
                values = (values.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
            return TensorHandle(values, tl.float32 if dtype in BITS else dtype)

        return super().create_dot(widen(a), widen(b), total, precision, *rest)

    def create_masked_load(self, ptrs, mask, other, *rest, **options):
        check(self, "load", ptrs, mask)
        if other is None:
            stored = interpreter._get_np_dtype(ptrs.get_element_ty())
            undefined = np.full(ptrs.data.shape, -1, f"i{stored.itemsize}").view(stored)
            other = TensorHandle(undefined, ptrs.get_element_ty())
        return super().create_masked_load(ptrs, mask, other, *rest, **options)

    def create_masked_store(self, ptrs, value, mask, *rest):
        check(self, "store", ptrs, mask)
        return super().create_masked_store(ptrs, value, mask, *rest)

    def create_atomic_rmw(self, op, ptr, value, mask, *rest):
        check(self, "atomic", ptr, mask)
        return super().create_atomic_rmw(op, ptr, value, mask, *rest)

    def create_atomic_cas(self, ptr, *rest):
        check(self, "atomic", ptr, np.array(True))
        return super().create_atomic_cas(ptr, *rest)


def elementwise(op, *handles):
    """An operation on values, in the dtype of the last operand; relations are int1."""
    dtype = handles[-1].dtype.scalar
    if dtype.is_fp8():
        raise TypeError(f"{op.__name__} of {dtype} does not compile: cast to a wider dtype first")
    result = op(*(decode(handle.data, handle.dtype.scalar) for handle in handles))
    if result.dtype == bool:
        return TensorHandle(result, tl.int1)
    return TensorHandle(encode(result, dtype), dtype)


def check(builder, kind, pointers, mask):
    """Check the addresses that a mask lets through."""
    if launch is not None:
        chosen = np.broadcast_to(np.asarray(mask.data, dtype=bool), pointers.data.shape)
        addresses = pointers.data[chosen].astype(np.int64)
        size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        launch.access(kind, addresses, size, builder.grid_idx, builder.grid_dim)


def combine(self, left, right, dtypes):
    """The kernel's function of two lists of values, all rows at once."""
    values = zip((*left, *right), (*dtypes, *dtypes), strict=True)
    results = self.combine_fn.fn(*(self.to_tensor(np.asarray(x), dtype) for x, dtype in values))
    results = results if isinstance(results, tuple) else (results,)
    return [new.handle.data.reshape(np.shape(x)) for new, x in zip(results, left, strict=True)]


class Reduce(interpreter.ReduceOps):
    """tl.reduce, and what of tl.sum, tl.max and the like NumPy does not do."""

    def apply_impl(self, inputs):
        dtype = inputs[0].dtype
        if dtype.is_floating() and dtype.primitive_bitwidth <= 16:  # NumPy sums float16 in float32
            return self.generic_reduce(inputs)
        return super().apply_impl(inputs)

    def generic_reduce(self, inputs):
        arrays, dtypes = [x.handle.data for x in inputs], [x.dtype for x in inputs]
        shape, axis = arrays[0].shape, self.axis
        if axis is None:
            arrays, axis = [array.reshape(-1) for array in arrays], 0
        columns = [np.moveaxis(array, axis, 0) for array in arrays]
        total = [column[0] for column in columns]
        for step in range(1, len(columns[0])):
            total = combine(self, total, [column[step] for column in columns], dtypes)
        if self.keep_dims:
            kept = tuple(range(len(shape))) if self.axis is None else axis
            total = [np.expand_dims(x, kept) for x in total]
        return [self.to_tensor(np.asarray(x), t) for x, t in zip(total, dtypes, strict=True)]


class Scan(interpreter.ScanOps):
    """tl.associative_scan."""

    def generic_scan(self, inputs):
        columns = [np.moveaxis(x.handle.data, self.axis, 0) for x in inputs]
        dtypes = [x.dtype for x in inputs]
        rows = [[column[0] for column in columns]]
        for step in range(1, len(columns[0])):
            rows.append(combine(self, rows[-1], [column[step] for column in columns], dtypes))
        scanned = [np.stack(steps, axis=self.axis) for steps in zip(*rows, strict=True)]
        return [self.to_tensor(x, dtype) for x, dtype in zip(scanned, dtypes, strict=True)]


class Launch:
    """Which bytes a launch may touch, and which program first loaded, stored or updated them.

    The bytes of all storages lie one after another in arrays. Programs run one at a time: whoever
    touched a byte first is another program, if any other ever touched it.
    """

    def __init__(self, arguments: dict[str, Any], *, races: bool) -> None:
        tensors = [pair for item in arguments.items() for pair in tensors_of(*item)]
        storages = {0: (0, "nothing")}  # so that each address has one at or before it
        for name, tensor in tensors:
            storage = tensor.untyped_storage()
            storages.setdefault(storage.data_ptr(), (storage.nbytes(), name))
        self.starts = np.array(sorted(storages), dtype=np.int64)
        self.sizes = np.array([storages[start][0] for start in self.starts])
        self.names = [storages[start][1] for start in self.starts]
        if (self.starts[1:] < (self.starts + self.sizes)[:-1]).any():
            raise ValueError("tensors of different storages share memory: pass views of one tensor")
        self.places = np.cumsum(self.sizes) - self.sizes
        self.inside = np.zeros(self.sizes.sum() + 1, dtype=bool)
        for _, tensor in tensors:
            size = tensor.element_size()
            _, place = self.locate(np.array(tensor.data_ptr()))
            strides = (*(size * stride for stride in tensor.stride()), 1)
            as_strided(self.inside[place:], (*tensor.shape, size), strides)[...] = True
        kinds = ("load", "store", "atomic") if races else ()
        self.first = {kind: np.zeros(len(self.inside), dtype=np.int32) for kind in kinds}
        self.patches: Any = None  # of tl, and for which functions' globals
        self.patched: set[int] = set()

    def locate(self, addresses: Array) -> tuple[Array, Array]:
        """The storage that each address may be in, and the place of its byte in the arrays."""
        storage = np.searchsorted(self.starts, addresses, "right") - 1
        return storage, self.places[storage] + addresses - self.starts[storage]

    def access(self, kind: str, addresses: Array, size: int, program: Any, grid: Any) -> None:
        """Refuse elements of `size` bytes that a program may not load, store or update."""
        who = f"{kind} by program {program}"
        storage, places = self.locate(addresses)
        offsets = addresses - self.starts[storage]
        good = (offsets >= 0) & (offsets + size <= self.sizes[storage])
        places = np.where(good, places, 0)[:, None] + np.where(good[:, None], np.arange(size), 0)
        good &= self.inside[places].all(axis=1)
        if not good.all():
            address = addresses[~good][0]
            near = np.argmin(np.maximum(self.starts - address, address - self.starts - self.sizes))
            raise KernelError(
                f"{who}: {(~good).sum()} of {good.size} addresses are in no tensor's elements; the "
                f"first is at byte {address - self.starts[near]} of {self.names[near]}'s storage"
            )
        if odd := np.count_nonzero(addresses % size):
            raise KernelError(f"{who}: {odd} of {good.size} addresses are no multiple of {size}")
        if self.first:
            self.order(who, kind, places, 1 + np.ravel_multi_index(program, grid), grid)

    def order(self, who: str, kind: str, places: Array, me: int, grid: Any) -> None:
        """Refuse elements that another program got at, and remember that this one did."""
        for other in self.first if kind == "store" else ("store",):
            first = self.first[other][places]
            if (foreign := (first != 0) & (first != me)).any():
                program = tuple(map(int, np.unravel_index(first[foreign][0] - 1, grid)))
                place = places[foreign][0]
                name = self.names[np.searchsorted(self.places, place, "right") - 1]
                raise KernelError(f"{who} races with {other} by program {program} in {name}")
        if kind == "store" and (again := len(places) - len(np.unique(places[:, 0]))):
            raise KernelError(f"{who}: {again} of {len(places)} addresses are duplicates")
        first = self.first[kind][places]
        self.first[kind][places] = np.where(first == 0, me, first)


def tensors_of(name: str, argument: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors with elements in an argument, which may be a tuple or a descriptor."""
    argument = interpreter._unwrap_tensor(argument)
    if isinstance(argument, (tuple, list)):
        for number, part in enumerate(argument):
            yield from tensors_of(f"{name}[{number}]", part)
    elif isinstance(argument, interpreter.TensorDescriptor):
        yield from tensors_of(name, argument.base)
    elif isinstance(argument, torch.Tensor) and argument.numel():
        yield name, argument


class Executor(interpreter.GridExecutor):
    """One launch: knows its memory, and ends with a KernelError as such."""

    def __call__(self, *args, **kwargs):
        global launch
        launch = Launch(dict(zip(self.arg_names, args, strict=False)) | kwargs, races=find_races)
        try:
            with np.errstate(all="ignore"):  # infinities and NaN are values here
                super().__call__(*args, **kwargs)
        except interpreter.InterpreterError as error:
            cause: BaseException | None = error
            while isinstance(cause, interpreter.InterpreterError):
                cause = cause.__cause__
            if isinstance(cause, KernelError):
                raise cause from None
            raise
        finally:
            launch = None


def patch_lang(function):
    """Patch what a function calls tl: once a launch, and undone with it."""
    if launch is None:
        return stock_patch_lang(function)
    if id(function.__globals__) not in launch.patched:
        launch.patched.add(id(function.__globals__))
        patches = stock_patch_lang(function)
        if launch.patches is not None:
            launch.patches._changes += patches._changes
        launch.patches = launch.patches or patches
    return launch.patches
