"""MovieLens: 100K (1998) and latest-small (2018), from GroupLens, University of Minnesota.

F. Maxwell Harper and Joseph A. Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4),
2015, doi 10.1145/2827872. The data are free for research; read the README that comes with them.

MovieLens 100K comes in two layouts that give the same frames: the publisher's ``u.*`` files, and
the "atomic files" that the recbole wheel carries. Some copies of ``u.item`` spell foreign titles
without their accents; the wheel has them.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from typing import Any

import pandas as pd

from llmrec_kernels.datasets.frames import Dataset, item_text, items_frame
from llmrec_kernels.datasets.locate import Found, Wheel, locate

_PUBLISHER = "https://files.grouplens.org/datasets/movielens"
_RECBOLE = Wheel("recbole", "dataset_example/ml-100k")
_OFFICIAL = ("u.data", "u.item", "u.user")
_ATOMIC = ("ml-100k.inter", "ml-100k.item", "ml-100k.user")
_LATEST_SMALL = ("ratings.csv", "movies.csv")
_PLOTS = "items_info.json"
_INTERACTIONS = {"user": "int64", "item": "int64", "rating": "float64", "timestamp": "int64"}
_USERS = {"user": "int64", "age": "int64", "gender": str, "occupation": str, "zip_code": str}
# The columns of u.item after its first five, as u.genre lists them.
_GENRES = [
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery"),
    *("Romance", "Sci-Fi", "Thriller", "War", "Western"),
]
_NO_GENRE = {"unknown", "(no genres listed)"}
_FOLDS = ("u1", "u2", "u3", "u4", "u5", "ua", "ub")


def movielens_100k(
    path: str | os.PathLike[str] | None = None, *, plots: bool = False, download: bool = True
) -> Dataset:
    """Load MovieLens 100K: 100,000 ratings (1 to 5) of 1,682 films by 943 people, 1997-1998.

    Parameters
    ----------
    path : path-like, optional
        The folder (or the publisher's zip file) with the data. Without it they are looked for in
        ``$LLMREC_DATA/ml-100k``, in an installed recbole wheel (which is not imported) and in the
        cache, then downloaded from the publisher.
    plots : bool, optional
        Add ``plot``, ``directors`` and ``cast`` to the items, and to their texts. These are in
        ``items_info.json`` (of the ClayRS project, not of the publisher), in ``path`` or
        ``$LLMREC_DATA/ml-100k``.
    download : bool, optional
        Whether the network may be used.

    Returns
    -------
    Dataset
        ``users`` has age (years), gender, occupation and zip_code.

    Raises
    ------
    DatasetNotFoundError
        The data are in none of these places.
    ValueError
        A file is not what its name says.

    Examples
    --------
    >>> movielens_100k().interactions.head(2)
       user  item  rating  timestamp
    0   196   242     3.0  881250949
    1   186   302     3.0  891717742
    """
    found = locate(
        "ml-100k",
        [_OFFICIAL, _ATOMIC],
        path,
        wheel=_RECBOLE,
        url=f"{_PUBLISHER}/ml-100k.zip" if download else None,
        advice=_advice("ml-100k") + ", or `pip install --no-deps recbole`",
    )
    data = _from_official(found) if "u.item" in found.contents else _from_atomic(found)
    return _with_plots(data, path) if plots else data


def movielens_latest_small(
    path: str | os.PathLike[str] | None = None, *, download: bool = True
) -> Dataset:
    """Load MovieLens latest-small: about 100,000 ratings (0.5 to 5) of 9,742 films by 610 people.

    Parameters
    ----------
    path : path-like, optional
        The folder (or the publisher's zip file) with the data. Without it they are looked for in
        ``$LLMREC_DATA/ml-latest-small`` and in the cache, then downloaded from the publisher.
    download : bool, optional
        Whether the network may be used.

    Returns
    -------
    Dataset
        Nothing is known of the users: ``users`` is None.

    Raises
    ------
    DatasetNotFoundError
        The data are in none of these places.
    ValueError
        A file is not what its name says.

    Examples
    --------
    >>> movielens_latest_small().items.text[1]  # doctest: +SKIP
    'Jumanji (1995). Genres: Adventure, Children, Fantasy.'
    """
    found = locate(
        "ml-latest-small",
        [_LATEST_SMALL],
        path,
        url=f"{_PUBLISHER}/ml-latest-small.zip" if download else None,
        advice=_advice("ml-latest-small"),
    )
    names = {"userId": "user", "movieId": "item", "rating": "rating", "timestamp": "timestamp"}
    types = {source: _INTERACTIONS[ours] for source, ours in names.items()}
    interactions = _table(found, "ratings.csv", usecols=list(names), dtype=types)
    movies = _table(
        found,
        "movies.csv",
        usecols=["movieId", "title", "genres"],
        dtype={"movieId": "int64", "title": str, "genres": str},
        keep_default_na=False,
    )
    genres = [_known(one.split("|")) for one in movies["genres"]]
    items = items_frame(movies["movieId"], movies["title"], genres)
    return Dataset("ml-latest-small", interactions[list(names)].rename(columns=names), items)


def movielens_100k_split(
    fold: str, path: str | os.PathLike[str] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Load one of the publisher's own splits of MovieLens 100K.

    ``u1`` to ``u5`` are five disjoint test sets of 20,000 ratings, in blocks of users; ``ua`` and
    ``ub`` hold out ten ratings of each user.

    Parameters
    ----------
    fold : str
        ``"u1"`` to ``"u5"``, ``"ua"`` or ``"ub"``.
    path : path-like, optional
        As for `movielens_100k`; the recbole wheel does not carry the splits.

    Returns
    -------
    train, test : pandas.DataFrame
        Interactions with the columns of `Dataset`.

    Raises
    ------
    ValueError
        There is no such fold, or a file is not what its name says.
    DatasetNotFoundError
        The data are in none of the places searched.

    Examples
    --------
    >>> train, test = movielens_100k_split("u1")  # doctest: +SKIP
    >>> len(train), len(test)  # doctest: +SKIP
    (80000, 20000)
    """
    if fold not in _FOLDS:
        raise ValueError(f"fold must be one of {', '.join(_FOLDS)}; got {fold!r}")
    base, test = f"{fold}.base", f"{fold}.test"
    url = f"{_PUBLISHER}/ml-100k.zip"
    found = locate("ml-100k", [(base, test)], path, url=url, advice=_advice("ml-100k"))
    return _ratings(found, base), _ratings(found, test)


def _advice(name: str) -> str:
    return (
        f"download {_PUBLISHER}/{name}.zip and pass it, or the folder unpacked from it, as path=, "
        f"or set LLMREC_DATA to the folder that holds {name}/"
    )


def _table(found: Found, file: str, **options: Any) -> pd.DataFrame:
    try:
        frame: pd.DataFrame = pd.read_csv(io.BytesIO(found.contents[file]), **options)
    except ValueError as error:  # pandas' parser errors and UnicodeDecodeError are ValueErrors
        raise ValueError(f"{file} in {found.place} is not MovieLens' file: {error}") from error
    if frame.empty:
        raise ValueError(f"{file} in {found.place} is not MovieLens' file: it has no rows")
    return frame


def _ratings(found: Found, file: str) -> pd.DataFrame:
    return _table(found, file, sep="\t", names=list(_INTERACTIONS), dtype=_INTERACTIONS)


def _from_official(found: Found) -> Dataset:
    columns = ["item", "title", "release", "video", "url", *_GENRES]
    films = _table(
        found,
        "u.item",
        sep="|",
        names=columns,
        dtype={"item": "int64", "title": str} | dict.fromkeys(_GENRES, "int64"),
        usecols=["item", "title", *_GENRES],
        encoding="latin-1",
        quoting=csv.QUOTE_NONE,
        keep_default_na=False,
    )
    genres = [
        _known([genre for genre, flag in zip(_GENRES, flags, strict=True) if flag])
        for flags in films[_GENRES].to_numpy().tolist()
    ]
    users = _table(found, "u.user", sep="|", names=list(_USERS), dtype=_USERS)
    items = items_frame(films["item"], films["title"], genres)
    return Dataset("ml-100k", _ratings(found, "u.data"), items, users)


def _from_atomic(found: Found) -> Dataset:
    """Read recbole's atomic files: tab-separated, with a type after each name in the header."""
    options: dict[str, Any] = {"sep": "\t", "header": 0, "quoting": csv.QUOTE_NONE}
    interactions = _table(
        found, "ml-100k.inter", names=list(_INTERACTIONS), dtype=_INTERACTIONS, **options
    )
    users = _table(found, "ml-100k.user", names=list(_USERS), dtype=_USERS, **options)
    films = _table(
        found,
        "ml-100k.item",
        names=["item", "title", "year", "genres"],
        dtype={"item": "int64", "title": str, "year": str, "genres": str},
        keep_default_na=False,
        **options,
    )
    # The wheel cut the last bracket off each title. One film has none, and its name is misspelt.
    titles = [
        "unknown" if title == year == "unkonwn" else f"{title} ({year})"
        for title, year in zip(films["title"], films["year"], strict=True)
    ]
    genres = [_known(one.split(" ")) for one in films["genres"]]
    return Dataset("ml-100k", interactions, items_frame(films["item"], titles, genres), users)


def _known(genres: Sequence[str]) -> tuple[str, ...]:
    return tuple(genre for genre in genres if genre not in _NO_GENRE)


def _with_plots(data: Dataset, path: str | os.PathLike[str] | None) -> Dataset:
    found = locate(
        "ml-100k",
        [(_PLOTS,)],
        path,
        advice="get it from datasets/ml-100k of the ClayRS project (swapUniba/ClayRS) and put it "
        "into the folder that is passed as path= or into $LLMREC_DATA/ml-100k",
    )
    try:
        films = {int(film["movielens_id"]): film for film in json.loads(found.contents[_PLOTS])}
        known = [films.get(item, {}) for item in data.items["item"]]
        plots = [film.get("plot", "").strip() for film in known]
        directors, cast = (
            [tuple(filter(None, film.get(key, "").split(", "))) for film in known]
            for key in ("directors", "cast")
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{_PLOTS} in {found.place} must be a list of objects with movielens_id, plot, "
            f"directors and cast: {error!r}"
        ) from error
    items = data.items.assign(plot=plots)
    for column, names in (("directors", directors), ("cast", cast)):
        items[column] = pd.Series(names, index=items.index, dtype=object)
    texts = map(item_text, items["title"], items["genres"], plots, directors, cast)
    return Dataset(data.name, data.interactions, items.assign(text=list(texts)), data.users)
