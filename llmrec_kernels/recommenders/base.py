"""What every recommender promises, and what all of them do alike.

A recommender is a vector for each item, and a way to make a profile of a history: the items whose
vectors are most similar to the profile are recommended. Ids, histories, filters, unknown users
and bad input are handled here, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmrec_kernels.ops import TopK, candidate_scores, checks, cosine_topk
from llmrec_kernels.ragged import Ragged
from llmrec_kernels.recommenders import frames
from llmrec_kernels.recommenders.filters import Filters
from llmrec_kernels.recommenders.history import History, Lists, as_rows
from llmrec_kernels.recommenders.ids import IdMap, id_array, id_list
from llmrec_kernels.recommenders.results import Explanation, Recommendations, SimilarItems

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike
    from typing_extensions import Self

ON_UNKNOWN = ("popular", "raise")

Learned = TypeVar("Learned")


class UnsupportedError(TypeError):
    """The recommender has nothing to answer this kind of question with.

    Examples
    --------
    >>> raise UnsupportedError("PopularityRecommender reads no text")
    Traceback (most recent call last):
        ...
    llmrec_kernels.recommenders.base.UnsupportedError: PopularityRecommender reads no text
    """


class Fitted(NamedTuple):
    """What is known after `fit`, whatever the recommender."""

    users: IdMap
    items: IdMap
    history: History


class Recommender(ABC, Generic[Learned]):
    """A recommender: fitted on interactions, asked with the caller's own ids.

    Interactions are a frame with the columns `user` and `item` (integers or strings), and, where
    there are any, `rating` (a number, more is better) and `timestamp` (a number, later is more).
    Of several interactions of a user with an item, the last by timestamp counts, and of those at
    the same time the later row.
    """

    _metric: ClassVar[str]
    _needs_ratings: bool = False
    _fitted: Fitted | None = None
    _learned: Learned

    def fit(
        self,
        interactions: pd.DataFrame,
        items: pd.DataFrame | None = None,
        users: pd.DataFrame | None = None,
    ) -> Self:
        """Learn from interactions; a model that was fitted before starts anew.

        Parameters
        ----------
        interactions : DataFrame
            With `user` and `item`, and `rating` and `timestamp` where they are known.
        items : DataFrame, optional
            With `item`, each once, in the order in which equal scores are to come; it may have
            items without interactions. By default the items interacted with, sorted.
        users : DataFrame, optional
            With `user`: users to know although they have no interactions.

        Returns
        -------
        Recommender
            The model itself.

        Raises
        ------
        ValueError
            If a column is missing, a number is missing or not finite, an item comes twice, or an
            interaction has an item that is not among the items. The model stays as it was.
        TypeError
            If an argument is no frame, or an id neither an integer nor a string.

        Examples
        --------
        >>> import pandas as pd
        >>> from llmrec_kernels.recommenders import PopularityRecommender
        >>> seen = pd.DataFrame({"user": [1, 2], "item": ["heat", "heat"]})
        >>> model = PopularityRecommender().fit(seen, pd.DataFrame({"item": ["big", "heat"]}))
        >>> model.recommend([1]).item.tolist()
        ['big']
        """
        taken = frames.Interactions.read(interactions, rated=self._needs_ratings)
        known_items = frames.catalogue(items, taken)
        item = frames.item_codes(known_items, taken)
        known_users = IdMap("user", [])
        named = frames.user_ids(users)
        known_users.check_kind([*taken.user, *named])
        known_users.extend([*taken.user, *named])
        rows = as_rows(item, taken.rating, taken.timestamp)
        history = History(known_users.codes(taken.user), rows, len(known_items))
        self._learned = self._learn(items, len(known_items))
        self._fitted = Fitted(known_users, known_items, history)
        return self

    def update(self, interactions: pd.DataFrame) -> Self:
        """Take in more interactions, of old and new users, without fitting again.

        The profiles of the users concerned and the popularity of items change at once; what was
        learned of the items stays.

        Parameters
        ----------
        interactions : DataFrame
            As for `fit`, with items that the model knows.

        Returns
        -------
        Recommender
            The model itself.

        Raises
        ------
        ValueError, TypeError
            As for `fit`. The model stays as it was.

        Examples
        --------
        >>> import pandas as pd
        >>> from llmrec_kernels.recommenders import PopularityRecommender
        >>> model = PopularityRecommender().fit(pd.DataFrame({"user": [1, 2], "item": [7, 8]}))
        >>> model = model.update(pd.DataFrame({"user": [3], "item": [8]}))
        >>> model.recommend([1, 3]).item.tolist()
        [8, 7]
        """
        known = self._ready()
        taken = frames.Interactions.read(interactions, rated=self._needs_ratings)
        item = frames.item_codes(known.items, taken)
        known.users.check_kind(taken.user)
        known.users.extend(taken.user)
        rows = as_rows(item, taken.rating, taken.timestamp)
        known.history.add(known.users.codes(taken.user), rows)
        return self

    def recommend(
        self,
        users: ArrayLike,
        k: int = 10,
        *,
        filter_seen: bool = True,
        allow: Any = None,
        exclude: Any = None,
        on_unknown: str = "popular",
    ) -> Recommendations:
        """Rank up to k items for each user.

        Parameters
        ----------
        users : list or array of ids
            Whom to answer, in this order.
        k : int
            At least 1. A user with fewer items left gets fewer.
        filter_seen : bool
            Whether to leave out what a user has interactions with.
        allow, exclude : ids, optional
            The only items to recommend, and items never to recommend: one list for all users, or
            a list of lists, one for each user. Unknown items in `exclude` are ignored.
        on_unknown : "popular" or "raise"
            Whether users whom the model does not know are answered with what is popular, or
            refused.

        Returns
        -------
        Recommendations
            Scores descending, equal ones in the order of the items. `unknown_users` names those
            who were answered with what is popular: whom the model does not know, or whose history
            says nothing to it.

        Raises
        ------
        IndexError
            If `allow` has an item that the model does not know, or with `on_unknown="raise"`
            `users` a user.
        TypeError, ValueError
            If an argument is of the wrong kind or out of its range.

        Examples
        --------
        >>> import pandas as pd
        >>> from llmrec_kernels.recommenders import PopularityRecommender
        >>> seen = pd.DataFrame({"user": ["ann", "bob", "bob"], "item": [7, 7, 8]})
        >>> model = PopularityRecommender().fit(seen)
        >>> best = model.recommend(["ann", "eve"], k=1)
        >>> best.item.tolist(), best.unknown_users
        ([8, 7], ('eve',))
        >>> model.recommend(["eve"], exclude=[7]).item.tolist()
        [8]
        """
        known = self._ready()
        asked = id_list("users", users)
        k = checks.positive_int("k", k)
        checks.choice("on_unknown", on_unknown, ON_UNKNOWN)
        codes = known.users.codes(asked)
        if on_unknown == "raise":
            known.users.known_codes("users", asked)
        histories = known.history.of(codes)
        filters = Filters.of(
            known.items, len(asked), allow, exclude, histories if filter_seen else None
        )
        return self._answer(asked, self._profiles(histories), k, filters)

    def recommend_from_history(
        self, item_ids: ArrayLike, ratings: ArrayLike | None = None, k: int = 10
    ) -> Recommendations:
        """Rank up to k items for someone who is known by a few items alone.

        Parameters
        ----------
        item_ids : list or array of ids
            What this person took, the oldest first; not recommended again.
        ratings : array, [n], optional
            As high as the highest rating of `fit` where there are none.
        k : int
            At least 1.

        Returns
        -------
        Recommendations
            With None for the user.

        Raises
        ------
        IndexError
            If the model does not know an item.
        TypeError, ValueError
            If an argument is of the wrong kind or out of its range.

        Examples
        --------
        >>> import pandas as pd
        >>> from llmrec_kernels.recommenders import PopularityRecommender
        >>> seen = pd.DataFrame({"user": [1, 2, 2], "item": ["heat", "heat", "big"]})
        >>> PopularityRecommender().fit(seen).recommend_from_history(["heat"]).item.tolist()
        ['big']
        """
        known = self._ready()
        ids = id_list("item_ids", item_ids)
        codes = known.items.known_codes("item_ids", ids)
        if ratings is None:
            rating = np.full(len(ids), known.history.highest)
        else:
            rating = np.asarray(ratings, dtype=np.float64)
            if rating.shape != codes.shape or not np.isfinite(rating).all():
                raise ValueError(
                    f"ratings is {ratings!r}; expected {len(ids)} finite numbers, one for each item"
                )
        history = Lists.of(codes, rating, np.arange(len(ids), dtype=np.float64))
        filters = Filters.of(known.items, 1, None, None, history)
        k = checks.positive_int("k", k)
        return self._answer([None], self._profiles(history), k, filters)

    def recommend_from_text(self, text: str, k: int = 10) -> Recommendations:
        """Rank up to k items for someone who says in words what they look for.

        Parameters
        ----------
        text : str
            In the words of the items' texts.
        k : int
            At least 1.

        Returns
        -------
        Recommendations
            With None for the user.

        Raises
        ------
        UnsupportedError
            If the recommender reads no text.
        """
        raise UnsupportedError(f"{type(self).__name__} reads no text; ask with recommend()")

    def similar_items(self, items: ArrayLike, k: int = 10) -> SimilarItems:
        """Find the k items most like each of some items.

        Parameters
        ----------
        items : list or array of ids
            An item is not similar to itself.
        k : int
            At least 1.

        Raises
        ------
        UnsupportedError
            If the recommender does not compare items.
        IndexError
            If the model does not know an item.
        """
        raise UnsupportedError(f"{type(self).__name__} does not compare items with each other")

    def explain(self, user: Any, item: Any) -> Explanation:
        """Say how much each item of a user's history gives to the score of an item.

        Parameters
        ----------
        user, item : int or str
            Ids that the model knows.

        Raises
        ------
        UnsupportedError
            If the score is no sum over the history.
        IndexError
            If the model does not know the user or the item.
        """
        raise UnsupportedError(f"{type(self).__name__} does not score by what a user took")

    def score(self, users: ArrayLike, items: ArrayLike) -> NDArray[np.float32]:
        """The score of each user with the item beside it.

        Parameters
        ----------
        users, items : list or array of ids, [n]
            Pairs.

        Returns
        -------
        [n] float32
            As in `recommend`.

        Raises
        ------
        IndexError
            If the model does not know a user or an item.
        ValueError
            If there are not as many users as items.

        Examples
        --------
        >>> import pandas as pd
        >>> from llmrec_kernels.recommenders import PopularityRecommender
        >>> seen = pd.DataFrame({"user": [1, 2, 2], "item": ["heat", "heat", "big"]})
        >>> PopularityRecommender().fit(seen).score([1, 1], ["heat", "big"])
        array([2., 1.], dtype=float32)
        """
        known = self._ready()
        user = known.users.known_codes("users", id_list("users", users))
        item = known.items.known_codes("items", id_list("items", items))
        if len(user) != len(item):
            raise ValueError(f"users has {len(user)} ids but items has {len(item)}; expected pairs")
        asked, owner = np.unique(user, return_inverse=True)
        order = np.argsort(owner, kind="stable")
        offsets = np.concatenate([[0], np.bincount(owner, minlength=len(asked)).cumsum()])
        pairs = Ragged(torch.from_numpy(item[order]), torch.from_numpy(offsets.astype(np.int64)))
        profiles = self._profiles(known.history.of(asked))
        scores = np.empty(len(user), dtype=np.float32)
        scores[order] = candidate_scores(
            profiles, self._vectors(), pairs, metric=self._metric
        ).numpy()
        meant = profiles.any(dim=1).numpy()
        return np.where(meant[owner], scores, known.history.popularity[item].astype(np.float32))

    @abstractmethod
    def _learn(self, items: pd.DataFrame | None, n_items: int) -> Learned:
        """What the recommender learns of the items; nothing of the model may change here."""

    @abstractmethod
    def _profiles(self, histories: Lists) -> Tensor:
        """The vector of each history, [B, d] float32; zeros where it says nothing."""

    @abstractmethod
    def _vectors(self) -> Any:
        """The vectors of the items, [N, d], as `cosine_topk` takes them."""

    def _ready(self) -> Fitted:
        if self._fitted is None:
            raise RuntimeError(f"this {type(self).__name__} is not fitted; call fit first")
        return self._fitted

    def _answer(
        self, asked: list[Any], profiles: Tensor, k: int, filters: Filters
    ) -> Recommendations:
        """The best items for each profile, and the popular ones where it is zero."""
        items = self._ready().items
        k = min(k, len(items))
        meant = profiles.any(dim=1)
        scores = torch.full((len(asked), k), -torch.inf, dtype=torch.float32)
        places = torch.full((len(asked), k), -1)
        for rows, topk in ((meant, self._similar), (~meant, self._popular)):
            some = rows.nonzero()[:, 0]
            if some.shape[0]:
                scores[some], places[some] = topk(profiles[some], k, filters.of_users(some))
        found = (places >= 0).numpy()
        ranks = np.broadcast_to(np.arange(1, k + 1), found.shape)
        return Recommendations(
            id_array(asked).repeat(found.sum(1)),
            items.take(places.numpy()[found]),
            scores.numpy()[found],
            ranks[found],
            tuple(one for one, known in zip(asked, meant.tolist(), strict=True) if not known),
        )

    def _similar(self, profiles: Tensor, k: int, filters: Filters) -> TopK:
        return cosine_topk(profiles, self._vectors(), k, metric=self._metric, **filters.arguments())

    def _popular(self, profiles: Tensor, k: int, filters: Filters) -> TopK:
        counts = torch.from_numpy(self._ready().history.popularity).float()[:, None]
        ones = torch.ones(profiles.shape[0], 1, dtype=torch.float32)
        return cosine_topk(ones, counts, k, metric="dot", **filters.arguments())
