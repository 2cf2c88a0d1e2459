"""Parquet files, read with pyarrow, which is imported when the first one is read.

Each column keeps the type it has in the file: ids are integers or strings, as they were written.
A number where a text is expected, or the other way round, is refused rather than guessed at. A
column in which nothing is filled has the type null, and is one of texts and of numbers alike.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrec_kernels.datasets.csv_table import split_list
from llmrec_kernels.datasets.table import Table

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_INDEX = "__index_level_"  # what pandas calls the columns it writes a frame's index to


class ParquetTable(Table):
    """The columns of a Parquet file.

    Parameters
    ----------
    path : path-like
        The file.
    columns : sequence of str, optional
        The columns that are wanted, if they are there; without it all are read.
    """

    def __init__(self, path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> None:
        self._arrow = _pyarrow(path)
        names, self._data = self._read(path, columns)
        super().__init__(os.fspath(path), names)

    def _read(
        self, path: str | os.PathLike[str], columns: Sequence[str] | None
    ) -> tuple[list[str], Any]:
        from pyarrow import parquet

        with Path(path).open("rb") as source:
            try:
                # On this thread alone: pyarrow's own would hold the Python file, and one that
                # lets go of it while the interpreter ends aborts the process.
                file = parquet.ParquetFile(
                    source, pre_buffer=False, page_checksum_verification=True
                )
                names = [one for one in file.schema_arrow.names if not one.startswith(_INDEX)]
                wanted = [one for one in names if columns is None or one in columns]
                data = file.read(columns=wanted, use_threads=False)
                data.validate(full=True)  # that texts are UTF-8, among others
            # By where a file is damaged; a name that is not UTF-8 is a ValueError of Python's own.
            except (self._arrow.ArrowException, OSError, ValueError) as error:
                said = " ".join(str(error).split())
                raise ValueError(f"{path} is not a whole Parquet file: {said}") from error
        return names, data

    def __len__(self) -> int:
        return int(self._data.num_rows)

    def place(self, row: int) -> str:
        """The row, counted from 0 as pandas does."""
        return f"row {row} (from 0)"

    def shown(self, name: str, row: int) -> str:
        """The value as Python writes it."""
        return repr(self._data[name][row].as_py())

    def missing(self, name: str) -> NDArray[np.bool_]:
        """Which values are null, NaN or empty texts."""
        column = self._column(name)
        if self._is_text(column.type):
            return np.array([not text for text in self.texts(name)], dtype=np.bool_)
        gone: NDArray[np.bool_] = column.is_null(nan_is_null=True).to_numpy()
        return gone

    def typed_ids(self, name: str) -> NDArray[np.int64] | list[str]:
        """Integers as int64, strings as strings; no other type is one of ids."""
        column = self._column(name)
        if self._is_text(column.type):
            return self.texts(name)
        if not self._arrow.types.is_integer(column.type):
            raise self._of_type(name, "ids that are all integers or all strings")
        try:
            ids: NDArray[np.int64] = column.cast(self._arrow.int64()).to_numpy()
        except self._arrow.ArrowInvalid as error:
            raise ValueError(f"{self.path}: {name} has an id beyond int64: {error}") from error
        return ids

    def texts(self, name: str) -> list[str]:
        """A column of strings."""
        column = self._column(name)
        if not self._is_text(column.type):
            raise self._of_type(name, "strings")
        return [(text or "").strip() for text in column.to_pylist()]

    def floats(self, name: str) -> NDArray[np.float64]:
        """A column of integers, decimals, floats or truth values."""
        column = self._column(name)
        if not self._is_number(column.type):
            raise self._of_type(name, "numbers")
        numbers: NDArray[np.float64] = column.cast(self._arrow.float64(), safe=False).to_numpy()
        return numbers

    def lists(self, name: str) -> list[tuple[str, ...]]:
        """A column of lists of strings, or of strings such as ``Comedy|Drama``."""
        column = self._column(name)
        if not self._is_list(column.type):
            return [split_list(text) for text in self.texts(name)]
        return [tuple(filter(None, one or ())) for one in column.to_pylist()]

    def seconds(self, name: str) -> NDArray[np.int64]:
        """A column of numbers, or of Parquet's timestamps (UTC where they name no zone)."""
        column = self._column(name)
        if not self._arrow.types.is_timestamp(column.type):
            return super().seconds(name)
        missing = self.missing(name)
        if missing.any():
            raise self.error(int(np.argmax(missing)), f"{name} is empty")
        ticks: NDArray[np.int64] = column.cast(self._arrow.int64()).to_numpy()
        return ticks // _PER_SECOND[column.type.unit]

    def feature(self, name: str) -> Any | None:
        """Numbers, strings or lists of strings; None for a column of another type."""
        kind = self._column(name).type
        if self._is_number(kind):
            return self.floats(name)
        if self._is_text(kind):
            return [text or None for text in self.texts(name)]
        return self.lists(name) if self._is_list(kind) else None

    def _column(self, name: str) -> Any:
        column = self._data[name]
        if self._arrow.types.is_dictionary(column.type):  # what pandas makes of a category
            return column.cast(column.type.value_type)
        return column

    def _is_text(self, kind: Any) -> bool:
        types = self._arrow.types
        texts = (types.is_string, types.is_large_string, types.is_string_view)
        return any(one(kind) for one in (*texts, types.is_null))

    def _is_number(self, kind: Any) -> bool:
        types = self._arrow.types
        numbers = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean)
        return any(one(kind) for one in (*numbers, types.is_null))

    def _is_list(self, kind: Any) -> bool:
        types = self._arrow.types
        listed = types.is_list(kind) or types.is_large_list(kind)
        return bool(listed and self._is_text(kind.value_type))

    def _of_type(self, name: str, expected: str) -> ValueError:
        kind = self._data.schema.field(name).type
        return ValueError(f"{self.path}: {name} is a column of type {kind}; expected {expected}")


def _pyarrow(path: str | os.PathLike[str]) -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError(
            f"reading {os.fspath(path)} needs pyarrow: pip install llmrec_kernels[parquet]",
            name="pyarrow",
        ) from error
    return pyarrow
