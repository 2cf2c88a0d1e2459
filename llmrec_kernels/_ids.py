"""The caller's own ids, integers or strings, numbered from 0."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def id_list(name: str, values: Any) -> list[Any]:
    """A list of ids, of anything that lists integers or strings.

    Examples
    --------
    >>> id_list("users", np.array([3, 1]))
    [3, 1]
    >>> id_list("users", "ann")
    Traceback (most recent call last):
        ...
    TypeError: users is 'ann'; expected a list of ids, such as ['ann']
    """
    if hasattr(values, "columns"):
        raise TypeError(f"{name} is a frame; expected a list of ids, such as one of its columns")
    listed = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(listed, int | float | str | bytes) or not isinstance(listed, Iterable):
        raise TypeError(f"{name} is {values!r}; expected a list of ids, such as [{values!r}]")
    ids = [one.item() if isinstance(one, np.generic) else one for one in listed]
    for entry, one in enumerate(ids):
        if type(one) is not int and type(one) is not str:
            raise TypeError(
                f"{name} holds {one!r} at entry {entry}; expected ids that are integers or strings"
            )
    return ids


def id_array(ids: Sequence[Any]) -> NDArray[Any]:
    """Ids as an array: int64 where all are such integers, otherwise Python objects."""
    if all(type(one) is int and -(2**63) <= one < 2**63 for one in ids):
        return np.array(ids, dtype=np.int64)
    array = np.empty(len(ids), dtype=object)
    array[:] = ids
    return array


class IdMap:
    """Ids and their numbers, 0 upwards in the order of arrival.

    Parameters
    ----------
    name : str
        What error messages call one, such as "item".
    ids : iterable of int or str
        In order; repeats are left out.

    Examples
    --------
    >>> items = IdMap("item", ["heat", "big"])
    >>> items.codes(["big", "jaws"]).tolist(), items.take(np.array([1, 0])).tolist()
    ([1, -1], ['big', 'heat'])
    """

    def __init__(self, name: str, ids: Iterable[Any]) -> None:
        self.name = name
        self._codes: dict[Any, int] = {}
        self._array: NDArray[Any] | None = None
        self.extend(ids)

    def __len__(self) -> int:
        return len(self._codes)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._codes)

    def check_kind(self, ids: Iterable[Any]) -> None:
        """Refuse integers among strings and strings among integers: they hide missed matches."""
        kinds = {type(one): one for one in ids}
        for one in self._codes:
            kinds.setdefault(type(one), one)
            break
        if len(kinds) > 1:
            raise TypeError(
                f"{self.name} ids are both integers and strings, such as {kinds[int]!r} and "
                f"{kinds[str]!r}; use one kind"
            )

    def extend(self, ids: Iterable[Any]) -> None:
        """Number those that are new."""
        for one in ids:
            self._codes.setdefault(one, len(self._codes))
        self._array = None

    def codes(self, ids: Sequence[Any]) -> NDArray[np.int64]:
        """The numbers of ids, -1 for those that are not known."""
        codes = self._codes
        return np.array([codes.get(one, -1) for one in ids], dtype=np.int64)

    def known_codes(self, name: str, ids: Sequence[Any]) -> NDArray[np.int64]:
        """The numbers of ids that must be known; `name` is the argument that holds them."""
        codes = self.codes(ids)
        if (codes < 0).any():
            unknown = ids[int(np.argmax(codes < 0))]
            raise IndexError(f"{name} holds {unknown!r}, which is no {self.name} the model knows")
        return codes

    def take(self, codes: NDArray[np.int64]) -> NDArray[Any]:
        """The ids of numbers."""
        if self._array is None:
            self._array = id_array(list(self._codes))
        taken: NDArray[Any] = self._array[codes]
        return taken
