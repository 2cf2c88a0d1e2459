"""The named cells that benchmarks run: small enough for two cores, large enough to tell.

A cell is the sizes of one call, and makes its inputs; a name means the same work everywhere.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from llmrec_kernels.benchmarks.vectors import clustered, embedded_texts, profiles, queries_near
from llmrec_kernels.profiler.environment import last_level_cache

MILLION = 1_000_000


@dataclass(frozen=True)
class TopkCell:
    """B queries against N items of d dimensions, the k best of each."""

    name: str
    queries: int
    items: int
    dim: int
    k: int

    @property
    def sizes(self) -> str:
        """For a person to read, by the letters of the docstring."""
        return f"B={self.queries:,} N={self.items:,} d={self.dim} k={self.k:,}"

    @property
    def bytes(self) -> int:
        """Of the inputs."""
        return 4 * self.dim * (self.items + self.queries)

    def load(self) -> tuple[Tensor, ...]:
        """Queries [B, d] and items [N, d], float32 of unit length."""
        items = clustered(self.items, self.dim)
        return queries_near(items, self.queries), items


@dataclass(frozen=True)
class RealCell(TopkCell):
    """The same over sentence embeddings; how many there are is known when they are loaded."""

    @property
    def sizes(self) -> str:
        """For a person to read, by the letters of the docstring."""
        return f"B={self.queries:,} N=all texts at hand, d={self.dim} k={self.k:,}"

    def load(self) -> tuple[Tensor, ...]:
        """Queries [B, 384] and items [N, 384]; encoding the texts takes minutes, once."""
        items = embedded_texts()
        return profiles(items, self.queries), items


TOPK = (
    TopkCell("headline-1", 1, 400_000, 384, 100),
    TopkCell("headline-8", 8, 400_000, 384, 100),
    TopkCell("headline-32", 32, 400_000, 384, 100),
    TopkCell("headline-256", 256, 400_000, 384, 100),
    TopkCell("headline-1024", 1024, 400_000, 384, 100),
    TopkCell("k-10", 256, 400_000, 384, 10),
    TopkCell("k-1000", 256, 400_000, 384, 1000),
    TopkCell("dim-64", 256, MILLION, 64, 100),
    TopkCell("dim-128", 256, MILLION, 128, 100),
    TopkCell("dim-768", 256, 400_000, 768, 100),
    TopkCell("dim-768-1", 1, 400_000, 768, 100),
    TopkCell("dim-1024", 256, 400_000, 1024, 100),
    TopkCell("million-1", 1, MILLION, 384, 100),
    TopkCell("million-256", 256, MILLION, 384, 100),
    TopkCell("batch-4096", 4096, 100_000, 384, 100),
    RealCell("real-1", 1, 0, 384, 100),
    RealCell("real-256", 256, 0, 384, 100),
)
DIMS, BATCHES, KS = (128, 384, 768, 1536), (1, 16, 128, 4096), (10, 100, 2048)


def topk_grid(dim: int) -> list[TopkCell]:
    """A million items at each batch and k: what a GPU is measured on."""
    return [
        TopkCell(f"topk-{queries}-d{dim}-k{k}", queries, MILLION, dim, k)
        for queries in BATCHES
        for k in KS
    ]


@dataclass(frozen=True)
class BagCell:
    """B bags of L indices into V rows of D elements."""

    name: str
    bags: int
    length: int
    rows: int
    dim: int
    pattern: str = "uniform"  # or "zipf", which few rows have most of, or "sequential"

    @property
    def sizes(self) -> str:
        """For a person to read, by the letters of the docstring."""
        return f"B={self.bags:,} L={self.length} V={self.rows:,} D={self.dim} {self.pattern}"

    @property
    def bytes(self) -> int:
        """Of the inputs, and of the order of rows while they are made."""
        return (4 * self.dim + 8) * self.rows + 8 * self.bags * (self.length + 1)

    @lru_cache(maxsize=1)  # noqa: B019 - cells are made once
    def load(self) -> tuple[Tensor, ...]:
        """The table [V, D], indices [B L] and where the bags begin, [B]."""
        generator = torch.Generator().manual_seed(0)
        table = torch.randn(self.rows, self.dim, generator=generator)
        count = self.bags * self.length
        if self.pattern == "sequential":
            indices = torch.arange(count) % self.rows
        else:
            uniform = torch.rand(count, generator=generator, dtype=torch.float64)
            # Of Zipf's law with exponent 1 the logarithm of the rank is uniform.
            ranks = self.rows**uniform - 1 if self.pattern == "zipf" else self.rows * uniform
            order = torch.randperm(self.rows, generator=generator)
            indices = order[ranks.long().clamp(max=self.rows - 1)]
        return table, indices, torch.arange(0, count, self.length)


def beyond_cache(dim: int) -> int:
    """Rows that are twice this machine's cache in int8, and so in 4 bits no less than it."""
    return max(MILLION, 2 * last_level_cache() // dim)


BAGS = (
    BagCell("bags-cold-64", 4096, 32, 2 * MILLION, 64),
    BagCell("bags-cold-128", 4096, 32, 2 * MILLION, 128),
    BagCell("bags-cold-384", 4096, 20, MILLION, 384),
    BagCell("bags-beyond-64", 4096, 32, beyond_cache(64), 64),
    BagCell("bags-beyond-128", 4096, 32, beyond_cache(128), 128),
    BagCell("bags-beyond-384", 4096, 20, beyond_cache(384), 384),
    BagCell("bags-zipf-128", 4096, 32, 2 * MILLION, 128, "zipf"),
    BagCell("bags-sequential-128", 4096, 32, 2 * MILLION, 128, "sequential"),
    BagCell("bags-hot-64", 4096, 32, 2_000, 64),
    BagCell("bags-hot-128", 4096, 32, 2_000, 128),
    BagCell("bags-hot-384", 4096, 20, 2_000, 384),
)


@dataclass(frozen=True)
class CandidateCell:
    """B queries, each with L uniform candidates among N items of d dimensions."""

    name: str
    queries: int
    length: int
    items: int
    dim: int

    @property
    def sizes(self) -> str:
        """For a person to read, by the letters of the docstring."""
        return f"B={self.queries:,} L={self.length} N={self.items:,} d={self.dim}"

    @property
    def bytes(self) -> int:
        """Of the inputs."""
        return 4 * self.dim * (self.items + self.queries) + 8 * self.queries * self.length

    def load(self) -> tuple[Tensor, ...]:
        """Queries [B, d], items [N, d], float32 of unit length, and candidates [B, L]."""
        items = clustered(self.items, self.dim)
        generator = torch.Generator().manual_seed(2)
        ids = torch.randint(self.items, (self.queries, self.length), generator=generator)
        return queries_near(items, self.queries), items, ids


CANDIDATES = (CandidateCell("candidates", 256, 500, 400_000, 384),)


@dataclass(frozen=True)
class QuantizeCell:
    """V rows of D float32 elements."""

    name: str
    rows: int
    dim: int

    @property
    def sizes(self) -> str:
        """For a person to read, by the letters of the docstring."""
        return f"V={self.rows:,} D={self.dim}"

    @property
    def bytes(self) -> int:
        """Of the inputs."""
        return 4 * self.rows * self.dim

    def load(self) -> tuple[Tensor, ...]:
        """The rows [V, D]."""
        return (torch.randn(self.rows, self.dim, generator=torch.Generator().manual_seed(0)),)


QUANTIZE = (QuantizeCell("quantize", MILLION, 128),)


@dataclass(frozen=True)
class PackCell:
    """N items of d dimensions to be packed."""

    name: str
    items: int
    dim: int

    @property
    def sizes(self) -> str:
        """For a person to read, by the letters of the docstring."""
        return f"N={self.items:,} d={self.dim}"

    @property
    def bytes(self) -> int:
        """Of the inputs."""
        return 4 * self.items * self.dim

    def load(self) -> tuple[Tensor, ...]:
        """The items [N, d], float32 of unit length."""
        return (clustered(self.items, self.dim),)


PACK = (PackCell("pack", 400_000, 384),)

Cell = TopkCell | BagCell | CandidateCell | QuantizeCell | PackCell
LOOKUPS = (*BAGS, *CANDIDATES, *QUANTIZE)
GRID = tuple(cell for dim in DIMS for cell in topk_grid(dim))
# Cells of the same items follow each other: those are made once.
ALL: tuple[Cell, ...] = (*TOPK, *CANDIDATES, *PACK, *BAGS, *QUANTIZE, *GRID)
CELLS = {cell.name: cell for cell in ALL}
# Some minutes on two cores, and each operator once at least.
DEFAULT = (
    "headline-1", "headline-32", "headline-256", "candidates", "pack", "bags-cold-128",
    "bags-hot-128", "quantize",
)  # fmt: skip


def chosen(patterns: Sequence[str]) -> list[Cell]:
    """The cells of these names, in which a star stands for anything; `DEFAULT` without any.

    Raises
    ------
    ValueError
        No cell has such a name.

    Examples
    --------
    >>> [cell.name for cell in chosen(["k-1*", "pack"])]
    ['k-10', 'k-1000', 'pack']
    """
    wanted: set[str] = set()
    for pattern in patterns or DEFAULT:
        names = fnmatch.filter(CELLS, pattern)
        if not names:
            raise ValueError(f"CELL is {pattern!r}; no cell has such a name, and --list has all")
        wanted.update(names)
    return [cell for name, cell in CELLS.items() if name in wanted]


def tiny(cell: Any) -> Any:
    """The same cell at a size that runs at once, to try a benchmark and not to measure.

    Examples
    --------
    >>> tiny(CELLS["headline-256"])
    TopkCell(name='headline-256', queries=4, items=500, dim=48, k=50)
    """
    small: dict[str, int] = {"dim": cell.dim // 8}
    if isinstance(cell, RealCell):  # no text is encoded for it
        cell = TopkCell(**asdict(cell))
    if isinstance(cell, TopkCell):
        small |= {"queries": min(cell.queries, 4), "items": 500, "k": min(cell.k, 50)}
    elif isinstance(cell, BagCell):
        small |= {"bags": 20, "length": 4, "rows": 300}
    elif isinstance(cell, CandidateCell):
        small |= {"queries": 5, "length": 20, "items": 500}
    elif isinstance(cell, QuantizeCell):
        small |= {"rows": 300}
    else:
        small |= {"items": 500}
    return replace(cell, **small)
