"""Fewer numbers for each vector: principal components, random projection, Matryoshka truncation.

`PCA` keeps the directions in which the vectors differ most. With m their mean and C = 1/N sum over
x of (x - m)(x - m)^T, the rows of W are the eigenvectors of C with the `dim` largest eigenvalues,
and x becomes W (x - m): of all linear maps onto `dim` numbers and back this loses the least squared
length (Pearson, "On lines and planes of closest fit", 1901). An eigenvector has no sign of its
own; here its largest entry, of equal ones the first, is positive, so that the same data always
gives the same numbers.

`RandomProjection` looks at no data: x becomes R x, the entries of R drawn from N(0, 1/dim). A
squared length is off by more than a factor 1 +- eps with a probability of at most
2 exp(-dim (eps^2/2 - eps^3/3) / 2), whatever the width of x (Johnson and Lindenstrauss, 1984; in
this form Dasgupta and Gupta, "An elementary proof of a theorem of Johnson and Lindenstrauss",
2003). Differences are vectors too, so distances hold as well as lengths.

`truncate` keeps the first numbers of each vector. That is for encoders trained so that those
alone are an embedding (Kusupati et al., "Matryoshka Representation Learning", NeurIPS 2022); for
others PCA is the better choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from typing_extensions import Self

from llmrec_kernels.ops import checks, quantize

STORAGES = ("float32", "float16", "bfloat16", "int8", "int4", "fp8_e4m3")
_CHUNK = 65_536  # rows at once in float64: 400 MB at a width of 768


class PCA:
    """Project vectors onto the directions in which they differ most.

    The result is centred. It is not whitened and not scaled to length 1.

    Parameters
    ----------
    dim : int
        Numbers to keep of each vector.

    Attributes
    ----------
    mean : Tensor, [d] float32
        Of the vectors of `fit`.
    components : Tensor, [dim, d] float32
        Orthonormal rows, the direction of the largest variance first.
    explained : Tensor, [dim] float32
        The share of the whole variance that each direction has.

    Raises
    ------
    TypeError, ValueError
        If `dim` is no integer of at least 1.

    Examples
    --------
    >>> vectors = torch.tensor([[2.0, 4.0, 5.0], [1.0, 2.0, 5.0], [3.0, 6.0, 5.0]])
    >>> pca = PCA(1).fit(vectors)
    >>> pca.transform(vectors).flatten()
    tensor([ 0.0000, -2.2361,  2.2361])
    >>> pca.explained
    tensor([1.])
    """

    def __init__(self, dim: int) -> None:
        self.dim = checks.positive_int("dim", dim)

    def fit(self, vectors: Any) -> Self:
        """Learn the directions.

        Parameters
        ----------
        vectors : array, [N, d]
            At least `dim` of them, at least `dim` wide.

        Returns
        -------
        PCA
            The object itself.

        Raises
        ------
        ValueError
            If there are fewer than `dim` rows or columns, or a number is not finite.

        Examples
        --------
        >>> PCA(2).fit(torch.eye(4)).components.shape
        torch.Size([2, 4])
        """
        rows = finite_rows("vectors", vectors)
        if self.dim > min(rows.shape):
            raise ValueError(
                f"vectors has shape {list(rows.shape)}; expected at least dim = {self.dim} rows "
                "and columns"
            )
        mean = rows.mean(dim=0, dtype=torch.float64)
        scatter = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
        for chunk in rows.split(_CHUNK):
            centred = chunk.double() - mean
            scatter.addmm_(centred.T, centred)
        variances, directions = torch.linalg.eigh(scatter)
        components = directions.T.flip(0)[: self.dim]
        # Of entries that are equally large up to rounding the first, on any machine.
        size = components.abs()
        first = (size > 0.999999 * size.amax(dim=1, keepdim=True)).int().argmax(1, keepdim=True)
        sign = components.gather(1, first).sign()
        kept = variances.flip(0)[: self.dim].clamp(min=0.0)
        self.mean, self.components = mean.float(), (components * sign).float()
        self.explained = (kept / scatter.trace().clamp(min=torch.finfo(torch.float64).tiny)).float()
        return self

    def transform(self, vectors: Any) -> Tensor:
        """Project vectors.

        Parameters
        ----------
        vectors : array, [n, d]
            As wide as those of `fit`.

        Returns
        -------
        Tensor, [n, dim] float32

        Raises
        ------
        RuntimeError
            If nothing was fitted.
        ValueError
            If the vectors are of another width, or a number is not finite.

        Examples
        --------
        >>> PCA(1).fit(torch.tensor([[0.0, 0.0], [0.0, 2.0]])).transform(torch.tensor([[9.0, 3.0]]))
        tensor([[2.]])
        """
        rows = _as_wide("PCA", vectors, getattr(self, "components", None))
        projected: Tensor = (rows - self.mean) @ self.components.T
        return projected

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What to save: values for JSON, and tensors.

        Examples
        --------
        >>> values, tensors = PCA(1).fit(torch.eye(2)).state()
        >>> values, sorted(tensors)
        ({'dim': 1}, ['components', 'explained', 'mean'])
        """
        _fitted("PCA", getattr(self, "components", None))
        tensors = {name: getattr(self, name) for name in ("mean", "components", "explained")}
        return {"dim": self.dim}, tensors

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """The object that `state` was asked of.

        Raises
        ------
        ValueError
            If the state is not one of a PCA.

        Examples
        --------
        >>> PCA.from_state(*PCA(1).fit(torch.eye(2)).state()).transform(torch.eye(2)).shape
        torch.Size([2, 1])
        """
        pca = cls(_saved("PCA", values, "dim"))
        pca.mean, pca.components, pca.explained = (
            _saved("PCA", tensors, name) for name in ("mean", "components", "explained")
        )
        width = pca.mean.shape[0]
        _same_shape("PCA", "components", pca.components, (pca.dim, width))
        _same_shape("PCA", "explained", pca.explained, (pca.dim,))
        return pca


class RandomProjection:
    """Project vectors onto random directions, which keeps their lengths and distances roughly.

    Parameters
    ----------
    dim : int
        Numbers to keep of each vector.
    seed : int
        At least 0; the same seed and width give the same directions.

    Attributes
    ----------
    matrix : Tensor, [dim, d] float32
        The directions, drawn from N(0, 1/dim).

    Raises
    ------
    TypeError, ValueError
        If `dim` is no integer of at least 1, or `seed` none of at least 0.

    Examples
    --------
    >>> vectors = torch.randn(100, 5_000, generator=torch.Generator().manual_seed(0))
    >>> small = RandomProjection(1_000, seed=1).fit(vectors).transform(vectors)
    >>> bool(((small.norm(dim=1) / vectors.norm(dim=1) - 1).abs() < 0.1).all())
    True
    """

    def __init__(self, dim: int, seed: int = 0) -> None:
        self.dim = checks.positive_int("dim", dim)
        self.seed = checks.integer("seed", seed, "an integer of at least 0")
        if self.seed < 0:
            raise ValueError(f"seed is {seed}; expected at least 0")

    def fit(self, vectors: Any) -> Self:
        """Draw the directions; of the vectors only their width counts.

        Parameters
        ----------
        vectors : array, [N, d]
            Also with no rows.

        Returns
        -------
        RandomProjection
            The object itself.

        Raises
        ------
        ValueError
            If the vectors are no matrix of floating-point numbers.

        Examples
        --------
        >>> RandomProjection(2).fit(torch.empty(0, 3)).matrix.shape
        torch.Size([2, 3])
        """
        width = checks.float_array("vectors", vectors, "[N, d]").shape[1]
        drawn = np.random.default_rng(self.seed).standard_normal((self.dim, width))
        self.matrix = torch.from_numpy(drawn / np.sqrt(self.dim)).float()
        return self

    def transform(self, vectors: Any) -> Tensor:
        """Project vectors.

        Parameters
        ----------
        vectors : array, [n, d]
            As wide as those of `fit`.

        Returns
        -------
        Tensor, [n, dim] float32

        Raises
        ------
        RuntimeError
            If nothing was fitted.
        ValueError
            If the vectors are of another width, or a number is not finite.

        Examples
        --------
        >>> RandomProjection(2).fit(torch.eye(3)).transform(torch.zeros(1, 3))
        tensor([[0., 0.]])
        """
        matrix = getattr(self, "matrix", None)
        return _as_wide("RandomProjection", vectors, matrix) @ self.matrix.T

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What to save: values for JSON, and tensors.

        Examples
        --------
        >>> values, tensors = RandomProjection(2, seed=5).fit(torch.eye(3)).state()
        >>> values, sorted(tensors)
        ({'dim': 2, 'seed': 5}, ['matrix'])
        """
        _fitted("RandomProjection", getattr(self, "matrix", None))
        return {"dim": self.dim, "seed": self.seed}, {"matrix": self.matrix}

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """The object that `state` was asked of.

        Raises
        ------
        ValueError
            If the state is not one of a RandomProjection.

        Examples
        --------
        >>> saved = RandomProjection(2).fit(torch.eye(3)).state()
        >>> RandomProjection.from_state(*saved).dim
        2
        """
        name = "RandomProjection"
        projection = cls(_saved(name, values, "dim"), _saved(name, values, "seed"))
        projection.matrix = _saved(name, tensors, "matrix")
        _same_shape(name, "matrix", projection.matrix, (projection.dim, -1))
        return projection


def truncate(vectors: Any, dim: int) -> Tensor:
    """Keep the first `dim` numbers of each vector and scale the rest to length 1.

    Parameters
    ----------
    vectors : array, [n, d]
        Of an encoder trained for it; others lose more than with `PCA`.
    dim : int
        From 1 to d.

    Returns
    -------
    Tensor, [n, dim] float32
        Of length 1; zeros where nothing but zeros is left.

    Raises
    ------
    ValueError
        If `dim` is out of its range, or a number is not finite.

    Examples
    --------
    >>> truncate(torch.tensor([[3.0, 4.0, 7.0]]), 2)
    tensor([[0.6000, 0.8000]])
    """
    rows = finite_rows("vectors", vectors)
    if checks.positive_int("dim", dim) > rows.shape[1]:
        raise ValueError(f"dim is {dim}; expected at most {rows.shape[1]}, the width of vectors")
    return normalize(rows[:, :dim], dim=1)


def bytes_per_item(dim: int, storage: str = "float32") -> int:
    """Bytes that one vector takes, its scale and bias included.

    Parameters
    ----------
    dim : int
        Width.
    storage : "float32", "float16", "bfloat16", "int8", "int4" or "fp8_e4m3"
        As in `quantize`.

    Returns
    -------
    int

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of its range.

    Examples
    --------
    >>> [bytes_per_item(384, storage) for storage in STORAGES]
    [1536, 768, 768, 392, 196, 388]
    """
    dim = checks.positive_int("dim", dim)
    checks.choice("storage", storage, STORAGES)
    row = torch.zeros(1, dim)
    return row.nbytes if storage == "float32" else quantize(row, storage).nbytes


def finite_rows(name: str, vectors: Any) -> Tensor:
    """A matrix of finite numbers as float32 on the CPU, [n, d]."""
    rows = checks.float_array(name, vectors, "[n, d]").detach().cpu().float()
    bad = ~rows.isfinite().all(dim=1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        raise ValueError(f"{name} holds NaN or Inf in row {row}; expected finite numbers")
    return rows


def _as_wide(name: str, vectors: Any, matrix: Tensor | None) -> Tensor:
    rows = finite_rows("vectors", vectors)
    width = _fitted(name, matrix).shape[1]
    if rows.shape[1] != width:
        raise ValueError(
            f"vectors is {rows.shape[1]} wide; expected {width}, as this {name} was fitted on"
        )
    return rows


def _fitted(name: str, matrix: Tensor | None) -> Tensor:
    if matrix is None:
        raise RuntimeError(f"this {name} is not fitted; call fit first")
    return matrix


def _saved(name: str, held: Mapping[str, Any], key: str) -> Any:
    if key not in held:
        raise ValueError(f"the saved {name} has no {key}; it holds {', '.join(held) or 'nothing'}")
    return held[key]


def _same_shape(name: str, key: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse another shape; -1 stands for any length."""
    fits = tensor.dim() == len(shape) and all(
        wanted in (-1, got) for wanted, got in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"the saved {name} has {key} of shape {list(tensor.shape)}; expected {list(shape)}"
        )
