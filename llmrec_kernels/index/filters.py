"""Which rows a search may return: external ids turned into positions, and cut to a part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmrec_kernels.ops import checks
from llmrec_kernels.ragged import Ragged, is_flat


class Positions(NamedTuple):
    """Positions for all queries, or a list of them for each query where there are offsets."""

    values: Tensor  # [nnz] int64
    offsets: Tensor | None  # [B + 1] int64

    @staticmethod
    def of(
        name: str, ids: Any, count: int, known: Mapping[int, int], device: torch.device
    ) -> Positions:
        """The positions of external ids for `count` queries.

        An id that is not there is -1 in `exclude`, which means nothing, and refused in `allow`.
        """
        if str(getattr(ids, "dtype", "")).endswith("bool"):
            raise TypeError(
                f"{name} is a bool mask; expected external ids, for an index has no order of rows"
            )
        if is_flat(ids):
            values, offsets = checks.id_array(name, ids, "[n]"), None
        else:
            lists = Ragged.of(ids, name=name)
            if len(lists) != count:
                raise ValueError(f"{name} has {len(lists)} lists but there are {count} queries")
            values, offsets = lists.values, lists.offsets.to(device)
        listed = values.tolist()
        places = [known.get(one, -1) for one in listed]
        if name == "allow" and -1 in places:
            unknown = listed[places.index(-1)]
            raise IndexError(f"allow holds {unknown}, which is not in the index")
        return Positions(torch.tensor(places, dtype=torch.int64, device=device), offsets)

    def argument(self) -> Tensor | Ragged:
        """As `cosine_topk` takes it."""
        return self.values if self.offsets is None else Ragged(self.values, self.offsets)

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
        """Each position replaced by its rank; -1 stays."""
        return Positions(torch.where(self.values < 0, self.values, rank[self.values]), self.offsets)

    def within(self, start: int, stop: int) -> Positions:
        """Those in `start .. stop - 1`, counted from `start`."""
        keep = (self.values >= start) & (self.values < stop)
        offsets = self.offsets
        if offsets is not None:
            offsets = torch.nn.functional.pad(keep.cumsum(0), (1, 0))[offsets]
        return Positions(self.values[keep] - start, offsets)
