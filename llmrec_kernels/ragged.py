"""`Ragged`: for each query, some ids."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

_INTEGER = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(frozen=True)
class Ragged:
    """Lists of different lengths, end to end.

    Parameters
    ----------
    values : Tensor, [nnz] int64
        The lists' entries, one list after the other.
    offsets : Tensor, [B + 1] int64
        List `i` is `values[offsets[i]:offsets[i + 1]]`; begins with 0, never goes down and
        ends with nnz. The contents are checked by the kernels that read them.

    Raises
    ------
    TypeError
        If an argument is not a tensor.
    ValueError
        If a shape, dtype or device is wrong.

    Examples
    --------
    >>> seen = Ragged.of([[3, 1], [], [2]])
    >>> seen.values.tolist(), seen.offsets.tolist()
    ([3, 1, 2], [0, 2, 2, 3])
    >>> len(seen), seen[0].tolist()
    (3, [3, 1])
    """

    values: Tensor
    offsets: Tensor

    def __post_init__(self) -> None:
        for name in ("values", "offsets"):
            tensor = getattr(self, name)
            if not isinstance(tensor, Tensor):
                raise TypeError(f"Ragged {name} is a {type(tensor).__name__}; expected a tensor")
            if tensor.dtype not in _INTEGER:
                raise ValueError(f"Ragged {name} has dtype {tensor.dtype}; expected int64")
            if tensor.dim() != 1:
                raise ValueError(
                    f"Ragged {name} has shape {list(tensor.shape)}; expected one dimension"
                )
            object.__setattr__(self, name, tensor.to(torch.int64))
        if self.offsets.shape[0] < 1:
            raise ValueError("Ragged offsets is empty; expected [B + 1] entries, the first 0")
        if self.values.device != self.offsets.device:
            raise ValueError(
                f"Ragged values are on {self.values.device} but offsets on {self.offsets.device}"
            )

    def __len__(self) -> int:
        return self.count

    @property
    def count(self) -> int:
        """The number of lists. Traced code asks this: `len` would make it a constant."""
        return self.offsets.shape[0] - 1

    def __getitem__(self, row: int) -> Tensor:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} is out of range for {len(self)} lists")
        row %= len(self)
        return self.values[int(self.offsets[row]) : int(self.offsets[row + 1])]

    def tolist(self) -> list[list[int]]:
        """The lists as Python lists.

        Examples
        --------
        >>> Ragged.of([[3, 1], []]).tolist()
        [[3, 1], []]
        """
        return [self[row].tolist() for row in range(len(self))]

    def to(self, device: torch.device | str) -> Ragged:
        """The same lists on another device.

        Examples
        --------
        >>> Ragged.of([[1]]).to("cpu").tolist()
        [[1]]
        """
        return Ragged(self.values.to(device), self.offsets.to(device))

    @staticmethod
    def of(lists: Any, *, name: str = "lists") -> Ragged:
        """Make ragged lists of what users have.

        Parameters
        ----------
        lists
            A `Ragged` (returned as it is), a sequence of integer sequences, a SciPy CSR or a
            torch CSR matrix whose stored columns are the ids of each row.
        name
            What error messages call it.

        Raises
        ------
        TypeError
            If it is none of these.

        Examples
        --------
        >>> from scipy.sparse import csr_array
        >>> Ragged.of(csr_array([[0, 1, 1], [0, 0, 0]])).tolist()
        [[1, 2], []]
        """
        if isinstance(lists, Ragged):
            return lists
        if isinstance(lists, Tensor) and lists.layout == torch.sparse_csr:
            return Ragged(lists.col_indices(), lists.crow_indices())
        if getattr(lists, "format", None) == "csr":
            return Ragged(
                torch.as_tensor(lists.indices).to(torch.int64),
                torch.as_tensor(lists.indptr).to(torch.int64),
            )
        if isinstance(lists, Sequence) and not isinstance(lists, str | bytes):
            return _of_sequences(lists, name)
        raise TypeError(
            f"{name} is a {type(lists).__name__}; "
            "expected Ragged, a list of lists, or a CSR matrix of SciPy or torch"
        )


def check_int64(what: str, entry: Any) -> None:
    """Refuse what is no integer, or none that 64 bits hold.

    Examples
    --------
    >>> check_int64("ids[3] is", 2**63)
    Traceback (most recent call last):
        ...
    ValueError: ids[3] is 9223372036854775808; expected an integer of 64 bits
    """
    if isinstance(entry, bool) or not hasattr(entry, "__index__"):
        raise TypeError(f"{what} {entry!r}; expected an integer")
    if not -(2**63) <= operator.index(entry) < 2**63:
        raise ValueError(f"{what} {entry}; expected an integer of 64 bits")


def is_flat(ids: Any) -> bool:
    """Whether ids hold for all queries, or there is a list for each.

    Examples
    --------
    >>> is_flat([3, 1]), is_flat([[3], [1]])
    (True, False)
    """
    if isinstance(ids, Ragged) or getattr(ids, "format", None) == "csr":
        return False
    if isinstance(ids, Tensor):
        return ids.layout == torch.strided
    if isinstance(ids, list | tuple):
        return not ids or not hasattr(ids[0], "__len__")
    return True


def _of_sequences(lists: Sequence[Any], name: str) -> Ragged:
    rows = []
    for position, row in enumerate(lists):
        entries = row.tolist() if hasattr(row, "tolist") else row
        if not isinstance(entries, Sequence | set | frozenset) or isinstance(entries, str):
            raise TypeError(
                f"{name}[{position}] is a {type(row).__name__}; expected a list of integer ids"
            )
        rows.append(list(entries))
    for position, row in enumerate(rows):
        for entry in row:
            check_int64(f"{name}[{position}] holds", entry)
    lengths = torch.tensor([0, *map(len, rows)], dtype=torch.int64)
    values = torch.tensor(list(chain.from_iterable(rows)), dtype=torch.int64)
    return Ragged(values, lengths.cumsum(0))
