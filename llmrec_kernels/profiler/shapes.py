"""Our operators from sizes alone: real calls, on tensors with or without contents.

`predict` counts such a call on tensors that have no contents; `llmrec-kernels profile` runs one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmrec_kernels import Ragged, candidate_scores, cosine_topk, embedding_bag, pack, quantize

Call = Callable[[], Any]
FLOATS = ("float32", "float16", "bfloat16")
CODES = ("int8", "int4", "fp8_e4m3")
STORAGES = (*FLOATS, *CODES, "packed")


@dataclass(frozen=True)
class Shape:
    """What a call of an operator is made from.

    Parameters
    ----------
    defaults
        Sizes by name; 0 where it must be given.
    storages
        How items may be stored, the default first.
    units, unit
        The size that counts units of work, and what these are.
    prepare
        `prepare(sizes, storage, device) -> call`: inputs are made now, the work is in the call.
    """

    defaults: Mapping[str, int]
    storages: tuple[str, ...]
    units: str
    unit: str
    prepare: Callable[[Mapping[str, int], str, str], Call]

    def sizes(self, op: str, given: Mapping[str, int]) -> dict[str, int]:
        """All sizes, those given and the defaults.

        Raises
        ------
        ValueError
            A name is unknown, a size is missing or not positive.
        """
        unknown = sorted(set(given) - set(self.defaults))
        if unknown:
            names = ", ".join(self.defaults)
            raise ValueError(f"shape has {unknown[0]!r}; {op} takes {names}")
        sizes = {**self.defaults, **given}
        for name, size in sizes.items():
            if name not in given and size == 0:
                raise ValueError(f"shape has no {name!r}; {op} takes {', '.join(self.defaults)}")
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} of shape is {size!r}; expected a positive integer")
        return sizes


def find(op: str) -> Shape:
    """The shape of an operator by its name."""
    if op not in SHAPES:
        raise ValueError(f"op is {op!r}; expected one of {', '.join(SHAPES)}")
    return SHAPES[op]


def call_of(
    op: str, given: Mapping[str, int], storage: str | None = None, device: str = "cpu"
) -> tuple[Call, int, str]:
    """A call with random contents, its units of work, and their name.

    Examples
    --------
    >>> call, units, unit = call_of("cosine_topk", {"B": 2, "N": 100, "d": 8, "k": 3})
    >>> call()[1].shape, units, unit
    (torch.Size([2, 3]), 2, 'query')
    """
    shape = find(op)
    storage = shape.storages[0] if storage is None else storage
    if storage not in shape.storages:
        raise ValueError(
            f"storage is {storage!r}; expected one of {', '.join(shape.storages)} for {op}"
        )
    sizes = shape.sizes(op, given)
    return shape.prepare(sizes, storage, device), sizes[shape.units], shape.unit


def _rows(count: int, dim: int, storage: str, device: str) -> Any:
    rows = torch.randn(count, dim, device=device)
    if storage == "packed":
        return pack(rows)
    return quantize(rows, storage) if storage in CODES else rows.to(getattr(torch, storage))


def _topk(sizes: Mapping[str, int], storage: str, device: str) -> Call:
    items = _rows(sizes["N"], sizes["d"], storage, device)
    queries = torch.randn(sizes["B"], sizes["d"], device=device)
    return lambda: cosine_topk(queries, items, sizes["k"])


def _bag(sizes: Mapping[str, int], storage: str, device: str) -> Call:
    table = _rows(sizes["V"], sizes["D"], storage, device)
    indices = torch.randint(sizes["V"], (sizes["B"] * sizes["L"],), device=device)
    offsets = torch.arange(0, indices.shape[0], sizes["L"], device=device)
    return lambda: embedding_bag(table, indices, offsets)


def _candidates(sizes: Mapping[str, int], storage: str, device: str) -> Call:
    items = _rows(sizes["N"], sizes["d"], storage, device)
    queries = torch.randn(sizes["B"], sizes["d"], device=device)
    ids = torch.randint(sizes["N"], (sizes["B"] * sizes["L"],), device=device)
    lists = Ragged(ids, torch.arange(0, ids.shape[0] + 1, sizes["L"], device=device))
    return lambda: candidate_scores(queries, items, lists)


def _quantize(sizes: Mapping[str, int], storage: str, device: str) -> Call:
    rows: Tensor = torch.randn(sizes["V"], sizes["D"], device=device)
    return lambda: quantize(rows, storage)


def _pack(sizes: Mapping[str, int], storage: str, device: str) -> Call:
    rows = _rows(sizes["N"], sizes["d"], storage, device)
    return lambda: pack(rows)


SHAPES = {
    "cosine_topk": Shape(
        {"B": 1, "N": 0, "d": 0, "k": 10}, ("packed", *FLOATS, *CODES), "B", "query", _topk
    ),
    "candidate_scores": Shape(
        {"B": 1, "L": 0, "N": 0, "d": 0}, (*FLOATS, *CODES), "B", "query", _candidates
    ),
    "embedding_bag": Shape({"B": 1, "L": 0, "V": 0, "D": 0}, (*FLOATS, *CODES), "B", "bag", _bag),
    "quantize": Shape({"V": 0, "D": 0}, (*CODES, "float16", "bfloat16"), "V", "row", _quantize),
    "pack": Shape({"N": 0, "d": 0}, FLOATS, "N", "item", _pack),
}
