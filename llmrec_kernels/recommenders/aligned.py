"""Recommend new items as if they had been clicked: texts mapped into a collaborative space.

What people take together says more of an item than its text does, but of a new item there is only
the text. Where items are known both ways, a linear map from one to the other can be learned, and
then a text alone has a place among the clicked items:

    A ≈ U S Vᵀ            truncated SVD of the ratings less the lowest, 0 where there are none
    [v_i, z_i] ≈ W x_i + c         ridge regression over the items with n_i > 0 interactions
    score(u, i) = p_u · v_i + π z_i,   p_u = Σ_h w_uh v_h / |Σ_h w_uh v_h|

with v the row of V, scaled so that those of known items have a mean square length of 1, x the
centred embedding of the text (and other features), w a rating less the lowest, z the standardised
log(1 + n) and π its weight. An item with interactions is where these put it, one without is where
its text does; between them the two are mixed by n_i / (n_i + `_PRIOR`). The products are not
cosines: how long v is says how much people agree on the item.

Sources: Z. Gantner et al., Learning attribute-to-feature mappings for cold-start recommendations,
ICDM 2010; A. van den Oord, S. Dieleman and B. Schrauwen, Deep content-based music recommendation,
NeurIPS 2013 (regression onto factors).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds
from torch import Tensor
from torch.nn.functional import normalize

from llmrec_kernels.ops import PackedItems, checks, pack
from llmrec_kernels.recommenders import space
from llmrec_kernels.recommenders.answering import Given
from llmrec_kernels.recommenders.features import Encodes
from llmrec_kernels.recommenders.history import History, Lists, sparse
from llmrec_kernels.recommenders.profiles import Bags, weights
from llmrec_kernels.recommenders.records import Absent
from llmrec_kernels.recommenders.results import Explanation
from llmrec_kernels.recommenders.ridge import ridge
from llmrec_kernels.recommenders.space import Reader
from llmrec_kernels.recommenders.vectors import VectorRecommender

if TYPE_CHECKING:
    from typing_extensions import Self

    from llmrec_kernels.recommenders.saving import Helpers

_PRIOR = 1.0  # interactions that a text is worth
_DENSE = 1 << 16  # entries of a table that is taken apart whole
_NOTHING = 1e-6  # singular values below this part of the first are rounding


class AlignedItems(NamedTuple):
    """What is learned of the items."""

    items: PackedItems  # [N, r] float32: v
    popularity: Tensor  # [N] float32: z
    slope: Tensor  # [d, r] float32: W, of the places alone
    shift: Tensor  # [r] float32: c
    reader: Reader


class AlignedRecommender(VectorRecommender[AlignedItems]):
    """Recommend by who took what, also items that nobody took, which their texts put in place.

    Parameters
    ----------
    encoder : object with `encode(texts) -> [n, d]`, optional
        As for `ContentRecommender`; a `FeatureEncoder` with more than the text helps new items.
    embeddings : array, [N, d], optional
        Vectors made before, one for each row of the items frame, instead of encoding texts.
    factors : int
        Dimensions of the collaborative space.
    regularization : float
        Of the map, above 0.
    popularity : float
        π: how much an item's popularity counts, known or foretold by its text; at least 0.

    Examples
    --------
    >>> import pandas as pd
    >>> films = pd.DataFrame({"item": ["heat", "ronin", "elf", "new crime", "new family"]})
    >>> vectors = np.array([[1, 0.1], [1, 0.0], [0.0, 1], [1, 0.2], [0.1, 1]])
    >>> seen = pd.DataFrame({"user": [1, 1, 2, 3], "item": ["heat", "ronin", "elf", "heat"]})
    >>> model = AlignedRecommender(embeddings=vectors, factors=2, regularization=0.1)
    >>> model.fit(seen, films).recommend([3], k=2).item.tolist()
    ['new crime', 'ronin']
    """

    update_is_refit = False
    _metric = "dot"

    def __init__(
        self,
        encoder: Encodes | None = None,
        *,
        embeddings: Any = None,
        factors: int = 16,
        regularization: float = 10.0,
        popularity: float = 0.05,
    ) -> None:
        self._embeddings = space.checked_encoder(encoder, embeddings)
        self.encoder = encoder
        self.factors = checks.positive_int("factors", factors)
        self.regularization = checks.finite_number("regularization", regularization)
        if self.regularization <= 0:
            raise ValueError(f"regularization is {regularization}; expected more than 0")
        self.popularity = checks.finite_number("popularity", popularity)
        if self.popularity < 0:
            raise ValueError(f"popularity is {popularity}; expected at least 0")

    def explain(self, user: Any, item: Any) -> Explanation:
        """Say how much each item of a user's history gives to the score of an item.

        Parameters
        ----------
        user, item : int or str
            Ids that the model knows.

        Returns
        -------
        Explanation
            The shares sum to the block "taste"; with the block "popularity" it is the score.

        Raises
        ------
        IndexError
            If the model does not know the user or the item.
        ValueError
            If the user's history says nothing to the model, which then answers with what is
            popular.
        """
        known, history, code = self._one(user, item)
        places, weight = self._bags(history).of(0)
        vectors = self._learned.items.data.double()
        weighted = torch.from_numpy(weight)[:, None] * vectors[torch.from_numpy(places)]
        length = weighted.sum(dim=0).norm().clamp_min(torch.finfo(torch.float64).tiny)
        share = (weighted @ vectors[int(code[0])] / length).numpy()
        popular = self.popularity * float(self._learned.popularity[int(code[0])])
        return Explanation.of(
            user,
            item,
            self._explained_score(user, history, code),
            "history",
            known.items.take(places),
            weight,
            share,
            {"taste": float(share.sum()), "popularity": popular},
        )

    def _learn(self, given: Given) -> AlignedItems:
        features, reader = space.learned(
            self.encoder, self._embeddings, given.items, len(given.item_ids), True
        )
        count = torch.from_numpy(given.history.popularity.astype(np.float64))
        popular = _standardised(count.log1p(), count > 0)
        places = torch.from_numpy(_places(given.history, self.factors))
        known = torch.cat([places, popular[:, None]], dim=1)
        slope, shift = ridge(features.double(), known, count > 0, self.regularization)
        told = features.double() @ slope + shift
        trust = (count / (count + _PRIOR))[:, None]
        mixed = trust * known + (1 - trust) * told
        return AlignedItems(
            pack(mixed[:, :-1].float()),
            mixed[:, -1].float(),
            slope[:, :-1].float().contiguous(),
            shift[:-1].float(),
            reader,
        )

    def _options(self) -> dict[str, Any]:
        return self._arguments_but("encoder", "embeddings")

    @classmethod
    def _made(cls, options: dict[str, Any], learned: AlignedItems, helpers: Helpers) -> Self:
        encoder = learned.reader.encoder or Absent("the embeddings are not saved")
        return cls(encoder, **options)

    @classmethod
    def _as_learned(cls, fields: dict[str, Any]) -> AlignedItems:
        return AlignedItems(**fields | {"reader": Reader.of_record(fields["reader"])})

    def _vectors(self) -> PackedItems:
        return self._learned.items

    def _bias(self) -> Tensor:
        return self._learned.popularity * self.popularity

    def _bags(self, histories: Lists) -> Bags:
        weight = weights(
            histories,
            "rating",
            lowest=self._ready().history.lowest,
            half_life=1.0,
            min_rating=None,
        )
        return Bags(histories.rows["item"], weight, histories.offsets)

    def _profiles(self, histories: Lists) -> Tensor:
        return normalize(self._bags(histories).pooled(self._learned.items.data), dim=1)

    def _reads(self) -> bool:
        return self._learned.reader.reads

    def _text_profile(self, text: str, liked: Lists) -> Tensor:
        """The text counts as one more item that was liked."""
        place = self._learned.reader.place(text)
        told = place @ self._learned.slope + self._learned.shift
        told = told * place.any(dim=1, keepdim=True)  # a text of nothing tells nothing
        bags = self._bags(liked)
        pooled = bags.pooled(self._learned.items.data) * float(np.count_nonzero(bags.weights))
        return normalize(told + pooled, dim=1)


def _places(history: History, factors: int) -> NDArray[np.float64]:
    """The right singular vectors of who rated what how high, [N, factors], of mean square 1."""
    everyone, n_items = history.everyone(), len(history.popularity)
    rating = everyone.rows["rating"] - history.lowest
    if not rating.any():
        rating = np.ones(len(rating))  # all ratings alike: what counts is who took what
    table = sparse(everyone, n_items, rating)
    rank = min(factors, *table.shape)
    places = np.zeros((n_items, factors))
    if rank:
        places[:, :rank] = _right_singular(table, rank)
    known = history.popularity > 0
    size = np.sqrt((places[known] ** 2).sum(axis=1).mean()) if known.any() else 0.0
    return places / size if size > 0 else places


def _right_singular(table: csr_array, rank: int) -> NDArray[np.float64]:
    """The first right singular vectors, [N, rank], the strongest first; zeros where there is none.

    Where the table has fewer directions, the rest would be whatever rounding makes of nothing. A
    small table, which may have directions of one strength, is taken apart by torch: its arrays
    begin at multiples of 64 bytes, so that the same table gives the same bits each time.
    """
    if rank == min(table.shape) or math.prod(table.shape) <= _DENSE:
        dense = torch.from_numpy(table.toarray()).clone()
        _, strength, right = (one.numpy() for one in torch.linalg.svd(dense, full_matrices=False))
        strength, right = strength[:rank], right[:rank]
    else:
        start = np.random.default_rng(0).standard_normal(min(table.shape))  # for one result
        _, strength, right = svds(table, k=rank, v0=start)
        strength, right = strength[::-1], right[::-1]
    there = strength > _NOTHING * strength[0]
    return np.asarray((right * there[:, None]).T)


def _standardised(values: Tensor, known: Tensor) -> Tensor:
    """Values less the mean of the known ones, over their deviation; [N]."""
    if not known.any():
        return torch.zeros_like(values)
    centred = values - values[known].mean()
    spread = centred[known].square().mean().sqrt()
    return centred / spread if spread > 1e-9 else torch.zeros_like(values)
