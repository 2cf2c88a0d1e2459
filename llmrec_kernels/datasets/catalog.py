"""The data sets that have a name."""

from __future__ import annotations

import os
from collections.abc import Callable

from llmrec_kernels.datasets.frames import Dataset
from llmrec_kernels.datasets.movielens import movielens_100k, movielens_latest_small
from llmrec_kernels.datasets.online_retail import online_retail

_LOADERS: dict[str, Callable[[str | os.PathLike[str] | None], Dataset]] = {
    "ml-100k": movielens_100k,
    "ml-latest-small": movielens_latest_small,
    "online-retail": online_retail,
}


def load(name: str, path: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set by name.

    Parameters
    ----------
    name : str
        ``"ml-100k"``, ``"ml-latest-small"`` or ``"online-retail"``.
    path : path-like, optional
        The folder with the data; see `movielens_100k` for where else they are looked for.

    Returns
    -------
    Dataset
        Interactions, items and users.

    Raises
    ------
    ValueError
        There is no such data set.
    DatasetNotFoundError
        The data are in none of the places searched.

    Examples
    --------
    >>> load("ml-100k").users.occupation[0]
    'technician'
    >>> load("ml-100m")
    Traceback (most recent call last):
    ...
    ValueError: name must be one of ml-100k, ml-latest-small, online-retail; got 'ml-100m'
    """
    if name not in _LOADERS:
        raise ValueError(f"name must be one of {', '.join(_LOADERS)}; got {name!r}")
    return _LOADERS[name](path)
