"""Nearest neighbours between the rows of sparse matrices: items by who took them, users by what.

The similarity is the cosine, shrunk so that few agreements count little:

    s_ij = x_i · x_j / (|x_i| |x_j| + shrink)

Of ones and zeros it says who took both; of ratings less their baselines, whether those who rated
both rated them alike. It is worked out for a block of rows at a time.

Source: B. Sarwar et al., Item-based collaborative filtering recommendation algorithms, WWW 2001;
the shrinkage: R. Bell and Y. Koren, Improved neighborhood-based collaborative filtering, KDD Cup
2007.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from llmrec_kernels.recommenders import ranking
from llmrec_kernels.recommenders.filters import Filters
from llmrec_kernels.recommenders.history import Lists

_ENTRIES_AT_ONCE = 1 << 22


class Others(NamedTuple):
    """Rows laid out to be compared with: by column, so that a comparison reads only its own."""

    columns: csr_array  # [d, m]: the rows, transposed
    lengths: NDArray[np.float64]  # [m]

    @staticmethod
    def of(rows: csr_array) -> Others:
        """Lay out rows, [m, d]; costs as much as there is in them."""
        return Others(csr_array(rows.T), _lengths(rows))


def cosines(rows: csr_array, others: Others, shrink: float) -> NDArray[np.float64]:
    """The shrunk cosine of each row with each other one, [n, m].

    Parameters
    ----------
    rows : csr_array, [n, d]
        Ones, or numbers of any sign.
    others : Others, of [m, d]
        Alike.
    shrink : float
        At least 0.

    Examples
    --------
    >>> taken = csr_array(np.array([[1, 1, 0], [1, 1, 1], [0, 0, 1]], dtype=np.float32))
    >>> cosines(taken[[0]], Others.of(taken), 0.0).round(2)
    array([[1.  , 0.82, 0.  ]])
    """
    both = (rows @ others.columns).toarray().astype(np.float64)
    scale = _lengths(rows)[:, None] * others.lengths + shrink
    return np.asarray(np.divide(both, scale, out=both, where=scale > 0))


def nearest(rows: csr_array, neighbours: int, shrink: float) -> csr_array:
    """For each row its nearest other rows, [n, n]: those above 0, at most `neighbours`.

    Examples
    --------
    >>> taken = csr_array(np.array([[1, 1, 0], [1, 1, 1], [0, 0, 1]], dtype=np.float32))
    >>> nearest(taken, 1, 0.0).toarray().round(2)
    array([[0.  , 0.82, 0.  ],
           [0.82, 0.  , 0.  ],
           [0.  , 0.58, 0.  ]])
    """
    count = rows.shape[0]
    parts = [csr_array((0, count), dtype=np.float64)]
    size, others = max(1, _ENTRIES_AT_ONCE // max(count, 1)), Others.of(rows)
    for start in range(0, count, size):
        block = np.arange(start, min(start + size, count))
        parts.append(strongest(cosines(rows[block], others, shrink), neighbours, block))
    return csr_array(vstack(parts, format="csr"))


def strongest(
    similarity: NDArray[np.float64], neighbours: int, themselves: NDArray[np.int64] | None = None
) -> csr_array:
    """The highest entries of each row, [B, n], that are above 0; equal ones by their place."""
    filters = Filters(None, None)
    if themselves is not None:
        filters = filters.hiding(Lists.of_one_each(themselves))
    k = min(neighbours, similarity.shape[1])
    scores, places = ranking.best(torch.from_numpy(similarity.astype(np.float32)), k, filters)
    found = ((places >= 0) & (scores > 0)).numpy()
    offsets = np.concatenate([[0], found.sum(axis=1).cumsum()])
    columns = places.numpy()[found]
    rows = np.repeat(np.arange(len(found)), found.sum(axis=1))
    return csr_array((similarity[rows, columns], columns, offsets), shape=similarity.shape)


def _lengths(rows: csr_array) -> NDArray[np.float64]:
    return np.asarray(np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1)))
