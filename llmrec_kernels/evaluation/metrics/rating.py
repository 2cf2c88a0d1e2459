"""Rating metrics: how far predicted ratings are from the actual ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def rmse(predicted: ArrayLike, actual: ArrayLike) -> float:
    """Root mean squared error of predicted ratings.

    RMSE = √(Σ (predicted − actual)² / n)

    Parameters
    ----------
    predicted, actual : array_like, float [n]
        Ratings, in the same unit.

    Returns
    -------
    float
        In the unit of the ratings.

    Examples
    --------
    >>> rmse([3.0, 5.0], [3.0, 3.0])
    1.4142135623730951
    """
    return float(np.sqrt(np.mean(_errors(predicted, actual) ** 2)))


def mae(predicted: ArrayLike, actual: ArrayLike) -> float:
    """Mean absolute error of predicted ratings.

    MAE = Σ |predicted − actual| / n

    Parameters
    ----------
    predicted, actual : array_like, float [n]
        Ratings, in the same unit.

    Returns
    -------
    float
        In the unit of the ratings.

    Examples
    --------
    >>> mae([3.0, 5.0], [3.0, 3.0])
    1.0
    """
    return float(np.mean(np.abs(_errors(predicted, actual))))


def _errors(predicted: ArrayLike, actual: ArrayLike) -> NDArray[np.float64]:
    ratings = np.asarray(predicted, dtype=np.float64), np.asarray(actual, dtype=np.float64)
    shapes = [list(one.shape) for one in ratings]
    if shapes[0] != shapes[1] or len(shapes[0]) != 1 or not shapes[0][0]:
        raise ValueError(
            f"predicted and actual must be of one shape [n] with n ≥ 1; got {shapes[0]} and "
            f"{shapes[1]}"
        )
    for name, one in zip(("predicted", "actual"), ratings, strict=True):
        finite = np.isfinite(one)
        if not finite.all():
            raise ValueError(f"{name} must be finite; got {one[~finite][0]} at {np.argmin(finite)}")
    return ratings[0] - ratings[1]
