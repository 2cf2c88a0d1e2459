"""The named cells that a GPU is measured on, and the least work that each of them is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from gpu_model import BITS, SECTOR, sectors
from torch import Tensor

from llmrec_kernels.benchmarks.cells import (
    MILLION,
    BagCell,
    CandidateCell,
    Cell,
    PackCell,
    QuantizeCell,
    TopkCell,
    topk_grid,
)


@dataclass(frozen=True)
class FilterCell(TopkCell):
    """Top-K where not every item may be returned."""

    filter: str = "exclude 100 each"

    def forbidden(self) -> Tensor:
        """Ids [B, 100] that a query may not have, or a mask [N] or [B, N] of those that it may."""
        generator = torch.Generator().manual_seed(4)
        if self.filter == "exclude 100 each":
            length = min(100, self.items)
            return torch.randint(self.items, (self.queries, length), generator=generator)
        shape = (self.items,) if self.filter == "allow 1%" else (self.queries, self.items)
        share = 0.01 if self.filter == "allow 1%" else 0.5
        return torch.rand(shape, generator=generator) < share


FILTERS = ("exclude 100 each", "allow 1%", "allow half each")

# Cells of the same items follow each other: those are made once.
CELLS: tuple[Cell, ...] = (
    *topk_grid(128),
    *topk_grid(384),
    *(
        FilterCell(f"filter-{queries}-{name.replace(' ', '-')}", queries, MILLION, 384, 100, name)
        for queries in (16, 128)
        for name in FILTERS
    ),
    CandidateCell("candidates-256", 256, 500, MILLION, 384),
    CandidateCell("candidates-4096", 4096, 200, MILLION, 384),
    PackCell("pack", MILLION, 384),
    *topk_grid(768),
    *topk_grid(1536),
    BagCell("bags-cold-64", 32_768, 32, 4 * MILLION, 64),
    BagCell("bags-cold-128", 32_768, 32, 4 * MILLION, 128),
    BagCell("bags-cold-384", 32_768, 20, 2 * MILLION, 384),
    QuantizeCell("quantize-128", 4 * MILLION, 128),
    QuantizeCell("quantize-768", MILLION, 768),
)


def fitting(cell: Any, free: int) -> tuple[Any, str | None]:
    """The cell with as many rows as memory holds, and what was changed.

    Beside the source there are our pack or codes and the indexes of the peers: five times as much.
    """
    name = "rows" if hasattr(cell, "rows") else "items"
    asked = rows = getattr(cell, name)
    while rows > 1_000 and 5 * 4 * rows * cell.dim > free * 0.8:
        rows //= 2
    why = f"{rows:,} {name} for {asked:,}: there were {free / 1e9:.0f} GB"
    return replace(cell, **{name: rows}), None if rows == asked else why


@dataclass(frozen=True)
class Work:
    """Bytes and operations that cannot be avoided, and on what kind of numbers."""

    bytes: int
    operations: int
    kind: str


def work(cell: Cell, job: str, backend: str) -> Work:
    """What a backend has to do at least: random rows by whole sectors, all else once.

    A search reads what its scan reads: the float32 rows in Triton and plain torch, and the int8
    codes with two numbers an item elsewhere.
    """
    if isinstance(cell, TopkCell):
        int8 = backend not in ("triton", "reference")
        row = (cell.dim + 3) // 4 * 4 + 8 if int8 else 4 * cell.dim + 12
        size = cell.items * row + cell.queries * (4 * cell.dim + 12 * cell.k)
        products = 2 * cell.queries * cell.items * cell.dim
        return Work(size, products, "int8" if int8 else "float16")
    if isinstance(cell, BagCell):
        row = row_bytes(cell.dim, job)
        return Work(cell.bags * (cell.length * (row + 8) + 4 * cell.dim), 0, "float32")
    if isinstance(cell, CandidateCell):
        row = row_bytes(cell.dim, job.partition(",")[0])
        pairs = cell.queries * cell.length
        return Work(pairs * (row + 12) + 4 * cell.queries * cell.dim, 0, "float32")
    if isinstance(cell, QuantizeCell):
        bits = {"int8": 8, "int4": 4, "fp8_e4m3": 8}.get(job, 16)
        return Work(cell.rows * (4 * cell.dim + cell.dim * bits // 8), 0, "float32")
    return Work(cell.items * (9 * cell.dim + 16), 0, "float32")


def row_bytes(dim: int, storage: str) -> int:
    """Of a row that is read on its own, with its scale and bias."""
    bits = BITS[storage]
    return sectors(dim * bits // 8) + (SECTOR if bits < 32 else 0)
