"""The k best rows of an index, equal scores in the order of their external ids, also at the cut.

`cosine_topk` breaks ties by position. Where positions are in the order of the ids, that is the
order wanted. Where they are not, a few more rows than k are asked for: if the score drops among
those, every row that ties with the k-th is at hand, and it remains to sort runs of equal scores
by id. Only queries whose run goes on beyond them (duplicates by the dozen, a zero query) take a
second look, at the rows gathered block by block in the order of their ids, until k rows with the
score of the cut are found: at most about the price of one more search, in bounded memory.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from llmrec_kernels.index.filters import Positions
from llmrec_kernels.index.storage import Storage
from llmrec_kernels.ops import TopK, cosine_topk

MORE = 16  # rows asked for beyond k, to see short runs of equal scores end
FIRST = 1024  # rows gathered first: enough where whole stretches of rows score alike
BLOCK = 1 << 22  # elements gathered at a time, at most


class Search(NamedTuple):
    """What is asked of the rows of an index.

    Parameters
    ----------
    queries : Tensor, [B, dim] float32
    k : int
    exclude, allow : Positions, or None
    metric, precision : str
        As for `cosine_topk`.
    """

    queries: Tensor
    k: int
    exclude: Positions | None
    allow: Positions | None
    metric: str
    precision: str

    def best(self, rows: Storage) -> TopK:
        """The best rows under their external ids; score -inf and id -1 where there are no more."""
        everything = slice(None)
        if rows.ascending:
            return _padded(*self._topk(rows, everything, self.k))
        wanted = min(self.k + MORE, max(self.k, rows.count))
        scores, ids = _by_id(*self._topk(rows, everything, wanted))
        cut = scores[:, self.k - 1]
        goes_on = (cut == scores[:, -1]).nonzero()[:, 0]
        scores, ids = scores[:, : self.k], ids[:, : self.k]
        if wanted < rows.count and goes_on.shape[0]:
            cut = cut[goes_on, None]
            above = scores[goes_on].where(scores[goes_on] > cut, torch.nan), ids[goes_on]
            level = self._of_queries(goes_on)._at(rows, cut, above[0].isnan().sum(1))
            scores[goes_on], ids[goes_on] = self._merged(above, level)
        return _padded(scores, ids)

    def _at(self, rows: Storage, cut: Tensor, needed: Tensor) -> tuple[Tensor, Tensor]:
        """The rows whose score is `cut` [B, 1], the first `needed` [B] in the order of their ids.

        As `_topk` returns rows. All but `needed` of the k best score above the cut, so the k best
        of a block leave that many places to its rows at the cut.
        """
        order = rows.ids.argsort()
        rank = torch.empty_like(order)
        rank[order] = torch.arange(rows.count, device=order.device)
        ranked = self._replace(
            exclude=self.exclude and self.exclude.mapped(rank),
            allow=self.allow and self.allow.mapped(rank),
        )
        scores = self.queries.new_full((self.queries.shape[0], self.k), torch.nan)
        ids = torch.zeros_like(scores, dtype=torch.int64)
        short = torch.arange(scores.shape[0], device=scores.device)  # queries not yet answered
        start, step = 0, FIRST
        while start < rows.count and short.shape[0]:
            stop = min(start + step, rows.count)
            block = ranked._of_queries(short)._within(start, stop)
            found = block._topk(rows, order[start:stop], min(self.k, stop - start))
            level = found[0].where(found[0] == cut[short], torch.nan), found[1]
            scores[short], ids[short] = self._merged((scores[short], ids[short]), level)
            short = short[scores[short, needed[short] - 1].isnan()]
            start, step = stop, max(1, min(2 * step, BLOCK // rows.dim))
        return scores, ids

    def _merged(
        self, some: tuple[Tensor, Tensor], more: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The k best of two lists of rows."""
        scores, ids = (torch.cat(pair, 1) for pair in zip(some, more, strict=True))
        scores, ids = _by_id(scores, ids)
        return scores[:, : self.k], ids[:, : self.k]

    def _topk(self, rows: Storage, part: slice | Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Scores and external ids of the best of these rows; NaN where there are no more."""
        bias, scale = rows.modifiers(part)
        scores, places = cosine_topk(
            self.queries,
            rows.packed(part),
            k,
            metric=self.metric,
            item_bias=bias,
            item_scale=scale,
            exclude=None if self.exclude is None else self.exclude.argument(),
            allow=None if self.allow is None else self.allow.argument(),
            precision=self.precision,
        )
        if rows.count == 0:
            return scores.fill_(torch.nan), places
        ids = rows.ids[part][places.clamp(min=0)]
        return scores.masked_fill(places < 0, torch.nan), ids

    def _of_queries(self, queries: Tensor) -> Search:
        return self._replace(
            queries=self.queries[queries],
            exclude=self.exclude and self.exclude.of_queries(queries),
            allow=self.allow and self.allow.of_queries(queries),
        )

    def _within(self, start: int, stop: int) -> Search:
        return self._replace(
            exclude=self.exclude and self.exclude.within(start, stop),
            allow=self.allow and self.allow.within(start, stop),
        )


def _by_id(scores: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Sort rows by score down, by id where scores are equal; NaN, which is no item, comes last."""
    ids, order = ids.sort(dim=1, stable=True)
    negative, by_score = (-scores).gather(1, order).sort(dim=1, stable=True)
    return -negative, ids.gather(1, by_score)


def _padded(scores: Tensor, ids: Tensor) -> TopK:
    """As the public functions fill what is not there."""
    missing = scores.isnan()
    return TopK(scores.masked_fill(missing, -torch.inf), ids.masked_fill(missing, -1))
