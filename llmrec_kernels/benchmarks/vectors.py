"""Vectors that behave like those of real items and queries, where random ones would mislead."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
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

_ROWS = 65_536  # made at a time: a million long vectors and their noise would not fit in memory


@lru_cache(maxsize=1)
def clustered(items: int, dim: int) -> Tensor:
    """Unit vectors in 4,000 clusters: a random centre plus 1.2 times noise, normalised.

    They behave like sentence embeddings where Gaussian ones flatter or punish a filter.
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
    found = list(texts())
    if not found:
        raise DatasetNotFoundError(
            "there are no texts: LLMREC_DATA names a folder that holds ml-100k, ml-latest-small or "
            "online-retail"
        )
    cache = Path(tempfile.gettempdir()) / "llmrec-bench"
    return TextEncoder(bundled_encoder_path(), cache_dir=cache).encode(found)


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
