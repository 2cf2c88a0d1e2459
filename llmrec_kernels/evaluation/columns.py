"""What evaluation reads of the caller's frames, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def require_columns(argument: str, frame: pd.DataFrame, *columns: str) -> None:
    """Raise TypeError if it is no frame, and ValueError if the frame lacks a column.

    Examples
    --------
    >>> require_columns("train", pd.DataFrame({"user": [1]}), "user", "item")
    Traceback (most recent call last):
    ...
    ValueError: train has no column item; its columns are user
    """
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(
            f"{argument} is a {type(frame).__name__}; expected a pandas DataFrame with "
            f"{' and '.join(columns)}"
        )
    for column in columns:
        if column not in frame.columns:
            held = ", ".join(map(str, frame.columns)) or "none"
            raise ValueError(f"{argument} has no column {column}; its columns are {held}")


def require_values(argument: str, frame: pd.DataFrame, *columns: str) -> None:
    """Raise as `require_columns` does, and ValueError if a value is missing.

    Examples
    --------
    >>> require_values("test", pd.DataFrame({"user": [3, None]}), "user")
    Traceback (most recent call last):
    ...
    ValueError: test has no user in row 1; fill it in, or leave the row out
    """
    require_columns(argument, frame, *columns)
    for column in columns:
        missing = frame[column].isna().to_numpy()
        if missing.any():
            raise ValueError(
                f"{argument} has no {column} in row {int(np.argmax(missing))}; fill it in, or "
                "leave the row out"
            )


def require_rows(argument: str, frame: pd.DataFrame, *columns: str) -> None:
    """Raise as `require_values` does, and ValueError if there is no row.

    Examples
    --------
    >>> require_rows("test", pd.DataFrame({"user": [], "item": []}), "user", "item")
    Traceback (most recent call last):
    ...
    ValueError: test has no rows
    """
    require_values(argument, frame, *columns)
    if not len(frame):
        raise ValueError(f"{argument} has no rows")


_IN_ORDER = (
    *("integer", "floating", "mixed-integer-float", "decimal", "boolean"),
    *("datetime", "datetime64", "date", "timedelta", "timedelta64", "period"),
)


def require_times(argument: str, frame: pd.DataFrame) -> None:
    """Raise TypeError if timestamps are anything but numbers or dates.

    Text has an order too, but "10" comes before "9" in it.

    Examples
    --------
    >>> require_times("train", pd.DataFrame({"timestamp": ["10", "9"]}))
    Traceback (most recent call last):
    ...
    TypeError: train has timestamps such as '10'; expected numbers or dates: \
convert them with pandas.to_numeric or pandas.to_datetime
    """
    times = frame["timestamp"]
    if len(times) and pd.api.types.infer_dtype(times) not in _IN_ORDER:
        raise TypeError(
            f"{argument} has timestamps such as {times.tolist()[0]!r}; expected numbers or dates: "
            "convert them with pandas.to_numeric or pandas.to_datetime"
        )


def require_numbers(argument: str, frame: pd.DataFrame, column: str) -> None:
    """Raise TypeError if a column is not of numbers.

    Examples
    --------
    >>> require_numbers("test", pd.DataFrame({"rating": [4, "good"]}), "rating")
    Traceback (most recent call last):
    ...
    TypeError: test has rating 'good' in row 1; expected a number
    """
    if pd.api.types.is_numeric_dtype(frame[column]):
        return
    for row, value in enumerate(frame[column].tolist()):
        if not isinstance(value, Number):
            raise TypeError(f"{argument} has {column} {value!r} in row {row}; expected a number")


def require_one_kind(what: str, **columns: Iterable[Any] | None) -> None:
    """Raise TypeError if ids are numbers here and strings there: none would match, unseen.

    Examples
    --------
    >>> require_one_kind("item", train=pd.Series([7, 8]), test=pd.Series(["7"]), items=None)
    Traceback (most recent call last):
    ...
    TypeError: item ids are both numbers and strings, such as 7 in train and '7' in test; \
use one kind
    """
    kinds: dict[str, str] = {}
    for argument, column in columns.items():
        for kind, one in _kinds(column).items():
            kinds.setdefault(kind, f"{one!r} in {argument}")
    if len(kinds) > 1:
        raise TypeError(
            f"{what} ids are both {' and '.join(kinds)}, such as {' and '.join(kinds.values())}; "
            "use one kind"
        )


def _kinds(column: Iterable[Any] | None) -> dict[str, Any]:
    """An example of each kind of ids."""
    if column is None:
        return {}
    ids = pd.Series(column)
    if pd.api.types.is_numeric_dtype(ids):
        return {"numbers": ids.tolist()[0]} if len(ids) else {}
    found: dict[str, Any] = {}
    for one in ids.unique().tolist():
        kind = "numbers" if isinstance(one, Number) else "strings" if isinstance(one, str) else None
        found.setdefault(kind or f"of type {type(one).__name__}", one)
    return found


def codes(*columns: pd.Series) -> list[NDArray[np.int64]]:
    """Number the values of all columns alike, whatever their type, in order of appearance.

    Examples
    --------
    >>> [one.tolist() for one in codes(pd.Series(["b", "a"]), pd.Series(["a", "c"]))]
    [[0, 1], [1, 2]]
    """
    # An empty array is of float type, and would make floats of the ids it is joined to.
    filled = [column for column in columns if len(column)]
    numbers: Any = pd.factorize(pd.concat(filled, ignore_index=True))[0] if filled else np.empty(0)
    return np.split(numbers.astype(np.int64), np.cumsum([len(one) for one in columns])[:-1])


def pairs_in(pairs: pd.DataFrame, frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Say which (user, item) pairs also are rows of the frame.

    Examples
    --------
    >>> taken = pd.DataFrame({"user": [1, 2], "item": [7, 8]})
    >>> pairs_in(pd.DataFrame({"user": [1, 1], "item": [7, 8]}), taken)
    array([ True, False])
    """
    users, known_users = codes(pairs["user"], frame["user"])
    items, known_items = codes(pairs["item"], frame["item"])
    width = 1 + max(items.max(initial=0), known_items.max(initial=0))
    return np.isin(users * width + items, known_users * width + known_items)
