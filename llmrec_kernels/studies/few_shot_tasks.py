"""Who liked what and would type what, and who is held out: for the study `few_shot`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llmrec_kernels.datasets import Dataset
from llmrec_kernels.evaluation import cold_user_split

GIVEN = 10  # first likes of a held-out user, of which a recommender is told some or all
MIN_LIKES = 20  # of a held-out user: there are at least as many to find
MOST_USERS = 100  # held out with one seed
MIN_TAKERS = 10  # people who took an item: EASE takes the third power of the number of items
LIKE = 4.0  # stars
SHORTEST_WORD = 3
LITTLE_WORDS = ("and", "for", "pack", "set", "the", "with")


@dataclass(frozen=True, eq=False)
class Task:
    """Who liked what, and what is known of the items.

    Parameters
    ----------
    name : str
        Of the data set.
    likes : pandas.DataFrame
        `user`, `item`, `timestamp`: each pair once, in the order of time.
    items : pandas.DataFrame
        The catalogue, with `item`, `text` and the features.
    sentence : callable
        What someone who liked some items, rows of the catalogue, would type.
    categories, numbers : tuple of str
        Columns that are features beside the text.
    made : str
        How likes and sentences are made, in Markdown.
    """

    name: str
    likes: pd.DataFrame
    items: pd.DataFrame
    sentence: Callable[[pd.DataFrame], str]
    categories: tuple[str, ...]
    numbers: tuple[str, ...]
    made: str


class Users(NamedTuple):
    """Users with enough likes, in two halves."""

    to_choose: NDArray[Any]  # settings are chosen by these
    to_test: NDArray[Any]  # no choice knows what these like


class Newcomers(NamedTuple):
    """Users whom the models do not know, and everybody else."""

    train: pd.DataFrame  # the likes of the others
    known: pd.DataFrame  # the first `GIVEN` likes of each, in the order of time
    test: pd.DataFrame  # their later likes

    def likes(self, first: int, last: int) -> pd.DataFrame:
        """The known likes from one place, counted from 0, to before another."""
        place = self.known.groupby("user").cumcount()
        return self.known[(place >= first) & (place < last)]


def halves(likes: pd.DataFrame) -> Users:
    """Divide the users with enough likes by chance, into those who choose and those who test.

    Raises
    ------
    ValueError
        There are fewer than ten of them.
    """
    counts = likes.groupby("user").size()
    enough = counts.index[counts >= MIN_LIKES].to_numpy()
    if len(enough) < 10:
        raise ValueError(
            f"likes has {len(enough)} users with at least {MIN_LIKES}; expected ten or more, to "
            "hold out a fifth of each half"
        )
    drawn = np.random.default_rng(0).permutation(enough)
    return Users(drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :])


def hold_out(likes: pd.DataFrame, users: NDArray[Any], seed: int) -> Newcomers:
    """Hold out two of five of some users, but no more than `MOST_USERS`.

    Parameters
    ----------
    likes : pandas.DataFrame
        `user`, `item`, `timestamp`: each pair once, in the order of time.
    users : array of user ids
        With enough likes.
    seed : int
        Of the draw.
    """
    count = min(2 * len(users) // 5, MOST_USERS)
    drawn = np.random.default_rng(seed).permutation(users)[:count]
    return Newcomers(*cold_user_split(likes, drawn, history=GIVEN))


def sentences(task: Task, known: pd.DataFrame) -> dict[Any, str]:
    """What each user would type, by the likes that are known."""
    rows = task.items.set_index("item")
    return {
        user: task.sentence(rows.loc[one.tolist()]) for user, one in known.groupby("user")["item"]
    }


def film_sentence(films: pd.DataFrame) -> str:
    """The two most frequent genres and the most frequent decade; of equal ones the first.

    Examples
    --------
    >>> genres = [("Drama", "War"), ("Comedy", "War")]
    >>> films = pd.DataFrame({"genres": genres, "year": [1995, 1987]})
    >>> film_sentence(films)
    'War and Drama films from the 1990s.'
    """
    genres = _most_common([genre for one in films["genres"] for genre in one], 2)
    decade = _most_common([f" from the {year // 10}0s" for year in films["year"].dropna()], 1)
    kind = f"{' and '.join(genres)} films" if genres else "Films"
    return f"{kind}{''.join(decade)}."


def product_sentence(products: pd.DataFrame) -> str:
    """The three most frequent words of the titles; of equal ones the first.

    Examples
    --------
    >>> titles = ["Red lunch bag", "Set of red bunting", "Red cup"]
    >>> product_sentence(pd.DataFrame({"title": titles}))
    'Red, lunch, bag.'
    """
    words = re.findall(rf"[a-z]{{{SHORTEST_WORD},}}", " ".join(products["title"]).lower())
    told = _most_common([word for word in words if word not in LITTLE_WORDS], 3)
    return f"{', '.join(told).capitalize()}."


def _most_common(values: Sequence[str], n: int) -> list[str]:
    return [value for value, _ in Counter(values).most_common(n)]


def _films(data: Dataset) -> Task:
    liked = data.interactions[data.interactions["rating"] >= LIKE]
    made = (
        f"A like is a rating of {LIKE:g} stars or more; lower ratings are not used. The sentence "
        "names the two most frequent genres of the user's first ten likes and their most frequent "
        "decade, as in “Comedy and Drama films from the 1990s.”"
    )
    likes, items = _catalogue(data, liked)
    return Task(data.name, likes, items, film_sentence, ("genres",), ("year",), made)


def _products(data: Dataset) -> Task:
    made = (
        "A like is a product that was bought, counted when it was bought first; lines of one "
        "invoice are in the order of the file. The sentence has the three most frequent words "
        f"(of {SHORTEST_WORD} letters or more, without {', '.join(LITTLE_WORDS)}) in the titles of "
        "the user's first ten likes, as in “Red, retrospot, bag.”"
    )
    likes, items = _catalogue(data, data.interactions)
    return Task(data.name, likes, items, product_sentence, (), ("price",), made)


TASKS = {"ml-latest-small": _films, "online-retail": _products}


def _catalogue(data: Dataset, liked: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Likes in the order of time, and the items that enough people took."""
    pairs = data.interactions.drop_duplicates(["user", "item"])
    takers = data.items["item"].map(pairs["item"].value_counts()).fillna(0)
    items = data.items[takers >= MIN_TAKERS].reset_index(drop=True)
    likes = liked.loc[liked["item"].isin(items["item"]), ["user", "item", "timestamp"]]
    likes = likes.sort_values("timestamp", kind="stable").drop_duplicates(["user", "item"])
    return likes.reset_index(drop=True), items
