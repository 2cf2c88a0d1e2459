"""Where items are by what is written about them: unit vectors, centred.

Texts of one catalogue are alike (all are films), so that raw cosines are all high and say little.
It is the difference from the average item that tells, so the mean of the items' unit vectors is
taken away and what is left is scaled to length 1 again:

    x_i = (e_i - m) / |e_i - m|,  m the mean of the e_i = embedding / |embedding|

Source: J. Mu and P. Viswanath, All-but-the-top: simple and effective postprocessing for word
representations, ICLR 2018 (its first step, which is the one that counts here).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from llmrec_kernels.recommenders import frames
from llmrec_kernels.recommenders.features import Encodes, FeatureEncoder
from llmrec_kernels.recommenders.reduce import finite_rows

if TYPE_CHECKING:
    import pandas as pd

# A vector this short, where the parts it is made of have length 1, is their float32 rounding.
_NOTHING = 1e-6


class Reader(NamedTuple):
    """How to find the place of a text among the items."""

    mean: Tensor  # [d] float32: what was taken away to centre the items
    encoder: Encodes | None  # fitted, where it is one that learns

    @property
    def blocks(self) -> dict[str, slice]:
        """Which dimensions are which block of features; none where there is but one kind."""
        return self.encoder.blocks if isinstance(self.encoder, FeatureEncoder) else {}

    @property
    def reads(self) -> bool:
        """Whether there is something to encode texts with."""
        return self.encoder is not None and getattr(self.encoder, "text", self.encoder) is not None

    def place(self, text: str) -> Tensor:
        """Where a text is, [1, d]."""
        assert self.encoder is not None
        vector = encoded(self.encoder, [text])
        if vector.shape[1] != len(self.mean):
            raise ValueError(
                f"the encoder's vectors have {vector.shape[1]} dimensions; expected "
                f"{len(self.mean)}, as the items have: give the encoder that encoded them"
            )
        return centred(vector, self.mean)

    @staticmethod
    def of_record(fields: dict[str, Any]) -> Reader:
        """Of its fields by name, as they were saved."""
        return Reader(**fields)


def learned(
    encoder: Encodes | None,
    embeddings: Tensor | None,
    items: pd.DataFrame | None,
    n_items: int,
    centre: bool,
) -> tuple[Tensor, Reader]:
    """The vectors of the items of a frame, by their texts and features or as given, and a reader.

    The vectors, [N, d] float32, are of length 1, or 0 where nothing is known of an item.
    """
    if embeddings is not None:
        if items is None:
            raise ValueError("items is None; its rows say whose the embeddings are")
        if embeddings.shape[0] != n_items:
            raise ValueError(
                f"embeddings has {embeddings.shape[0]} rows but items has {n_items}; "
                "expected one for each item"
            )
        return placed(embeddings, centre, encoder)
    if isinstance(encoder, FeatureEncoder):
        if items is None:
            raise ValueError("items is None; its columns are what there is to encode")
        fitted = copy.copy(encoder)  # the caller's own stays as it is
        return placed(fitted.fit_transform(items), False, fitted)  # its blocks are centred
    assert encoder is not None
    return placed(encoded(encoder, frames.texts(items)), centre, encoder)


def placed(vectors: Tensor, centre: bool, encoder: Encodes | None) -> tuple[Tensor, Reader]:
    """Vectors of a catalogue, [N, d], at length 1, centred or not, and how to read texts there."""
    unit = normalize(vectors, dim=1)
    known = unit[unit.any(dim=1)]
    mean = unit.new_zeros(unit.shape[1])
    if centre and known.shape[0]:
        mean = known.mean(dim=0, dtype=torch.float64).float()
    return _centred(unit, mean), Reader(mean, encoder)


def centred(vectors: Tensor, mean: Tensor) -> Tensor:
    """Vectors of texts, [n, d], where they are among the items of a catalogue with this mean."""
    return _centred(normalize(vectors, dim=1), mean)


def encoded(encoder: Encodes, texts: list[str]) -> Tensor:
    """Vectors of texts, [n, d]."""
    vectors = finite_rows("the encoder's result", encoder.encode(texts))
    if vectors.shape[0] != len(texts):
        raise ValueError(f"the encoder's result has {vectors.shape[0]} rows for {len(texts)} texts")
    # Nothing is known of an item without a text, whatever the encoder makes of "".
    blank = torch.tensor([not text.strip() for text in texts], dtype=torch.bool)
    return vectors.masked_fill(blank[:, None], 0.0)


def checked_encoder(encoder: Any, embeddings: Any) -> Tensor | None:
    """Refuse what cannot encode, and return the embeddings as a matrix."""
    if encoder is None and embeddings is None:
        raise ValueError("there is neither an encoder nor embeddings; give one of them")
    # A string has a method of that name too.
    if isinstance(encoder, str) or not (encoder is None or hasattr(encoder, "encode")):
        raise TypeError(
            f"encoder is {encoder!r}; expected an object with encode(texts), such as a TextEncoder"
        )
    return None if embeddings is None else finite_rows("embeddings", embeddings)


def cleared(vectors: Tensor) -> Tensor:
    """Rows that are nothing but rounding, made 0."""
    return vectors.masked_fill(vectors.norm(dim=-1, keepdim=True) < _NOTHING, 0.0)


def _centred(unit: Tensor, mean: Tensor) -> Tensor:
    """Rows of length 1 (or 0) without the mean, [n, d], of length 1 (or 0) again."""
    moved = torch.where(unit.any(dim=1, keepdim=True), unit - mean, unit)
    return normalize(cleared(moved), dim=1)
