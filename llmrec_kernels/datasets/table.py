"""Columns of a table in a file, checked; an error names the file and the place in it.

A `Table` says what a column must hold. How it is read is for the two kinds of file: CSV, in which
everything is text and a number or a whole-number id is known by how it is written, and Parquet, in
which each column has a type and keeps it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST = 2.0**53  # up to here float64 holds every whole number


class Table(ABC):
    """A file with a header and at least one row.

    Parameters
    ----------
    path : str
        The file, for messages.
    header : sequence of str
        Names of the columns.
    """

    def __init__(self, path: str, header: Sequence[str]) -> None:
        self.path = path
        self.header = header
        repeated = [name for name, count in Counter(header).items() if count > 1 and name]
        if repeated:
            raise ValueError(f"{path} has the column {repeated[0]} more than once")

    @abstractmethod
    def __len__(self) -> int:
        """How many rows there are."""

    @abstractmethod
    def place(self, row: int) -> str:
        """Where a row is, in words."""

    @abstractmethod
    def shown(self, name: str, row: int) -> str:
        """What stands in a field, for a message."""

    @abstractmethod
    def missing(self, name: str) -> NDArray[np.bool_]:
        """Which rows have nothing in this column."""

    @abstractmethod
    def typed_ids(self, name: str) -> NDArray[np.int64] | list[str]:
        """The ids of a column in which none is missing."""

    @abstractmethod
    def texts(self, name: str) -> list[str]:
        """A column of texts without the spaces around them, "" where one is missing."""

    @abstractmethod
    def floats(self, name: str) -> NDArray[np.float64]:
        """A column of numbers, NaN where there is none."""

    @abstractmethod
    def lists(self, name: str) -> list[tuple[str, ...]]:
        """A column of lists of words, () where one is missing."""

    @abstractmethod
    def feature(self, name: str) -> Any | None:
        """A column that is kept for what it may tell: float64, strings, or tuples of strings.

        What is missing is NaN among numbers, None among strings and () among tuples. None
        instead of a column whose values are of another kind.
        """

    def require(self, *names: str) -> None:
        """Refuse a file that has no rows or lacks one of these columns."""
        for name in names:
            if name not in self.header:
                raise self.lacks(name)
        if not len(self):
            raise ValueError(f"{self.path} has a header but no rows")

    def has(self, name: str) -> bool:
        """Whether there is such a column; one that differs in its capitals alone is refused."""
        alike = [one for one in self.header if one.lower() == name]
        if alike and name not in alike:
            raise self.lacks(name)
        return bool(alike)

    def lacks(self, name: str) -> ValueError:
        """The error of a column that is not there."""
        held = ", ".join(self.header) or "none"
        return ValueError(f"{self.path} has no column {name}; its columns are {held}")

    def error(self, row: int, problem: str) -> ValueError:
        """The error of a row."""
        return ValueError(f"{self.path}, {self.place(row)}: {problem}")

    def ids(self, name: str) -> NDArray[np.int64] | list[str]:
        """Ids, none of them missing: int64 or strings."""
        missing = self.missing(name)
        if missing.any():
            raise self.error(int(np.argmax(missing)), f"{name} is empty")
        return self.typed_ids(name)

    def unique_ids(self, name: str) -> NDArray[np.int64] | list[str]:
        """Ids, none of them missing or repeated."""
        ids = self.ids(name)
        first: dict[Any, int] = {}
        for row, one in enumerate(ids.tolist() if isinstance(ids, np.ndarray) else ids):
            if first.setdefault(one, row) != row:
                raise self.error(
                    row,
                    f"{name} {self.shown(name, row)} is already on {self.place(first[one])}; "
                    f"each {name} may come once",
                )
        return ids

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Numbers, none of them missing."""
        numbers = self.floats(name)
        bad = ~(np.abs(numbers) <= _LARGEST)  # so written, it refuses NaN too
        if bad.any():
            row = int(np.argmax(bad))
            raise self.error(
                row,
                f"{name} must be a number (at most 2^53 in size); got {self.shown(name, row)}",
            )
        return numbers

    def seconds(self, name: str) -> NDArray[np.int64]:
        """Times in whole seconds since 1970-01-01 UTC, none of them missing."""
        return self.numbers(name).astype(np.int64)

    def years(self, name: str) -> list[int | None]:
        """Years, None where one is missing."""
        years = self.floats(name)
        missing = self.missing(name)
        # float64's NaN is neither whole nor between the two.
        bad = ~missing & ~((np.abs(years) < 10_000) & (np.floor(years) == years))
        if bad.any():
            row = int(np.argmax(bad))
            raise self.error(row, f"{name} must be a year; got {self.shown(name, row)}")
        return [
            None if gone else int(one)
            for one, gone in zip(years.tolist(), missing.tolist(), strict=True)
        ]
