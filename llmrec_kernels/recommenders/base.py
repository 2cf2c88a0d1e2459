"""What every recommender promises: to be fitted, asked (`asking.py`), told of feedback, and saved.

`answering.py` has the machinery behind the answers. Recommenders whose scores are similarities of
vectors rank through the kernels (`vectors.py`), the others through rows of scores (`ranking.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmrec_kernels._ids import IdMap
from llmrec_kernels.recommenders import frames
from llmrec_kernels.recommenders.answering import (
    Fitted,
    Given,
    Learned,
)
from llmrec_kernels.recommenders.asking import Asking
from llmrec_kernels.recommenders.history import History, as_rows

if TYPE_CHECKING:
    import os

    import pandas as pd
    from typing_extensions import Self


class Recommender(Asking[Learned]):
    """A recommender: fitted on interactions, asked with the caller's own ids.

    Interactions are a frame with the columns `user` and `item` (integers or strings), and, where
    there are any, `rating` (a number, more is better) and `timestamp` (a number, such as seconds,
    or a date with a time, which is read as seconds since 1970-01-01 UTC).
    Of several interactions of a user with an item, the last by timestamp counts, and of those at
    the same time the later row.

    Attributes
    ----------
    update_is_refit : bool
        Whether `update` comes to the same as fitting on everything. Where it does not, `update`
        changes the histories and the popularity of items at once, and what was learned of the
        items (similarities, factors) stays until the next `fit`.
    """

    update_is_refit: bool

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
            With `user`: users to know although they have no interactions; and `text`, what is said
            of a user, for recommenders that read it.

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
        self._check_alone("fit")
        taken = frames.Interactions.read(interactions, rated=self._needs_ratings)
        known_items = frames.catalogue(items, taken)
        item = frames.item_codes(known_items, taken)
        known_users = IdMap("user", [])
        named = frames.user_ids(users)
        known_users.check_kind([*named, *taken.user])
        known_users.extend([*named, *taken.user])  # those who come by `update` are after all
        rows = as_rows(item, taken.rating, taken.timestamp)
        history = History(known_users.codes(taken.user), rows, len(known_items))
        learned = self._learn(Given(items, known_items, history, users, known_users))
        self._take(learned, Fitted(known_users, known_items, history))
        return self

    def update(self, interactions: pd.DataFrame) -> Self:
        """Take in more interactions, of old and new users, without fitting again.

        The cost is in proportion to the interactions and to the histories of their users. The
        profiles of the users concerned and the popularity of items change at once; what else does
        is for `update_is_refit` to say.

        Parameters
        ----------
        interactions : DataFrame
            As for `fit`, with items that the model knows. Without `timestamp` they are as late as
            the latest one known, and come after it; without `rating` they count as the highest
            rating known, for what was taken counts as liked.

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
        self._check_alone("update")
        taken = frames.Interactions.read(
            interactions,
            rated=self._needs_ratings,
            rating=known.history.highest,
            timestamp=known.history.latest,
        )
        item = frames.item_codes(known.items, taken)
        known.users.check_kind(taken.user)
        rows = as_rows(item, taken.rating, taken.timestamp)
        learned = self._observed(known.users.codes(taken.user), rows)
        known.users.extend(taken.user)
        change = known.history.add(known.users.codes(taken.user), rows)
        self._learned = self._absorbed(learned, change)
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model into a folder: safetensors and JSON, whole or not at all.

        Parameters
        ----------
        path : path-like
            A folder; made where it is not there, and what it had of a model before is replaced.

        Raises
        ------
        OSError
            If it cannot be written to; a model saved there before stays as it was.

        Examples
        --------
        >>> import pandas as pd, tempfile
        >>> from llmrec_kernels.recommenders import PopularityRecommender, Recommender
        >>> folder = tempfile.mkdtemp()
        >>> seen = pd.DataFrame({"user": [1, 2, 2], "item": [7, 7, 8]})
        >>> PopularityRecommender().fit(seen).save(folder)
        >>> Recommender.load(folder).recommend([1]).item.tolist()
        [8]
        """
        from llmrec_kernels.recommenders import saving

        saving.save(self, path)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, encoder: Any = None, privacy: Any = None
    ) -> Self:
        """Read a model that `save` wrote; its answers are the same.

        Parameters
        ----------
        path : path-like
            The folder.
        encoder : object with `encode(texts)`, optional
            What encodes texts, where the model does. A `TextEncoder` is found again by itself.
        privacy : GaussianProfile, optional
            Noise for profiles, where the model has it: its secret is not saved. Without it a new
            one is drawn, and noise is new too.

        Returns
        -------
        Recommender
            Of the class that was saved; `Recommender.load` takes any.

        Raises
        ------
        ModelFormatError
            A ValueError: there is no model, it is of another class or of a newer version, or a
            file is damaged.
        """
        from llmrec_kernels.recommenders import saving

        return saving.load(cls, path, saving.Helpers(encoder, privacy))
