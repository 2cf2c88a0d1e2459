"""Which items a query may return, tile by tile, for the plain torch reference."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from llmrec_kernels.ops import contents


class Lists(NamedTuple):
    """Ids per query, sorted by (item, query) so that a tile's are one slice."""

    item: Tensor  # [nnz] int64, ascending
    query: Tensor  # [nnz] int64

    @staticmethod
    def prepare(ids: Tensor, offsets: Tensor, first: int, last: int) -> Lists:
        """The lists of queries `first .. last - 1`, numbered from 0."""
        counts = offsets[1:] - offsets[:-1]
        query = torch.arange(counts.shape[0], device=ids.device).repeat_interleave(counts)
        inside = (query >= first) & (query < last)
        item, query = ids[inside], query[inside] - first
        order = item.argsort()
        return Lists(item[order], query[order])

    def within(self, tile: slice) -> tuple[Tensor, Tensor]:
        """The (query, item - tile.start) pairs of a tile."""
        bounds = torch.tensor([tile.start, tile.stop], device=self.item.device)
        low, high = torch.searchsorted(self.item, bounds).tolist()
        return self.query[low:high], self.item[low:high] - tile.start


class Filters(NamedTuple):
    """What may be returned: an item must pass every filter that there is.

    Parameters
    ----------
    allowed : Tensor, [N] bool, or None
        For all queries.
    mask : Tensor, [B, N] bool, or None
        For each query.
    exclude, allow : (ids, offsets), or None
        For each query, a list.
    """

    allowed: Tensor | None
    mask: Tensor | None
    exclude: tuple[Tensor, Tensor] | Lists | None
    allow: tuple[Tensor, Tensor] | Lists | None

    @staticmethod
    def prepare(
        width: int,
        exclude_ids: Tensor | None,
        exclude_offsets: Tensor | None,
        allow_mask: Tensor | None,
        allow_ids: Tensor | None,
        allow_offsets: Tensor | None,
    ) -> Filters:
        """Check the filters' contents, and fold those that are for all queries into one mask."""
        for name, ids, offsets in (
            ("exclude", exclude_ids, exclude_offsets),
            ("allow", allow_ids, allow_offsets),
        ):
            if ids is not None and offsets is not None:
                contents.offsets(f"{name} offsets", offsets, ids.shape[0])
        if allow_ids is not None:
            contents.in_range("allow", allow_ids, width)
        allowed = allow_mask if allow_mask is not None and allow_mask.dim() == 1 else None
        if allow_ids is not None and allow_offsets is None:
            allowed = torch.zeros(width, dtype=torch.bool, device=allow_ids.device)
            allowed[allow_ids] = True
        if exclude_ids is not None and exclude_offsets is None:
            known = exclude_ids[(exclude_ids >= 0) & (exclude_ids < width)]
            allowed = (
                known.new_ones(width, dtype=torch.bool) if allowed is None else allowed.clone()
            )
            allowed[known] = False
        mask = allow_mask if allow_mask is not None and allow_mask.dim() == 2 else None
        return Filters(
            allowed, mask, _lists(exclude_ids, exclude_offsets), _lists(allow_ids, allow_offsets)
        )

    def of_queries(self, part: slice) -> Filters:
        """The filters of some of the queries."""
        mask = None if self.mask is None else self.mask[part]
        lists = (
            None if pair is None else Lists.prepare(pair[0], pair[1], part.start, part.stop)
            for pair in (self.exclude, self.allow)
        )
        return Filters(self.allowed, mask, *lists)

    def apply(self, values: Tensor, tile: slice, refused: float | bool) -> None:
        """Overwrite the values [B, n] of the tile's items that a query may not return."""
        if self.allowed is not None:
            values.masked_fill_(~self.allowed[tile], refused)
        if self.mask is not None:
            values.masked_fill_(~self.mask[:, tile], refused)
        if isinstance(self.allow, Lists):
            query, item = self.allow.within(tile)
            hidden = torch.ones(values.shape, dtype=torch.bool, device=values.device)
            hidden[query, item] = False
            values.masked_fill_(hidden, refused)
        if isinstance(self.exclude, Lists):
            query, item = self.exclude.within(tile)
            values[query, item] = refused


def _lists(ids: Tensor | None, offsets: Tensor | None) -> tuple[Tensor, Tensor] | None:
    return None if ids is None or offsets is None else (ids, offsets)
