"""How small the vectors of items can be: quality against bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from llmrec_kernels.datasets import movielens_100k
from llmrec_kernels.evaluation import pool
from llmrec_kernels.ops import quantize
from llmrec_kernels.recommenders import ContentRecommender
from llmrec_kernels.recommenders.reduce import PCA, RandomProjection, bytes_per_item, truncate
from llmrec_kernels.studies import models
from llmrec_kernels.studies.cold_items import draws
from llmrec_kernels.studies.study import Picture, Study, Table

_DIMS = (16, 32, 64, 128, 256)
_STORED = ("int8", "int4")

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Reduce = Callable[[Tensor, int], Tensor]

_WAYS: dict[str, Reduce] = {
    "PCA": lambda vectors, dim: PCA(dim).fit(vectors).transform(vectors),
    "random projection": lambda vectors, dim: RandomProjection(dim).fit(vectors).transform(vectors),
    "truncation": truncate,
}


def reduction() -> Study:
    """NDCG@10 on cold items by content, with vectors of fewer and smaller numbers."""
    data = movielens_100k(plots=True)
    vectors = models.text_encoder().encode(data.items["text"].tolist())
    small = {("float32", "as encoded", vectors.shape[1]): vectors}
    for name, way in _WAYS.items():
        small |= {("float32", name, dim): way(vectors, dim) for dim in _DIMS}
    for kind in _STORED:
        small[kind, "as encoded", vectors.shape[1]] = _through(kind, vectors)
        small |= {(kind, "PCA", dim): _through(kind, _WAYS["PCA"](vectors, dim)) for dim in _DIMS}
    rows = []
    for (kind, name, dim), reduced in small.items():
        quality = pool(
            [
                draw.ndcg(ContentRecommender(embeddings=reduced).fit(draw.train, data.items))
                for draw in draws(data)
            ]
        )["NDCG@10"]
        rows.append((f"{name}, {dim} {kind}", bytes_per_item(dim, kind), quality))
    rows.sort(key=lambda row: (-row[1], -row[2]))
    frame = pd.DataFrame(
        {"bytes an item": [row[1] for row in rows], "NDCG@10": [row[2] for row in rows]},
        index=[row[0] for row in rows],
        dtype=object,
    )
    picture = Picture("reduction", "NDCG@10 against bytes an item", lambda: _drawn(frame))
    return Study("Vectors of fewer bytes: ml-100k", _PROTOCOL, [Table("", frame)], [picture])


def _through(kind: str, vectors: Tensor) -> Tensor:
    """Vectors as they come back from quantized rows."""
    table = quantize(vectors, kind)
    return torch.as_tensor(table.dequantize())


def _drawn(frame: pd.DataFrame) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for number, (way, mark) in enumerate(
        {"PCA": "o", "random projection": "s", "truncation": "^", "as encoded": "D"}.items()
    ):
        for kind, line in {"float32": "-", "int8": "--", "int4": ":"}.items():
            named = [one.startswith(f"{way},") and one.endswith(kind) for one in frame.index]
            part = frame[named].sort_values("bytes an item")
            if len(part):
                axes.plot(
                    part["bytes an item"].astype(float),
                    part["NDCG@10"].astype(float),
                    line,
                    marker=mark,
                    color=f"C{number}",
                    label=f"{way}, {kind}",
                )
    axes.set_xscale("log", base=2)
    axes.set(xlabel="bytes an item", ylabel="NDCG@10, cold items")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    return figure


_PROTOCOL = (
    "The protocol of *Cold items* (five draws), `ContentRecommender` over MiniLM's 384 numbers of "
    "the texts with plots. The vectors of all 1,682 films are reduced, by principal components, a "
    "random projection (seed 0) or by keeping the first numbers (for which MiniLM was not "
    "trained), and stored as float32, or as int8 or int4 rows with their scale and bias and read "
    "back."
)
