"""What recommenders return: columns as NumPy arrays, frames on request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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

        return pd.DataFrame(self._columns())


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
        Cosine similarity.
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


@dataclass(frozen=True, eq=False)
class Explanation(Columns):
    """How much each item of a user's history gives to a score.

    Parameters
    ----------
    user, item : int or str
        What is explained.
    score : float
        The score: the sum of the shares, up to float32 rounding.
    history : [n] int64 or object
        The items in the user's profile, the largest share first.
    weight : [n] float64
        Their weights in the profile; they sum to 1.
    share : [n] float64
        What each gives to the score; below 0 where it speaks against the item.

    Examples
    --------
    >>> why = Explanation("ann", 3, 0.5, np.array([1]), np.array([1.0]), np.array([0.5]))
    >>> why.to_pandas()
       history  weight  share
    0        1     1.0    0.5
    """

    user: Any
    item: Any
    score: float
    history: NDArray[Any]
    weight: NDArray[np.float64]
    share: NDArray[np.float64]
