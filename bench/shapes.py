"""The named cells that benchmarks run: small enough for two cores, large enough to tell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class TopkCell:
    """B queries against N items of d dimensions, the k best of each."""

    name: str
    queries: int
    items: int
    dim: int
    k: int


TOPK = (
    TopkCell("one-query", 1, 100_000, 384, 100),
    TopkCell("few-queries", 32, 100_000, 384, 100),
    TopkCell("many-queries", 256, 100_000, 384, 100),
    TopkCell("short-vectors", 256, 100_000, 64, 10),
)


@dataclass(frozen=True)
class BagCell:
    """B bags of `length` uniform indices into V rows of D elements."""

    name: str
    bags: int
    length: int
    rows: int
    dim: int


BAGS = (
    BagCell("profiles", 1024, 32, 200_000, 128),
    BagCell("wide-profiles", 1024, 20, 100_000, 384),
)


@dataclass(frozen=True)
class CandidateCell:
    """B queries, each with `length` uniform candidates among N items of d dimensions."""

    name: str
    queries: int
    length: int
    items: int
    dim: int


CANDIDATES = (CandidateCell("ranking", 256, 500, 100_000, 384),)


@lru_cache(maxsize=2)
def clustered(items: int, dim: int) -> Tensor:
    """Unit vectors in 4,000 clusters, which behave like sentence embeddings where Gaussian ones
    flatter or punish a filter: a random centre plus 1.2 times noise, normalised.
    """
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(4_000, dim, generator=generator)
    which = torch.randint(4_000, (items,), generator=generator)
    return F.normalize(centres[which] + 1.2 * torch.randn(items, dim, generator=generator))


def queries_near(items: Tensor, count: int) -> Tensor:
    """Unit queries next to items: an item plus 0.03 times noise, normalised."""
    generator = torch.Generator().manual_seed(1)
    which = torch.randint(items.shape[0], (count,), generator=generator)
    noise = torch.randn(count, items.shape[1], generator=generator)
    return F.normalize(items[which] + 0.03 * noise)
