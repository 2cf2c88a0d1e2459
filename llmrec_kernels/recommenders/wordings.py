"""Other wordings of the items' texts, for towers that learn from more than there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from llmrec_kernels.encoders.augment import Augments
from llmrec_kernels.recommenders import frames, space
from llmrec_kernels.recommenders.features import FeatureEncoder
from llmrec_kernels.recommenders.space import Reader

if TYPE_CHECKING:
    import pandas as pd


class Wordings(NamedTuple):
    """Vectors of other wordings, where the items' own are."""

    vectors: Tensor  # [m, d] float32
    owners: Tensor  # [m] int64, ascending: whose wording each is

    def drawn(self, vectors: Tensor, places: Tensor) -> Tensor:
        """For each of these items, [n], its own vector or that of another wording, [n, d]."""
        first = torch.searchsorted(self.owners, places)
        count = torch.searchsorted(self.owners, places, right=True) - first
        choice = (torch.rand(len(places)) * (count + 1)).long().clamp_max(count)
        drawn = vectors[places]
        other = choice > 0
        drawn[other] = self.vectors[first[other] + choice[other] - 1]
        return drawn


def check(augment: Any, encoder: Any, embeddings: Any, tune: str) -> None:
    """Refuse other wordings where nothing could be learned from them."""
    if augment is None:
        return
    if not hasattr(augment, "views"):
        raise TypeError(
            f"augment is {augment!r}; expected an object with views(texts), such as a TokenDropout"
        )
    if getattr(encoder, "text", encoder) is None:
        raise ValueError("augment makes other wordings of texts, and there is no encoder for them")
    if embeddings is not None:
        raise ValueError(
            "augment makes other wordings of texts, but embeddings are given, made of others by "
            "whatever made them; leave them out"
        )
    if tune != "frozen":
        raise ValueError(
            f"augment is for tune='frozen'; with tune={tune!r} the language model reads the texts "
            "themselves"
        )


def _checked(views: Any, count: int) -> list[list[str]]:
    """A list of texts for each text, or a sentence that says what came instead."""
    if not isinstance(views, list | tuple) or len(views) != count:
        came = f"{len(views)} entries" if hasattr(views, "__len__") else f"{views!r}"
        raise ValueError(f"augment.views gave {came} for {count} texts; expected a list for each")
    for row, of_text in enumerate(views):
        if not isinstance(of_text, list | tuple) or not all(isinstance(v, str) for v in of_text):
            raise TypeError(
                f"augment.views gave {of_text!r} for text {row}; expected a list of strings"
            )
    return list(views)


def wordings(
    augment: Augments, items: pd.DataFrame | None, known: Tensor, reader: Reader
) -> Wordings | None:
    """Other wordings of the texts of known items, [N] bool, beside the same features.

    None where there are none: of an item without interactions there is nothing to learn.
    """
    texts, places = frames.texts(items), known.nonzero()[:, 0]
    views = _checked(augment.views([texts[place] for place in places.tolist()]), len(places))
    worded = [view for of_item in views for view in of_item]
    if not worded:
        return None
    owners = places.repeat_interleave(torch.tensor([len(of_item) for of_item in views]))
    assert items is not None
    assert reader.encoder is not None
    if isinstance(reader.encoder, FeatureEncoder):
        vectors = reader.encoder.transform(items.iloc[owners.numpy()].assign(text=worded))
        return Wordings(space.placed(vectors, False, None)[0], owners)
    return Wordings(space.centred(space.encoded(reader.encoder, worded), reader.mean), owners)
