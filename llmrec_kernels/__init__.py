"""Exact top-K, embedding lookup and scoring for recommendation with LLM embeddings.

The operators are here at once; what is built on them (`index`, `recommenders`, `datasets`,
`evaluation`, `encoders`, `language`, `training`, `profiler`) is imported when it is first used.
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
    "ItemIndex": "index",
    "TextEncoder": "encoders",
    **dict.fromkeys(
        (
            "ALSRecommender",
            "AlignedRecommender",
            "ContentRecommender",
            "EASERecommender",
            "FeatureEncoder",
            "HybridRecommender",
            "ItemKNNRecommender",
            "PopularityRecommender",
            "Recommender",
            "SequenceRecommender",
            "TextRatingRegressor",
            "TwoTowerRecommender",
            "UserKNNRecommender",
        ),
        "recommenders",
    ),
}
_ROOMS = (
    "datasets",
    "encoders",
    "evaluation",
    "index",
    "language",
    "profiler",
    "recommenders",
    "studies",
    "training",
)

__all__ = [
    "ALSRecommender",
    "AlignedRecommender",
    "ContentRecommender",
    "EASERecommender",
    "FeatureEncoder",
    "HybridRecommender",
    "ItemIndex",
    "ItemKNNRecommender",
    "PackedItems",
    "PopularityRecommender",
    "QuantizedTable",
    "Ragged",
    "Recommender",
    "SequenceRecommender",
    "TextEncoder",
    "TextRatingRegressor",
    "TopK",
    "TwoTowerRecommender",
    "UserKNNRecommender",
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
