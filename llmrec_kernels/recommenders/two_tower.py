"""Recommend by two towers over pretrained text vectors, one for items and one for users.

`towers.py` has the towers and their losses. What is learned of items and their texts:

    z_i                                  the item's place, where it has interactions
    [z_i, l_i] ≈ W φ(x_i) + c            ridge regression over these, when the training is done
    score(u, i) = p_u · z_i / τ + π l_i

with x the centred embedding of the text (and other features), φ(x) x and the hidden units over it
where there are any, p the user tower, and l the logarithm of how many liked an item, less the mean;
with the rating loss it is the item's bias, and there is no π. Liked is what is rated no lower than
the mean of all ratings: that is what is foretold, from histories that count by their ratings.

An item without interactions is where its text puts it; the l of one with n of them is mixed by
n / (n + 1) with what the text says.

The last layer is solved anew because the loss that trains a head is full of popular items, and a
new item is seldom like them: in the regression each item counts alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from llmrec_kernels.encoders.augment import Augments
from llmrec_kernels.ops import PackedItems, checks, pack
from llmrec_kernels.ragged import Ragged
from llmrec_kernels.recommenders import (
    attribution,
    frames,
    space,
    tower_data,
    tower_items,
    towers,
    tuning,
    user_texts,
    wordings,
)
from llmrec_kernels.recommenders.answering import Fitted, Given, UnsupportedError
from llmrec_kernels.recommenders.features import Encodes
from llmrec_kernels.recommenders.history import Lists
from llmrec_kernels.recommenders.profiles import Bags
from llmrec_kernels.recommenders.results import Explanation
from llmrec_kernels.recommenders.space import Reader
from llmrec_kernels.recommenders.tower_data import Taken
from llmrec_kernels.recommenders.tower_items import TowerItems
from llmrec_kernels.recommenders.towers import Body, Towers, UserTower
from llmrec_kernels.recommenders.trained import TrainedRecommender
from llmrec_kernels.recommenders.tuning import Language
from llmrec_kernels.training import Training, train

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


_TRAINING = Training(epochs=30, batch_size=64, learning_rate=1e-2, patience=4)


class TwoTowerRecommender(TrainedRecommender[TowerItems]):
    """Recommend by an item tower and a user tower over a pretrained language model.

    Training holds out an item of each of up to 1,000 users with three or more, a tenth of them or
    so, to stop when these are foretold no better.

    Parameters
    ----------
    encoder : object with `encode(texts) -> [n, d]`, optional
        As for `ContentRecommender`; it also encodes the column `text` of the users frame, where
        there is one. A `FeatureEncoder` with more than the text helps new items.
    embeddings : array, [N, d], optional
        Vectors made before, one for each row of the items frame, instead of encoding texts.
    dim : int
        Dimensions of the towers' heads.
    hidden : int, optional
        Units of a hidden layer in each tower. None: linear heads.
    loss : "contrastive" or "rating"
        What is learned: which items are taken, against those that others of the batch took; or
        ratings, which `predict` then foretells.
    temperature : float
        τ: what products are divided by, above 0.
    popularity : float
        π: how much an item's popularity counts, known or foretold by its text; at least 0. For the
        contrastive loss alone.
    regularization : float
        λ: of the heads, above 0.
    tune : "frozen", "full" or "lora"
        Whether the language model under the encoder, a `TextEncoder`, is trained with the heads:
        all its weights, or adapters beside them, which needs `peft`. The encoder itself stays as it
        is. Each step reads 8 texts of its batch anew; of the others it has the vectors as they were
        when they were last read.
    augment : object with `views(texts)`, optional
        Other wordings of the items' texts, to learn from more than there is: a `TokenDropout` or a
        `Paraphraser`. It is not saved with the model, which does not need it any more.
    training : Training or dictionary, optional
        How the towers are trained; an example is a user with all they took.

    Attributes
    ----------
    training_report : TrainingReport or None
        What came of the training; None before `fit`, where there was nothing to train on, and
        after `load`.

    Raises
    ------
    ValueError
        If an option is out of its range, or there is no language model to tune; from `fit` with
        the rating loss, if all ratings are alike.

    Examples
    --------
    >>> import pandas as pd
    >>> films = pd.DataFrame({"item": ["heat", "ronin", "elf", "new crime", "new family"]})
    >>> vectors = np.array([[1, 0.1], [1, 0.0], [0.0, 1], [1, 0.2], [0.1, 1]])
    >>> seen = pd.DataFrame({"user": [1, 1, 2, 3], "item": ["heat", "ronin", "elf", "heat"]})
    >>> model = TwoTowerRecommender(embeddings=vectors, dim=2, regularization=0.1)
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
        dim: int = 64,
        hidden: int | None = None,
        loss: str = "contrastive",
        temperature: float = 0.5,
        popularity: float = 1.0,
        regularization: float = 5.0,
        tune: str = "frozen",
        augment: Augments | None = None,
        training: Training | dict[str, Any] | None = None,
    ) -> None:
        self._embeddings = space.checked_encoder(encoder, embeddings)
        self.encoder = encoder
        self.dim = checks.positive_int("dim", dim)
        self.hidden = None if hidden is None else checks.positive_int("hidden", hidden)
        checks.choice("loss", loss, towers.LOSSES)
        tuning.check(tune, encoder, embeddings)
        self.loss, self.tune, self._needs_ratings = loss, tune, loss == "rating"
        wordings.check(augment, encoder, embeddings, tune)
        self.augment = augment
        self.temperature = _above("temperature", temperature)
        self.regularization = _above("regularization", regularization)
        self.popularity = checks.finite_number("popularity", popularity)
        if self.popularity < 0:
            raise ValueError(f"popularity is {popularity}; expected at least 0")
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
        UnsupportedError
            If the loss is not "rating".
        IndexError
            If the model does not know a user or an item.
        ValueError
            If there are not as many users as items.
        """
        if self.loss != "rating":
            raise UnsupportedError(
                f"the loss is {self.loss!r}, whose scores are no ratings; make the model with "
                "loss='rating'"
            )
        history = self._ready().history
        predicted = self._of_pairs(users, items, self._predicted)
        return np.clip(predicted, np.float32(history.lowest), np.float32(history.highest))

    def explain(self, user: Any, item: Any) -> Explanation:
        """Say how much each item of a user's history gives to the score of an item.

        With linear heads the score is a sum over the history. With hidden ones it is shared out by
        integrated gradients, from a history that says nothing to the user's own; this needs
        `captum`.

        Parameters
        ----------
        user, item : int or str
            Ids that the model knows.

        Returns
        -------
        Explanation
            The shares sum to the block "taste". With the block "baseline", what the item gets from
            a user of whom nothing is known, and where something is said of users also the block
            "text", it is the score, with hidden heads within 1e-5 of its size.

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
        places, weight, size = self._parts(history)
        vectors = self._learned.items.data.double()
        inputs = torch.from_numpy(weight)[:, None] * vectors[torch.from_numpy(places)] / size
        tower = UserTower.of_weights(self._learned.tower).double()
        of_item = vectors[int(code[0])] / self._scale
        if tower.bend is None:
            share, nothing = tower(inputs) @ of_item, 0.0
        else:
            share, nothing = attribution.integrated_gradients(
                lambda some: tower(some.sum(dim=1)) @ of_item, inputs
            )
        level = float(self._bias()[int(code[0])])
        blocks = {"taste": float(share.sum()), "baseline": nothing + level}
        if len(self._learned.users):
            blocks["text"] = float(self._said(history)[0].double() @ of_item)
        sources = known.items.take(places)
        return Explanation.of(user, item, score, "history", sources, weight, share.numpy(), blocks)

    def _learn(self, given: Given) -> TowerItems:
        history = given.history
        if self.loss == "rating":
            tower_data.check_classes(history)
        vectors, reader = space.learned(
            self.encoder, self._embeddings, given.items, len(given.item_ids), True
        )
        described = user_texts.described(given, reader.encoder)
        others = None
        if self.augment is not None:
            known = torch.from_numpy(history.popularity > 0)
            others = wordings.wordings(self.augment, given.items, known, reader)
        mean = history.mean if self.loss == "rating" else None
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(self.training.seed)
            language = None
            if self.tune != "frozen":
                language = Language(reader.encoder, self.tune)  # type: ignore[arg-type]
                language.read(frames.texts(given.items), reader.mean)
            shape = towers.Shape(
                vectors.shape[1], self.dim, self.hidden, len(vectors), described.shape[1]
            )
            network = Towers(shape, language)
        taken, held_out = Taken.split(history, mean, self.training.seed)
        report = None
        if len(taken.items):
            task = towers.TowerTask(
                network,
                towers.Given(vectors, taken, held_out, described, others),
                loss=self.loss,
                temperature=self.temperature,
                regularization=self.regularization,
            )
            rate = self.training.learning_rate
            report = train(task, self.training, parameter_groups=network.groups(rate))
        tuned: dict[str, Tensor] = {}
        if language is not None and report is not None:
            tuned = {name: one.detach() for name, one in language.tuned().items()}
            encoded = space.encoded(language, frames.texts(given.items))
            vectors, told = space.placed(encoded, True, None)
            reader = reader._replace(mean=told.mean)
        network = network.eval().requires_grad_(False)
        items = tower_items.placed(
            network,
            vectors,
            others,
            history,
            loss=self.loss,
            regularization=self.regularization,
        )
        self.training_report = report
        return TowerItems(
            pack(items.places[:, :-1].contiguous()),
            items.places[:, -1].contiguous(),
            described @ network.of_users if described.shape[1] else described[:0, :0],
            mean or 0.0,
            network.user.state_dict() if report is not None else {},
            {name: one.clone() for name, one in network.body.state_dict().items()},
            items.slope,
            items.shift,
            reader,
            tuned,
        )

    def _take(self, learned: TowerItems, fitted: Fitted) -> None:
        super()._take(learned, fitted)
        self._body = Body.of_weights(learned.body)
        self._tower = UserTower.of_weights(learned.tower) if learned.tower else None
        self._reader = tuning.reader(learned.reader, self.tune, learned.tuned)

    @classmethod
    def _as_learned(cls, fields: dict[str, Any]) -> TowerItems:
        return TowerItems(**fields | {"reader": Reader.of_record(fields["reader"])})

    def _vectors(self) -> PackedItems:
        return self._learned.items

    def _bias(self) -> Tensor:
        return self._learned.level * (1.0 if self.loss == "rating" else self.popularity)

    @property
    def _scale(self) -> float:
        """What products are divided by."""
        return 1.0 if self.loss == "rating" else self.temperature

    def _weights(self, histories: Lists) -> NDArray[np.float64]:
        """How much each row counts, [nnz]: its liking, or what is left of its rating."""
        if self.loss != "rating":
            return tower_data.liking(histories, self._ready().history)
        expected = self._learned.level.double().numpy()[histories.rows["item"]]
        return np.asarray(histories.rows["rating"] - self._learned.mean - expected)

    def _parts(self, history: Lists) -> tuple[NDArray[np.int64], NDArray[np.float64], float]:
        """The items of one history that count, their weights, and what the sum is divided by."""
        places, weight = Bags(history.rows["item"], self._weights(history), history.offsets).of(0)
        if self.loss == "rating":
            return places, weight, towers.TASTE_PRIOR + len(history.rows)
        vectors = self._learned.items.data.double()[torch.from_numpy(places)]
        size = float((torch.from_numpy(weight)[:, None] * vectors).sum(dim=0).norm())
        return places, weight, max(size, float(np.finfo(np.float32).tiny))

    def _taken(self, histories: Lists, told: Tensor | None = None) -> Tensor:
        """Sums over what was taken, [B, dim]; `told` is the place of a text, [1, dim + 1]."""
        weight = self._weights(histories)
        bags = Bags(histories.rows["item"], weight, histories.offsets)
        sums, more = bags.pooled(self._learned.items.data), 0
        if told is not None:
            rest = self._ready().history.highest - self._learned.mean - told[:, -1:]
            sums, more = sums + told[:, :-1] * (rest if self.loss == "rating" else 1.0), 1
        if self.loss != "rating":
            return normalize(sums, dim=1)
        count = torch.from_numpy(np.diff(histories.offsets) + more).float()
        return sums / (towers.TASTE_PRIOR + count)[:, None]

    def _said(self, histories: Lists) -> Tensor:
        """What is said of users, [B, dim], or [B, 0] where nothing is of anyone."""
        count = len(histories.offsets) - 1
        return user_texts.of_users(self._learned.users, histories.users, count)

    def _made_of(self, taken: Tensor, said: Tensor) -> Tensor:
        """Profiles, [B, dim]: one by one, for in a batch rounding would depend on who is in it."""
        if self._tower is None:
            return taken * 0.0
        profiles = torch.zeros_like(taken)
        for user, one in enumerate(taken):
            profiles[user] = self._tower(one[None])[0]
        return (profiles + said if said.shape[1] else profiles) / self._scale

    def _profiles(self, histories: Lists) -> Tensor:
        taken, said = self._taken(histories), self._said(histories)
        silent = ~taken.any(dim=1) & ~said.any(dim=1)
        return self._made_of(taken, said).masked_fill(silent[:, None], 0.0)

    def _predicted(self, histories: Lists, pairs: Ragged) -> tuple[NDArray[np.float32], Tensor]:
        """Ratings of pairs, also for those of whom nothing is known."""
        profiles = self._made_of(self._taken(histories), self._said(histories))
        scores, meant = self._of(profiles, pairs)
        owner, count = histories.owners(), np.diff(histories.offsets)
        rest = np.bincount(owner, self._weights(histories), len(count))
        level = self._learned.mean + rest / (towers.USER_PRIOR + count)
        rated = scores + level[np.repeat(np.arange(len(count)), np.diff(pairs.offsets.numpy()))]
        return rated.astype(np.float32), torch.ones_like(meant)

    def _reads(self) -> bool:
        return self._learned.reader.reads

    def _text_profile(self, text: str, liked: Lists) -> Tensor:
        """The text counts as one more item, as much liked as can be."""
        place = self._reader.place(text)
        if not place.any():
            return self._profiles(liked)
        told = self._body(place) @ self._learned.slope + self._learned.shift
        return self._made_of(self._taken(liked, told), self._said(liked))


def _above(name: str, value: float) -> float:
    if checks.finite_number(name, value) <= 0:
        raise ValueError(f"{name} is {value}; expected more than 0")
    return float(value)
