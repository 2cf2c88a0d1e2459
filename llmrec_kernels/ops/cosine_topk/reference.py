"""Exact top-K in plain torch: a matrix product proposes, the reference score decides.

The items are read in tiles. For each tile a float32 product of unit queries with the items
estimates every score, and a rounding bound says how far an estimate can be from the score's
real value. Only items whose estimate plus bound can still reach the query's k-th best score so
far are kept; those few are scored with the reference score (`ops/score.py`), which alone
decides ids, scores and ties. A matrix product's own bits depend on the batch size and on the
library; the result here does not.

The B x N score matrix is never built: the workspace is one tile of estimates, and about k
proposals per query.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from llmrec_kernels.ops import contents, score
from llmrec_kernels.ops.cosine_topk.filters import Filters
from llmrec_kernels.ops.rows import Rows

COSINE, DOT = 0, 1

QUERY_BLOCK = 1024
TILE_SCORES = 1 << 20  # estimates in a tile
TILE_ELEMENTS = 1 << 24  # elements of the items in a tile
FIRST_TILE = 1024  # items
RESCORE_ELEMENTS = 1 << 18  # elements rescored at a time: their float64 products stay in cache

_UNIT_ROUNDOFF = 2.0**-24
_SMALLEST_NORMAL = 2.0**-126
_LARGEST = torch.finfo(torch.float32).max
_LAST = torch.iinfo(torch.int64).max  # stands for "no item": sorts behind every id


def cosine_topk(
    queries: Tensor,
    data: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    inverse_norms: Tensor | None,
    codes: Tensor | None,
    unit_scale: Tensor | None,
    residual: Tensor | None,
    bits: int,
    k: int,
    metric: int,
    item_bias: Tensor | None,
    item_scale: Tensor | None,
    exclude_ids: Tensor | None,
    exclude_offsets: Tensor | None,
    allow_mask: Tensor | None,
    allow_ids: Tensor | None,
    allow_offsets: Tensor | None,
    exact: bool,
) -> tuple[Tensor, Tensor]:
    """Scores [B, k] and ids [B, k]; see `llmrec_kernels.cosine_topk`.

    Plain torch has no fast product of int8: the sketch (`codes`, `unit_scale`, `residual`) is not
    read, there is no faster inexact scan, and `exact` makes no difference.
    """
    rows = Rows(data, scale, bias, bits, queries.shape[1], inverse_norms)
    contents.finite("item_bias", item_bias)
    contents.finite("item_scale", item_scale)
    lengths = score.norms(queries)
    contents.finite_rows("queries", lengths)
    filters = Filters.prepare(
        data.shape[0],
        exclude_ids,
        exclude_offsets,
        allow_mask,
        allow_ids,
        allow_offsets,
    )
    scores = queries.new_empty(queries.shape[0], k, dtype=torch.float32)
    ids = queries.new_empty(queries.shape[0], k, dtype=torch.int64)
    for start in range(0, queries.shape[0], QUERY_BLOCK):
        part = slice(start, min(start + QUERY_BLOCK, queries.shape[0]))
        block = Block(queries[part], lengths[part], rows, k, metric, item_bias, item_scale)
        scores[part], ids[part] = block.search(filters.of_queries(part))
    return scores, ids


class Proposals(NamedTuple):
    """Pairs of a query (its row in the block) and an item that can still win."""

    query: Tensor  # [n] int64
    item: Tensor  # [n] int64


class Block:
    """A few queries against all items."""

    def __init__(
        self,
        queries: Tensor,  # [B, d] float32
        lengths: Tensor,  # [B] float64, their norms
        rows: Rows,
        k: int,
        metric: int,
        item_bias: Tensor | None,  # [N] float32
        item_scale: Tensor | None,  # [N] float32
    ) -> None:
        self.queries, self.rows, self.metric, self.k = queries, rows, metric, k
        self.item_bias, self.item_scale = item_bias, item_scale
        self.inverse = score.invert(lengths)
        # What an estimate for unit queries is multiplied with. A zero query has no direction.
        self.factor = lengths if metric == DOT else (self.inverse != 0).double()
        self.unit = (queries.double() * self.inverse[:, None]).float()
        self.kept = min(k, rows.data.shape[0])
        # The best so far. Both are [B, kept]: -inf and _LAST where there is none yet.
        self.scores = queries.new_full((queries.shape[0], self.kept), -torch.inf)
        self.ids = torch.full_like(self.scores, _LAST, dtype=torch.int64)

    def search(self, filters: Filters) -> tuple[Tensor, Tensor]:
        """Scores and ids [B, k] over all tiles."""
        pending: list[Proposals] = []
        waiting = 0
        for tile in self._tiles():
            if self._nothing_in(tile, filters):
                continue
            pending.append(self._propose(tile, filters))
            waiting += pending[-1].query.shape[0]
            if waiting > self.scores.numel():
                self._decide(pending)
                pending, waiting = [], 0
        self._decide(pending)
        return self._padded()

    def _nothing_in(self, tile: slice, filters: Filters) -> bool:
        """Whether a tile need not be read: no query may have it, and it was checked when packed."""
        if filters.allowed is None or self.rows.inverse_norms is None:
            return False
        return not bool(filters.allowed[tile].any())

    def _tiles(self) -> Iterator[slice]:
        """Stretches of items, the first ones short: what they decide, later ones must beat."""
        count, width = self.queries.shape[0], self.rows.data.shape[0]
        most = max(1, min(TILE_SCORES // max(1, count), TILE_ELEMENTS // max(1, self.rows.dim)))
        start, length = 0, min(most, max(FIRST_TILE, 4 * self.kept))
        while start < width:
            yield slice(start, min(start + length, width))
            start, length = start + length, min(most, 2 * length)

    def _propose(self, tile: slice, filters: Filters) -> Proposals:
        """The pairs of this tile whose score can reach the k-th best, by a rounding bound.

        |computed dot - dot| <= gamma_d |q| |x| for any order of summation, with
        gamma_d = d u / (1 - d u) (Higham, Accuracy and Stability of Numerical Algorithms,
        section 3.1), plus what underflow loses. As much again covers a norm of x that was summed
        in float32, and a few more u the rounding of the unit query and of the float64 steps.
        """
        items = self.rows.widen(tile)
        known = self.rows.inverse_norms
        lengths = score.invert(known[tile]) if known is not None else _checked_norms(items, tile)
        weight = torch.ones_like(lengths) if self.metric == DOT else score.invert(lengths)
        if self.item_scale is not None:
            weight = weight * self.item_scale[tile].double()
        gamma = (2 * self.rows.dim + 16) * _UNIT_ROUNDOFF * 1.01
        error = weight.abs() * (lengths * gamma + (self.rows.dim + 8) * 4 * _SMALLEST_NORMAL)
        # Beyond this a float32 sum may overflow: nothing is known of the score.
        error = torch.where(lengths > _LARGEST / 4, torch.inf, error)
        estimate = _product(self.unit, items).double() * weight
        if self.metric == DOT or not bool(self.factor.all()):
            estimate *= self.factor[:, None]
            error = error * self.factor[:, None]
        if self.item_bias is not None:
            offset = self.item_bias[tile].double()
            estimate += offset
            error = error + offset.abs() * 2.0**-50
        upper = (estimate + error).float()
        keep = ~(upper < self._threshold(estimate - error, tile, filters)[:, None])
        filters.apply(keep, tile, False)
        query, item = keep.nonzero(as_tuple=True)
        return Proposals(query, item + tile.start)

    def _threshold(self, lower: Tensor, tile: slice, filters: Filters) -> Tensor:
        """What an item of this tile must reach to be among the k best of its query, [B].

        An equal score is not enough where k items are decided: theirs are the smaller ids.
        """
        full = self.ids[:, -1] != _LAST
        infinity = torch.full_like(self.scores[:, -1], torch.inf)
        decided = torch.where(full, self.scores[:, -1].nextafter(infinity), -infinity)
        if lower.shape[1] < self.kept or bool(full.all()):
            return decided
        filters.apply(lower, tile, -torch.inf)
        lower = lower.nan_to_num(nan=-torch.inf)
        return torch.maximum(decided, lower.topk(self.kept).values[:, -1].float())

    def _decide(self, pending: list[Proposals]) -> None:
        """Score the proposals with the reference score and keep the k best of each query."""
        if not pending:
            return
        query = torch.cat([p.query for p in pending])
        item = torch.cat([p.item for p in pending])
        scores = torch.empty(query.shape, dtype=torch.float32, device=query.device)
        step = max(1, RESCORE_ELEMENTS // max(1, self.rows.dim))
        for start in range(0, query.shape[0], step):
            part = slice(start, start + step)
            scores[part] = self._score(query[part], item[part])
        rows = torch.arange(self.queries.shape[0], device=query.device)
        query = torch.cat([rows.repeat_interleave(self.kept), query])
        scores = torch.cat([self.scores.flatten(), scores])
        item = torch.cat([self.ids.flatten(), item])
        # Least significant key first: three stable sorts make (query, score down, id) order.
        order = item.argsort(stable=True)
        order = order[scores[order].argsort(descending=True, stable=True)]
        order = order[query[order].argsort(stable=True)]
        query = query[order]
        first = torch.searchsorted(query, rows)
        best = order[(first[:, None] + torch.arange(self.kept, device=query.device)).flatten()]
        self.scores = scores[best].view_as(self.scores)
        self.ids = item[best].view_as(self.ids)

    def _score(self, query: Tensor, item: Tensor) -> Tensor:
        """The reference score of each pair, [n] float32: the definition of the result."""
        items = self.rows.widen(item)
        similarity = score.lane_dot(self.queries[query], items)
        if self.metric == COSINE:
            known = self.rows.inverse_norms
            inverse = known[item] if known is not None else score.invert(score.norms(items))
            similarity = similarity * self.inverse[query] * inverse
        if self.item_scale is not None:
            similarity = similarity * self.item_scale[item].double()
        offset = 0.0 if self.item_bias is None else self.item_bias[item].double()
        return (similarity + offset).float()

    def _padded(self) -> tuple[Tensor, Tensor]:
        """Scores and ids with k columns: id -1 and score -inf where there are no more items."""
        scores = self.scores.new_full((self.scores.shape[0], self.k), -torch.inf)
        ids = torch.full_like(scores, -1, dtype=torch.int64)
        scores[:, : self.kept] = self.scores
        ids[:, : self.kept] = self.ids.masked_fill(self.ids == _LAST, -1)
        return scores, ids


def _checked_norms(items: Tensor, tile: slice) -> Tensor:
    """Norms for the bound alone, [n] float64: float32's own, and float64's where those may fail."""
    lengths: Tensor = torch.linalg.vector_norm(items, dim=1).double()
    extreme = ~((lengths > 1e-12) & (lengths < 1e18))  # squares that under- or overflow, or NaN
    if bool(extreme.any()):
        lengths[extreme] = torch.linalg.vector_norm(items[extreme], dim=1, dtype=torch.float64)
    contents.finite_rows("items", lengths, tile.start)
    return lengths


def _product(queries: Tensor, items: Tensor) -> Tensor:
    """`queries @ items.T` with float32's rounding or a finer one, [B, n].

    Where the user lowered torch's matrix product precision (which is a global setting, not ours
    to change), float64 is what that setting leaves alone.
    """
    if _lowered_precision(items.device.type):
        queries, items = queries.double(), items.double()
    product: Tensor = queries @ items.T
    return product


def _lowered_precision(device: str) -> bool:
    backend = torch.backends.cuda if device == "cuda" else torch.backends.mkldnn
    if backend.matmul.fp32_precision not in ("none", "ieee"):
        return True
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # the settings were mixed: torch itself cannot tell
        return True
