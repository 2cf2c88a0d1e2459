"""Who takes part in a cell: our operator for each storage, and what its users call in plain torch.

An entrant prepares what a user would prepare once, and returns the call that is measured. Torch's
rows are float32 throughout; its peer of quantization is a copy of the source into memory that is
there already.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, singledispatch
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from llmrec_kernels import Ragged, candidate_scores, cosine_topk, embedding_bag, pack, quantize
from llmrec_kernels.benchmarks.cells import (
    BagCell,
    CandidateCell,
    Cell,
    PackCell,
    QuantizeCell,
    TopkCell,
)

BITS = {"float32": 32, "float16": 16, "bfloat16": 16, "int8": 8, "fp8_e4m3": 8, "int4": 4}
Call = Callable[[], Any]


class Entrant(NamedTuple):
    """One way to do a cell's work.

    Parameters
    ----------
    name
        "llmrec" or "torch", and how rows are stored where there is a choice.
    bytes
        What it takes beside the inputs.
    prepare
        `prepare(*inputs) -> call`, with what the cell loaded.
    """

    name: str
    bytes: int
    prepare: Callable[..., Call]


class Contest(NamedTuple):
    """A cell's entrants, and what its work is counted in."""

    units: int
    unit: str
    entrants: list[Entrant]


@singledispatch
def contest(cell: Cell) -> Contest:
    """Who takes part in a cell.

    Examples
    --------
    >>> from llmrec_kernels.benchmarks.cells import chosen
    >>> [entrant.name for entrant in contest(chosen(["bags-hot-64"])[0]).entrants]
    ['llmrec float32', 'llmrec int8', 'llmrec int4', 'torch']
    """
    raise TypeError(f"cell is a {type(cell).__name__}; expected one of llmrec_kernels.benchmarks")


@contest.register
def _topk(cell: TopkCell) -> Contest:
    def ours(queries: Tensor, items: Tensor) -> Call:
        return partial(cosine_topk, queries, pack(items), cell.k)

    def plain(queries: Tensor, items: Tensor) -> Call:
        return lambda: torch.topk(queries @ items.T, cell.k)

    results = 64 * cell.queries * cell.k
    entrants = [
        Entrant("llmrec", _packed(cell.items, cell.dim) + results, ours),
        Entrant("torch", 4 * cell.queries * cell.items + results, plain),
    ]
    return Contest(cell.queries, "query", entrants)


@contest.register
def _bags(cell: BagCell) -> Contest:
    def ours(storage: str, table: Tensor, indices: Tensor, offsets: Tensor) -> Call:
        rows = table if storage == "float32" else quantize(table, storage)
        return partial(embedding_bag, rows, indices, offsets)

    def plain(table: Tensor, indices: Tensor, offsets: Tensor) -> Call:
        return partial(F.embedding_bag, indices, table, offsets, mode="sum")

    sums = 4 * cell.bags * cell.dim
    size = {"float32": 0} | {each: _codes(cell.rows, cell.dim, each) for each in ("int8", "int4")}
    entrants = [
        Entrant(f"llmrec {storage}", extra + sums, partial(ours, storage))
        for storage, extra in size.items()
    ]
    return Contest(cell.bags, "bag", [*entrants, Entrant("torch", sums, plain)])


@contest.register
def _candidates(cell: CandidateCell) -> Contest:
    def ours(storage: str, queries: Tensor, items: Tensor, ids: Tensor) -> Call:
        starts = torch.arange(cell.queries + 1, device=ids.device) * cell.length
        packed = pack(items if storage == "float32" else quantize(items, storage))
        return partial(candidate_scores, queries, packed, Ragged(ids.flatten(), starts))

    def plain(queries: Tensor, items: Tensor, ids: Tensor) -> Call:
        return lambda: torch.einsum("bd,bld->bl", queries, items[ids])

    gathered = 4 * cell.queries * cell.length * cell.dim
    entrants = [
        Entrant(f"llmrec {storage}", _packed(cell.items, cell.dim), partial(ours, storage))
        for storage in ("float32", "int8")
    ]
    return Contest(cell.queries, "query", [*entrants, Entrant("torch", gathered, plain)])


@contest.register
def _quantization(cell: QuantizeCell) -> Contest:
    def ours(storage: str, rows: Tensor) -> Call:
        return partial(quantize, rows, storage)

    def plain(rows: Tensor) -> Call:
        return partial(torch.empty_like(rows).copy_, rows)

    entrants = [
        Entrant(f"llmrec {storage}", _codes(cell.rows, cell.dim, storage), partial(ours, storage))
        for storage in ("int8", "int4", "fp8_e4m3", "float16", "bfloat16")
    ]
    return Contest(cell.rows, "row", [*entrants, Entrant("torch", cell.bytes, plain)])


@contest.register
def _packing(cell: PackCell) -> Contest:
    def ours(items: Tensor) -> Call:
        return partial(pack, items)

    def plain(items: Tensor) -> Call:
        return lambda: (items.clone(), torch.linalg.vector_norm(items, dim=1))

    entrants = [
        Entrant("llmrec", _packed(cell.items, cell.dim), ours),
        Entrant("torch", cell.bytes, plain),
    ]
    return Contest(cell.items, "item", entrants)


def _packed(rows: int, dim: int) -> int:
    """The rows again, their int8 codes, and what a row needs besides."""
    return rows * (5 * dim + 32)


def _codes(rows: int, dim: int, storage: str) -> int:
    """Codes, and the scale and bias of each row."""
    return rows * (dim * BITS[storage] // 8 + 8)
