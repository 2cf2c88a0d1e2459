"""`Snapshot`: an index as it was after one of its changes, for any number of questions."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from llmrec_kernels.index.filters import Wanted
from llmrec_kernels.index.search import Query, search
from llmrec_kernels.index.version import Part, Version
from llmrec_kernels.ops import TopK, checks
from llmrec_kernels.ops.arrays import returner
from llmrec_kernels.ops.cosine_topk import PRECISIONS

CHUNK = 1 << 16  # ids read at a time


class Snapshot:
    """What an `ItemIndex` holds at one moment; later changes do not show in it.

    Made by `ItemIndex.snapshot`, at the cost of a reference. It keeps the rows alive that it sees,
    also those that the index has replaced since.

    Examples
    --------
    >>> from llmrec_kernels import ItemIndex
    >>> index = ItemIndex(2)
    >>> index.add([7, 3], torch.eye(2))
    >>> before = index.snapshot()
    >>> index.remove([7])
    >>> list(before), list(index), before.version, index.version
    ([3, 7], [3], 1, 2)
    """

    def __init__(self, version: Version, dim: int, metric: str, device: torch.device) -> None:
        self._version, self._dim, self._metric, self._device = version, dim, metric, device

    @property
    def version(self) -> int:
        """How many changes the index had seen: each `add`, `update` and `remove` is one."""
        return self._version.number

    def __len__(self) -> int:
        return self._version.live

    def __contains__(self, item_id: object) -> bool:
        if isinstance(item_id, bool) or not hasattr(item_id, "__index__"):
            return False
        one = item_id.__index__()
        return -(2**63) <= one < 2**63 and self._version.has(one)

    def __iter__(self) -> Iterator[int]:
        """The ids, ascending."""
        return heapq.merge(*(_ids(part) for part in self._version.parts if part.live))

    def __repr__(self) -> str:
        return f"<Snapshot of version {self.version}: {len(self):,} vectors of {self._dim}>"

    def search(
        self,
        queries: Any,
        k: int,
        *,
        exclude: Any = None,
        allow: Any = None,
        precision: str = "exact",
    ) -> TopK:
        """Find the k best items of each query: `ItemIndex.search` says how."""
        vectors = checks.float_array("queries", queries, "[B, dim]")
        if vectors.shape[1] != self._dim:
            raise ValueError(
                f"queries has {vectors.shape[1]} columns but the index has {self._dim}"
            )
        if vectors.device != self._device:
            raise ValueError(f"queries is on {vectors.device} but the index is on {self._device}")
        checks.choice("precision", precision, PRECISIONS)
        count = vectors.shape[0]
        found = search(
            self._version,
            Query(vectors.detach().float(), checks.positive_int("k", k), self._metric, precision),
            Wanted.of("exclude", exclude, count),
            Wanted.of("allow", allow, count),
        )
        back = returner(queries)
        return TopK(back(found.scores), back(found.ids))

    def vectors(self, ids: Any) -> Any:
        """The vectors of some items, as they are kept: `ItemIndex.vectors` says how."""
        wanted = checks.id_array("ids", ids, "[n]").cpu().numpy()
        places = self._version.known("ids", wanted)
        result = torch.empty(wanted.shape[0], self._dim, dtype=torch.float32, device=self._device)
        for number, part in enumerate(self._version.parts):
            here = (places.part == number).nonzero()[0]
            if not here.shape[0]:
                continue
            positions = places.position[here]
            rows = part.block.some(positions).rows
            result[torch.from_numpy(here).to(self._device)] = rows.widen(
                torch.from_numpy(positions).to(self._device)
            )
        return returner(ids)(result.cpu() if isinstance(ids, np.ndarray) else result)


def _ids(part: Part) -> Iterator[int]:
    """The ids of a part, ascending."""
    ids = part.block.host_ids
    if not part.block.ascending:
        yield from np.sort(ids[part.left()]).tolist()
        return
    for start in range(0, part.block.count, CHUNK):
        positions = np.arange(start, min(start + CHUNK, part.block.count))
        kept = ~part.block.removals.has(positions, part.removed)
        yield from ids[positions[kept]].tolist()
