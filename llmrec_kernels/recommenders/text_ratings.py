"""Predict ratings from texts: of items that nobody has rated, and of users who say who they are.

Biases know of an item what its ratings say, and of a new item nothing. A text says how well the
like of it are rated, and by whom. Linear heads (or small networks) over the centred embeddings of
items and of users are learned from ratings (`rating_training.py`):

    r̂_ui = μ + b_u + β_i + δ_i + p_u · q_i
    b_u = (λ_b τ_u + Σ_h e_h) / (λ_b + n_u),   p_u = (λ_p t_u + Σ_h (e_h - b_u) q_h) / (λ_p + n_u)

with e_h = r_h - μ - β_h. β and q are the heads' outputs for the text of an item, τ and t those for
the text of a user, which counts as λ ratings. δ_i is what the ratings of an item say beyond its
text: the mean of what is left of them, with λ_i = 5 ratings of 0. The user's bias and taste are of
the history as it is when asked, so new users need no training.

Sources: Y. Koren, Factor in the neighbors, TKDD 4(1), 2010 (the baseline, and a user as a sum over
what is left of the ratings); Z. Gantner et al., Learning attribute-to-feature mappings for
cold-start recommendations, ICDM 2010.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmrec_kernels.encoders import TextEncoder
from llmrec_kernels.ops import PackedItems, checks, pack
from llmrec_kernels.ragged import Ragged
from llmrec_kernels.recommenders import frames, space, tuning, user_texts
from llmrec_kernels.recommenders.answering import Fitted, Given, UnsupportedError
from llmrec_kernels.recommenders.features import Encodes
from llmrec_kernels.recommenders.history import Lists
from llmrec_kernels.recommenders.profiles import Bags
from llmrec_kernels.recommenders.rating_networks import (
    RatingNetwork,
    Ratings,
    Sums,
    Told,
)
from llmrec_kernels.recommenders.rating_training import Known, beyond_texts, held_out, trained
from llmrec_kernels.recommenders.results import Explanation
from llmrec_kernels.recommenders.space import Reader
from llmrec_kernels.recommenders.trained import TrainedRecommender
from llmrec_kernels.recommenders.tuning import Language
from llmrec_kernels.training import Training

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


_TRAINING = Training(epochs=40, batch_size=64, learning_rate=5e-3, patience=4)


class RatedTexts(NamedTuple):
    """What is learned of items, of users, and of texts."""

    items: PackedItems  # [N, k + 2] float32: q, 1, β + δ
    expected: Tensor  # [N] float32: β
    users: Tensor  # [U, 1 + k] float32: τ and t; no rows where nothing is said of users
    mean: float  # of the ratings
    weights: dict[str, Tensor]  # of the heads
    tuned: dict[str, Tensor]  # of the language model, where it was trained too
    reader: Reader  # with the encoder as it came


class TextRatingRegressor(TrainedRecommender[RatedTexts]):
    """Predict ratings from the texts of items and of users, and recommend what is rated high.

    A score is a predicted rating that is not cut to the range of the ratings; `predict` cuts it. It
    is made for the error of ratings, not for lists: what people take is another matter.
    Training holds a tenth of the items out, to stop when these are predicted no better.

    Parameters
    ----------
    encoder : object with `encode(texts) -> [n, d]`, optional
        As for `ContentRecommender`; it also encodes the column `text` of the users frame, where
        there is one. A `FeatureEncoder` with more than the text helps.
    embeddings : array, [N, d], optional
        Vectors made before, one for each row of the items frame, instead of encoding texts.
    dim : int
        Dimensions of tastes.
    hidden : int, optional
        Units of a layer between text and taste. None: a linear map.
    tune : "frozen", "full" or "lora"
        Whether the language model under the encoder, a `TextEncoder`, is trained with the heads:
        all its weights, or adapters beside them, which needs `peft`. The encoder itself stays as it
        is. A step reads 16 texts anew, and takes the others' vectors as they were last read; when
        that is done, the heads are trained once more.
    training : Training or dictionary, optional
        How the heads are trained; an example is a user with all their ratings. By default up to 40
        epochs of 64 users a step.

    Attributes
    ----------
    training_report : TrainingReport or None
        What came of the training, with `tune` of the first one; None before `fit`, where there was
        nothing to train on, and after `load`.

    Raises
    ------
    ValueError
        From `fit`, if all ratings are alike.

    Examples
    --------
    >>> import pandas as pd
    >>> films = pd.DataFrame({"item": ["heat", "ronin", "elf", "big", "new crime", "new family"]})
    >>> vectors = np.array([[1, 0.1], [1, 0.0], [0.0, 1], [0.1, 1], [1, 0.2], [0.2, 1]])
    >>> seen = pd.DataFrame(
    ...     [(1, "heat", 5), (1, "ronin", 5), (1, "elf", 1), (2, "big", 5), (2, "heat", 2),
    ...      (2, "elf", 4), (3, "heat", 5), (3, "elf", 2)], columns=["user", "item", "rating"]
    ... )
    >>> model = TextRatingRegressor(embeddings=vectors, dim=2).fit(seen, films)
    >>> crime, family = model.predict([3, 3], ["new crime", "new family"])
    >>> bool(crime > family)
    True
    """

    update_is_refit = False
    _metric = "dot"
    _needs_ratings = True

    def __init__(
        self,
        encoder: Encodes | None = None,
        *,
        embeddings: Any = None,
        dim: int = 32,
        hidden: int | None = None,
        tune: str = "frozen",
        training: Training | dict[str, Any] | None = None,
    ) -> None:
        self._embeddings = space.checked_encoder(encoder, embeddings)
        self.encoder = encoder
        self.dim = checks.positive_int("dim", dim)
        self.hidden = None if hidden is None else checks.positive_int("hidden", hidden)
        tuning.check(tune, encoder, embeddings)
        self.tune = tune
        self.training = Training.of(training, _TRAINING)

    def predict(self, users: ArrayLike, items: ArrayLike) -> NDArray[np.float32]:
        """The rating that each user would give to the item beside it.

        Parameters
        ----------
        users, items : list or array of ids, [n]
            Pairs.

        Returns
        -------
        [n] float32
            In the unit of the ratings, and within their range; also for users without ratings.

        Raises
        ------
        IndexError
            If the model does not know a user or an item.
        ValueError
            If there are not as many users as items.
        """
        history = self._ready().history
        predicted = self._of_pairs(users, items, self._predicted_pairs)
        return np.clip(predicted, np.float32(history.lowest), np.float32(history.highest))

    def explain(self, user: Any, item: Any) -> Explanation:
        """Say how much each item of a user's history gives to the score of an item.

        Parameters
        ----------
        user, item : int or str
            Ids that the model knows.

        Returns
        -------
        Explanation
            The shares sum to the block "taste". With the block "baseline", μ + b_u + β_i + δ_i, and
            where something is said of users also the block "text", it is the score.

        Raises
        ------
        IndexError
            If the model does not know the user or the item.
        ValueError
            If the user's history says nothing to the model, which then answers with what is
            popular.
        """
        known, history, code = self._one(user, item)
        score = self._explained_score(user, history, code)
        places = history.rows["item"]
        vectors = self._learned.items.data.double()
        of_item = vectors[int(code[0])]
        bias, worth = self._users(history).bias.double(), self._network.worth[1].double().exp()
        total = worth + len(places)
        weight = (torch.from_numpy(self._rest(history)) - bias) / total
        share = weight * (vectors[torch.from_numpy(places), : self.dim] @ of_item[: self.dim])
        baseline = self._learned.mean + float(bias) + float(of_item[-1])
        blocks = {"taste": float(share.sum()), "baseline": baseline}
        if len(self._learned.users):
            said = self._said(history).taste[0].double()
            blocks["text"] = float(worth / total * (said @ of_item[: self.dim]))
        sources = known.items.take(places)
        return Explanation.of(
            user, item, score, "history", sources, weight.numpy(), share.numpy(), blocks
        )

    def _learn(self, given: Given) -> RatedTexts:
        histories = given.history.everyone()
        rating = histories.rows["rating"]
        if len(rating) and rating.min() == rating.max():
            raise ValueError(
                f"interactions has {len(rating)} ratings and each is {rating[0]:g}; expected "
                "ratings of at least two values: of one there is nothing to learn"
            )
        vectors, reader = space.learned(
            self.encoder, self._embeddings, given.items, len(given.item_ids), True
        )
        users = user_texts.described(given, self.encoder)
        mean = float(rating.mean()) if len(rating) else 0.0
        out = held_out(given.history.popularity, self.training.seed)[histories.rows["item"]]
        parts = (Ratings.read(histories, mean, some) for some in (~out, out))
        known, shape = Known(users, *parts), (self.dim, self.hidden)
        tuned: dict[str, Tensor] = {}
        if self.tune != "frozen" and len(rating):
            language = self._language(given, reader)
            _, report = trained(vectors, known, shape, self.training, language)
            tuned = {name: one.detach() for name, one in language.tuned().items()}
            encoded = space.encoded(language.eval(), frames.texts(given.items))
            vectors, now = space.placed(encoded, True, None)
            reader = reader._replace(mean=now.mean)
            # The heads saw vectors of many moments: they learn once more, of those there are now.
            again = self.training._replace(checkpoint=_second(self.training.checkpoint))
            network, _ = trained(vectors, known, shape, again)
        else:
            network, report = trained(vectors, known, shape, self.training)
        with torch.no_grad():
            items, said = network.items(vectors), network.users(users)
            beyond = beyond_texts(network, Ratings.read(histories, mean), items, said)
        own = torch.stack([torch.ones_like(beyond), items.bias + beyond], dim=1)
        told = torch.cat([said.bias[:, None], said.taste], dim=1)
        self.training_report = report
        return RatedTexts(
            pack(torch.cat([items.taste, own], dim=1)),
            items.bias,
            told if users.shape[1] else told[:0],
            mean,
            network.weights(),
            tuned,
            reader,
        )

    def _language(self, given: Given, reader: Reader) -> Language:
        """The language model to train, which knows the texts of the items."""
        if not isinstance(self.encoder, TextEncoder):
            raise UnsupportedError("the language model is not to be had here: give its encoder")
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(self.training.seed)
            language = Language(self.encoder, self.tune)
        language.read(frames.texts(given.items), reader.mean)
        return language

    def _take(self, learned: RatedTexts, fitted: Fitted) -> None:
        super()._take(learned, fitted)
        self._network = RatingNetwork.of_weights(learned.weights)
        self._reader = tuning.reader(learned.reader, self.tune, learned.tuned)

    @classmethod
    def _as_learned(cls, fields: dict[str, Any]) -> RatedTexts:
        return RatedTexts(**fields | {"reader": Reader.of_record(fields["reader"])})

    def _vectors(self) -> PackedItems:
        return self._learned.items

    def _compared(self) -> PackedItems:
        """By taste: items that are rated alike high are not alike for that."""
        return pack(self._learned.items.data[:, : self.dim].contiguous())

    def _rest(self, histories: Lists) -> NDArray[np.float64]:
        """What is left of each rating, [nnz]."""
        expected = self._learned.expected.double().numpy()[histories.rows["item"]]
        return np.asarray(histories.rows["rating"] - self._learned.mean - expected)

    def _sums(self, histories: Lists) -> Sums:
        places, rest = histories.rows["item"], self._rest(histories)
        vectors = self._learned.items.data
        # The column of ones counts the ratings, and adds up what is left of them.
        counted = Bags(places, np.ones(len(places)), histories.offsets).pooled(vectors)
        liked = Bags(places, rest, histories.offsets).pooled(vectors)
        k = self.dim
        return Sums(counted[:, k], liked[:, k], liked[:, :k], counted[:, :k])

    def _said(self, histories: Lists) -> Told:
        """What is said of users, in zeros where it is nothing."""
        count = len(histories.offsets) - 1
        told = user_texts.of_users(self._learned.users, histories.users, count)
        return Told(told[:, 0], told[:, 1:])

    def _users(self, histories: Lists) -> Told:
        return self._network.combined(self._said(histories), self._sums(histories))

    def _profile(self, users: Told) -> Tensor:
        """Vectors to multiply those of items with: a constant is a dimension that items have 1 in.

        So equal scores are equal before they are ranked, and nobody who says something is 0.
        """
        level = self._learned.mean + users.bias
        return torch.cat([users.taste, torch.stack([level, torch.ones_like(level)], 1)], dim=1)

    def _profiles(self, histories: Lists) -> Tensor:
        silent = histories.empty() & ~self._said(histories).taste.any(dim=1)
        return self._profile(self._users(histories)).masked_fill(silent[:, None], 0.0)

    def _predicted_pairs(
        self, histories: Lists, pairs: Ragged
    ) -> tuple[NDArray[np.float32], Tensor]:
        """Also for those of whom nothing is known: to them each item is what it is to all."""
        return self._of(self._profile(self._users(histories)), pairs)

    def _reads(self) -> bool:
        return self._reader.reads

    def _text_profile(self, text: str, liked: Lists) -> Tensor:
        """The text counts as one more item, with the highest rating there is."""
        place = self._reader.place(text)
        if not place.any() and not len(liked.rows):
            return place.new_zeros(1, self.dim + 2)
        told, sums = self._network.items(place), self._sums(liked)
        if place.any():
            rest = self._ready().history.highest - self._learned.mean - told.bias
            one = Sums(torch.ones_like(rest), rest, rest[:, None] * told.taste, told.taste)
            sums = Sums(*(total + more for total, more in zip(sums, one, strict=True)))
        return self._profile(self._network.combined(self._said(liked), sums))


def _second(checkpoint: str | None) -> str | None:
    """Where the second training has its checkpoint: within that of the first."""
    return None if checkpoint is None else str(Path(checkpoint) / "heads")
