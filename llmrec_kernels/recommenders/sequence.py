"""Recommend what comes next, by the order in which things were taken.

A network reads a history as the vectors of its newest items in the order of time, and its last
state is the user's profile (`sequence_networks.py` has networks and losses):

    score(u, i) = h(x_1 .. x_n) · x_i + b_i,   x_i = W t_i + r_i

with t the centred embedding of an item's text, or another vector of it, W a linear map that begins
with the principal axes of the texts, and r and b what is learned of each item. An item without
interactions has no r, and the mean of the others' b: it is where its text puts it. Without texts, x
is r alone, and nothing is known of such an item.

Sources: those of `sequence_networks.py`; Y. Hou et al., Towards universal sequence representation
learning for recommender systems, KDD 2022 (items in sequences by their texts).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit
from torch import Tensor

from llmrec_kernels.ops import PackedItems, checks, pack
from llmrec_kernels.ragged import Ragged
from llmrec_kernels.recommenders import attribution, space
from llmrec_kernels.recommenders.answering import Fitted, Given, UnsupportedError
from llmrec_kernels.recommenders.features import Encodes
from llmrec_kernels.recommenders.history import History, Lists
from llmrec_kernels.recommenders.results import Explanation
from llmrec_kernels.recommenders.sequence_networks import (
    NETWORKS,
    OBJECTIVES,
    ItemTable,
    NextItem,
    SequenceNetwork,
    principal,
)
from llmrec_kernels.recommenders.sequence_windows import read
from llmrec_kernels.recommenders.space import Reader
from llmrec_kernels.recommenders.trained import TrainedRecommender
from llmrec_kernels.training import Training, train

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


_TRAINING = Training(epochs=30, batch_size=64, learning_rate=2e-3, patience=5)


class NextItems(NamedTuple):
    """What is learned of items and of their order."""

    items: PackedItems  # [N, d] float32: x
    bias: Tensor  # [N] float32: b
    slope: Tensor  # [e, d] float32: W; e is 0 where there are no texts
    weights: dict[str, Tensor]  # of the network; none where there was nothing to learn from
    reader: Reader | None


class SequenceRecommender(TrainedRecommender[NextItems]):
    """Recommend what comes next, by a network that reads each history in its order.

    Training holds out the last item of a random tenth of the users with three or more (at most
    1,000 of them), to stop when these are foretold no better. Where no user has two items there is
    nothing to learn from, and everyone is answered with what is popular.

    Parameters
    ----------
    encoder : object with `encode(texts) -> [n, d]`, optional
        As for `ContentRecommender`: the items' vectors begin as those of their texts.
    embeddings : array, [N, d], optional
        Vectors made before, one for each row of the items frame, instead of encoding texts.
        With neither, the items' vectors are learned from nothing.
    network : "attention", "gru" or "lstm"
        What reads the history.
    objective : "softmax", "sampled" or "binary"
        The loss: the item that came against all others, or against some that are drawn for each
        batch, for very many items. With "binary" each item is judged by itself, and
        `purchase_probability` has the chance that it is the next one.
    dim, layers, heads : int
        Dimensions of vectors, layers of the network, and heads of its attention, which divide dim.
    max_length : int
        The newest items of a history that are read.
    dropout : float
        From 0 to 1, 1 excluded.
    negatives : int
        Items drawn for a batch, for "sampled" and "binary".
    training : Training or dictionary, optional
        How the network is trained; an example is a window of up to `max_length` interactions. By
        default up to 30 epochs of 64 windows a step.

    Attributes
    ----------
    training_report : TrainingReport or None
        What came of the training; None before `fit`, where there was nothing to train on, and
        after `load`.

    Raises
    ------
    ValueError
        If an option is out of its range; from `fit` with "binary", if everyone took everything.

    Examples
    --------
    >>> import pandas as pd
    >>> order = ["heat", "ronin", "elf", "big"]
    >>> seen = pd.DataFrame(
    ...     [(user, order[(user + step) % 4], step) for user in range(40) for step in range(3)],
    ...     columns=["user", "item", "timestamp"],
    ... )
    >>> model = SequenceRecommender(dim=8, dropout=0, training={"learning_rate": 0.02}).fit(seen)
    >>> model.recommend_from_history(["elf", "big"], k=1).item.tolist()
    ['heat']
    >>> model.recommend_from_history(["heat", "ronin"], k=1).item.tolist()
    ['elf']
    """

    update_is_refit = False
    _metric = "dot"

    def __init__(
        self,
        encoder: Encodes | None = None,
        *,
        embeddings: Any = None,
        network: str = "attention",
        objective: str = "softmax",
        dim: int = 64,
        layers: int = 2,
        heads: int = 2,
        max_length: int = 50,
        dropout: float = 0.2,
        negatives: int = 128,
        training: Training | dict[str, Any] | None = None,
    ) -> None:
        self._embeddings = None
        if not (encoder is None and embeddings is None):
            self._embeddings = space.checked_encoder(encoder, embeddings)
        self.encoder = encoder
        checks.choice("network", network, NETWORKS)
        checks.choice("objective", objective, OBJECTIVES)
        self.network, self.objective = network, objective
        self.dim = checks.positive_int("dim", dim)
        self.layers = checks.positive_int("layers", layers)
        self.heads = checks.positive_int("heads", heads)
        if network == "attention" and self.dim % self.heads:
            raise ValueError(f"heads is {heads}; expected a divisor of dim, {dim}")
        self.max_length = checks.positive_int("max_length", max_length)
        self.dropout = checks.finite_number("dropout", dropout)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {dropout}; expected at least 0 and less than 1")
        self.negatives = checks.positive_int("negatives", negatives)
        self.training = Training.of(training, _TRAINING)

    def purchase_probability(self, users: ArrayLike, items: ArrayLike) -> NDArray[np.float32]:
        """The chance that the item beside each user is the next one that the user takes.

        It is for weighing items and users against each other, and for what many pairs come to. An
        item that the user has taken has none to speak of, as a history has each item once. Each
        chance is estimated by itself, so that those of a user sum to 1 only about, and to less for
        who has taken nearly everything. Of users without a history it is the item's share of all
        interactions, counted with one more for each item.

        The highest chances are too high. On ml-latest-small (300 users, the 400 items rated most,
        the last one of each user left out, 15 epochs), the mean chance of the 90 to 97 of 100 that
        are next to the highest was .008, and .007 to .008 of them came; of the highest hundredth,
        .025 (gru) and .033 (attention), and .018 and .016 came.

        Parameters
        ----------
        users, items : list or array of ids, [n]
            Pairs.

        Returns
        -------
        [n] float32
            Between 0 and 1, both excluded.

        Raises
        ------
        UnsupportedError
            If the objective is another than "binary".
        IndexError
            If the model does not know a user or an item.
        ValueError
            If there are not as many users as items.
        """
        if self.objective != "binary":
            raise UnsupportedError(
                f"the objective is {self.objective!r}, whose scores are no probabilities; make the "
                "model with objective='binary'"
            )
        odds = self._of_pairs(users, items, self._odds).astype(np.float64)
        edge = np.finfo(np.float32)
        chance = np.clip(expit(odds), edge.tiny, 1 - edge.epsneg)
        return np.asarray(chance, dtype=np.float32)

    def explain(self, user: Any, item: Any) -> Explanation:
        """Say how much each item of a user's history gives to the score of an item.

        By integrated gradients, from a history of as many items of which nothing is known, whose
        vectors are zeros, to the user's own. Items before the newest `max_length` are not read, and
        have no share. Needs `captum`.

        Parameters
        ----------
        user, item : int or str
            Ids that the model knows.

        Returns
        -------
        Explanation
            The shares sum to the block "taste"; with the block "baseline", the score after items
            of which nothing is known, it is the score, within 1e-5 of its size. All weights are 1.

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
        places = history.rows["item"][-self.max_length :]
        vectors, one = self._learned.items.data.double(), int(code[0])
        network = copy.deepcopy(self._states).double()

        def scores(inputs: Tensor) -> Tensor:
            last: Tensor = network(inputs)[:, -1]
            return last @ vectors[one] + self._learned.bias[one].double()

        inputs = vectors[torch.from_numpy(places)]
        shares, baseline = attribution.integrated_gradients(scores, inputs)
        blocks = {"taste": float(shares.sum()), "baseline": baseline}
        return Explanation.of(
            user,
            item,
            score,
            "history",
            known.items.take(places),
            np.ones(len(places)),
            shares.numpy(),
            blocks,
        )

    def _learn(self, given: Given) -> NextItems:
        history, n_items = given.history, len(given.item_ids)
        self._check_classes(history)
        texts, reader = torch.zeros(n_items, 0), None
        if self.encoder is not None or self._embeddings is not None:
            texts, reader = space.learned(
                self.encoder, self._embeddings, given.items, n_items, True
            )
        taken = history.popularity > 0
        slope, bias, weights = principal(texts, self.dim), torch.zeros(n_items), {}
        vectors, report = texts @ slope, None
        sequences, held_out = read(history, taken, self.max_length, self.training.seed)
        if len(sequences.first):
            with torch.random.fork_rng([]):
                torch.default_generator.manual_seed(self.training.seed)
                table, states = ItemTable(texts[taken], self.dim), self._blank()
            task = NextItem(
                table,
                states,
                sequences,
                held_out,
                length=self.max_length,
                objective=self.objective,
                negatives=self.negatives,
            )
            report = train(task, self.training)
            with torch.no_grad():
                slope, weights = table.slope.detach(), states.state_dict()
                vectors = texts @ slope
                vectors[taken] = table()
                bias = table.bias.mean().repeat(n_items)
                bias[taken] = table.bias
        self.training_report = report
        return NextItems(pack(vectors), bias, slope, weights, reader)

    def _check_classes(self, history: History) -> None:
        """Refuse to tell what is taken from what is not where there is nothing of the one."""
        users = np.count_nonzero(np.diff(history.everyone().offsets))
        if self.objective == "binary" and users and (history.popularity == users).all():
            raise ValueError(
                f"interactions has one class: all {users} users took all "
                f"{len(history.popularity)} items, and nothing was not taken; expected items that "
                "some did not take, or another objective than 'binary'"
            )

    def _blank(self) -> SequenceNetwork:
        """A network that has learned nothing."""
        return SequenceNetwork(
            self.network, self.dim, self.layers, self.heads, self.max_length, self.dropout
        )

    def _take(self, learned: NextItems, fitted: Fitted) -> None:
        super()._take(learned, fitted)
        with torch.random.fork_rng([]):
            self._states = self._blank().eval().requires_grad_(False)
        if learned.weights:
            self._states.load_state_dict(learned.weights)

    @classmethod
    def _as_learned(cls, fields: dict[str, Any]) -> NextItems:
        reader = fields["reader"]
        return NextItems(**fields | {"reader": reader and Reader.of_record(reader)})

    def _vectors(self) -> PackedItems:
        return self._learned.items

    def _bias(self) -> Tensor:
        return self._learned.bias

    def _profiles(self, histories: Lists) -> Tensor:
        profiles = torch.zeros(len(histories.offsets) - 1, self.dim)
        if self._learned.weights:
            vectors, items = self._learned.items.data, torch.from_numpy(histories.rows["item"])
            for user, (start, stop) in enumerate(_bounds(histories.offsets, self.max_length)):
                if start < stop:
                    profiles[user] = self._state(vectors[items[start:stop]])
        return profiles

    def _state(self, inputs: Tensor) -> Tensor:
        """The last state, [d], of one history's vectors, [T, d].

        One by one: in a batch, rounding would depend on who else is asked for.
        """
        with torch.no_grad():
            state: Tensor = self._states(inputs[None])[0, -1]
        return state

    def _odds(self, histories: Lists, pairs: Ragged) -> tuple[NDArray[np.float32], Tensor]:
        """Log-odds of pairs, also of those of whom nothing is known."""
        scores, meant = self._pairs(histories, pairs)
        owner = np.repeat(np.arange(len(meant)), np.diff(pairs.offsets.numpy()))
        count = self._ready().history.popularity + 1.0
        item = pairs.values.numpy()
        base = logit(count / count.sum())[item]
        odds = np.where(meant.numpy()[owner], scores, base).astype(np.float32)
        taken = histories.owners() * len(count) + histories.rows["item"]
        odds[np.isin(owner * len(count) + item, taken)] = -np.inf
        return odds, torch.ones_like(meant)

    def _reads(self) -> bool:
        return self._learned.reader is not None and self._learned.reader.reads

    def _text_profile(self, text: str, liked: Lists) -> Tensor:
        """The text counts as one more item, the newest."""
        assert self._learned.reader is not None
        place = self._learned.reader.place(text)
        if not place.any() or not self._learned.weights:
            return self._profiles(liked)
        items = torch.from_numpy(liked.rows["item"])
        told = torch.cat([self._learned.items.data[items], place @ self._learned.slope])
        return self._state(told[-self.max_length :])[None]


def _bounds(offsets: NDArray[np.int64], length: int) -> list[tuple[int, int]]:
    """Where the newest items of each history begin and end."""
    begin = np.maximum(offsets[:-1], offsets[1:] - length)
    return list(zip(begin.tolist(), offsets[1:].tolist(), strict=True))
