"""What the operators promise, written again in NumPy from the contract and from nothing else.

Slow and plain on purpose. `scores` follows the definition of the reference score operation by
operation, so that results are compared bit for bit. `real_scores` knows no lanes and no
order of summation: it says how far from the truth the definition itself may be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from llmrec_kernels import PackedItems, QuantizedTable

Array = np.ndarray[Any, Any]
Lists = Sequence[Iterable[int]]


def widen(vectors: Any) -> Array:
    """Rows of any storage in float32, [n, d]: narrow floats exactly, codes as scale x code + bias.

    The product is rounded to float32 before the sum is.
    """
    if isinstance(vectors, QuantizedTable):
        if vectors.dtype == "fp8_e4m3":
            return _fp8(vectors.codes) * vectors.scale.numpy()[:, None]
        bits = {"int8": 8, "int4": 4}.get(vectors.dtype)
        if bits is None:
            return widen(vectors.codes)
        return _decode(vectors.codes, vectors.scale, vectors.bias, bits, vectors.dim)
    if isinstance(vectors, PackedItems):
        if vectors.data.dtype == torch.float8_e4m3fn:
            return _fp8(vectors.data) * vectors.scale.numpy()[:, None]
        if vectors.bits:
            return _decode(vectors.data, vectors.scale, vectors.bias, vectors.bits, vectors.dim)
        vectors = vectors.data
    if isinstance(vectors, torch.Tensor):
        vectors = vectors.detach().cpu().to(torch.float32).numpy()
    with np.errstate(over="ignore"):
        return np.asarray(vectors).astype(np.float32)


def _fp8(codes: Any) -> Array:
    """e4m3: a sign, four bits of exponent with bias 7, three of fraction, no infinities."""
    raw = codes.view(torch.uint8).numpy().astype(np.int64)
    exponent, fraction = raw >> 3 & 15, raw & 7
    magnitude = np.where(
        exponent == 0, fraction * 2.0**-9, (8 + fraction) * 2.0 ** (exponent - 10.0)
    )
    magnitude[(raw & 127) == 127] = np.nan
    return np.where(raw >= 128, -magnitude, magnitude).astype(np.float32)


def _decode(codes: Any, scale: Any, bias: Any, bits: int, dim: int) -> Array:
    raw = codes.numpy()
    rows = np.zeros((raw.shape[0], dim), dtype=np.float32)
    for row in range(raw.shape[0]):
        for column in range(dim):
            code = int(raw[row, column] if bits == 8 else raw[row, column // 2])
            if bits == 4:
                code = (code >> 4) if column % 2 else (code & 15)
                code -= 16 if bias is None and code >= 8 else 0
            value = np.float32(scale[row].item()) * np.float32(code)
            rows[row, column] = value if bias is None else value + np.float32(bias[row].item())
    return rows


def lane_dot(a: Array, b: Array) -> Array:
    """Dot products over the last axis in float64: eight lanes, then the tree 4, 2, 1."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    lanes = np.zeros((*np.broadcast_shapes(a.shape, b.shape)[:-1], 8))
    for element in range(a.shape[-1]):
        lanes[..., element % 8] += a[..., element] * b[..., element]
    for half in (4, 2, 1):
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def inverse_norms(rows: Array) -> Array:
    """1 / norm of each row in float64, and 0 for a zero row."""
    norms = np.sqrt(lane_dot(rows, rows))
    return np.array([0.0 if norm == 0 else 1.0 / norm for norm in norms])


def sketch(rows: Array) -> tuple[Array, Array, Array, Array]:
    """Codes [N, dim] int8, and step, unit scale and residual [N] float32, of float32 rows."""
    count, dim = rows.shape
    limit = min(127, (2**31 - 1) // (255 * max(1, dim)))
    codes = np.zeros((count, dim), dtype=np.int8)
    step, unit_scale, residual = np.zeros((3, count), dtype=np.float32)
    for i, row in enumerate(rows):
        largest = np.max(np.abs(row), initial=np.float32(0))
        if largest == 0:
            continue
        if limit == 0 or not 2.0**-100 <= largest <= 2.0**100:
            residual[i] = 1
            continue
        step[i] = largest / np.float32(limit)
        codes[i] = np.rint(row * (np.float32(limit) / largest))
        errors = row.astype(np.float64) - np.float64(step[i]) * codes[i]
        inverse_norm = inverse_norms(row[None])[0]
        unit_scale[i] = np.float32(np.float64(step[i]) * inverse_norm)
        left_out = np.sqrt(lane_dot(errors, errors)) * inverse_norm * (1 + 2.0**-40)
        residual[i] = np.float32(left_out)
        while float(residual[i]) < left_out:
            residual[i] = np.nextafter(residual[i], np.float32(np.inf))
    return codes, step, unit_scale, residual


def interleaved(codes: Array) -> Array:
    """Codes [N, dim] int8 in blocks of sixteen rows, four elements side by side."""
    count, dim = codes.shape
    blocks = np.zeros((-(-count // 16), -(-dim // 4), 16, 4), dtype=np.int8)
    for i in range(count):
        for j in range(dim):
            blocks[i // 16, j // 4, i % 16, j % 4] = codes[i, j]
    return blocks


def scores(
    queries: Any,
    items: Any,
    *,
    metric: str = "cosine",
    query_scale: Any = None,
    item_scale: Any = None,
    query_bias: Any = None,
    item_bias: Any = None,
    offset: float = -0.0,  # what changes no sum, not even the sign of a zero
) -> Array:
    """The reference score of every pair, [B, N] float32."""
    left, right = widen(queries), widen(items)
    total = lane_dot(left[:, None, :], right[None, :, :])
    if metric == "cosine":
        total = total * inverse_norms(left)[:, None] * inverse_norms(right)
    if query_scale is not None:
        total = total * _column(query_scale)[:, None]
    if item_scale is not None:
        total = total * _column(item_scale)
    if query_bias is not None:
        total = total + _column(query_bias)[:, None]
    if item_bias is not None:
        total = total + _column(item_bias)
    with np.errstate(over="ignore"):
        return (total + offset).astype(np.float32)


def _column(vector: Any) -> Array:
    return np.asarray(vector, dtype=np.float32).astype(np.float64)


def real_scores(queries: Any, items: Any, *, metric: str = "cosine") -> Array:
    """Similarities [B, N] float64 from correctly rounded sums, whatever the order of summation."""
    left, right = widen(queries).astype(np.float64), widen(items).astype(np.float64)
    result = np.zeros((len(left), len(right)))
    for row, query in enumerate(left):
        for column, item in enumerate(right):
            dot = math.fsum(query * item)
            if metric == "cosine":
                length = math.sqrt(math.fsum(query * query)) * math.sqrt(math.fsum(item * item))
                dot = 0.0 if length == 0 else dot / length
            result[row, column] = dot
    return result


def permitted(
    count: int, width: int, *, exclude: Lists | None = None, allow: Lists | None = None
) -> Array:
    """Which items each query may get, [B, N] bool, from a list of ids per query."""
    table = np.zeros((count, width), dtype=bool)
    for query in range(count):
        hidden = set() if exclude is None else set(exclude[query])
        shown = range(width) if allow is None else set(allow[query])
        for item in shown:
            table[query, item] = item not in hidden
    return table


def best(values: Array, k: int, may: Array | None = None) -> tuple[Array, Array]:
    """The k best of each row by (score descending, id ascending): scores and ids, [B, k]."""
    count, width = values.shape
    top = np.full((count, k), -np.inf, dtype=np.float32)
    ids = np.full((count, k), -1, dtype=np.int64)
    for row in range(count):
        choice = np.arange(width) if may is None else np.flatnonzero(may[row])
        order = choice[np.lexsort((choice, -values[row, choice]))][:k]
        top[row, : len(order)] = values[row, order]
        ids[row, : len(order)] = order
    return top, ids


def rounded_twice(x: Array, y: Array, total: Array) -> Array:
    return total + x * y


def fused(x: Array, y: Array, total: Array) -> Array:
    """x y + total of float32 numbers, rounded once.

    The product is exact in float64. The sum is rounded there to odd, which keeps what a second
    rounding needs: Boldo and Melquiond, Emulation of FMA and correctly rounded sums (2008).
    """
    product, wide = np.float64(x) * np.float64(y), np.float64(total)
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity come out as they should
        near = product + wide
        part = near - product
        error = (product - (near - part)) + (wide - part)
        even = np.asarray(near).view(np.int64) % 2 == 0
        odd = np.nextafter(near, np.where(error > 0, np.inf, -np.inf))
        return np.where((error != 0) & even & np.isfinite(near), odd, near).astype(np.float32)[()]


def pooled(
    table: Any,
    bags: Sequence[Sequence[int]],
    mode: str = "sum",
    weights: Sequence[Sequence[float]] | None = None,
    padding: int | None = None,
    fuse: bool = False,
) -> Array:
    """Bags pooled in float32 one row after the other.

    Each weighted row is rounded before it is added, or the product and the sum are rounded as one.
    Of a quantized table (scale x weight) x code is added; bias x weight apart, which comes last.
    """
    add = fused if fuse else rounded_twice
    rows = widen(table)
    coded = isinstance(table, QuantizedTable) and table.scale is not None and mode != "max"
    scale, bias = np.ones(len(rows), dtype=np.float32), np.zeros(len(rows), dtype=np.float32)
    if coded:
        zeros = None if table.bias is None else torch.zeros_like(table.bias)
        ones = torch.ones_like(table.scale)
        rows = widen(QuantizedTable(table.codes, ones, zeros, table.dtype, table.dim))
        scale = table.scale.float().numpy()
        bias = bias if table.bias is None else table.bias.float().numpy()
    result = np.zeros((len(bags), rows.shape[1]), dtype=np.float32)
    for number, bag in enumerate(bags):
        shares = [np.float32(1)] * len(bag) if weights is None else list(weights[number])
        kept = [(row, np.float32(w)) for row, w in zip(bag, shares, strict=True) if row != padding]
        if mode == "max":
            if kept:
                result[number] = np.max([rows[row] for row, _ in kept], axis=0)
            continue
        total, divisor = np.zeros(rows.shape[1], dtype=np.float32), np.float32(0)
        last = np.float32(0)
        for row, weight in kept:
            total = add(rows[row], scale[row] * weight, total)
            last = add(bias[row], weight, last)
            divisor = divisor + weight
        total = total + last
        if mode == "mean":
            divisor = np.float32(len(kept)) if weights is None else divisor
            total = total / divisor if divisor != 0 else np.zeros_like(total)
        result[number] = total
    return result


def normalized(rows: Array) -> Array:
    """Each row times its inverse norm in float64, rounded to float32."""
    return (rows.astype(np.float64) * inverse_norms(rows)[:, None]).astype(np.float32)


def assert_same_bits(actual: Any, expected: Any) -> None:
    """The same shape, dtype and bits: -0.0 is not 0.0 here."""
    actual, expected = (
        value.detach().numpy() if isinstance(value, torch.Tensor) else value
        for value in (actual, expected)
    )
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    pattern = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[actual.dtype.itemsize]
    same = np.ascontiguousarray(actual).view(pattern) == np.ascontiguousarray(expected).view(
        pattern
    )
    if not same.all():
        place = tuple(int(axis) for axis in np.argwhere(~same)[0])
        raise AssertionError(
            f"{(~same).sum()} of {same.size} differ; first at {place}: "
            f"{actual[place]!r}, expected {expected[place]!r}"
        )


def parts(packed: PackedItems) -> list[torch.Tensor]:
    """Every tensor that a pack holds."""
    held = [packed.data, packed.scale, packed.bias, packed.inverse_norms, *(packed.sketch or ())]
    return [part for part in held if part is not None]


def assert_same_pack(got: PackedItems, want: PackedItems) -> None:
    """The same tensors, bit for bit, codes behind the last row included."""
    assert (got.shape, got.bits) == (want.shape, want.bits)
    for name in ("scale", "bias", "sketch"):
        assert (getattr(got, name) is None) == (getattr(want, name) is None)
    for one, other in zip(parts(got), parts(want), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        one, other = (part.flatten().view(torch.uint8) for part in (one, other))
        assert torch.equal(one, other)
