"""Recommend what is like the things a user took, judged by what is written about them.

An item is the embedding of its text, minus the mean embedding of all items: texts of one
catalogue are alike (all are films), so that raw cosines are all high and say little, and it is
the difference from the average item that tells. A user is a weighted mean of the items taken, and
the score of an item is the cosine with that profile. It follows that a score is an exact sum over
the history, which `explain` returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from llmrec_kernels.ops import PackedItems, checks, cosine_topk, embedding_bag, pack
from llmrec_kernels.recommenders import frames
from llmrec_kernels.recommenders.base import Recommender
from llmrec_kernels.recommenders.filters import Filters
from llmrec_kernels.recommenders.history import Lists
from llmrec_kernels.recommenders.ids import id_list
from llmrec_kernels.recommenders.profiles import POOLINGS, weights
from llmrec_kernels.recommenders.results import Explanation, Recommendations, SimilarItems

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

# A vector this short, where the parts it is made of have length 1, is their float32 rounding.
_NOTHING = 1e-6


class Encodes(Protocol):
    """Anything that turns texts into vectors, such as `TextEncoder`."""

    def encode(self, texts: Sequence[str]) -> Any:
        """Vectors [n, d] of n texts."""


class Space(NamedTuple):
    """Where the items are."""

    items: PackedItems  # [N, d] float32, each of length 1, or 0 where nothing is known of it
    mean: Tensor  # [d] float32, what was taken away to centre them

    @staticmethod
    def of(vectors: Tensor, centre: bool) -> Space:
        """The space of a catalogue's vectors, [N, d]."""
        unit = normalize(vectors, dim=1)
        known = unit[unit.any(dim=1)]
        mean = unit.new_zeros(unit.shape[1])
        if centre and known.shape[0]:
            mean = known.mean(dim=0, dtype=torch.float64).float()
        return Space(pack(_centred(unit, mean)), mean)

    def place(self, vectors: Tensor) -> Tensor:
        """Other vectors in the same space, [n, d]."""
        return _centred(normalize(vectors, dim=1), self.mean)


class ContentRecommender(Recommender[Space]):
    """Recommend items whose texts are like those of the items that a user took.

    Scores are cosines. Items of which nothing was ever clicked are recommended like any other.
    Equal scores come in the order of the items frame.

    Parameters
    ----------
    encoder : object with `encode(texts) -> [n, d]`, optional
        Such as `TextEncoder`. Encodes the column `text` of the items, and `recommend_from_text`.
    embeddings : array, [N, d], optional
        Vectors made before, one for each row of the items frame, instead of encoding texts.
    pooling : "rating", "mean" or "recency"
        How a history becomes a profile. "rating" weighs each item by its rating less the lowest
        rating there is, "mean" counts all alike, "recency" counts an item half after `half_life`
        newer ones. Without ratings, and where all of them are equal, "rating" is "mean".
    half_life : float
        In interactions, for "recency".
    min_rating : float, optional
        Items with a lower rating stay out of the profile (and are not recommended either).
    centre : bool
        Whether to take the mean of the items from their vectors. On MovieLens-100K this is the
        difference between a NDCG@10 of .09 and .22 on items that nobody has rated yet.

    Raises
    ------
    ValueError, TypeError
        If there is neither encoder nor embeddings, or an option is out of its range.

    Examples
    --------
    >>> import pandas as pd
    >>> films = pd.DataFrame({"item": ["heat", "alien", "aliens", "big"]})
    >>> vectors = np.array([[1.0, 0.1, 0.0], [0.0, 1.0, 0.1], [0.0, 0.9, 0.3], [0.5, 0.0, 1.0]])
    >>> seen = pd.DataFrame({"user": ["ann"], "item": ["alien"], "rating": [5]})
    >>> model = ContentRecommender(embeddings=vectors).fit(seen, films)
    >>> model.recommend(["ann"], k=2).item.tolist()
    ['aliens', 'heat']
    >>> model.similar_items(["heat"], k=1).similar.tolist()
    ['big']
    """

    _metric: ClassVar[str] = "cosine"

    def __init__(
        self,
        encoder: Encodes | None = None,
        *,
        embeddings: Any = None,
        pooling: str = "rating",
        half_life: float = 10.0,
        min_rating: float | None = None,
        centre: bool = True,
    ) -> None:
        if encoder is None and embeddings is None:
            raise ValueError("there is neither an encoder nor embeddings; give one of them")
        # A string has a method of that name too.
        if isinstance(encoder, str) or not (encoder is None or hasattr(encoder, "encode")):
            raise TypeError(
                f"encoder is {encoder!r}; expected an object with encode(texts), such as a "
                "TextEncoder"
            )
        checks.choice("pooling", pooling, POOLINGS)
        if checks.finite_number("half_life", half_life) <= 0:
            raise ValueError(f"half_life is {half_life}; expected more than 0")
        self.encoder = encoder
        self.pooling, self.half_life, self.centre = pooling, half_life, centre
        self.min_rating = None
        if min_rating is not None:
            self.min_rating = checks.finite_number("min_rating", min_rating)
        self._needs_ratings = min_rating is not None
        self._embeddings = None if embeddings is None else _matrix("embeddings", embeddings)

    def recommend_from_text(self, text: str, k: int = 10) -> Recommendations:
        """Rank up to k items for someone who says in words what they look for.

        Parameters
        ----------
        text : str
            Encoded and centred as the items' texts are.
        k : int
            At least 1.

        Returns
        -------
        Recommendations
            With None for the user.

        Raises
        ------
        UnsupportedError
            If the recommender has no encoder.
        TypeError, ValueError
            If an argument is of the wrong kind or out of its range.

        Examples
        --------
        >>> import pandas as pd
        >>> class Letters:  # stands in for a TextEncoder
        ...     def encode(self, texts):
        ...         return torch.tensor([[float(text.count(c)) for c in "abc"] for text in texts])
        >>> films = pd.DataFrame({"item": [1, 2, 3], "text": ["aab", "bbc", "cca"]})
        >>> nobody = pd.DataFrame({"user": [], "item": []})
        >>> model = ContentRecommender(Letters()).fit(nobody, films)
        >>> model.recommend_from_text("a cab", k=2).item.tolist()
        [1, 3]
        """
        known = self._ready()
        if self.encoder is None:
            return super().recommend_from_text(text, k)
        if not isinstance(text, str):
            raise TypeError(f"text is a {type(text).__name__}; expected one string")
        k = checks.positive_int("k", k)
        profile = self._learned.place(self._encode([text]))
        return self._answer([None], profile, k, Filters.of(known.items, 1, None, None, None))

    def similar_items(self, items: ArrayLike, k: int = 10) -> SimilarItems:
        """Find the k items most like each of some items, by the cosine of their vectors.

        Parameters
        ----------
        items : list or array of ids
            An item is not similar to itself.
        k : int
            At least 1.

        Returns
        -------
        SimilarItems
            Equal scores in the order of the items. An item of which nothing is known (an empty
            text) has none.

        Raises
        ------
        IndexError
            If the model does not know an item.

        Examples
        --------
        >>> import pandas as pd
        >>> nobody = pd.DataFrame({"user": [], "item": []})
        >>> films = pd.DataFrame({"item": [10, 20, 30]})
        >>> vectors = torch.tensor([[1.0, 0.0], [0.9, 0.2], [0.0, 1.0]])
        >>> model = ContentRecommender(embeddings=vectors).fit(nobody, films)
        >>> model.similar_items([30, 10], k=1).similar.tolist()
        [20, 20]
        """
        known = self._ready()
        asked = id_list("items", items)
        codes = known.items.known_codes("items", asked)
        k = min(checks.positive_int("k", k), len(known.items))
        vectors = self._learned.items.data[torch.from_numpy(codes)]
        scores, places = cosine_topk(
            vectors, self._learned.items, k, exclude=[[one] for one in codes.tolist()]
        )
        found = ((places >= 0) & vectors.any(dim=1)[:, None]).numpy()
        ranks = np.broadcast_to(np.arange(1, k + 1), found.shape)
        return SimilarItems(
            known.items.take(codes).repeat(found.sum(1)),
            known.items.take(places.numpy()[found]),
            scores.numpy()[found],
            ranks[found],
        )

    def explain(self, user: Any, item: Any) -> Explanation:
        """Say how much each item of a user's history gives to the score of an item.

        With p the profile, h the items in it and w their weights, cos(p, x) is the sum over h of
        w (h . x) / (|p| |x|): the shares.

        Parameters
        ----------
        user, item : int or str
            Ids that the model knows.

        Returns
        -------
        Explanation
            The shares, the largest first; their sum is the score.

        Raises
        ------
        IndexError
            If the model does not know the user or the item.
        ValueError
            If the user's history says nothing to the model, which then answers with what is
            popular.

        Examples
        --------
        >>> import pandas as pd
        >>> films = pd.DataFrame({"item": ["heat", "alien", "aliens", "big", "elf"]})
        >>> vectors = torch.tensor([[3.0, 1, 0], [0, 3, 0], [1, 3, 0], [1, 0, 3], [0, 0, 3]])
        >>> seen = pd.DataFrame({"user": [7, 7], "item": ["heat", "alien"], "rating": [4, 5]})
        >>> model = ContentRecommender(embeddings=vectors, pooling="mean").fit(seen, films)
        >>> model.explain(7, "aliens").to_pandas().round(2)
          history  weight  share
        0   alien     0.5   0.72
        1    heat     0.5   0.14
        """
        known = self._ready()
        history = known.history.of(known.users.known_codes("user", id_list("user", [user])))
        code = known.items.known_codes("item", id_list("item", [item]))
        profile = self._profiles(history)[0].double().numpy()
        if not profile.any():
            raise ValueError(
                f"user {user!r} has no history that this model can use: it answers with what is "
                "popular, and there is nothing to share out"
            )
        weight = self._weights(history)
        taken = np.flatnonzero(weight)
        places = history.rows["item"][taken]
        x, *taken_vectors = self._learned.items.data[np.append(code, places)].double().numpy()
        lengths = np.linalg.norm(profile) * np.linalg.norm(x)
        dots = np.array(taken_vectors) @ x
        share = weight[taken] * (dots / lengths if lengths > 0 else dots)
        order = np.argsort(-share, kind="stable")
        return Explanation(
            user,
            item,
            float(self.score([user], [item])[0]),
            known.items.take(places[order]),
            weight[taken][order],
            share[order],
        )

    def _learn(self, items: pd.DataFrame | None, n_items: int) -> Space:
        if self._embeddings is None:
            return Space.of(self._encode(frames.texts(items)), self.centre)
        if items is None:
            raise ValueError("items is None; its rows say whose the embeddings are")
        if self._embeddings.shape[0] != n_items:
            raise ValueError(
                f"embeddings has {self._embeddings.shape[0]} rows but items has {n_items}; "
                "expected one for each item"
            )
        return Space.of(self._embeddings, self.centre)

    def _encode(self, texts: list[str]) -> Tensor:
        assert self.encoder is not None
        vectors = _matrix("the encoder's result", self.encoder.encode(texts))
        if vectors.shape[0] != len(texts):
            raise ValueError(
                f"the encoder's result has {vectors.shape[0]} rows for {len(texts)} texts"
            )
        # Nothing is known of an item without a text, whatever the encoder makes of "".
        blank = torch.tensor([not text.strip() for text in texts], dtype=torch.bool)
        return vectors.masked_fill(blank[:, None], 0.0)

    def _vectors(self) -> PackedItems:
        return self._learned.items

    def _weights(self, histories: Lists) -> NDArray[np.float64]:
        return weights(
            histories,
            self.pooling,
            lowest=self._ready().history.lowest,
            half_life=self.half_life,
            min_rating=self.min_rating,
        )

    def _profiles(self, histories: Lists) -> Tensor:
        profiles: Tensor = embedding_bag(
            self._learned.items.data,
            torch.from_numpy(np.ascontiguousarray(histories.rows["item"])),
            torch.from_numpy(histories.offsets),
            per_sample_weights=torch.from_numpy(self._weights(histories)).float(),
            include_last_offset=True,
        )
        return _cleared(profiles)


def _matrix(name: str, vectors: Any) -> Tensor:
    matrix = checks.float_array(name, vectors, "[n, d]").detach().cpu().float()
    bad = ~matrix.isfinite().all(dim=1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        raise ValueError(f"{name} holds NaN or Inf in row {row}; expected finite numbers")
    return matrix


def _centred(unit: Tensor, mean: Tensor) -> Tensor:
    """Rows of length 1 (or 0) without the mean, [n, d], of length 1 (or 0) again."""
    moved = torch.where(unit.any(dim=1, keepdim=True), unit - mean, unit)
    return normalize(_cleared(moved), dim=1)


def _cleared(vectors: Tensor) -> Tensor:
    """Rows that are nothing but rounding, made 0."""
    return vectors.masked_fill(vectors.norm(dim=1, keepdim=True) < _NOTHING, 0.0)
