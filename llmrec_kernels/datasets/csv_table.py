"""CSV files, read with Python's csv module.

It is used rather than pandas' parser because it knows on which line a record begins, keeps ids as
they are written ("007" stays "007") and lets no row have more or fewer fields than the header.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
import re
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmrec_kernels.datasets.table import Table

# What str(int) writes, and what int64 surely holds. Anything else is an id only as a string.
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
# A number as programs write it. "007" and "1_000" are words: codes more likely than numbers.
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)?(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_LONGEST_FIELD = 2**31 - 1  # what a C long holds everywhere; csv's own limit is 131,072


class CsvTable(Table):
    """The rows of a CSV file as strings, each with the line it begins on."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        header, self._rows, self._lines = _records(path)
        super().__init__(os.fspath(path), header)

    def __len__(self) -> int:
        return len(self._rows)

    def place(self, row: int) -> str:
        """The line that a row begins on, counted from 1."""
        return f"line {self._lines[row]}"

    def shown(self, name: str, row: int) -> str:
        """The field as it is written."""
        return repr(self._rows[row][self.header.index(name)].strip())

    def missing(self, name: str) -> NDArray[np.bool_]:
        """Which fields are empty."""
        return np.array([not text for text in self.texts(name)], dtype=np.bool_)

    def typed_ids(self, name: str) -> NDArray[np.int64] | list[str]:
        """int64 where every id is a whole number as Python writes it, otherwise strings."""
        texts = self.texts(name)
        if all(map(_INTEGER.fullmatch, texts)):
            return np.array([int(text) for text in texts], dtype=np.int64)
        return texts

    def texts(self, name: str) -> list[str]:
        """The fields of a column."""
        position = self.header.index(name)
        return [row[position].strip() for row in self._rows]

    def floats(self, name: str) -> NDArray[np.float64]:
        """The fields as numbers, NaN where one is empty or anything else."""
        return np.array([_float(text) for text in self.texts(name)], dtype=np.float64)

    def lists(self, name: str) -> list[tuple[str, ...]]:
        """Fields such as ``Comedy|Drama``."""
        return [split_list(text) for text in self.texts(name)]

    def feature(self, name: str) -> NDArray[np.float64] | list[str | None]:
        """float64 where every field that is not empty is a number, otherwise strings."""
        texts = self.texts(name)
        if all(map(_NUMBER.fullmatch, texts)):
            numbers = self.floats(name)
            if np.isfinite(numbers).sum() == sum(map(bool, texts)):
                return numbers
        return [text or None for text in texts]


def split_list(text: str) -> tuple[str, ...]:
    """Split a list such as ``Comedy|Drama``."""
    return tuple(filter(None, (part.strip() for part in text.split("|"))))


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _records(path: str | os.PathLike[str]) -> tuple[list[str], list[list[str]], list[int]]:
    """Read the header, the other non-blank rows, and the line each of these begins on."""
    rows: list[list[str]] = []
    lines: list[int] = []
    # The limit is the whole process's: raised for good, since another thread may be reading too.
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    begins = 1
    try:
        with _open(path) as file:
            reader = csv.reader(file, strict=True)
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
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path} is not a whole gzip file: {error}") from error
    if not rows:
        raise ValueError(f"{path} is empty; it must begin with a header that names its columns")
    return [name.strip() for name in rows[0]], rows[1:], lines[1:]


def _open(path: str | os.PathLike[str]) -> io.TextIOWrapper:
    if Path(path).suffix.lower() == ".gz":
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8-sig", newline="")
    return Path(path).open(encoding="utf-8-sig", newline="")
