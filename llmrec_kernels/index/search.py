"""The k best rows of an index, equal scores in the order of their external ids, also at the cut.

Each part is searched by itself, and the k best of all parts are the k best of their k best.

`cosine_topk` breaks ties by position. In a segment positions are in the order of the ids, which is
the order wanted. In the tail they may not be: there a few more rows than k are asked for. If the
score drops among those, every row that ties with the k-th is at hand, and it remains to sort runs
of equal scores by id. Only queries whose run goes on beyond them (duplicates by the dozen, a zero
query) take a second look, at the rows gathered block by block in the order of their ids, until k
rows with the score of the cut are found: at most about the price of one more search, in bounded
memory.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from llmrec_kernels.index.filters import Filters, Wanted, filters_by_part
from llmrec_kernels.index.segment import Segment
from llmrec_kernels.index.tail import Prefix
from llmrec_kernels.index.version import Version
from llmrec_kernels.ops import TopK, cosine_topk

MORE = 16  # rows asked for beyond k, to see short runs of equal scores end
FIRST = 1024  # rows gathered first: enough where whole stretches of rows score alike
BLOCK = 1 << 22  # elements gathered at a time, at most

Found = tuple[Tensor, Tensor]  # scores, NaN where there is no row, and external ids


class Query(NamedTuple):
    """What is asked for.

    Parameters
    ----------
    vectors : Tensor, [B, dim] float32
    k : int
    metric, precision : str
        As for `cosine_topk`.
    """

    vectors: Tensor
    k: int
    metric: str
    precision: str


def search(version: Version, query: Query, exclude: Wanted | None, allow: Wanted | None) -> TopK:
    """The best items under their external ids; score -inf and id -1 where there are no more."""
    wanted = zip(
        version.parts,
        filters_by_part(version, exclude, allow, query.vectors.device),
        strict=True,
    )
    found = [
        PartSearch(query, part.block, filters).best()
        for part, filters in wanted
        if part.live and not filters.nothing
    ]
    if not found:
        found = [_nothing(query)]
    scores, ids = found[0] if len(found) == 1 else _merged(found, query.k)
    missing = scores.isnan()
    return TopK(scores.masked_fill(missing, -torch.inf), ids.masked_fill(missing, -1))


class PartSearch(NamedTuple):
    """A search of one part."""

    query: Query
    block: Segment | Prefix
    filters: Filters

    def best(self) -> Found:
        """The k best rows."""
        k, count = self.query.k, self.block.count
        if self.block.ascending:
            return self._topk(k)
        wanted = min(k + MORE, max(k, count))
        scores, ids = _by_id(*self._topk(wanted))
        cut = scores[:, k - 1]
        goes_on = (cut == scores[:, -1]).nonzero()[:, 0]
        scores, ids = scores[:, :k], ids[:, :k]
        if wanted < count and goes_on.shape[0]:
            cut = cut[goes_on, None]
            above = scores[goes_on].where(scores[goes_on] > cut, torch.nan), ids[goes_on]
            level = self._of_queries(goes_on)._at(cut, above[0].isnan().sum(1))
            scores[goes_on], ids[goes_on] = _merged([above, level], k)
        return scores, ids

    def _at(self, cut: Tensor, needed: Tensor) -> Found:
        """The rows whose score is `cut` [B, 1], the first `needed` [B] in the order of their ids.

        As `_topk` returns rows. All but `needed` of the k best score above the cut, so the k best
        of a block leave that many places to its rows at the cut.
        """
        k, count = self.query.k, self.block.count
        order = self.block.ids.argsort(stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(count, device=order.device)
        ranked = self._replace(filters=self.filters.mapped(rank))
        scores = cut.new_full((cut.shape[0], k), torch.nan)
        ids = torch.zeros_like(scores, dtype=torch.int64)
        short = torch.arange(scores.shape[0], device=scores.device)  # queries not yet answered
        start, step = 0, FIRST
        while start < count and short.shape[0]:
            stop = min(start + step, count)
            block = ranked._of_queries(short)._within(start, stop)
            found = block._topk(min(k, stop - start), order[start:stop])
            level = found[0].where(found[0] == cut[short], torch.nan), found[1]
            scores[short], ids[short] = _merged([(scores[short], ids[short]), level], k)
            short = short[scores[short, needed[short] - 1].isnan()]
            start, step = stop, max(1, min(2 * step, BLOCK // self.query.vectors.shape[1]))
        return scores, ids

    def _topk(self, k: int, rows: Tensor | None = None) -> Found:
        """Scores and ids of the best of all or these rows, by position where scores are equal."""
        items, ids, everything = self.block.items, self.block.ids, self.block.all
        bias, scale = everything.bias, everything.scale
        if rows is not None:
            items, ids = items.take(rows), ids[rows]
            bias, scale = (each if each is None else each[rows] for each in (bias, scale))
        exclude, allow = self.filters.arguments(ids.shape[0])
        scores, places = cosine_topk(
            self.query.vectors,
            items,
            k,
            metric=self.query.metric,
            item_bias=bias,
            item_scale=scale,
            exclude=exclude,
            allow=allow,
            precision=self.query.precision,
        )
        return scores.masked_fill(places < 0, torch.nan), ids[places.clamp(min=0)]

    def _of_queries(self, queries: Tensor) -> PartSearch:
        vectors = self.query.vectors[queries]
        return self._replace(
            query=self.query._replace(vectors=vectors), filters=self.filters.of_queries(queries)
        )

    def _within(self, start: int, stop: int) -> PartSearch:
        return self._replace(filters=self.filters.within(start, stop))


def _nothing(query: Query) -> Found:
    cosine_topk(query.vectors, query.vectors[:0], 1)  # refuses what every search refuses
    scores = query.vectors.new_full((query.vectors.shape[0], query.k), torch.nan)
    return scores, torch.zeros_like(scores, dtype=torch.int64)


def _merged(found: list[Found], k: int) -> Found:
    """The k best of several lists of rows."""
    scores, ids = (torch.cat(each, 1) for each in zip(*found, strict=True))
    scores, ids = _by_id(scores, ids)
    return scores[:, :k], ids[:, :k]


def _by_id(scores: Tensor, ids: Tensor) -> Found:
    """Sort rows by score down, by id where scores are equal; NaN, which is no item, comes last."""
    ids, order = ids.sort(dim=1, stable=True)
    negative, by_score = (-scores).gather(1, order).sort(dim=1, stable=True)
    return -negative, ids.gather(1, by_score)
