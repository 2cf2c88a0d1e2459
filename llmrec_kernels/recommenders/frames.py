"""What is read of the caller's frames, checked before anything is changed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmrec_kernels._ids import IdMap, id_list

if TYPE_CHECKING:
    import pandas as pd


_LARGEST = 1e30  # scores are float32, and sums of ratings must fit


class Interactions(NamedTuple):
    """Columns of the interactions frame, [nnz] each."""

    user: list[Any]
    item: list[Any]
    rating: NDArray[np.float64]
    timestamp: NDArray[np.float64]

    @staticmethod
    def read(
        frame: pd.DataFrame, *, rated: bool, rating: float = 1.0, timestamp: float = 0.0
    ) -> Interactions:
        """Read and check a frame; `rated` says that it must have ratings.

        Where it has none, `rating` and `timestamp` stand in.
        """
        _require("interactions", frame, "user", "item", *(["rating"] if rated else []))
        return Interactions(
            id_list("interactions column user", frame["user"]),
            id_list("interactions column item", frame["item"]),
            _numbers(frame, "rating", rating),
            _numbers(frame, "timestamp", timestamp),
        )


def catalogue(items: pd.DataFrame | None, interactions: Interactions) -> IdMap:
    """The items that can be recommended: those of the frame, else those interacted with, sorted."""
    if items is None:
        known = IdMap("item", [])
        known.check_kind(interactions.item)
        known.extend(sorted(set(interactions.item)))
    else:
        _require("items", items, "item")
        ids = id_list("items column item", items["item"])
        repeated, times = Counter(ids).most_common(1)[0] if ids else (None, 1)
        if times > 1:
            raise ValueError(f"items has item {repeated!r} {times} times; expected each item once")
        known = IdMap("item", [])
        known.check_kind(ids)
        known.extend(ids)
    if not len(known):
        raise ValueError("there are no items; give items, or interactions that have some")
    return known


def item_codes(known: IdMap, interactions: Interactions) -> NDArray[np.int64]:
    """The number of each interaction's item."""
    codes = known.codes(interactions.item)
    if (codes < 0).any():
        row = int(np.argmax(codes < 0))
        raise ValueError(
            f"interactions has item {interactions.item[row]!r} in row {row}, which is not among "
            f"the {len(known)} items of the model; leave such rows out, or fit with items that "
            "have it"
        )
    return codes


def user_ids(users: pd.DataFrame | None) -> list[Any]:
    """The users that the users frame names, whether they took anything or not."""
    if users is None:
        return []
    _require("users", users, "user")
    return id_list("users column user", users["user"])


def texts(items: pd.DataFrame | None) -> list[str]:
    """The text of each item."""
    if items is None:
        raise ValueError("items is None; the texts to encode are its column text")
    _require("items", items, "item", "text")
    listed: list[Any] = items["text"].tolist()
    for row, text in enumerate(listed):
        if not isinstance(text, str):
            raise ValueError(
                f"items has {text!r} for text in row {row}; expected a string, '' where nothing "
                "is known"
            )
    return listed


def _require(name: str, frame: Any, *columns: str) -> None:
    if not hasattr(frame, "columns") or not hasattr(frame, "iloc"):
        raise TypeError(
            f"{name} is a {type(frame).__name__}; expected a pandas DataFrame with "
            f"{' and '.join(columns)}"
        )
    for column in columns:
        if column not in frame.columns:
            held = ", ".join(map(str, frame.columns)) or "none"
            raise ValueError(f"{name} has no column {column}; its columns are {held}")
        times = list(frame.columns).count(column)
        if times > 1:
            raise ValueError(f"{name} has {times} columns {column}; expected one")


def _numbers(frame: pd.DataFrame, column: str, default: float) -> NDArray[np.float64]:
    if column not in frame.columns:
        return np.full(len(frame), default)
    try:
        given = frame[column]
        if given.dtype.kind == "M":
            given = _seconds(column, given)
        numbers = given.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise ValueError(
            f"interactions column {column} has dtype {frame[column].dtype}; expected numbers"
        ) from None
    bad = ~(np.abs(numbers) <= _LARGEST)  # so written, it finds NaN too
    if bad.any():
        row = int(np.argmax(bad))
        wanted = "a finite number"
        if np.isfinite(numbers[row]):
            wanted = f"at most {_LARGEST:g} in size"
        raise ValueError(
            f"interactions has {numbers[row]} for {column} in row {row}; expected {wanted}: fill "
            "it in, or leave the row out"
        )
    return numbers


def _seconds(column: str, moments: pd.Series) -> pd.Series:
    """Dates and times as seconds since 1970-01-01 UTC, whatever their unit and zone."""
    import pandas as pd

    if column != "timestamp":
        raise TypeError
    since = pd.to_datetime(moments, utc=True) - pd.Timestamp(0, tz="UTC")
    seconds: pd.Series = since.dt.total_seconds()
    return seconds
