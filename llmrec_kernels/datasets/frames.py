"""The one frame format that every data set comes in, and how an item becomes a text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# "(1995)", also where something follows it, as in "(1995) (V)"; of "(2006–2007)" the first year.
_YEAR = re.compile(r"\((\d{4})(?:[\u2013-]\d{4})?\)")
N_STARRING = 4  # as many actors as an item's text names


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Interactions, items and users of one source, in one frame format.

    Parameters
    ----------
    name : str
        Name of the data set.
    interactions : pandas.DataFrame
        One row an interaction, in the source's order: ``user`` and ``item`` (the source's own
        ids, int64 or strings), ``rating`` (float64, in the source's unit, stars for MovieLens; 1
        where feedback is implicit), ``timestamp`` (int64, seconds since 1970-01-01 UTC; 0 where
        the source has none); some sources add columns.
    items : pandas.DataFrame
        One row an item: ``item``, ``title``, ``year`` (Int64, may be missing), ``genres``
        (tuples of str) and ``text``, what a text encoder reads; some sources add columns.
    users : pandas.DataFrame or None
        One row a user: ``user`` and what the source knows, such as ``age`` in years.

    Examples
    --------
    >>> from llmrec_kernels.datasets import movielens_100k
    >>> data = movielens_100k()
    >>> data
    Dataset('ml-100k': 100,000 interactions of 943 users with 1,682 items)
    >>> data.items.text[0]
    "Toy Story (1995). Genres: Animation, Children's, Comedy."
    """

    name: str
    interactions: pd.DataFrame
    items: pd.DataFrame
    users: pd.DataFrame | None = None

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name!r}: {len(self.interactions):,} interactions of "
            f"{self.interactions['user'].nunique():,} users with {len(self.items):,} items)"
        )


def item_text(
    title: str,
    genres: Sequence[str] = (),
    plot: str = "",
    directors: Sequence[str] = (),
    cast: Sequence[str] = (),
) -> str:
    """Write what is known of an item as one line of text; what is unknown is left out.

    Parameters
    ----------
    title : str
        Title, with its year where there is one.
    genres, directors, cast : sequence of str, optional
        Names. Of the cast, the first four are named.
    plot : str, optional
        Free text, kept as it is.

    Returns
    -------
    str
        ``Title. Genres: a, b. Plot Directed by X. Starring A, B, C, D.``

    Examples
    --------
    >>> item_text("Heat (1995)", ["Crime"], "A thief and a detective.", ["Michael Mann"])
    'Heat (1995). Genres: Crime. A thief and a detective. Directed by Michael Mann.'
    """
    parts = [title if title.endswith((".", "!", "?")) else f"{title}."] if title else []
    if genres:
        parts.append(f"Genres: {', '.join(genres)}.")
    if plot:
        parts.append(plot)
    if directors:
        parts.append(f"Directed by {', '.join(directors)}.")
    if cast:
        parts.append(f"Starring {', '.join(cast[:N_STARRING])}.")
    return " ".join(parts)


def items_frame(
    item: pd.Series | NDArray[np.int64] | list[int] | list[str],
    title: Iterable[str],
    genres: Iterable[tuple[str, ...]],
    text: Iterable[str] | None = None,
) -> pd.DataFrame:
    """Build the items frame of `Dataset`; a missing text is written from title and genres.

    Examples
    --------
    >>> items_frame([7], ["Heat  (1995) "], [("Crime",)])
       item        title  year    genres                         text
    0     7  Heat (1995)  1995  (Crime,)  Heat (1995). Genres: Crime.
    """
    titles = [" ".join(one.split()) for one in title]  # sources have stray spaces
    genre_lists = list(genres)
    if text is None:
        text = map(item_text, titles, genre_lists)
    frame = pd.DataFrame({"item": item, "title": titles})
    frame["year"] = pd.array([_year(one) for one in titles], dtype="Int64")
    frame["genres"] = pd.Series(genre_lists, index=frame.index, dtype=object)
    frame["text"] = list(text)
    return frame


def _year(title: str) -> int | None:
    years = _YEAR.findall(title)
    return int(years[-1]) if years else None
