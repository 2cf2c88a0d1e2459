"""Exact top-K, embedding lookup and scoring for recommendation with LLM embeddings.

The operators are here at once; what is built on them (`index`, `recommenders`, `datasets`,
`evaluation`, `encoders`, `profiler`) is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

from llmrec_kernels.backends import explain
from llmrec_kernels.ops import (
    PackedItems,
    QuantizedTable,
    TopK,
    candidate_scores,
    cosine_topk,
    embedding_bag,
    pack,
    quantize,
)
from llmrec_kernels.ragged import Ragged

__version__ = "0.1.0"

_LATER = {
    "ContentRecommender": "recommenders",
    "ItemIndex": "index",
    "PopularityRecommender": "recommenders",
    "TextEncoder": "encoders",
}
_ROOMS = ("datasets", "encoders", "evaluation", "index", "profiler", "recommenders")

__all__ = [
    "ContentRecommender",
    "ItemIndex",
    "PackedItems",
    "PopularityRecommender",
    "QuantizedTable",
    "Ragged",
    "TextEncoder",
    "TopK",
    "candidate_scores",
    "cosine_topk",
    "embedding_bag",
    "explain",
    "pack",
    "quantize",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _LATER:
        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
