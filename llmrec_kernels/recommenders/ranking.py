"""The best items of rows of scores that are there anyway.

Where a score is no similarity of two vectors, the scores of all items are worked out for a block of
users, and the best chosen here: by one 64-bit key an item, the score's bits above its place, so
that equal scores come in the order of the items, always.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmrec_kernels.index.filters import Positions
from llmrec_kernels.ops import TopK
from llmrec_kernels.ragged import Ragged
from llmrec_kernels.recommenders.filters import Filters

_NEVER = torch.iinfo(torch.int64).min


def best(scores: Tensor, k: int, filters: Filters) -> TopK:
    """The k best of each row.

    Parameters
    ----------
    scores : Tensor, [B, N] float32
        Without NaN.
    k : int
        From 1 to N.
    filters : Filters
        For B users.

    Returns
    -------
    TopK
        Scores descending and places ascending among equals; -inf and -1 fill up short lists.

    Examples
    --------
    >>> best(torch.tensor([[0.5, 2.0, 0.5]]), 2, Filters(None, None))
    TopK(scores=tensor([[2.0000, 0.5000]]), ids=tensor([[1, 0]]))
    """
    n_items = scores.shape[1]
    bits = (scores + 0.0).view(torch.int32)  # -0 is 0
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    keys = (ordered << 32) | torch.arange(n_items - 1, -1, -1)
    _drop(keys, filters)
    chosen = keys.topk(k, dim=1).values
    missing = chosen == _NEVER
    places = n_items - 1 - (chosen & 0xFFFFFFFF)
    found = scores.gather(1, places.masked_fill(missing, 0))
    return TopK(found.masked_fill(missing, -torch.inf), places.masked_fill(missing, -1))


def merged(topk: TopK, several: int) -> TopK:
    """The best of each `several` lines, an item by the line where it is best.

    Examples
    --------
    >>> lists = TopK(torch.tensor([[0.9, 0.5], [0.8, 0.7]]), torch.tensor([[3, 1], [1, 2]]))
    >>> merged(lists, 2)
    TopK(scores=tensor([[0.9000, 0.8000]]), ids=tensor([[3, 1]]))
    """
    k = topk.ids.shape[1]
    ids, scores = (one.reshape(-1, several * k).numpy() for one in (topk.ids, topk.scores))
    rows = np.repeat(np.arange(len(ids)), several * k)
    order = np.lexsort((ids.ravel(), -scores.ravel(), rows))
    order = order[ids.ravel()[order] >= 0]
    pair = rows[order] * (ids.max(initial=0) + 1) + ids.ravel()[order]
    order = order[np.sort(np.unique(pair, return_index=True)[1])]
    counts = np.bincount(rows[order], minlength=len(ids))
    rank = np.arange(len(order)) - np.repeat(counts.cumsum() - counts, counts)
    order, rank = order[rank < k], rank[rank < k]
    best_ids = torch.full((len(ids), k), -1)
    best_scores = torch.full((len(ids), k), -torch.inf)
    best_ids[rows[order], rank] = torch.from_numpy(ids.ravel()[order])
    best_scores[rows[order], rank] = torch.from_numpy(scores.ravel()[order])
    return TopK(best_scores, best_ids)


def taken(scores: Tensor, pairs: Ragged) -> NDArray[np.float32]:
    """The scores of each row's own items, [nnz]."""
    owner = torch.arange(len(scores)).repeat_interleave(pairs.offsets.diff())
    return scores[owner, pairs.values].numpy()


def above(topk: TopK, bound: float) -> TopK:
    """Those with scores above a bound."""
    return TopK(topk.scores, topk.ids.masked_fill(topk.scores <= bound, -1))


def _drop(keys: Tensor, filters: Filters) -> None:
    if isinstance(filters.allow, Positions):
        shown = torch.zeros_like(keys, dtype=torch.bool)
        shown[_users(filters.allow), filters.allow.values] = True
        keys.masked_fill_(~shown, _NEVER)
    elif filters.allow is not None:
        keys[:, ~filters.allow] = _NEVER
    if filters.exclude is not None:
        keys[_users(filters.exclude), filters.exclude.values] = _NEVER


def _users(lists: Positions) -> Tensor:
    """The row of each position."""
    assert lists.offsets is not None
    return torch.arange(len(lists.offsets) - 1).repeat_interleave(lists.offsets.diff())
