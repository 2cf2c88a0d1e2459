"""The named cells that benchmarks run: small enough for two cores, large enough to tell."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from llmrec_kernels.datasets import (
    DatasetNotFoundError,
    movielens_100k,
    movielens_latest_small,
)
from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path


@dataclass(frozen=True)
class TopkCell:
    """B queries against N items of d dimensions, the k best of each."""

    name: str
    queries: int
    items: int
    dim: int
    k: int

    def load(self) -> tuple[Tensor, Tensor]:
        """Queries [B, d] and items [N, d], float32 of unit length."""
        items = clustered(self.items, self.dim)
        return queries_near(items, self.queries), items


@dataclass(frozen=True)
class RealCell(TopkCell):
    """The same over sentence embeddings; how many there are is known when they are loaded."""

    def load(self) -> tuple[Tensor, Tensor]:
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
    TopkCell("dim-64", 256, 1_000_000, 64, 100),
    TopkCell("dim-128", 256, 1_000_000, 128, 100),
    TopkCell("dim-768", 256, 400_000, 768, 100),
    TopkCell("dim-768-1", 1, 400_000, 768, 100),
    TopkCell("dim-1024", 256, 400_000, 1024, 100),
    TopkCell("million-1", 1, 1_000_000, 384, 100),
    TopkCell("million-256", 256, 1_000_000, 384, 100),
    TopkCell("batch-4096", 4096, 100_000, 384, 100),
    RealCell("real-1", 1, 0, 384, 100),
    RealCell("real-256", 256, 0, 384, 100),
)
TINY = TopkCell("tiny", 4, 3_000, 32, 5)  # for the test that the comparison runs


@dataclass(frozen=True)
class BagCell:
    """B bags of `length` indices into V rows of D elements."""

    name: str
    bags: int
    length: int
    rows: int
    dim: int
    pattern: str = "uniform"  # or "zipf", which few rows have most of, or "sequential"

    @lru_cache(maxsize=1)  # noqa: B019 - cells are made once
    def load(self) -> tuple[Tensor, Tensor, Tensor]:
        """The table [V, D], indices [B * length] and where the bags begin, [B]."""
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


def last_level_cache() -> int:
    """Bytes of the largest cache that the machine reports; 32 MB where it reports none."""
    found = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    kilobytes = [int(size.read_text().strip().removesuffix("K")) for size in found]
    return max(kilobytes, default=32 << 10) << 10


def beyond_cache(dim: int) -> int:
    """Rows that are twice the cache in int8, and so in 4 bits no less than it."""
    return max(1_000_000, 2 * last_level_cache() // dim)


BAGS = (
    BagCell("bags-cold-64", 4096, 32, 2_000_000, 64),
    BagCell("bags-cold-128", 4096, 32, 2_000_000, 128),
    BagCell("bags-cold-384", 4096, 20, 1_000_000, 384),
    BagCell("bags-beyond-64", 4096, 32, beyond_cache(64), 64),
    BagCell("bags-beyond-128", 4096, 32, beyond_cache(128), 128),
    BagCell("bags-beyond-384", 4096, 20, beyond_cache(384), 384),
    BagCell("bags-zipf-128", 4096, 32, 2_000_000, 128, "zipf"),
    BagCell("bags-sequential-128", 4096, 32, 2_000_000, 128, "sequential"),
    BagCell("bags-hot-64", 4096, 32, 2_000, 64),
    BagCell("bags-hot-128", 4096, 32, 2_000, 128),
    BagCell("bags-hot-384", 4096, 20, 2_000, 384),
)


@dataclass(frozen=True)
class CandidateCell:
    """B queries, each with `length` uniform candidates among N items of d dimensions."""

    name: str
    queries: int
    length: int
    items: int
    dim: int


CANDIDATES = (CandidateCell("candidates", 256, 500, 400_000, 384),)


@dataclass(frozen=True)
class QuantizeCell:
    """V rows of D float32 elements."""

    name: str
    rows: int
    dim: int


QUANTIZE = (QuantizeCell("quantize", 1_000_000, 128),)

LOOKUPS = (*BAGS, *CANDIDATES, *QUANTIZE)
TINY_LOOKUPS = (
    BagCell("tiny-bags", 50, 6, 300, 32),
    CandidateCell("tiny-candidates", 6, 20, 200, 24),
    QuantizeCell("tiny-quantize", 300, 32),
)


_ROWS = 65_536  # made at a time: a million long vectors and their noise would not fit in memory


@lru_cache(maxsize=1)
def clustered(items: int, dim: int) -> Tensor:
    """Unit vectors in 4,000 clusters, which behave like sentence embeddings where Gaussian ones
    flatter or punish a filter: a random centre plus 1.2 times noise, normalised.
    """
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(4_000, dim, generator=generator)
    which = torch.randint(4_000, (items,), generator=generator)
    vectors = torch.empty(items, dim)
    for rows, centre in zip(vectors.split(_ROWS), which.split(_ROWS), strict=True):
        torch.randn(rows.shape, generator=generator, out=rows)
        rows.mul_(1.2).add_(centres[centre])
        F.normalize(rows, out=rows)
    return vectors


def queries_near(items: Tensor, count: int) -> Tensor:
    """Unit queries next to items: an item plus 0.03 times noise, normalised."""
    generator = torch.Generator().manual_seed(1)
    which = torch.randint(items.shape[0], (count,), generator=generator)
    noise = torch.randn(count, items.shape[1], generator=generator)
    return F.normalize(items[which] + 0.03 * noise)


def profiles(items: Tensor, count: int, length: int = 8) -> Tensor:
    """Unit queries as users of few ratings are: the mean of some items, normalised."""
    generator = torch.Generator().manual_seed(3)
    which = torch.randint(items.shape[0], (count, length), generator=generator)
    return F.normalize(items[which].mean(dim=1))


@lru_cache(maxsize=1)
def embedded_texts() -> Tensor:
    """All distinct texts of the data sets at hand as unit vectors of MiniLM, [N, 384].

    The vectors are kept in a folder for temporary files, so that a second run need not encode.
    """
    cache = Path(tempfile.gettempdir()) / "llmrec-bench"
    return TextEncoder(bundled_encoder_path(), cache_dir=cache).encode(list(texts()))


def texts() -> dict[str, None]:
    """The distinct texts, in order: films with and without plots, and products."""
    found: dict[str, None] = {}
    for load in (movielens_100k, partial(movielens_100k, plots=True), movielens_latest_small):
        with suppress(DatasetNotFoundError):
            found |= dict.fromkeys(load(download=False).items["text"])
    products = Path(os.environ.get("LLMREC_DATA", ".")) / "online-retail" / "online_retail.csv.gz"
    if products.exists():
        names = pd.read_csv(products, usecols=["Description"], dtype=str)["Description"]
        found |= dict.fromkeys(names.dropna().str.strip())
    return found
