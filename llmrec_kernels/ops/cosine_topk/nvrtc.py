"""Certified exact top-K by NVRTC: the kernels and the launches of csrc/cosine_topk/topk.cu."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llmrec_kernels.ops import nvrtc_common as nvrtc
from llmrec_kernels.ops.cosine_topk.nvrtc_plan import (
    BLOCK_ITEMS,
    DECIDERS,
    FEW_QUERIES,
    GROUP,
    MOST_DECIDERS,
    SCAN_TILES,
    SCANNERS,
    TILE_ITEMS,
    WARP,
    Plan,
    Tuning,
    deciders_of,
    padded,
    scan_for,
)
from llmrec_kernels.ops.cosine_topk.reference import COSINE
from llmrec_kernels.ops.cosine_topk.schema import offer
from llmrec_kernels.ops.pack import nvrtc as packing
from llmrec_kernels.ops.rows import Rows, Sketch

SOURCE = "cosine_topk/topk.cu"
TUNING = Tuning()

CALL = nvrtc.struct(
    ("items", nvrtc.ROWS), "item_bias", "item_scale", "codes", "unit_scale", "residual", "lengths",
    "first", "end", "tile_step", "sampling", "again", "words", "words_stride", "queries", "count",
    "most_code", "cosine", "exact", "k", "query_codes", "query_terms", "query_inverse", "state",
    "threshold", "found", "kept", "sampled", "lows", "capacity", "estimates", "slacks", "entries",
    "keys", "group_keys", "scores", "ids", "marked", "marked_rows", "mask", "mask_rows", "marks",
    "mark_offsets", "mark_count", "mark_total", "allowing",
)  # fmt: skip
_FIXED = (
    "begin_filter", "apply_mask", "mark_ids", "sketch_queries", "set_threshold", "narrow",
    "choose_groups", "write_results",
)  # fmt: skip


class Lists(NamedTuple):
    """Ids that are listed: for all queries, or with offsets for each; contiguous."""

    ids: Tensor
    offsets: Tensor | None

    @classmethod
    def of(cls, ids: Tensor | None, offsets: Tensor | None) -> Lists | None:
        """None where there is no such filter."""
        if ids is None:
            return None
        return cls(ids.contiguous(), None if offsets is None else offsets.contiguous())


class Filters(NamedTuple):
    """What queries may have. A mask is [N] or [B, N]."""

    mask: Tensor | None
    exclude: Lists | None
    allow: Lists | None

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return not all(part is None for part in self)

    @property
    def per_query(self) -> bool:
        """Whether they differ by query."""
        lists = [part for part in (self.exclude, self.allow) if part is not None]
        return any(part.offsets is not None for part in lists) or (
            self.mask is not None and self.mask.dim() == 2 and self.mask.shape[0] > 1
        )


class Search:
    """One call: its plan, its workspace and the struct that kernels take."""

    def __init__(
        self, queries: Tensor, rows: Rows, k: int, metric: int, item_bias: Tensor | None,
        item_scale: Tensor | None, filters: Filters, exact: bool,
    ) -> None:  # fmt: skip
        self.queries, self.filters, self.k = queries.contiguous(), filters, k
        self.items = nvrtc.DeviceRows.of(rows)
        self.sketch = None if rows.sketch is None else nvrtc.packed(*rows.sketch)
        codes = 0 if self.sketch is None else nvrtc.pointer(self.sketch[0])
        if codes == 0 or codes % 16 != 0:  # kernels read 16 bytes of codes at a time
            self.sketch = None
        self.terms = nvrtc.packed(item_bias, item_scale)
        self.count: int = queries.shape[0]
        self.width: int = rows.data.shape[0]
        self.dim = rows.dim
        self.plan = Plan.of(
            self.count, self.width, self.dim, k, filters.any, filters.per_query,
            self.sketch is not None, TUNING,
        )  # fmt: skip
        self.scores = queries.new_empty(self.count, k, dtype=torch.float32)
        self.ids = queries.new_empty(self.count, k, dtype=torch.int64)
        self.call = np.zeros((), CALL)
        self._lay_out()
        self.call["items"] = self.items.values
        self.call["item_bias"], self.call["item_scale"] = map(nvrtc.pointer, self.terms)
        self.call["most_code"] = min(127, 0x7FFFFFFF // (255 * max(1, self.dim)))
        self.call["cosine"], self.call["exact"] = metric == COSINE, exact
        self.call["k"] = k
        self.call["sampled"], self.call["capacity"] = self.plan.sampled, self.plan.capacity

    def run(self) -> None:
        """Launch everything."""
        with nvrtc.kernels(self.queries.device, self._needed()) as self.launch:
            for start in range(0, self.count, self.plan.batch):
                self._search(start, min(self.plan.batch, self.count - start))

    def _lay_out(self) -> None:
        """Share the workspace out; its parts begin at multiples of 256 bytes."""
        sizes = self.plan.sizes(self.dim)
        self.workspace = self.queries.new_empty(sum(sizes.values()), dtype=torch.uint8)
        place = nvrtc.pointer(self.workspace)
        self.made = {}
        for name, size in sizes.items():
            if name.startswith("made_"):
                self.made[name.removeprefix("made_")] = place
            else:
                self.call[name] = place
            place += size

    def _needed(self) -> dict[str, list[str]]:
        storage = self.items.storage
        names = [nvrtc.expression(kernel) for kernel in _FIXED]
        batches = {min(self.plan.batch, self.count), self.count % self.plan.batch} - {0}
        names += sorted({scan_for(batch).kernel for batch in batches})
        names += [nvrtc.expression(kernel, storage) for kernel in ("score_groups", "rescore")]
        needed = {SOURCE: names}
        if self.sketch is None:
            needed[packing.SOURCE] = [packing.kernel_of(storage)]
        return needed

    def _search(self, start: int, count: int) -> None:
        call = self.call
        call["queries"] = nvrtc.pointer(self.queries) + 4 * start * self.dim
        call["count"] = count
        call["scores"] = nvrtc.pointer(self.scores) + 4 * start * self.k
        call["ids"] = nvrtc.pointer(self.ids) + 8 * start * self.k
        if self.plan.filtered and self.width > 0:
            self._filter(start)
        scan = scan_for(count)
        rows = padded(count, FEW_QUERIES if scan.few else scan.queries)
        self._share("sketch_queries", nvrtc.parts(rows, DECIDERS // WARP))
        for first in range(0, self.width, self.plan.chunk):
            self._search_chunk(first, min(self.plan.chunk, self.width - first))
        self._decide(count)

    def _share(self, kernel: str, *grid: int) -> None:
        """All queries share the blocks."""
        self.launch(nvrtc.expression(kernel), grid, DECIDERS, 0, self.call)

    def _each(self, kernel: str, shared: int = nvrtc.SELECTION_BYTES) -> None:
        """A query has a block to itself."""
        count = int(self.call["count"])
        threads = deciders_of(count, MOST_DECIDERS)
        self.launch(nvrtc.expression(kernel), (count,), threads, shared, self.call)

    def _filter(self, start: int) -> None:
        call, plan, filters = self.call, self.plan, self.filters
        rows = int(call["count"]) if plan.per_query else 1
        call["marked_rows"] = rows
        call["words"] = call["marked"]
        call["words_stride"] = plan.groups if plan.per_query else 0
        call["allowing"] = filters.allow is not None
        self._share("begin_filter", nvrtc.parts(plan.groups * rows, DECIDERS))
        if filters.allow is not None:
            self._mark(filters.allow, start)
        if filters.mask is not None:
            for_all = filters.mask.dim() == 1 or filters.mask.shape[0] == 1
            call["mask"] = nvrtc.pointer(filters.mask) + (0 if for_all else start * self.width)
            call["mask_rows"] = 1 if for_all else filters.mask.shape[0]
            self._share("apply_mask", nvrtc.parts(plan.groups, DECIDERS // WARP), rows)
        call["allowing"] = 0
        if filters.exclude is not None:
            self._mark(filters.exclude, start)

    def _mark(self, lists: Lists, start: int) -> None:
        call, total = self.call, lists.ids.shape[0]
        call["marks"] = nvrtc.pointer(lists.ids)
        call["mark_offsets"] = 0 if lists.offsets is None else lists.offsets[start:].data_ptr()
        call["mark_count"] = call["mark_total"] = total
        each = total if lists.offsets is None else nvrtc.parts(total, self.count)
        blocks = min(max(nvrtc.parts(each, DECIDERS), 1), 64)
        self._share("mark_ids", blocks, int(call["marked_rows"]))

    def _search_chunk(self, first: int, count: int) -> None:
        call, plan = self.call, self.plan
        call["first"], call["end"] = first, first + count
        if self.sketch is None:
            self._sketch_items(first, count)
        else:
            codes, unit_scale, residual = map(nvrtc.pointer, self.sketch)
            call["codes"] = codes + first // BLOCK_ITEMS * nvrtc.parts(self.dim, 4) * 64
            call["unit_scale"], call["residual"] = unit_scale + 4 * first, residual + 4 * first
            call["lengths"] = nvrtc.pointer(self.items.rows.inverse_norms) + 8 * first
        if first == 0 and plan.sampled > 0:
            self._scan(plan.sampled // (TILE_ITEMS // GROUP), plan.tile_step, True, False)
            self._each("set_threshold")
        for again in (False, True)[: 2 if plan.overflows else 1]:
            self._scan(nvrtc.parts(count, TILE_ITEMS), 1, False, again)
            self._each("narrow")

    def _sketch_items(self, first: int, count: int) -> None:
        data, scale, bias, norms, _, dim, stride, number_stride = self.items.values
        numbers = first * number_stride * (2 if nvrtc.bits_of(self.items.storage) == 4 else 4)
        rows = (
            data + first * stride, scale + numbers if scale else 0, bias + numbers if bias else 0,
            norms, count, dim, stride, number_stride,
        )  # fmt: skip
        made = self.made
        results = (0, made["lengths"], made["codes"], made["unit_scale"], made["residual"])
        for name, place in made.items():
            self.call[name] = place
        packing.launch_pack(self.launch, self.items.storage, rows, results)

    def _scan(self, tiles: int, tile_step: int, sampling: bool, again: bool) -> None:
        call = self.call
        call["tile_step"], call["sampling"], call["again"] = tile_step, sampling, again
        scan = scan_for(int(call["count"]))
        if scan.few:
            blocks, threads = nvrtc.parts(tiles, SCAN_TILES), SCANNERS
        else:
            blocks, threads = tiles * nvrtc.parts(int(call["count"]), scan.queries), scan.threads
        self.launch(scan.kernel, (blocks,), threads, scan.shared, call)

    def _decide(self, count: int) -> None:
        if self.width > 0:
            most = nvrtc.parts(self.plan.groups, DECIDERS // WARP)
            blocks = min(most, min(max(8192 // count, 4), 1024))
            self._score("score_groups", blocks, count)
            self._each("choose_groups")
        # Entries are not counted here: so many are to be expected, and blocks go on with others.
        capacity = self.plan.capacity
        expected = min(capacity, 16 * min(self.k, capacity) + 64)
        most = nvrtc.parts(expected, DECIDERS // nvrtc.TEAM)
        self._score("rescore", min(max(min(most, 4096 // count), 1), 64), count)
        self._each("write_results", nvrtc.BEST_BYTES)

    def _score(self, kernel: str, *grid: int) -> None:
        name = nvrtc.expression(kernel, self.items.storage)
        self.launch(name, grid, DECIDERS, 0, self.call)


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
    """As `reference.cosine_topk`, with no look at contents."""
    if data.shape[0] > nvrtc.MOST_ITEMS:
        raise ValueError(
            f"items has {data.shape[0]} rows, and backend 'nvrtc' ranks {nvrtc.MOST_ITEMS}; "
            "backend='reference' ranks any number"
        )
    sketch = None
    if codes is not None and unit_scale is not None and residual is not None:
        sketch = Sketch(codes, unit_scale, residual)
    rows = Rows(data, scale, bias, bits, queries.shape[1], inverse_norms, sketch)
    filters = Filters(
        None if allow_mask is None else allow_mask.contiguous(),
        Lists.of(exclude_ids, exclude_offsets),
        Lists.of(allow_ids, allow_offsets),
    )
    search = Search(queries, rows, k, metric, item_bias, item_scale, filters, exact)
    if search.count > 0:
        search.run()
    return search.scores, search.ids


offer("_nvrtc", cosine_topk)
