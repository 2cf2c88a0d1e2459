"""Your own ratings, items and users, from CSV or Parquet, with errors that name file and place.

The name of a file says what it is: ``.csv`` (UTF-8 text), ``.csv.gz`` (the same, gzipped) or
``.parquet`` (which needs pyarrow: ``pip install llmrec_kernels[parquet]``). Errors name the line of
a CSV file, counted from 1, or the row of a Parquet file, counted from 0.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llmrec_kernels.datasets.csv_table import CsvTable
from llmrec_kernels.datasets.frames import Dataset, items_frame
from llmrec_kernels.datasets.parquet_table import ParquetTable
from llmrec_kernels.datasets.table import Table

_SUFFIXES = (".csv", ".csv.gz", ".parquet")
_INTERACTIONS = ("user", "item", "rating", "timestamp")
_ITEMS = ("item", "title", "year", "genres", "text")


def read_ratings(path: str | os.PathLike[str]) -> pd.DataFrame:
    r"""Read interactions from a CSV or Parquet file.

    Parameters
    ----------
    path : path-like
        A file with the columns ``user`` and ``item`` and, if known, ``rating`` and ``timestamp``
        (seconds since 1970-01-01 UTC; in Parquet also its own timestamps); other columns are
        ignored.

    Returns
    -------
    pandas.DataFrame
        ``user`` and ``item`` (int64 or strings: in CSV int64 where every id of the column is a
        whole number as Python writes it, in Parquet what the file has), ``rating`` (float64; 1
        without the column, which is implicit feedback: what was taken counts as liked),
        ``timestamp`` (int64; 0 without the column, so that the order of the rows decides what is
        last).

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The name of the file has another ending, the file is empty, damaged or lacks a column, or
        a row has no id, a rating that is not a number, or no time where others have one.
    ImportError
        The file is Parquet and pyarrow is not installed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "ratings.csv")
    >>> _ = path.write_text("user,item,rating\nann,1,5\nbob,2,3.5\n")
    >>> read_ratings(path)
      user  item  rating  timestamp
    0  ann     1     5.0          0
    1  bob     2     3.5          0
    """
    events = read_events(path)
    rating = events.get("rating", pd.Series(1.0, index=events.index))
    timestamp = events.get("timestamp", pd.Series(0, index=events.index, dtype=np.int64))
    return events[["user", "item"]].assign(rating=rating, timestamp=timestamp)


def read_events(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Interactions as `read_ratings` has them, without the columns that the file has not.

    What stands in for these is then for who takes the interactions to say, such as a model that
    has ratings and times already.
    """
    table = _open(path, _INTERACTIONS)
    table.require("user", "item")
    columns: dict[str, Any] = {"user": table.ids("user"), "item": table.ids("item")}
    if table.has("rating"):
        columns["rating"] = table.numbers("rating")
    if table.has("timestamp"):
        columns["timestamp"] = table.seconds("timestamp")
    return pd.DataFrame(columns)


def read_items(path: str | os.PathLike[str]) -> pd.DataFrame:
    r"""Read items from a CSV or Parquet file.

    Parameters
    ----------
    path : path-like
        A file with the columns ``item``, and ``title`` or ``text`` or both; ``genres``, if there,
        are lists such as ``Comedy|Drama`` (in Parquet also lists of strings), and ``year`` is a
        whole number.

    Returns
    -------
    pandas.DataFrame
        The items frame of `Dataset`. Without ``text`` it is written from title and genres;
        without ``title`` the text stands in for it; without ``year`` it is the one in brackets in
        the title. The other columns follow, in the file's order: float64 with NaN where a value
        is missing if every value is a number (in CSV: as programs write one, so that "007" is
        none), otherwise strings with a missing value for an empty one. Lists of strings, which
        only Parquet has, become tuples. Parquet columns of other types (dates, structures,
        bytes) are left out, as is a column without a name.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The name of the file has another ending, the file is empty, damaged or lacks a column, or
        a row has no id, an id that another row has, or a year that is none.
    ImportError
        The file is Parquet and pyarrow is not installed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "items.csv")
    >>> _ = path.write_text("item,title,genres,price\n1,Heat (1995),Crime|Drama,9.5\n")
    >>> read_items(path)[["item", "year", "text", "price"]]
       item  year                                text  price
    0     1  1995  Heat (1995). Genres: Crime, Drama.    9.5
    """
    table = _open(path)
    table.require("item")
    held = [name for name in ("title", "text") if table.has(name)]
    if not held:
        raise table.lacks("title or text")
    text = table.texts("text") if "text" in held else None
    genres = table.lists("genres") if table.has("genres") else [()] * len(table)
    frame = items_frame(table.unique_ids("item"), table.texts(held[0]), genres, text)
    if table.has("year"):
        frame["year"] = pd.array(table.years("year"), dtype="Int64")
    return _with_features(frame, table, _ITEMS)


def read_users(path: str | os.PathLike[str]) -> pd.DataFrame:
    r"""Read what is known of users from a CSV or Parquet file.

    Parameters
    ----------
    path : path-like
        A file with the column ``user``.

    Returns
    -------
    pandas.DataFrame
        ``user``, with ids as in `read_ratings`, and the other columns as in `read_items`.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The name of the file has another ending, the file is empty, damaged or lacks the column,
        or a row has no id, or an id that another row has.
    ImportError
        The file is Parquet and pyarrow is not installed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "users.csv")
    >>> _ = path.write_text("user,age,town\nann,31,York\nbob,,Hull\n")
    >>> read_users(path)
      user   age  town
    0  ann  31.0  York
    1  bob   NaN  Hull
    """
    table = _open(path)
    table.require("user")
    return _with_features(pd.DataFrame({"user": table.unique_ids("user")}), table, ("user",))


def read_dataset(
    ratings: str | os.PathLike[str],
    items: str | os.PathLike[str],
    users: str | os.PathLike[str] | None = None,
) -> Dataset:
    r"""Read a data set from a file of ratings, one of items and, if there is one, one of users.

    Parameters
    ----------
    ratings, items, users : path-like
        Files as `read_ratings`, `read_items` and `read_users` describe them. If the ids of only
        one of two files are integers, both are kept as strings.

    Returns
    -------
    Dataset
        Named after the ratings file; ``users`` is None without a file of them.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        A file is not as described, no rated item is among the items, or no user who rated is
        among the users.
    ImportError
        A file is Parquet and pyarrow is not installed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "shop.csv").write_text("user,item,rating\nann,1,5\n")
    >>> _ = (folder / "items.csv").write_text("item,title\n1,Red mug\nA2,Blue mug\n")
    >>> data = read_dataset(folder / "shop.csv", folder / "items.csv")
    >>> data, data.interactions.item[0]
    (Dataset('shop': 1 interactions of 1 users with 2 items), '1')
    """
    interactions, described = read_ratings(ratings), read_items(items)
    _match("item", interactions, described, ratings, items)
    known = None
    if users is not None:
        known = read_users(users)
        _match("user", interactions, known, ratings, users)
    name = Path(ratings).name[: -len(_suffix(ratings))]
    return Dataset(name, interactions, described, known)


def _match(
    column: str,
    interactions: pd.DataFrame,
    described: pd.DataFrame,
    ratings: str | os.PathLike[str],
    path: str | os.PathLike[str],
) -> None:
    """Make the ids of both frames of one kind; refuse those that have none in common."""
    if interactions[column].dtype != described[column].dtype:
        # An integer is written in one way alone, so nothing is lost on the way to a string.
        interactions[column] = interactions[column].astype(str)
        described[column] = described[column].astype(str)
    if not interactions[column].isin(described[column]).any():
        raise ValueError(
            f"no {column} of {ratings} is in {path}: the column {column} has "
            f"{_some(interactions[column])} in the first and {_some(described[column])} in the "
            f"second; both must use the same ids"
        )


def _some(ids: pd.Series) -> str:
    return ", ".join(repr(one) for one in ids.drop_duplicates().head(3).tolist())


def _suffix(path: str | os.PathLike[str]) -> str:
    name = Path(path).name.lower()
    for suffix in _SUFFIXES:
        if name.endswith(suffix):
            return suffix
    raise ValueError(
        f"{os.fspath(path)} must have a name that ends in {', '.join(_SUFFIXES[:-1])} or "
        f"{_SUFFIXES[-1]}, which says what kind of file it is"
    )


def _open(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> Table:
    """Read a file; of Parquet only some columns, if they are all that will be asked for."""
    return ParquetTable(path, columns) if _suffix(path) == ".parquet" else CsvTable(path)


def _with_features(frame: pd.DataFrame, table: Table, known: Sequence[str]) -> pd.DataFrame:
    """Add the columns of the table that are not `known`."""
    features = {}
    for name in table.header:
        if name and name not in known:
            values = table.feature(name)
            if values is not None:
                features[name] = pd.Series(values, index=frame.index)
    return pd.concat([frame, pd.DataFrame(features, index=frame.index)], axis=1)
