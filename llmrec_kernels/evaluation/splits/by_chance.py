"""Splits that draw interactions at random, whoever's they are and whenever they were."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llmrec_kernels.evaluation.columns import require_rows
from llmrec_kernels.evaluation.options import check_seed
from llmrec_kernels.evaluation.splits.parts import check_share, divide, floor_share
from llmrec_kernels.ops import checks


def random_split(
    interactions: pd.DataFrame, test_ratio: float = 0.2, *, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hold out a share of all interactions, drawn at random.

    A user or an item can lose all its interactions to test. The split is that of rating
    prediction; for top-k lists it lets train look into each user's future.

    Parameters
    ----------
    interactions : pandas.DataFrame
        Any columns; of its n rows floor(n · test_ratio) are held out.
    test_ratio : float, optional
        Share to hold out, between 0 and 1, both excluded.
    seed : int, optional
        Seed of the draw.

    Returns
    -------
    train, test : pandas.DataFrame
        The rows kept and the rows held out.

    Raises
    ------
    ValueError
        There is no row, or ``test_ratio`` is out of its range.

    Examples
    --------
    >>> train, test = random_split(pd.DataFrame({"user": 1, "item": range(10)}), 0.2)
    >>> test.item.tolist()
    [4, 6]
    """
    check_share(test_ratio)
    require_rows("interactions", interactions)
    n = len(interactions)
    drawn = np.random.default_rng(check_seed(seed)).permutation(n)[: floor_share(n, test_ratio)]
    in_test = np.zeros(n, dtype=bool)
    in_test[drawn] = True
    return divide(interactions, in_test)


def k_fold(
    interactions: pd.DataFrame, folds: int = 5, *, seed: int = 0
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Divide all interactions into parts at random, each of which is the test once.

    Parameters
    ----------
    interactions : pandas.DataFrame
        Any columns, with at least ``folds`` rows.
    folds : int, optional
        Number of parts, at least 2; their sizes differ by one row at most.
    seed : int, optional
        Seed of the draw.

    Returns
    -------
    iterator of (train, test)
        As many pairs as ``folds``; the tests are disjoint and together the whole.

    Raises
    ------
    ValueError
        There are fewer than two folds, or fewer rows than folds.

    Examples
    --------
    >>> rated = pd.DataFrame({"user": 1, "item": range(5)})
    >>> [test.item.tolist() for train, test in k_fold(rated, folds=2)]
    [[2, 3, 4], [0, 1]]
    """
    folds = checks.positive_int("folds", folds)
    if folds < 2:
        raise ValueError(f"folds is {folds}; expected at least 2")
    require_rows("interactions", interactions)
    n = len(interactions)
    if n < folds:
        raise ValueError(f"interactions has {n} rows; expected at least one for each of {folds}")
    fold = np.empty(n, dtype=np.int64)
    fold[np.random.default_rng(check_seed(seed)).permutation(n)] = np.arange(n) * folds // n
    return _folds(interactions, fold, folds)


def _folds(
    interactions: pd.DataFrame, fold: NDArray[np.int64], folds: int
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    for number in range(folds):
        yield divide(interactions, fold == number)
