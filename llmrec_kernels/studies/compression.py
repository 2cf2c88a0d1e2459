"""What a smaller encoder costs: bytes and time against quality, before and after."""

from __future__ import annotations

import time
from typing import NamedTuple

import pandas as pd
import torch

from llmrec_kernels.datasets import Dataset, movielens_100k
from llmrec_kernels.encoders import Compression, TextEncoder, bundled_encoder_path
from llmrec_kernels.encoders.compress import parameter_bytes
from llmrec_kernels.evaluation import Report, pool
from llmrec_kernels.recommenders import AlignedRecommender, ContentRecommender
from llmrec_kernels.studies.cold_items import draws, less
from llmrec_kernels.studies.study import Study, Table

_WHOLE = "whole, float32"
_WAYS: dict[str, tuple[torch.dtype, Compression]] = {
    _WHOLE: (torch.float32, Compression()),
    "whole, bfloat16": (torch.bfloat16, Compression()),
    "int8": (torch.float32, Compression(int8=True)),
    "5 of 6 layers": (torch.float32, Compression(layers=5)),
    "4 of 6 layers": (torch.float32, Compression(layers=4)),
    "3 of 6 layers": (torch.float32, Compression(layers=3)),
    "9 of 12 heads": (torch.float32, Compression(heads=9)),
    "6 of 12 heads": (torch.float32, Compression(heads=6)),
    "5 layers, bfloat16": (torch.bfloat16, Compression(layers=5)),
    "5 layers, int8": (torch.float32, Compression(layers=5, int8=True)),
}


class Measured(NamedTuple):
    """An encoder's size, speed and quality."""

    megabytes: float
    seconds: float
    content: list[Report]
    aligned: list[Report]


def compression() -> Study:
    """NDCG@10 on cold items with MiniLM made smaller in several ways."""
    data = movielens_100k(plots=True)
    found = {name: measured(data, *way) for name, way in _WAYS.items()}
    whole = found[_WHOLE]
    rows = {
        name: {
            "MB": f"{one.megabytes:.1f}",
            "texts a second": f"{len(data.items) / one.seconds:.0f}",
            "speed, whole = 1": f"{whole.seconds / one.seconds:.1f}",
            "content": pool(one.content)["NDCG@10"],
            "aligned": pool(one.aligned)["NDCG@10"],
            "content, less whole": ""
            if one is whole
            else " ".join(less(one.content, whole.content)),
        }
        for name, one in found.items()
    }
    table = Table("NDCG@10, mean of five draws; size of the weights; speed.", pd.DataFrame(rows).T)
    return Study("A smaller encoder: ml-100k", _PROTOCOL, [table], findings=_FINDINGS)


def measured(data: Dataset, dtype: torch.dtype, compression: Compression) -> Measured:
    """Encode all films, nothing cached, and rank the cold ones."""
    encoder = TextEncoder(
        bundled_encoder_path(), dtype=dtype, compression=compression, cache_dir=False
    )
    encoder.encode(["loaded before the clock runs"])
    begun = time.perf_counter()
    vectors = encoder.encode(data.items["text"].tolist())
    seconds = time.perf_counter() - begun
    content: list[Report] = []
    aligned: list[Report] = []
    for draw in draws(data):
        for model, reports in (
            (ContentRecommender(embeddings=vectors), content),
            (AlignedRecommender(embeddings=vectors), aligned),
        ):
            reports.append(draw.ndcg(model.fit(draw.train, data.items)))
    return Measured(parameter_bytes(encoder._network.model) / 1e6, seconds, content, aligned)


_PROTOCOL = (
    "MiniLM (6 layers, 12 heads, 384 dimensions) made smaller by `Compression`, with no training "
    "after: layers that stay are spread evenly, heads are those with the largest |W_O W_V|, int8 "
    "is dynamic quantization by torchao (products of int8 weights and int8 inputs; the table of "
    "words in int8 too). Quality is that of *Cold items* with plots (five draws): "
    "`ContentRecommender` and `AlignedRecommender` with their defaults. Differences are of each "
    "user's mean over the draws. Speed is that of 1,682 texts encoded once."
)
_FINDINGS = (
    "Speeds are this machine's: bfloat16 gains where the CPU has instructions for it, and "
    "torchao's int8 is made for `torch.compile`, which is not used here: run eagerly it saves "
    "memory more than time."
)
