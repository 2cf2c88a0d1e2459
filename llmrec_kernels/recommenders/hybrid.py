"""Recommend by several recommenders at once, weighted by hand or by how well they predict.

`fusion.py` says how scores become one. With `adaptive` the weights learn from feedback. Before an
interaction of a user with item i is taken in, the hybrid says how likely each item j is that the
user has not taken, by the softmax π of the weighted mean of the parts' standardised scores z_p. The
error of a part is how much lower it scored i than the hybrid expected of it, and its weight moves
with the sigmoid of how much smaller its error is than the mean error:

    π_j ∝ exp(Σ_p w_p z_p(j) / Σ_p w_p),   e_p = Σ_j π_j z_p(j) - z_p(i)
    w_p ← w_p · 2 σ(β (ē - e_p)),   ē = Σ_p w_p e_p / Σ_p w_p

then all are scaled to the sum they had, those below `_LEAST` of it are raised to that, so that a
part that becomes better is heard again, and all are scaled once more. As e_p is the slope of
-log π_i, this is the exponentiated gradient of the loss of the hybrid, with bounded steps: a part
gains by what it says that the others do not say yet. (Were it judged alone, by the rank it gives to
i, all weight would go to the best part, although several together predict better.)

Source: J. Kivinen and M. Warmuth, Exponentiated gradient versus gradient descent for linear
predictors, Information and Computation 132(1), 1997.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from llmrec_kernels.ops import checks
from llmrec_kernels.recommenders import fusion
from llmrec_kernels.recommenders.answering import Fitted, Given
from llmrec_kernels.recommenders.base import Recommender
from llmrec_kernels.recommenders.history import Change, Lists
from llmrec_kernels.recommenders.results import Explanation

if TYPE_CHECKING:
    from typing_extensions import Self

    from llmrec_kernels.recommenders.saving import Helpers

FUSIONS = ("weighted", "ranks")
_LEAST = 0.01


class Mixture(NamedTuple):
    """What is learned: how much each part counts, and what the parts have learned."""

    weights: NDArray[np.float64]  # [P]
    parts: tuple[Any, ...]


class HybridRecommender(Recommender[Mixture]):
    """Recommend by the fused scores of several recommenders.

    Parameters
    ----------
    parts : mapping of str to Recommender
        Two or more by name. They are fitted with the hybrid and share its history: ask it, not
        them, to `fit` and `update`.
    weights : mapping of str to float, optional
        How much each counts, at least 0; 1 where none is given.
    fusion : "weighted" or "ranks"
        Whether standardised scores are added, or reciprocal ranks.
    adaptive : bool
        Whether `update` moves the weights toward the parts that predict better. The events of one
        `update` are judged by what was known before it; each counts once, in the order of time.
    rate : float
        β, above 0: how fast. On MovieLens films .003 to .1 do about as well.

    Attributes
    ----------
    parts : dict of str to Recommender
        As given.
    current_weights : dict of str to float
        The weights now.

    Examples
    --------
    >>> import pandas as pd
    >>> from llmrec_kernels.recommenders import EASERecommender, PopularityRecommender
    >>> seen = pd.DataFrame({"user": [1, 1, 2, 2, 3], "item": ["a", "b", "a", "c", "b"]})
    >>> parts = {"popular": PopularityRecommender(), "ease": EASERecommender(1.0)}
    >>> model = HybridRecommender(parts, weights={"ease": 2.0}).fit(seen)
    >>> model.recommend([3]).item.tolist()
    ['a', 'c']
    >>> model.explain(3, "a").to_pandas().round(1)
          part  weight  share
    0     ease     2.0    2.0
    1  popular     1.0    1.0
    """

    def __init__(
        self,
        parts: Mapping[str, Recommender[Any]],
        *,
        weights: Mapping[str, float] | None = None,
        fusion: str = "weighted",
        adaptive: bool = False,
        rate: float = 0.03,
    ) -> None:
        self.parts = _checked_parts(parts)
        self.weights = self._checked_weights(weights or {})
        checks.choice("fusion", fusion, FUSIONS)
        self.fusion, self.adaptive = fusion, adaptive
        self.rate = checks.finite_number("rate", rate)
        if self.rate <= 0:
            raise ValueError(f"rate is {rate}; expected more than 0")
        self.update_is_refit = not adaptive and all(
            part.update_is_refit for part in self.parts.values()
        )
        self._needs_ratings = any(part._needs_ratings for part in self.parts.values())

    @property
    def current_weights(self) -> dict[str, float]:
        """The weights now: those given, or what feedback made of them."""
        self._ready()
        return dict(zip(self.parts, self._learned.weights.tolist(), strict=True))

    def set_weights(self, weights: Mapping[str, float]) -> Self:
        """Give the parts other weights; what they have learned stays.

        Parameters
        ----------
        weights : mapping of str to float
            As when the hybrid was made.

        Returns
        -------
        HybridRecommender
            The model itself.

        Raises
        ------
        ValueError, TypeError
            If a weight is out of its range or of no part. The model stays as it was.
        """
        self._ready()
        self.weights = self._checked_weights(weights)
        self._learned = self._learned._replace(weights=np.array(list(self.weights.values())))
        return self

    def explain(self, user: Any, item: Any) -> Explanation:
        """Say how much each part gives to the score of an item.

        What a part's own score comes from, ask of the part: `model.parts[name].explain`.

        Parameters
        ----------
        user, item : int or str
            Ids that the model knows.

        Returns
        -------
        Explanation
            Of the kind "part".

        Raises
        ------
        IndexError
            If the model does not know the user or the item.
        ValueError
            If the user's history says nothing to the model, which then answers with what is
            popular.
        """
        _, history, code = self._one(user, item)
        rows = [part._rows(history) for part in self.parts.values()]
        shares = np.array([one[0, code[0]] for one in self._shares(rows, history)])
        score = self._explained_score(user, history, code)
        names = np.array(list(self.parts), dtype=object)
        return Explanation.of(user, item, score, "part", names, self._learned.weights, shares)

    def _checked_weights(self, weights: Mapping[str, float]) -> dict[str, float]:
        checked = dict.fromkeys(self.parts, 1.0)
        for name, weight in weights.items():
            if name not in checked:
                raise ValueError(f"weights has {name!r}; the parts are {', '.join(checked)}")
            checked[name] = checks.finite_number(f"weights[{name!r}]", weight)
            if checked[name] < 0:
                raise ValueError(f"weights[{name!r}] is {weight}; expected at least 0")
        if not any(checked.values()):
            raise ValueError("all weights are 0; expected one above 0")
        return checked

    def _learn(self, given: Given) -> Mixture:
        learned = tuple(part._learn(given) for part in self.parts.values())
        return Mixture(np.array(list(self.weights.values())), learned)

    def _take(self, learned: Mixture, fitted: Fitted) -> None:
        super()._take(learned, fitted)
        for part, one in zip(self.parts.values(), learned.parts, strict=True):
            part._take(one, fitted)
            part._is_part = True

    def _ready(self) -> Fitted:
        known = super()._ready()
        for name, part in self.parts.items():
            if part._fitted is not known:
                raise RuntimeError(
                    f"the part {name!r} was fitted as a part of another hybrid since; make a "
                    "recommender of its own for each"
                )
        return known

    def _rows(self, histories: Lists) -> Tensor:
        return self._fused([part._rows(histories) for part in self.parts.values()], histories)

    def _text_rows(self, text: str, liked: Lists) -> Tensor:
        """Parts that read no text go by what was liked."""
        rows = [
            part._text_rows(text, liked) if part._reads() else part._rows(liked)
            for part in self.parts.values()
        ]
        return self._fused(rows, liked)

    def _reads(self) -> bool:
        return any(part._reads() for part in self.parts.values())

    def _fused(self, rows: list[Tensor], histories: Lists) -> Tensor:
        return torch.from_numpy(np.sum(self._shares(rows, histories), axis=0).astype(np.float32))

    def _shares(self, rows: list[Tensor], histories: Lists) -> list[fusion.Rows]:
        """What each part gives to each score, [B, N] each."""
        unseen = _unseen(histories, len(self._ready().items))
        weights = self._learned.weights
        return [
            weight * self._alike(one, unseen) for weight, one in zip(weights, rows, strict=True)
        ]

    def _alike(self, rows: Tensor, unseen: NDArray[np.bool_]) -> fusion.Rows:
        """Scores of a part in the unit that all parts have, [B, N]."""
        alike = fusion.standardised if self.fusion == "weighted" else fusion.reciprocal
        return alike(rows.double().numpy(), unseen)

    def _block_size(self) -> int:
        return min(super()._block_size(), *(part._block_size() for part in self.parts.values()))

    def _observed(self, users: NDArray[np.int64], rows: NDArray[np.void]) -> Mixture:
        """Move the weights by what each part said of what its user took next."""
        weights = self._learned.weights
        if self.adaptive:
            once = _first_times(users, rows)
            users, rows = users[once], rows[once]
            for start in range(0, len(rows), self._block_size()):
                events = slice(start, start + self._block_size())
                weights = self._moved(weights, users[events], rows["item"][events])
        parts = tuple(part._observed(users, rows) for part in self.parts.values())
        return Mixture(weights, parts)

    def _moved(
        self, weights: NDArray[np.float64], users: NDArray[np.int64], item: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """The weights after some events, of which those count that are new and foreseeable."""
        known = self._ready()
        asked, owner = np.unique(users, return_inverse=True)  # one question for all of a user's
        histories = known.history.of(asked)
        unseen = _unseen(histories, len(known.items))
        said = [
            fusion.standardised(self._alike(part._rows(histories), unseen), unseen)
            for part in self.parts.values()
        ]
        of_users = np.stack(said, axis=1)  # [B, P, N]
        for user, one in zip(owner.tolist(), item.tolist(), strict=True):
            if unseen[user, one] and of_users[user].any():
                errors = _errors(weights, of_users[user], unseen[user], one)
                weights = _after(weights, errors, self.rate)
        return weights

    def _absorbed(self, learned: Mixture, change: Change) -> Mixture:
        for part, one in zip(self.parts.values(), learned.parts, strict=True):
            part._learned = part._absorbed(one, change)
        return learned._replace(parts=tuple(part._learned for part in self.parts.values()))

    def _record(self, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
        tensors[f"{name}.weights"] = torch.from_numpy(self._learned.weights)
        return {
            "class": type(self).__name__,
            "options": self._arguments_but("parts"),
            "parts": {
                key: part._record(f"{name}.parts.{number}", tensors)
                for number, (key, part) in enumerate(self.parts.items())
            },
        }

    @classmethod
    def _of_record(
        cls, record: Mapping[str, Any], name: str, tensors: Mapping[str, Tensor], helpers: Helpers
    ) -> tuple[Self, Mixture]:
        from llmrec_kernels.recommenders.saving import class_named

        parts, learned = {}, []
        for number, (key, one) in enumerate(record["parts"].items()):
            where, found = f"{name}.parts.{number}", class_named(one["class"])
            parts[key], lesson = found._of_record(one, where, tensors, helpers)
            learned.append(lesson)
        weights = tensors[f"{name}.weights"].numpy()
        return cls(parts, **record["options"]), Mixture(weights, tuple(learned))

    @classmethod
    def _as_learned(cls, fields: Any) -> Mixture:
        return Mixture(**fields)


def _checked_parts(parts: Any) -> dict[str, Recommender[Any]]:
    if not isinstance(parts, Mapping):
        raise TypeError(f"parts is a {type(parts).__name__}; expected recommenders by name")
    if len(parts) < 2:
        raise ValueError(f"parts has {len(parts)} recommenders; expected two or more")
    for name, part in parts.items():
        if not isinstance(name, str):
            raise TypeError(f"parts has the name {name!r}; expected strings")
        if not isinstance(part, Recommender):
            raise TypeError(f"parts[{name!r}] is {part!r}; expected a recommender")
    if len({id(part) for part in parts.values()}) < len(parts):
        raise ValueError("parts has one recommender twice; make one for each name")
    return dict(parts)


def _unseen(histories: Lists, n_items: int) -> NDArray[np.bool_]:
    """What is not in each history, [B, N]."""
    unseen = np.ones((len(histories.offsets) - 1, n_items), dtype=bool)
    unseen[histories.owners(), histories.rows["item"]] = False
    return unseen


def _first_times(users: NDArray[np.int64], rows: NDArray[np.void]) -> NDArray[np.int64]:
    """The first event of each user and item, in the order of time."""
    order = np.argsort(rows["timestamp"], kind="stable")
    pair = users * (rows["item"].max(initial=0) + 1) + rows["item"]
    return order[np.sort(np.unique(pair[order], return_index=True)[1])]


def _errors(
    weights: NDArray[np.float64], said: fusion.Rows, unseen: NDArray[np.bool_], item: int
) -> NDArray[np.float64]:
    """How much lower each part scores an item than was expected, [P]; `said` is [P, N]."""
    score = np.where(unseen, weights / weights.sum() @ said, -np.inf)
    likely = np.exp(score - score.max())
    return np.asarray(said @ (likely / likely.sum()) - said[:, item])


def _after(
    weights: NDArray[np.float64], errors: NDArray[np.float64], rate: float
) -> NDArray[np.float64]:
    """The weights after one event; with equal errors, the same."""
    total = weights.sum()
    mean = (weights * errors).sum() / total
    moved = weights * 2 * expit(rate * (mean - errors))
    moved = np.maximum(moved * total / moved.sum(), _LEAST * total)
    return np.asarray(moved * total / moved.sum())
