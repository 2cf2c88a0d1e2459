"""What a recommender can be asked: lists for users, histories and sentences, scores, reasons.

Ids, filters, unknown users and bad questions are handled here, once, for all recommenders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from llmrec_kernels._ids import id_array, id_list
from llmrec_kernels.ops import TopK, checks
from llmrec_kernels.recommenders.answering import (
    Answering,
    Learned,
    UnsupportedError,
)
from llmrec_kernels.recommenders.filters import Filters
from llmrec_kernels.recommenders.results import Explanation, Recommendations, SimilarItems

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


ON_UNKNOWN = ("popular", "raise")


class Asking(Answering[Learned]):
    """The questions that every recommender answers, or refuses with a sentence."""

    @property
    def user_ids(self) -> NDArray[Any]:
        """The users that the model knows, [U] int64 or object, in the order of their arrival.

        Examples
        --------
        >>> import pandas as pd
        >>> from llmrec_kernels.recommenders import PopularityRecommender
        >>> PopularityRecommender().fit(pd.DataFrame({"user": [3, 1], "item": [7, 8]})).user_ids
        array([3, 1])
        """
        return id_array(list(self._ready().users))

    @property
    def item_ids(self) -> NDArray[Any]:
        """The items that can be recommended, [N] int64 or object, in their order."""
        return id_array(list(self._ready().items))

    @property
    def reads_text(self) -> bool:
        """Whether `recommend_from_text` has an answer."""
        self._ready()
        return self._reads()

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
        known.users.check_kind(asked)
        codes = known.users.codes(asked)
        if on_unknown == "raise":
            known.users.known_codes("users", asked)
        k = min(k, len(known.items))
        filters = Filters.of(known.items, len(asked), allow, exclude)
        # All that stays is set apart first: pieces that stay between large ones that go would keep
        # the system from having the memory of those back.
        shape = (len(asked), k)
        topk = TopK(torch.empty(shape, dtype=torch.float32), torch.empty(shape, dtype=torch.int64))
        meant = torch.empty(len(asked), dtype=torch.bool)
        for block in self._blocks(len(asked)):
            histories = known.history.of(codes[block])
            some = filters.of_users(torch.arange(block.start, block.stop))
            if filter_seen:
                some = some.hiding(histories)
            best, meant[block] = self._answer(histories, k, some)
            topk.scores[block], topk.ids[block] = best
        return self._recommendations(asked, topk, meant)

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
        history = self._history("item_ids", item_ids, ratings)
        k = min(checks.positive_int("k", k), len(known.items))
        filters = Filters(None, None).hiding(history)
        return self._recommendations([None], *self._answer(history, k, filters))

    def recommend_from_text(
        self, text: str, k: int = 10, *, liked: ArrayLike = ()
    ) -> Recommendations:
        """Rank up to k items for someone who says in words what they look for.

        Parameters
        ----------
        text : str
            In the words of the items' texts.
        k : int
            At least 1.
        liked : list or array of ids, optional
            What this person also liked, the oldest first; not recommended again.

        Returns
        -------
        Recommendations
            With None for the user.

        Raises
        ------
        UnsupportedError
            If the recommender reads no text, or has nothing to read it with.
        IndexError
            If the model does not know an item.
        TypeError, ValueError
            If an argument is of the wrong kind or out of its range.

        Examples
        --------
        >>> import pandas as pd
        >>> from llmrec_kernels import ContentRecommender
        >>> class Letters:  # stands in for a TextEncoder
        ...     def encode(self, texts):
        ...         return torch.tensor([[float(text.count(c)) for c in "abc"] for text in texts])
        >>> films = pd.DataFrame({"item": [1, 2, 3], "text": ["aab", "bbc", "cca"]})
        >>> nobody = pd.DataFrame({"user": [], "item": []})
        >>> model = ContentRecommender(Letters()).fit(nobody, films)
        >>> model.recommend_from_text("a cab", k=2).item.tolist()
        [1, 3]
        >>> model.recommend_from_text("a cab", k=2, liked=[1]).item.tolist()
        [3, 2]
        """
        known = self._ready()
        if not isinstance(text, str):
            raise TypeError(f"text is a {type(text).__name__}; expected one string")
        if not self._reads():
            raise UnsupportedError(f"{type(self).__name__} reads no text; ask with recommend()")
        k = min(checks.positive_int("k", k), len(known.items))
        history = self._history("liked", liked, None)
        filters = Filters(None, None).hiding(history)
        answer = self._filled(self._text_top(text, history, k, filters), k, filters)
        return self._recommendations([None], *answer)

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
        ValueError
            If the user's history says nothing to the model, which then answers with what is
            popular.
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
        return self._of_pairs(users, items, self._pairs)

    def predict(self, users: ArrayLike, items: ArrayLike) -> NDArray[np.float32]:
        """The rating that each user would give to the item beside it.

        Parameters
        ----------
        users, items : list or array of ids, [n]
            Pairs.

        Returns
        -------
        [n] float32
            In the unit of the ratings, and within their range.

        Raises
        ------
        UnsupportedError
            If the recommender does not predict ratings.
        IndexError
            If the model does not know a user or an item.
        ValueError
            If there are not as many users as items.
        """
        raise UnsupportedError(f"{type(self).__name__} does not predict ratings")
