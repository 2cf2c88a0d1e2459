"""Which rows a search may return: external ids turned into positions, and cut to a part."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmrec_kernels.index.segment import Ids
from llmrec_kernels.index.version import Part, Version
from llmrec_kernels.ops import checks, contents
from llmrec_kernels.ragged import Ragged, is_flat


class Positions(NamedTuple):
    """Positions for all queries, or a list of them for each query where there are offsets."""

    values: Tensor  # [nnz] int64
    offsets: Tensor | None  # [B + 1] int64

    def argument(self) -> Tensor | Ragged:
        """As `cosine_topk` takes it."""
        return self.values if self.offsets is None else Ragged(self.values, self.offsets)

    def kept(self, keep: Tensor) -> Positions:
        """Those that are marked."""
        offsets = self.offsets
        if offsets is not None:
            offsets = torch.nn.functional.pad(keep.cumsum(0), (1, 0))[offsets]
        return Positions(self.values[keep], offsets)

    def of_queries(self, queries: Tensor) -> Positions:
        """The lists of these queries."""
        if self.offsets is None:
            return self
        starts, counts = self.offsets[queries], self.offsets.diff()[queries]
        ends = counts.cumsum(0)
        shift = (starts - ends + counts).repeat_interleave(counts)
        values = self.values[torch.arange(shift.shape[0], device=shift.device) + shift]
        return Positions(values, torch.nn.functional.pad(ends, (1, 0)))

    def mapped(self, rank: Tensor) -> Positions:
        """Each position replaced by its rank."""
        return Positions(rank[self.values], self.offsets)

    def within(self, start: int, stop: int) -> Positions:
        """Those in `start .. stop - 1`, counted from `start`."""
        inside = self.kept((self.values >= start) & (self.values < stop))
        return Positions(inside.values - start, inside.offsets)


class Filters(NamedTuple):
    """What holds for the rows of one part.

    Parameters
    ----------
    gone : Positions or None
        Rows that were removed.
    exclude, allow : Positions or None
        What the caller wishes. Removed rows are in neither.
    """

    gone: Positions | None
    exclude: Positions | None
    allow: Positions | None

    def of_queries(self, queries: Tensor) -> Filters:
        """What holds for these queries."""
        return Filters(*(each and each.of_queries(queries) for each in self))

    def mapped(self, rank: Tensor) -> Filters:
        """The same with each position replaced by its rank."""
        return Filters(*(each and each.mapped(rank) for each in self))

    def within(self, start: int, stop: int) -> Filters:
        """What holds for the rows `start .. stop - 1`, counted from `start`."""
        return Filters(*(each and each.within(start, stop) for each in self))

    @property
    def nothing(self) -> bool:
        """Whether no row may be returned."""
        return self.allow is not None and self.allow.values.shape[0] == 0

    def arguments(self, count: int) -> tuple[Tensor | Ragged | None, Tensor | Ragged | None]:
        """What to exclude and what to allow, as `cosine_topk` takes it, for `count` rows."""
        some = self.exclude is not None and self.exclude.values.shape[0] > 0
        exclude = self.exclude.argument() if self.exclude is not None and some else None
        allow = self.allow and self.allow.argument()
        if self.gone is not None and allow is None:
            if exclude is None:
                exclude = self.gone.values
            elif isinstance(exclude, Tensor):
                exclude = torch.cat([self.gone.values, exclude])
            else:
                allow = torch.ones(count, dtype=torch.bool, device=self.gone.values.device)
                allow[self.gone.values] = False
        return exclude, allow


class Wanted(NamedTuple):
    """External ids for all queries, or a list of them for each query where there are offsets."""

    name: str
    ids: Ids  # [nnz] int64
    offsets: Tensor | None  # [B + 1] int64

    @staticmethod
    def of(name: str, ids: Any, count: int) -> Wanted | None:
        """What the caller wrote, for `count` queries."""
        if ids is None:
            return None
        if str(getattr(ids, "dtype", "")).endswith("bool"):
            raise TypeError(
                f"{name} is a bool mask; expected external ids, for an index has no order of rows"
            )
        if is_flat(ids):
            return Wanted(name, checks.id_array(name, ids, "[n]").cpu().numpy(), None)
        lists = Ragged.of(ids, name=name)
        if len(lists) != count:
            raise ValueError(f"{name} has {len(lists)} lists but there are {count} queries")
        contents.offsets(f"{name} offsets", lists.offsets, lists.values.shape[0])
        return Wanted(name, lists.values.cpu().numpy(), lists.offsets)

    def by_part(self, version: Version, device: torch.device) -> list[Positions]:
        """The positions in each part; ids that are not there mean nothing, but in `allow`."""
        find = version.find if self.name == "exclude" else partial(version.known, self.name)
        places = find(self.ids)
        part, position = (torch.from_numpy(each).to(device) for each in places)
        every = Positions(position, None if self.offsets is None else self.offsets.to(device))
        return [every.kept(part == number) for number in range(len(version.parts))]


def filters_by_part(
    version: Version, exclude: Wanted | None, allow: Wanted | None, device: torch.device
) -> Iterator[Filters]:
    """What holds for the rows of each part."""
    nothing = [None] * len(version.parts)
    excluded = nothing if exclude is None else exclude.by_part(version, device)
    allowed = nothing if allow is None else allow.by_part(version, device)
    for part, exclude_, allow_ in zip(version.parts, excluded, allowed, strict=True):
        yield Filters(_gone(part, device), exclude_, allow_)


def _gone(part: Part, device: torch.device) -> Positions | None:
    if part.removed == 0:
        return None
    return Positions(torch.from_numpy(part.gone()).to(device), None)
