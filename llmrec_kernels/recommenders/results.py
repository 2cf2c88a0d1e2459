"""What recommenders return: columns as NumPy arrays, frames on request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmrec_kernels._ids import IdMap
from llmrec_kernels.ops import TopK

if TYPE_CHECKING:
    import pandas as pd


class Columns:
    """One-dimensional arrays of one length, as the fields of a dataclass."""

    def _columns(self) -> dict[str, NDArray[Any]]:
        return {name: one for name, one in vars(self).items() if isinstance(one, np.ndarray)}

    def __len__(self) -> int:
        return len(next(iter(self._columns().values())))

    def to_pandas(self) -> pd.DataFrame:
        """As a frame with a column for each array."""
        import pandas as pd

        try:
            return pd.DataFrame(self._columns())
        except UnicodeEncodeError:  # pandas' own strings are UTF-8: ids of half characters are not
            columns = self._columns().items()
            return pd.DataFrame({name: pd.Series(one, dtype=one.dtype) for name, one in columns})


@dataclass(frozen=True, eq=False)
class Recommendations(Columns):
    """Ranked items, user after user in the order asked for, best first.

    Parameters
    ----------
    user : [n] int64 or object
        User ids; None for someone whom the model knows by a text or a history alone.
    item : [n] int64 or object
        Item ids.
    score : [n] float32
        Descending for each user; what it measures, the recommender says. For `unknown_users` it
        is the number of users who took the item.
    rank : [n] int64
        From 1.
    unknown_users : tuple
        Users of whom the model knows nothing it could use, answered with what is popular.

    Examples
    --------
    >>> best = Recommendations(
    ...     np.array([7, 7]), np.array([3, 1]), np.array([0.5, 0.25]), np.array([1, 2]), ()
    ... )
    >>> best.to_pandas()
       user  item  score  rank
    0     7     3   0.50     1
    1     7     1   0.25     2
    """

    user: NDArray[Any]
    item: NDArray[Any]
    score: NDArray[np.float32]
    rank: NDArray[np.int64]
    unknown_users: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class SimilarItems(Columns):
    """The items most like each of some items.

    Parameters
    ----------
    item : [n] int64 or object
        The items asked for, in that order.
    similar : [n] int64 or object
        The items like it, best first.
    score : [n] float32
        How much, by what the recommender compares: a cosine, a shrunk cosine, or a weight.
    rank : [n] int64
        From 1.

    Examples
    --------
    >>> like = SimilarItems(np.array(["a"]), np.array(["b"]), np.array([0.5]), np.array([1]))
    >>> like.to_pandas()
      item similar  score  rank
    0    a       b    0.5     1
    """

    item: NDArray[Any]
    similar: NDArray[Any]
    score: NDArray[np.float32]
    rank: NDArray[np.int64]

    @staticmethod
    def of(items: IdMap, codes: NDArray[np.int64], topk: TopK) -> SimilarItems:
        """The best for each of these items, by numbers; place -1 fills up short lists."""
        found = (topk.ids >= 0).numpy()
        ranks = np.broadcast_to(np.arange(1, found.shape[1] + 1), found.shape)
        return SimilarItems(
            items.take(codes).repeat(found.sum(1)),
            items.take(topk.ids.numpy()[found]),
            topk.scores.numpy()[found],
            ranks[found],
        )


@dataclass(frozen=True, eq=False)
class Explanation(Columns):
    """What a score is the sum of.

    Parameters
    ----------
    user, item : int or str
        What is explained.
    score : float
        The score: the sum of the shares, up to float32 rounding. Where there are `blocks` it is
        their sum; predicted ratings have a baseline besides.
    kind : "history", "neighbour" or "part"
        What the sources are: items of the user's history, other users, or parts of a hybrid.
    source : [n] int64 or object
        Their ids or names, the largest share first.
    weight : [n] float64
        What each counts: its weight in the profile, its similarity, or the weight of the part.
    share : [n] float64
        What each gives to the score; below 0 where it speaks against the item.
    blocks : dict of str to float
        What each block of features (text, category, price) gives to the score, where the items'
        vectors have blocks; their sum is the score too.

    Examples
    --------
    >>> why = Explanation("ann", 3, 0.5, "history", np.array([1]), np.array([1.0]), np.array([0.5]))
    >>> why.to_pandas()
       history  weight  share
    0        1     1.0    0.5
    """

    user: Any
    item: Any
    score: float
    kind: str
    source: NDArray[Any]
    weight: NDArray[np.float64]
    share: NDArray[np.float64]
    blocks: dict[str, float] = field(default_factory=dict)

    @staticmethod
    def of(
        user: Any,
        item: Any,
        score: float,
        kind: str,
        source: NDArray[Any],
        weight: NDArray[np.float64],
        share: NDArray[np.float64],
        blocks: dict[str, float] | None = None,
    ) -> Explanation:
        """The same, with the largest share first; equal ones stay in their order."""
        order = np.argsort(-share, kind="stable")
        return Explanation(
            user, item, score, kind, source[order], weight[order], share[order], blocks or {}
        )

    def to_pandas(self) -> pd.DataFrame:
        """As a frame whose first column is named after the kind of the sources."""
        return super().to_pandas().rename(columns={"source": self.kind})
