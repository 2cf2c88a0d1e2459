"""Recommend what is like the things a user took, judged by what is written about them.

An item is the centred embedding of its text (`space.py` says why centred). A user is a weighted
mean of the items taken, and the score of an item is the cosine with that profile, so a score is an
exact sum over the history, which `explain` returns:

    p_u = Σ_h w_uh x_h,   score(u, i) = b_u cos(p_u, x_i) = b_u Σ_h w_uh (x_h · x_i) / (|p_u| |x_i|)

Someone with several interests is several profiles, one for each cluster of the history
(`interests.py`), and an item counts by the nearest. b_u, 1 unless asked for, is the multiplicative
bias of a user: the mean of their ratings over the mean of all, both counted with `_SHRINK` ratings
of the latter. It orders users for an item, not items for a user.

Sources: M. Pazzani and D. Billsus, Content-based recommendation systems, The Adaptive Web, 2007;
C. Li et al., Multi-interest network with dynamic routing, CIKM 2019 (the maximum over interests).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from llmrec_kernels.ops import PackedItems, checks, pack
from llmrec_kernels.recommenders import space
from llmrec_kernels.recommenders.answering import Given, UnsupportedError
from llmrec_kernels.recommenders.features import Encodes
from llmrec_kernels.recommenders.history import Lists
from llmrec_kernels.recommenders.interests import interests_of
from llmrec_kernels.recommenders.privacy import GaussianProfile
from llmrec_kernels.recommenders.profiles import POOLINGS, Bags, rating_shares, weights
from llmrec_kernels.recommenders.records import Absent
from llmrec_kernels.recommenders.results import Explanation
from llmrec_kernels.recommenders.space import Reader
from llmrec_kernels.recommenders.vectors import VectorRecommender

if TYPE_CHECKING:
    from typing_extensions import Self

    from llmrec_kernels.recommenders.saving import Helpers

_SHRINK = 5.0  # ratings of the mean that each user is taken to have given


class Space(NamedTuple):
    """What is learned of the items."""

    items: PackedItems  # [N, d] float32, each of length 1, or 0 where nothing is known of it
    reader: Reader


class ContentRecommender(VectorRecommender[Space]):
    """Recommend items whose texts are like those of the items that a user took.

    Scores are cosines. Items of which nothing was ever clicked are recommended like any other.
    Equal scores come in the order of the items frame.

    Parameters
    ----------
    encoder : object with `encode(texts) -> [n, d]`, optional
        Such as `TextEncoder`. Encodes the column `text` of the items, and `recommend_from_text`.
        A `FeatureEncoder` encodes other columns too.
    embeddings : array, [N, d], optional
        Vectors made before, one for each row of the items frame, instead of encoding texts.
    pooling : "rating", "mean" or "recency"
        How a history becomes a profile. "rating" weighs each item by its rating less the lowest
        rating there is, "mean" counts all alike, "recency" counts an item half after `half_life`
        newer ones. Without ratings, and where all of them are equal, "rating" is "mean".
    half_life : float
        In interactions, for "recency".
    interests : int
        Profiles a user has at most. Of several, an item counts by the nearest.
    min_rating : float, optional
        Items with a lower rating stay out of the profile (and are not recommended either).
    centre : bool
        Whether to take the mean of the items from their vectors. On MovieLens-100K this is the
        difference between a NDCG@10 of .09 and .22 on items that nobody has rated yet. A
        `FeatureEncoder` centres each of its blocks, whatever is asked for here.
    user_bias : bool
        Whether to multiply scores by the mean rating of the user over that of all, for ratings of
        at least 0.
    privacy : GaussianProfile, optional
        Noise for each profile, so that it gives away little of any one item of the history. Not
        with "recency" or several interests, where one item moves the weights of others.

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

    update_is_refit = True
    _metric = "cosine"

    def __init__(
        self,
        encoder: Encodes | None = None,
        *,
        embeddings: Any = None,
        pooling: str = "rating",
        half_life: float = 10.0,
        interests: int = 1,
        min_rating: float | None = None,
        centre: bool = True,
        user_bias: bool = False,
        privacy: GaussianProfile | None = None,
    ) -> None:
        self._embeddings = space.checked_encoder(encoder, embeddings)
        checks.choice("pooling", pooling, POOLINGS)
        if checks.finite_number("half_life", half_life) <= 0:
            raise ValueError(f"half_life is {half_life}; expected more than 0")
        self.encoder, self.pooling, self.half_life = encoder, pooling, half_life
        self.interests = checks.positive_int("interests", interests)
        self.min_rating = None
        if min_rating is not None:
            self.min_rating = checks.finite_number("min_rating", min_rating)
        self.centre, self.user_bias, self.privacy = centre, user_bias, privacy
        if privacy is not None and (pooling == "recency" or self.interests > 1):
            raise ValueError(
                f"privacy is given with pooling {pooling!r} and interests {interests}, where one "
                "item of a history moves the weights of others; expected pooling 'mean' or "
                "'rating' and interests 1"
            )
        self._needs_ratings = min_rating is not None or user_bias
        if user_bias:
            self._metric = "dot"  # of profiles that are as long as the bias

    def explain(self, user: Any, item: Any) -> Explanation:
        """Say how much each item of a user's history gives to the score of an item.

        With p the profile, h the items in it and w their weights, cos(p, x) is the sum over h of
        w (h . x) / (|p| |x|): the shares. Of several interests it is the one that decides.

        Parameters
        ----------
        user, item : int or str
            Ids that the model knows.

        Returns
        -------
        Explanation
            The shares, the largest first; their sum is the score. With a `FeatureEncoder` also
            the shares of its blocks.

        Raises
        ------
        IndexError
            If the model does not know the user or the item.
        UnsupportedError
            If the profile has noise for privacy: it is no sum over the history.
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
        known, history, code = self._one(user, item)
        if self.privacy is not None:
            raise UnsupportedError(
                "the profile has noise for privacy: it is no sum over the history"
            )
        score = self._explained_score(user, history, code)
        profiles = self._profiles(history).reshape(-1, self._learned.items.data.shape[1])
        x = self._learned.items.data[torch.from_numpy(code)][0].double()
        which = int((normalize(profiles.double(), dim=1) @ x).argmax())
        places, weight = self._bags(history).of(which)
        taken = self._learned.items.data[torch.from_numpy(places)].double()
        weighted = torch.from_numpy(weight)[:, None] * taken
        scale = self._scale(history)[0] / weighted.sum(dim=0).norm()
        parts = weighted * x * scale  # what each item gives to the score in each dimension
        blocks = {
            name: float(parts[:, one].sum()) for name, one in self._learned.reader.blocks.items()
        }
        return Explanation.of(
            user,
            item,
            score,
            "history",
            known.items.take(places),
            weight,
            parts.sum(dim=1).numpy(),
            blocks,
        )

    def _learn(self, given: Given) -> Space:
        self._check_scale(given.history.lowest)
        if self.user_bias and given.history.mean <= 0:
            raise ValueError(
                f"the mean of the ratings is {given.history.mean}; expected more than 0 with "
                "user_bias, which divides by it"
            )
        n_items = len(given.item_ids)
        vectors, reader = space.learned(
            self.encoder, self._embeddings, given.items, n_items, self.centre
        )
        return Space(pack(vectors), reader)

    def _observed(self, users: NDArray[np.int64], rows: NDArray[np.void]) -> Space:
        self._check_scale(rows["rating"].min(initial=0.0))
        return self._learned

    def _check_scale(self, lowest: float) -> None:
        """A negative bias would turn the list of a user round."""
        if self.user_bias and lowest < 0:
            raise ValueError(
                f"interactions has a rating of {lowest}; expected at least 0 with user_bias, which "
                "multiplies scores by a user's mean rating"
            )

    def _options(self) -> dict[str, Any]:
        options = self._arguments_but("encoder", "embeddings")
        if self.privacy is not None:
            options["privacy"] = {
                name: getattr(self.privacy, name) for name in ("epsilon", "delta", "clip")
            }
        return options

    @classmethod
    def _made(cls, options: dict[str, Any], learned: Space, helpers: Helpers) -> Self:
        if options["privacy"] is not None:
            options["privacy"] = helpers.privacy or GaussianProfile(**options["privacy"])
        return cls(learned.reader.encoder or Absent("the embeddings are not saved"), **options)

    @classmethod
    def _as_learned(cls, fields: dict[str, Any]) -> Space:
        return Space(fields["items"], Reader.of_record(fields["reader"]))

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

    def _bags(self, histories: Lists) -> Bags:
        """What each profile is pooled from."""
        bags = Bags(histories.rows["item"], self._weights(histories), histories.offsets)
        if self.interests == 1:
            return bags
        return interests_of(self._learned.items, bags, self.interests)

    def _profiles(self, histories: Lists) -> Tensor:
        if self.privacy is not None:
            profiles = self._private(histories)
        else:
            profiles = space.cleared(self._bags(histories).pooled(self._learned.items.data))
        profiles = self._biased(profiles, histories, self.interests)
        if self.interests > 1:
            return profiles.view(-1, self.interests, profiles.shape[1])
        return profiles

    def _biased(self, profiles: Tensor, histories: Lists, several: int) -> Tensor:
        """Profiles, `several` for each history, as long as the bias of their user if it counts."""
        if not self.user_bias:
            return profiles
        scale = torch.from_numpy(self._scale(histories)).float()
        return normalize(profiles) * scale.repeat_interleave(several)[:, None]

    def _private(self, histories: Lists) -> Tensor:
        """Sums of at most one unit vector an item, with noise."""
        assert self.privacy is not None
        history = self._ready().history
        scale = (history.lowest, history.highest)
        share = rating_shares(histories, self.pooling, scale, self.min_rating)
        bags = Bags(histories.rows["item"], share * self.privacy.clip, histories.offsets)
        sums = self.privacy.noisy(bags.pooled(self._learned.items.data), _keys(histories))
        # Of users whom the model knows, also an empty history must not be told from others.
        nobody = histories.empty()
        if histories.users is not None:
            nobody &= torch.from_numpy(histories.users < 0)
        return sums.masked_fill(nobody[:, None], 0.0)

    def _scale(self, histories: Lists) -> NDArray[np.float64]:
        """The multiplicative bias of each user, [B]."""
        counts = np.diff(histories.offsets)
        if not self.user_bias:
            return np.ones(len(counts))
        mean = self._ready().history.mean
        sums = np.bincount(histories.owners(), histories.rows["rating"], minlength=len(counts))
        return np.asarray((sums + _SHRINK * mean) / (counts + _SHRINK) / mean)

    def _reads(self) -> bool:
        return self._learned.reader.reads

    def _text_profile(self, text: str, liked: Lists) -> Tensor:
        """The text counts as one more thing that was liked."""
        profile = self._learned.reader.place(text)
        if not len(liked.rows):
            return profile
        if self.privacy is not None:
            profile = profile * self.privacy.clip + self._private(liked)
        else:
            bags = Bags(liked.rows["item"], self._weights(liked), liked.offsets)
            taken = int(np.count_nonzero(bags.weights))
            profile = space.cleared(profile + bags.pooled(self._learned.items.data) * taken)
        return self._biased(profile, liked, 1)


def _keys(histories: Lists) -> list[bytes]:
    """Whose each history is: a user's by number, anyone else's by what is in it."""
    parts = np.split(histories.rows, histories.offsets[1:-1])
    users = [-1] * len(parts) if histories.users is None else histories.users.tolist()
    return [
        b"user %d" % user if user >= 0 else part.tobytes()
        for user, part in zip(users, parts, strict=True)
    ]
