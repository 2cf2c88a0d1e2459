"""The kinds of blocks that `FeatureEncoder` makes an item's vector of.

Each kind reads a column of a frame, learns from it what it needs, and places items: rows of length
1, or of 0 where nothing is known. What they are and why, `features` tells.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize
from typing_extensions import Self

from llmrec_kernels.ops import checks

if TYPE_CHECKING:
    import pandas as pd

BUMPS, WIDTH = 16, 0.1  # of a number: centres, and their width in shares of the catalogue
_KNOTS = 1025  # of the distinct values of a number as many are kept
# A vector this short, where the parts it is made of have length 1, is their float32 rounding.
_NOTHING = 1e-6


class Dense(NamedTuple):
    """Texts and other vectors.

    Parameters
    ----------
    mean : Tensor, [d] float32
        Of the unit vectors of the catalogue.
    """

    mean: Tensor

    @staticmethod
    def read(where: str, column: pd.Series) -> Tensor:
        """The vectors of a column, [n, d] float32, zeros where there is none."""
        cells = column.tolist()
        rows = [row for row, cell in enumerate(cells) if not is_missing(cell)]
        if not rows:
            return torch.zeros(len(cells), 0)
        vectors = [_vector(where, row, cells[row]) for row in rows]
        for row, one in zip(rows, vectors, strict=True):
            if len(one) != len(vectors[0]):
                raise ValueError(
                    f"{where} holds {len(one)} numbers in row {row} and {len(vectors[0])} in row "
                    f"{rows[0]}; expected vectors of one length"
                )
        return _scattered(where, torch.from_numpy(np.stack(vectors)), rows, len(cells))

    @classmethod
    def learn(cls, where: str, vectors: Tensor) -> Self:
        """The mean of what is known."""
        if not vectors.shape[1]:
            raise ValueError(f"{where} has nothing in any row; leave it out")
        return cls(_mean(vectors))

    def place(self, where: str, vectors: Tensor) -> Tensor:
        """Rows of length 1 or 0, [n, d]."""
        width = self.mean.shape[0]
        if vectors.shape[1] not in (0, width):
            raise ValueError(f"{where} has vectors of {vectors.shape[1]}; expected {width}")
        if not vectors.shape[1]:
            return torch.zeros(vectors.shape[0], width)
        return _centred(vectors, self.mean)


class Categories(NamedTuple):
    """One or several categories of an item.

    Parameters
    ----------
    names : list of str, int or bool
        In order: one for each column.
    mean : Tensor, [categories] float32
        Of the unit vectors of the catalogue.
    """

    names: list[Any]
    mean: Tensor

    @staticmethod
    def read(where: str, column: pd.Series) -> list[list[Any]]:
        """The categories of each row."""
        return [
            [_category(where, row, one) for one in _listed(cell)]
            for row, cell in enumerate(column.tolist())
        ]

    @classmethod
    def learn(cls, where: str, rows: list[list[Any]]) -> Self:
        """The categories there are, sorted."""
        kinds = {type(one): one for row in rows for one in row}
        if len(kinds) > 1:
            first, second = list(kinds.values())[:2]
            raise TypeError(
                f"{where} has categories of two kinds, such as {first!r} and {second!r}; use one"
            )
        names = sorted({one for row in rows for one in row})
        return cls(names, _mean(_ones(names, rows)))

    def place(self, where: str, rows: list[list[Any]]) -> Tensor:
        """Rows of length 1 or 0, [n, categories]."""
        for number, row in enumerate(rows):
            for one in row:
                if self.names and type(one) is not type(self.names[0]):
                    raise TypeError(
                        f"{where} holds {one!r} in row {number}; expected a category of the kind "
                        f"of {self.names[0]!r}"
                    )
        return _centred(_ones(self.names, rows), self.mean)


class Number(NamedTuple):
    """A number, by its rank in the catalogue.

    Parameters
    ----------
    values : Tensor, [m] float64
        Ascending.
    levels : Tensor, [m] float64
        The share of the catalogue below each, half of those with the same value included.
    mean : Tensor, [bumps] float32
        Of the unit vectors of the catalogue.
    """

    values: Tensor
    levels: Tensor
    mean: Tensor

    @staticmethod
    def read(where: str, column: pd.Series) -> NDArray[np.float64]:
        """The numbers of a column, [n], NaN where there is none."""
        numbers = np.full(len(column), np.nan)
        for row, cell in enumerate(column.tolist()):
            if is_missing(cell):
                continue
            if not isinstance(cell, Real | Decimal):
                raise TypeError(f"{where} holds {cell!r} in row {row}; expected numbers")
            numbers[row] = float(cell)
            if math.isinf(numbers[row]):
                raise ValueError(f"{where} holds {cell} in row {row}; expected finite numbers")
        return numbers

    @classmethod
    def learn(cls, where: str, numbers: NDArray[np.float64]) -> Self:
        """The ranks of the values there are."""
        values, counts = np.unique(numbers[~np.isnan(numbers)], return_counts=True)
        levels = (counts.cumsum() - counts / 2) / max(counts.sum(), 1)
        if len(values) > _KNOTS:
            kept = np.linspace(0, len(values) - 1, _KNOTS).round().astype(np.int64)
            values, levels = values[kept], levels[kept]
        return cls(
            torch.from_numpy(values),
            torch.from_numpy(levels),
            _mean(_bumps(numbers, values, levels)),
        )

    def place(self, where: str, numbers: NDArray[np.float64]) -> Tensor:
        """Rows of length 1 or 0, [n, bumps]."""
        return _centred(_bumps(numbers, self.values.numpy(), self.levels.numpy()), self.mean)


def is_missing(cell: Any) -> bool:
    """Whether a cell of a frame is None, NaN, NA or NaT."""
    import pandas as pd

    return cell is None or bool(pd.api.types.is_scalar(cell) and pd.isna(cell))


def text_vectors(where: str, texts: list[Any], encoder: Any) -> Tensor:
    """Vectors of texts, [n, d] float32; zeros for a blank one, whatever the encoder makes of it."""
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{where} holds {text!r} in row {row}; expected strings")
    rows = [row for row, text in enumerate(texts) if text.strip()]
    if not rows:
        return torch.zeros(len(texts), 0)
    result = encoder.encode([texts[row] for row in rows])
    vectors = checks.float_array("the text encoder's result", result, "[n, d]").detach().cpu()
    if vectors.shape[0] != len(rows):
        raise ValueError(
            f"the text encoder's result has {vectors.shape[0]} rows for {len(rows)} texts"
        )
    return _scattered("the text encoder's result", vectors.float(), rows, len(texts))


def _ones(names: list[Any], rows: list[list[Any]]) -> Tensor:
    """Ones at the categories of each row, [n, categories]; those not among the names left out."""
    code = {name: place for place, name in enumerate(names)}
    known = [[code[one] for one in row if one in code] for row in rows]
    placed = torch.zeros(len(rows), len(names))
    row_of = np.repeat(np.arange(len(rows)), [len(row) for row in known])
    columns = np.array([one for row in known for one in row], dtype=np.int64)
    placed[torch.from_numpy(row_of), torch.from_numpy(columns)] = 1.0
    return placed


def _bumps(
    numbers: NDArray[np.float64], values: NDArray[np.float64], levels: NDArray[np.float64]
) -> Tensor:
    """How near each number's rank is to each of the centres, [n, bumps]; zeros for NaN."""
    placed = np.zeros((len(numbers), BUMPS))
    known = ~np.isnan(numbers)
    if len(values):
        rank = np.interp(numbers[known], values, levels)[:, None]
        placed[known] = np.exp(-0.5 * ((rank - np.linspace(0, 1, BUMPS)) / WIDTH) ** 2)
    return torch.from_numpy(placed).float()


def _mean(raw: Tensor) -> Tensor:
    """The mean, [d], of the unit vectors of the rows that are not zero."""
    unit = normalize(raw, dim=1)
    known = unit[unit.any(dim=1)]
    return known.double().sum(dim=0).div(max(known.shape[0], 1)).float()


def _centred(raw: Tensor, mean: Tensor) -> Tensor:
    """Unit vectors less the mean, [n, d], at length 1 again; rows of zeros remain so."""
    unit = normalize(raw, dim=1)
    moved = torch.where(unit.any(dim=1, keepdim=True), unit - mean, unit)
    return normalize(moved.masked_fill(moved.norm(dim=1, keepdim=True) < _NOTHING, 0.0), dim=1)


def _scattered(where: str, vectors: Tensor, rows: Sequence[int], n: int) -> Tensor:
    """Vectors [m, d] at their rows of [n, d], zeros elsewhere."""
    bad = ~vectors.isfinite().all(dim=1)
    if bool(bad.any()):
        row = rows[int(bad.nonzero()[0, 0])]
        raise ValueError(f"{where} holds NaN or Inf in row {row}; expected finite numbers")
    placed = torch.zeros(n, vectors.shape[1])
    placed[torch.tensor(rows)] = vectors
    return placed


def _vector(where: str, row: int, cell: Any) -> NDArray[np.float32]:
    try:
        vector = np.asarray(cell)
    except (TypeError, ValueError):  # lists of several lengths
        vector = np.empty(0)
    if vector.ndim != 1 or not len(vector) or vector.dtype.kind not in "iuf":
        raise TypeError(f"{where} holds {cell!r} in row {row}; expected a vector of numbers")
    return vector.astype(np.float32)


def _listed(cell: Any) -> Iterable[Any]:
    """The categories in a cell."""
    if isinstance(cell, str):
        return [one.strip() for one in cell.split("|") if one.strip()]
    if isinstance(cell, list | tuple | set | frozenset | np.ndarray):
        return [one for one in cell if not is_missing(one)]
    return [] if is_missing(cell) else [cell]


def _category(where: str, row: int, one: Any) -> Any:
    """A category as JSON has it: a string, an integer or a bool."""
    if isinstance(one, np.generic):
        one = one.item()
    if isinstance(one, float) and one.is_integer():
        return int(one)  # a column of integers is one of floats where some are missing
    if type(one) not in (str, int, bool):
        raise TypeError(
            f"{where} holds {one!r} in row {row}; expected strings or integers, or lists of them"
        )
    return one
