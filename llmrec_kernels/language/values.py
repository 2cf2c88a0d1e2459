"""Facts as they come, from frames and from people, and as texts."""

from __future__ import annotations

import datetime
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

Value: TypeAlias = "str | float | Sequence[str] | Sequence[float]"
Facts: TypeAlias = "Mapping[str, Value]"


def fact_texts(value: Any) -> list[str]:
    """A fact as texts; none for what is missing.

    Examples
    --------
    >>> fact_texts(["a", "b"]), fact_texts(1979.0), fact_texts(float("nan")), fact_texts(False)
    (['a', 'b'], ['1979'], [], ['no'])
    """
    if value is None or isinstance(value, str):
        return [value] if value and value.strip() else []
    if isinstance(value, Iterable) and not isinstance(value, bytes | Mapping):
        entries = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [text for one in entries for text in fact_texts(one)]
    if isinstance(value, datetime.date | np.datetime64):
        moment = pd.Timestamp(value)
        return [] if pd.isna(moment) else [moment.date().isoformat()]
    if value is pd.NA or value is pd.NaT or value != value:
        return []
    if isinstance(value, bool | np.bool_):
        return ["yes" if value else "no"]
    if isinstance(value, numbers.Number):  # Decimal too, which is no Real
        whole = isinstance(value, numbers.Integral) or value % 1 == 0  # type: ignore[operator]
        return [str(int(value)) if whole else str(value)]  # type: ignore[call-overload]
    raise TypeError(
        f"a fact must be a text, a number, a date or a sequence of these, got {value!r}."
    )
