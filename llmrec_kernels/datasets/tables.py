"""Your own ratings and items, from CSV files, with errors that name the file and the line.

Python's csv module is used rather than pandas' parser because it knows on which line a record
begins, keeps ids as they are written ("007" stays "007") and lets no row have more or fewer fields
than the header.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llmrec_kernels.datasets.frames import Dataset, items_frame

# What str(int) writes, and what int64 surely holds. Anything else is an id only as a string.
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_LARGEST = 2.0**53  # up to here float64 holds every whole number


def read_ratings(path: str | os.PathLike[str]) -> pd.DataFrame:
    r"""Read interactions from a CSV file in UTF-8.

    Parameters
    ----------
    path : path-like
        A file whose header has ``user``, ``item``, ``rating`` and, if known, ``timestamp``
        (seconds since 1970-01-01 UTC); other columns are ignored.

    Returns
    -------
    pandas.DataFrame
        ``user`` and ``item`` (int64 where every id of the column is a whole number as Python
        writes it, otherwise strings), ``rating`` (float64), ``timestamp`` (int64; 0 without the
        column, so that the order of the rows decides what is last).

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is empty or lacks a column, or a row has no id or a rating that is not a number.

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
    table = _Table.read(path, ("user", "item", "rating"))
    rating = table.numbers("rating")
    timestamp = table.numbers("timestamp") if "timestamp" in table.header else np.zeros(len(rating))
    columns = {"user": table.ids("user"), "item": table.ids("item"), "rating": rating}
    return pd.DataFrame(columns | {"timestamp": timestamp.astype(np.int64)})


def read_items(path: str | os.PathLike[str]) -> pd.DataFrame:
    r"""Read items from a CSV file in UTF-8.

    Parameters
    ----------
    path : path-like
        A file whose header has ``item``, and ``title`` or ``text`` or both; ``genres``, if there,
        is a list such as ``Comedy|Drama``; other columns are ignored.

    Returns
    -------
    pandas.DataFrame
        The items frame of `Dataset`. Without ``text`` it is written from title and genres;
        without ``title`` the text stands in for it. The year is the one in brackets in the title.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is empty or lacks a column, a row has no id, or an id comes twice.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "items.csv")
    >>> _ = path.write_text("item,title,genres\n1,Heat (1995),Crime|Drama\n")
    >>> read_items(path)[["item", "year", "text"]]
       item  year                                text
    0     1  1995  Heat (1995). Genres: Crime, Drama.
    """
    table = _Table.read(path, ("item",))
    held = [name for name in ("title", "text") if name in table.header]
    if not held:
        raise ValueError(table.lacks("title or text"))
    table.refuse_repeats("item")
    text = table.column("text") if "text" in held else None
    genres = table.column("genres") if "genres" in table.header else [""] * len(table.rows)
    lists = [tuple(filter(None, (part.strip() for part in one.split("|")))) for one in genres]
    return items_frame(table.ids("item"), table.column(held[0]), lists, text)


def read_dataset(ratings: str | os.PathLike[str], items: str | os.PathLike[str]) -> Dataset:
    r"""Read a data set from a CSV file of ratings and one of items.

    Parameters
    ----------
    ratings, items : path-like
        Files as `read_ratings` and `read_items` describe them. If the item ids of only one of
        them are all whole numbers, both are kept as strings.

    Returns
    -------
    Dataset
        Named after the ratings file; ``users`` is None.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        A file is not as described, or no rated item is among the items.

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
    if interactions["item"].dtype != described["item"].dtype:
        # Only ids that str(int) writes alike became numbers, so nothing is lost on the way back.
        interactions["item"] = interactions["item"].astype(str)
        described["item"] = described["item"].astype(str)
    if not interactions["item"].isin(described["item"]).any():
        raise ValueError(
            f"no item of {ratings} is in {items}: the column item has "
            f"{_some(interactions['item'])} in the first and {_some(described['item'])} in the "
            f"second; both must use the same ids"
        )
    return Dataset(Path(ratings).stem, interactions, described)


def _some(ids: pd.Series) -> str:
    return ", ".join(repr(one) for one in ids.drop_duplicates().head(3).tolist())


@dataclass(frozen=True)
class _Table:
    """The rows of a CSV file as strings, each with the line it begins on."""

    path: str
    header: Sequence[str]
    rows: list[list[str]]
    lines: list[int]

    @classmethod
    def read(cls, path: str | os.PathLike[str], required: Sequence[str]) -> _Table:
        table = cls(os.fspath(path), *_records(path))
        repeated = [name for name, count in Counter(table.header).items() if count > 1]
        if repeated:
            raise ValueError(f"{path} has the column {repeated[0]} more than once")
        for name in required:
            if name not in table.header:
                raise ValueError(table.lacks(name))
        if not table.rows:
            raise ValueError(f"{path} has a header but no rows")
        return table

    def lacks(self, name: str) -> str:
        return f"{self.path} has no column {name}; its columns are {', '.join(self.header)}"

    def column(self, name: str) -> list[str]:
        position = self.header.index(name)
        return [row[position].strip() for row in self.rows]

    def ids(self, name: str) -> NDArray[np.int64] | list[str]:
        values = self.column(name)
        for value, line in zip(values, self.lines, strict=True):
            if not value:
                raise ValueError(f"{self.path}, line {line}: {name} is empty")
        if all(map(_INTEGER.fullmatch, values)):
            return np.array([int(value) for value in values], dtype=np.int64)
        return values

    def numbers(self, name: str) -> NDArray[np.float64]:
        numbers = np.empty(len(self.rows))
        for row, (value, line) in enumerate(zip(self.column(name), self.lines, strict=True)):
            try:
                numbers[row] = float(value)
            except ValueError:
                numbers[row] = math.nan
            if not abs(numbers[row]) <= _LARGEST:  # so written, it refuses NaN too
                raise ValueError(
                    f"{self.path}, line {line}: {name} must be a number (at most 2^53 in size); "
                    f"got {value!r}"
                )
        return numbers

    def refuse_repeats(self, name: str) -> None:
        first: dict[str, int] = {}
        for value, line in zip(self.column(name), self.lines, strict=True):
            if first.setdefault(value, line) != line:
                raise ValueError(
                    f"{self.path}, line {line}: {name} {value!r} is already on line "
                    f"{first[value]}; each {name} may come once"
                )


def _records(path: str | os.PathLike[str]) -> tuple[list[str], list[list[str]], list[int]]:
    """Read the header, the other non-blank rows, and the line each of these begins on."""
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            begins = 1
            for row in reader:
                if row:
                    if rows and len(row) != len(rows[0]):
                        raise ValueError(
                            f"{path}, line {begins}: expected {len(rows[0])} fields, as in the "
                            f"header, and found {len(row)}"
                        )
                    rows.append(row)
                    lines.append(begins)
                begins = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}, line {begins}: not CSV: {error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    if not rows:
        raise ValueError(f"{path} is empty; it must begin with a header that names its columns")
    return [name.strip() for name in rows[0]], rows[1:], lines[1:]
