"""Recommenders whose scores are similarities of a profile and item vectors.

They rank through `cosine_topk`, which never holds the scores of all items, and score pairs through
`candidate_scores`; both give the same bits for the same pair.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmrec_kernels._ids import id_list
from llmrec_kernels.ops import TopK, candidate_scores, checks, cosine_topk
from llmrec_kernels.ragged import Ragged
from llmrec_kernels.recommenders import ranking
from llmrec_kernels.recommenders.answering import Learned
from llmrec_kernels.recommenders.base import Recommender
from llmrec_kernels.recommenders.filters import Filters
from llmrec_kernels.recommenders.history import Lists
from llmrec_kernels.recommenders.results import SimilarItems

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_USERS_AT_ONCE = 8192


class VectorRecommender(Recommender[Learned]):
    """A recommender with a vector for each item, and a profile for each history."""

    _metric: str

    @abstractmethod
    def _profiles(self, histories: Lists) -> Tensor:
        """The vector of each history, [B, d] float32; zeros where it says nothing.

        Or several, [B, m, d], of which an item counts by the nearest.
        """

    @abstractmethod
    def _vectors(self) -> Any:
        """The vectors of the items, [N, d], as `cosine_topk` takes them."""

    def _compared(self) -> Any:
        """The vectors by which items are compared, [N, d]."""
        return self._vectors()

    def _text_profile(self, text: str, liked: Lists) -> Tensor:
        """The vector of a text and of one history, [1, d] float32; if it `_reads`."""
        raise NotImplementedError

    def _bias(self) -> Tensor | None:
        """What is added to each item's similarity, [N] float32."""
        return None

    def _blocks(self, count: int) -> list[slice]:
        """Users to answer together: their profiles are held, their scores are not."""
        starts = range(0, count, _USERS_AT_ONCE)
        return [slice(start, min(start + _USERS_AT_ONCE, count)) for start in starts]

    def _top(self, histories: Lists, k: int, filters: Filters) -> tuple[TopK, Tensor]:
        return self._closest(self._profiles(histories), k, filters)

    def _pairs(self, histories: Lists, pairs: Ragged) -> tuple[NDArray[np.float32], Tensor]:
        return self._of(self._profiles(histories), pairs)

    def _rows(self, histories: Lists) -> Tensor:
        return self._all(self._profiles(histories))

    def _text_top(self, text: str, liked: Lists, k: int, filters: Filters) -> tuple[TopK, Tensor]:
        return self._closest(self._text_profile(text, liked), k, filters)

    def _text_rows(self, text: str, liked: Lists) -> Tensor:
        return self._all(self._text_profile(text, liked))

    def _closest(self, profiles: Tensor, k: int, filters: Filters) -> tuple[TopK, Tensor]:
        """The k best items of profiles, and which of them say something."""
        flat = _flat(profiles)
        several = len(flat) // max(len(profiles), 1)
        users = torch.arange(len(profiles)).repeat_interleave(several)
        topk = cosine_topk(
            flat,
            self._vectors(),
            k,
            metric=self._metric,
            item_bias=self._bias(),
            **(filters.of_users(users) if several > 1 else filters).arguments(),
        )
        return ranking.merged(topk, several) if several > 1 else topk, _meant(profiles)

    def _of(self, profiles: Tensor, pairs: Ragged) -> tuple[NDArray[np.float32], Tensor]:
        """The scores of each profile's own items, [nnz], and which profiles say something."""
        options: dict[str, Any] = {"metric": self._metric, "item_bias": self._bias()}
        scores = [
            candidate_scores(one.contiguous(), self._vectors(), pairs, **options)
            for one in (profiles.unbind(1) if profiles.dim() == 3 else [profiles])
        ]
        return torch.stack(scores).amax(0).numpy(), _meant(profiles)

    def _all(self, profiles: Tensor) -> Tensor:
        """The score of each item for each profile, [B, N]; zeros where it says nothing."""
        count, n_items = len(profiles), len(self._ready().items)
        everything = Ragged(torch.arange(n_items).repeat(count), torch.arange(count + 1) * n_items)
        scores, meant = self._of(profiles, everything)
        return torch.from_numpy(scores).view(count, n_items) * meant[:, None]

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
            text, say) has none.

        Raises
        ------
        IndexError
            If the model does not know an item.

        Examples
        --------
        >>> import pandas as pd
        >>> from llmrec_kernels import ContentRecommender
        >>> nobody = pd.DataFrame({"user": [], "item": []})
        >>> films = pd.DataFrame({"item": [10, 20, 30]})
        >>> vectors = torch.tensor([[1.0, 0.0], [0.9, 0.2], [0.0, 1.0]])
        >>> model = ContentRecommender(embeddings=vectors).fit(nobody, films)
        >>> model.similar_items([30, 10], k=1).similar.tolist()
        [20, 20]
        """
        known = self._ready()
        codes = known.items.known_codes("items", id_list("items", items))
        k = min(checks.positive_int("k", k), len(known.items))
        packed = self._compared()
        vectors = packed.data[torch.from_numpy(codes)]
        scores, places = cosine_topk(vectors, packed, k, exclude=[[one] for one in codes.tolist()])
        meant = vectors.any(dim=1)[:, None]
        return SimilarItems.of(known.items, codes, TopK(scores, places.masked_fill(~meant, -1)))


def _flat(profiles: Tensor) -> Tensor:
    """One line for each profile."""
    return profiles.reshape(-1, profiles.shape[-1])


def _meant(profiles: Tensor) -> Tensor:
    """Which users' profiles say something, [B] bool."""
    return profiles.flatten(1).any(dim=1)
