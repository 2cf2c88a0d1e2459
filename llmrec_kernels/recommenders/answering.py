"""How a history becomes an answer, whatever the recommender: the machinery behind `base.py`.

A recommender says what it learns (`_learn`), how a history scores the items (`_rows`), and what
feedback changes (`_observed`, `_absorbed`). From these come the best items, scores of pairs, what
is popular where a history says nothing, and the record that is saved. Users are answered in blocks,
so that the scores of all users are never held together.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmrec_kernels._ids import IdMap, id_array, id_list
from llmrec_kernels.ops import TopK, cosine_topk
from llmrec_kernels.ragged import Ragged
from llmrec_kernels.recommenders import ranking
from llmrec_kernels.recommenders.filters import Filters
from llmrec_kernels.recommenders.history import Change, History, Lists
from llmrec_kernels.recommenders.results import Recommendations

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import ArrayLike
    from typing_extensions import Self

    from llmrec_kernels.recommenders.saving import Helpers

SCORES_AT_ONCE = 1 << 20  # 4 MB of them: users are answered in blocks, never all at once

Learned = TypeVar("Learned")
# Histories and each one's items to the scores of these, [nnz], and which histories say something.
Scores = Callable[[Lists, Ragged], tuple[NDArray[np.float32], Tensor]]


class UnsupportedError(TypeError):
    """The recommender has nothing to answer this kind of question with.

    Examples
    --------
    >>> raise UnsupportedError("PopularityRecommender reads no text")
    Traceback (most recent call last):
        ...
    llmrec_kernels.recommenders.answering.UnsupportedError: PopularityRecommender reads no text
    """


class Fitted(NamedTuple):
    """What is known after `fit`, whatever the recommender."""

    users: IdMap
    items: IdMap
    history: History


class Given(NamedTuple):
    """What there is to learn from."""

    items: pd.DataFrame | None  # a row an item, in the order of their numbers
    item_ids: IdMap
    history: History
    users: pd.DataFrame | None = None  # in any order, and not all of the users
    user_ids: IdMap | None = None  # everyone's numbers, as in the history


class Answering(ABC, Generic[Learned]):
    """What a recommender has learned, and how it answers."""

    _needs_ratings: bool = False
    _fitted: Fitted | None = None
    _learned: Learned
    _is_part: bool = False  # of a hybrid, which alone may change it

    @abstractmethod
    def _learn(self, given: Given) -> Learned:
        """What the recommender learns; nothing of the model may change here."""

    @abstractmethod
    def _rows(self, histories: Lists) -> Tensor:
        """The score of each item for each history, [B, N] float32; zeros where it says nothing."""

    def _top(self, histories: Lists, k: int, filters: Filters) -> tuple[TopK, Tensor]:
        """The k best items of each history, and which histories say something, [B] bool."""
        rows = self._rows(histories)
        return ranking.best(rows, k, filters), self._meant(histories, rows)

    def _meant(self, histories: Lists, rows: Tensor) -> Tensor:
        """Which histories say something, [B] bool, by their rows of scores."""
        return rows.any(dim=1)

    def _pairs(self, histories: Lists, pairs: Ragged) -> tuple[NDArray[np.float32], Tensor]:
        """The scores of each history's own items, [nnz], and which histories say something."""
        rows = self._rows(histories)
        return ranking.taken(rows, pairs), self._meant(histories, rows)

    def _reads(self) -> bool:
        """Whether the model can answer someone who is known by a text."""
        return False

    def _text_rows(self, text: str, liked: Lists) -> Tensor:
        """The score of each item for a text and one history, [1, N] float32; if it `_reads`."""
        raise NotImplementedError

    def _text_top(self, text: str, liked: Lists, k: int, filters: Filters) -> tuple[TopK, Tensor]:
        """The k best items for a text and one history, and whether it says something, [1] bool."""
        rows = self._text_rows(text, liked)
        return ranking.best(rows, k, filters), rows.any(dim=1)

    def _of_pairs(self, users: ArrayLike, items: ArrayLike, scores: Scores) -> NDArray[np.float32]:
        """Scores of pairs by their users' histories; what is popular where these say nothing."""
        known = self._ready()
        user = known.users.known_codes("users", id_list("users", users))
        item = known.items.known_codes("items", id_list("items", items))
        if len(user) != len(item):
            raise ValueError(f"users has {len(user)} ids but items has {len(item)}; expected pairs")
        asked, owner = np.unique(user, return_inverse=True)
        order = np.argsort(owner, kind="stable")
        bounds = np.concatenate([[0], np.bincount(owner, minlength=len(asked)).cumsum()])
        found = np.empty(len(user), dtype=np.float32)
        for block in self._blocks(len(asked)):
            part = order[bounds[block.start] : bounds[block.stop]]
            offsets = bounds[block.start : block.stop + 1] - bounds[block.start]
            pairs = Ragged(torch.from_numpy(item[part]), torch.from_numpy(offsets.astype(np.int64)))
            values, meant = scores(known.history.of(asked[block]), pairs)
            popular = known.history.popularity[item[part]].astype(np.float32)
            found[part] = np.where(meant.numpy()[owner[part] - block.start], values, popular)
        return found

    def _one(self, user: Any, item: Any) -> tuple[Fitted, Lists, NDArray[np.int64]]:
        """The history of one user and the number of one item, [1], that the model knows."""
        known = self._ready()
        history = known.history.of(known.users.known_codes("user", id_list("user", [user])))
        return known, history, known.items.known_codes("item", id_list("item", [item]))

    def _explained_score(self, user: Any, history: Lists, code: NDArray[np.int64]) -> float:
        """The score of one item for one history; refused where that says nothing."""
        pair = Ragged(torch.from_numpy(code), torch.tensor([0, 1]))
        score, meant = self._pairs(history, pair)
        if not meant.item():
            raise ValueError(
                f"user {user!r} has no history that this model can use: it answers with what is "
                "popular, and there is nothing to share out"
            )
        return float(score[0])

    def _observed(self, users: NDArray[np.int64], rows: NDArray[np.void]) -> Learned:
        """What is learned of events before they are history: users[i], -1 if new, took rows[i]."""
        return self._learned

    def _absorbed(self, learned: Learned, change: Change) -> Learned:
        """What is learned of histories that have changed."""
        return learned

    def _options(self) -> dict[str, Any]:
        """The arguments that the model was made with: each is an attribute of the same name."""
        return self._arguments_but()

    def _arguments_but(self, *left_out: str) -> dict[str, Any]:
        names = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in names if name not in left_out}

    def _record(self, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
        """What the model is and has learned, for JSON; numbers go among the tensors."""
        from llmrec_kernels.recommenders import records

        return {
            "class": type(self).__name__,
            "options": records.flattened(self._options(), f"{name}.options", tensors),
            "learned": records.flattened(self._learned, f"{name}.learned", tensors),
        }

    @classmethod
    def _of_record(
        cls, record: Mapping[str, Any], name: str, tensors: Mapping[str, Tensor], helpers: Helpers
    ) -> tuple[Self, Learned]:
        """A model that is made alike, and what it has learned."""
        from llmrec_kernels.recommenders import records

        options = records.restored(record["options"], f"{name}.options", tensors)
        fields = records.restored(record["learned"], f"{name}.learned", tensors, helpers.encoder)
        learned = cls._as_learned(fields)
        return cls._made(options, learned, helpers), learned

    @classmethod
    def _made(cls, options: dict[str, Any], learned: Learned, helpers: Helpers) -> Self:
        """A model with these arguments."""
        return cls(**options)

    @classmethod
    @abstractmethod
    def _as_learned(cls, fields: Any) -> Learned:
        """What was learned, of its fields by name."""

    def _take(self, learned: Learned, fitted: Fitted) -> None:
        """Become a model that has learned this."""
        self._learned, self._fitted = learned, fitted

    def _check_alone(self, verb: str) -> None:
        if self._is_part:
            raise RuntimeError(
                f"this {type(self).__name__} is a part of a hybrid and shares its history; "
                f"{verb} the hybrid, or make another recommender"
            )

    def _ready(self) -> Fitted:
        if self._fitted is None:
            raise RuntimeError(f"this {type(self).__name__} is not fitted; call fit first")
        return self._fitted

    def _block_size(self) -> int:
        """How many users to answer together, so that their scores of all items fit."""
        return max(1, SCORES_AT_ONCE // len(self._ready().items))

    def _blocks(self, count: int) -> list[slice]:
        size = self._block_size()
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    def _history(self, name: str, item_ids: ArrayLike, ratings: ArrayLike | None) -> Lists:
        """The history of someone who took these items, the oldest first."""
        known = self._ready()
        ids = id_list(name, item_ids)
        codes = known.items.known_codes(name, ids)
        if ratings is None:
            rating = np.full(len(ids), known.history.highest)
        else:
            given = np.asarray(ratings)
            rating = given.astype(np.float64) if given.dtype.kind in "biuf" else np.array(np.nan)
            if rating.shape != codes.shape or not np.isfinite(rating).all():
                raise ValueError(
                    f"ratings is {ratings!r}; expected {len(ids)} finite numbers, one for each item"
                )
        return Lists.of(codes, rating, np.arange(len(ids), dtype=np.float64))

    def _answer(self, histories: Lists, k: int, filters: Filters) -> tuple[TopK, Tensor]:
        """The best items of each history, and the popular ones where it says nothing."""
        return self._filled(self._top(histories, k, filters), k, filters)

    def _filled(self, answer: tuple[TopK, Tensor], k: int, filters: Filters) -> tuple[TopK, Tensor]:
        """An answer with the popular items where it has none."""
        (scores, places), meant = answer
        rest = (~meant).nonzero()[:, 0]
        if rest.shape[0]:
            counts = torch.from_numpy(self._ready().history.popularity).float()[:, None]
            ones = torch.ones(rest.shape[0], 1, dtype=torch.float32)
            popular = cosine_topk(
                ones, counts, k, metric="dot", **filters.of_users(rest).arguments()
            )
            scores[rest], places[rest] = popular.scores, popular.ids
        return TopK(scores, places), meant

    def _recommendations(self, asked: list[Any], topk: TopK, meant: Tensor) -> Recommendations:
        """Answers under the caller's ids."""
        scores, places = topk.scores.numpy(), topk.ids.numpy()
        found = places >= 0
        ranks = np.broadcast_to(np.arange(1, found.shape[1] + 1), found.shape)
        return Recommendations(
            id_array(asked).repeat(found.sum(1)),
            self._ready().items.take(places[found]),
            scores[found],
            ranks[found],
            tuple(one for one, known in zip(asked, meant.tolist(), strict=True) if not known),
        )
