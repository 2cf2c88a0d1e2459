"""Certified exact top-K in Triton: a float16 scan bounds every score, the reference score decides.

1. `scan`: products of unit vectors in float16 on tensor cores, with a rigorous bound of their
   error. The largest bound of each 64 items is all that is written.
2. The groups with the largest bounds are looked at again, item by item; of those the items with
   the largest bounds get the reference score (`candidate_scores`), and the best of them win.
3. Certificate: the k-th best score is above every bound that was left out. A query that has none
   is searched again by the reference score alone, in a launch where the others read nothing.

Nothing waits for the device: how many groups and items are taken is known from the shapes. The
matrix of scores is never held: queries come in batches whose workspace is at most WORKSPACE, or
that of 16 queries, and beside it there are a few numbers for each item.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from llmrec_kernels.ops import score
from llmrec_kernels.ops.candidate_scores.triton import score as score_candidates
from llmrec_kernels.ops.cosine_topk.reference import COSINE, DOT
from llmrec_kernels.ops.cosine_topk.schema import offer
from llmrec_kernels.ops.cosine_topk.triton_kernels import (
    GROUP,
    look_again,
    mark,
    pack_mask,
    scan,
    search_exactly,
    squares,
)
from llmrec_kernels.ops.rows import Rows
from llmrec_kernels.ops.triton_common import (
    MOST_ITEMS,
    OPTIONS,
    DeviceRows,
    keys_of,
    opened,
    packed,
    per_step,
)

WORKSPACE = 1 << 26  # bytes, of a batch of queries
SPARE = 64  # groups and items looked at beyond k, or a quarter of k where that is more
FITTING = 2.0**60  # lengths and scales within this and its inverse have bounds in float32
MOST_IN_KERNEL = 256  # results that a launch of the exact search finds; 1024 compile for 47 s
SCAN_REGISTERS, EXACT_REGISTERS = 255, 168  # of a thread, at most
PARTS = 32  # programs of the exact search for a query

ITEMS, DIMS = 128, 32  # of a tile and of a step of the scan: more would not fit the registers
ROWS, COLUMNS, PAIRS = 16, 128, 64
_ITEMS_IN_GROUP = int(GROUP.value)


class Filters(NamedTuple):
    """What queries may have, as the schema carries it."""

    exclude_ids: Tensor | None
    exclude_offsets: Tensor | None
    allow_mask: Tensor | None
    allow_ids: Tensor | None
    allow_offsets: Tensor | None

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return not all(part is None for part in self)

    @property
    def per_query(self) -> bool:
        """Whether they differ by query."""
        return (
            self.exclude_offsets is not None
            or self.allow_offsets is not None
            or (self.allow_mask is not None and self.allow_mask.dim() == 2)
        )

    def words(self, part: slice, items: int, device: torch.device) -> tuple[Tensor | None, int]:
        """Bits [rows, ceil(items / 32)] int32 for these queries, and words from row to row."""
        if not self.any:
            return None, 0
        rows = part.stop - part.start if self.per_query else 1
        width = triton.cdiv(items, 32)
        base = 0 if self.allow_ids is not None else -1
        words = torch.full((rows, width), base, dtype=torch.int32, device=device)
        if self.allow_mask is not None:
            for_each = self.allow_mask.dim() == 2
            mask = self.allow_mask[part] if for_each else self.allow_mask[None]
            packed = words[: mask.shape[0]]
            pack_mask[(triton.cdiv(width, 32), mask.shape[0])](
                mask.contiguous().view(torch.uint8), packed, items, width, WORDS=32, **OPTIONS
            )
            words = packed.expand(rows, -1).contiguous()
        for ids, offsets, allow in (
            (self.allow_ids, self.allow_offsets, True),
            (self.exclude_ids, self.exclude_offsets, False),
        ):
            if ids is None or ids.shape[0] == 0:
                continue
            lists = 0 if offsets is None else offsets.shape[0] - 1
            mark[(triton.cdiv(ids.shape[0], 256), rows if offsets is None else 1)](
                ids.contiguous(), None if offsets is None else offsets.contiguous(), words, lists,
                part.start, ids.shape[0], items, width, rows, lists.bit_length(), ALLOW=allow,
                COUNT=256, **OPTIONS,
            )  # fmt: skip
        return words, width if self.per_query else 0


class Scanned(NamedTuple):
    """What the scan knows of items, [N] float32 each."""

    inverse: Tensor  # 1 / length
    weight: Tensor  # what a cosine is multiplied with
    slack: Tensor  # the error of that product; inf for not known, -1 for an item with NaN or Inf


def bound_of(dim: int) -> float:
    """The error of a float16 product of unit vectors, rounded to float32 sums in any order.

    2^-11 of each element, and 2^-25 for subnormal ones; each of d additions loses 2^-21 of the sum
    of magnitudes, which is at most 1: tensor cores truncate, and align what they add.
    """
    return 1.02 * 2.0**-10 + math.sqrt(dim) * 2.0**-23 + dim * 2.0**-21


def lengths_of(held: DeviceRows, dim: int) -> Tensor:
    """The length of each row, [N] float64."""
    count = held.data.shape[0]
    square = torch.empty(count, dtype=torch.float64, device=held.data.device)
    squares[(triton.cdiv(count, ROWS),)](
        held.data, held.scale, held.bias, square, count, held.stride, held.width,
        held.number_stride, dim, STORAGE=held.storage, ROWS=ROWS, COLUMNS=COLUMNS, **OPTIONS,
    )  # fmt: skip
    return square.sqrt()


def prepare(
    rows: Rows, held: DeviceRows, metric: int, item_scale: Tensor | None, exact: bool
) -> Scanned:
    """Lengths and bounds of the items; one pass over them, where they were not packed."""
    if rows.inverse_norms is None:
        length = lengths_of(held, rows.dim)
        inverse = score.invert(length)
    else:
        inverse = rows.inverse_norms
        length = score.invert(inverse)
    weight = length if metric == DOT else torch.ones_like(length)
    if item_scale is not None:
        weight = weight * item_scale.double()
    size = weight.abs()
    unfit = (size > FITTING) | ((size < 1 / FITTING) & (size != 0))
    unfit |= (length != 0) & ((length > FITTING) | (length < 1 / FITTING))
    slack = (size * bound_of(rows.dim) if exact else torch.zeros_like(size)).float()
    slack = slack.where(~unfit, torch.inf if exact else 0.0)
    slack = slack.where(length.isfinite() & inverse.isfinite(), -1.0)
    good = ~unfit & (slack >= 0)
    return Scanned(inverse.where(good, 0).float(), weight.where(good, 0).float(), slack)


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
    """As `reference.cosine_topk`, with no look at contents. The int8 sketch is not read."""
    count, dim = queries.shape
    items = data.shape[0]
    if items > MOST_ITEMS:
        raise ValueError(
            f"items has {items} rows, and backend 'triton' ranks {MOST_ITEMS}; "
            "backend='reference' ranks any number"
        )
    scores = queries.new_full((count, k), -torch.inf, dtype=torch.float32)
    ids = torch.full_like(scores, -1, dtype=torch.int64)
    if count == 0 or items == 0:
        return scores, ids
    rows = Rows(data, scale, bias, bits, dim, inverse_norms)
    filters = Filters(exclude_ids, exclude_offsets, allow_mask, allow_ids, allow_offsets)
    with torch.cuda.device_of(queries):
        search = Search(queries.contiguous(), rows, k, metric, item_bias, item_scale, exact)
        for start in range(0, count, search.batch(filters.per_query)):
            part = slice(start, min(count, start + search.batch(filters.per_query)))
            found = search.best(part, *filters.words(part, items, queries.device))
            kept = found[0].shape[1]
            scores[part, :kept], ids[part, :kept] = found
    return scores, ids


class Search:
    """Items prepared once for all batches of queries."""

    def __init__(
        self,
        queries: Tensor,
        rows: Rows,
        k: int,
        metric: int,
        item_bias: Tensor | None,
        item_scale: Tensor | None,
        exact: bool,
    ) -> None:
        self.queries, self.rows, self.metric, self.exact = queries, rows, metric, exact
        self.item_bias, self.item_scale = packed(item_bias, item_scale)
        self.held = DeviceRows.of(rows)
        self.items: int = rows.data.shape[0]
        self.known = prepare(rows, self.held, metric, item_scale, exact)
        self.k = min(k, self.items)
        self.groups: int = triton.cdiv(self.items, _ITEMS_IN_GROUP)
        spare = max(SPARE, self.k // 4)
        self.chosen = min(self.groups, self.k + spare)
        self.rescored = min(self.chosen * _ITEMS_IN_GROUP, self.k + spare)
        self.parts: int = min(PARTS, triton.cdiv(self.items, 256))

    def batch(self, per_query: bool) -> int:
        """Queries whose workspace fits."""
        of_query = 4 * self.groups + 8 * self.chosen * _ITEMS_IN_GROUP + 32 * self.rescored
        of_query += 8 * self.parts * kept_of(self.k)
        if per_query:
            of_query += self.items // 8
        fitting: int = WORKSPACE // of_query
        # Batches begin at multiples of 16 bytes, as the first does: kernels are made for that.
        return max(16, min(4096, fitting // 16 * 16))

    def best(self, part: slice, words: Tensor | None, stride: int) -> tuple[Tensor, Tensor]:
        """Scores and ids [B, min(k, N)] of a batch."""
        queries = self.queries[part]
        dim = queries.shape[1]
        lengths = lengths_of(DeviceRows.of(Rows(queries, None, None, 0, dim)), dim)
        inverse = score.invert(lengths)
        unit = (queries.double() * inverse[:, None]).half()
        factor = (lengths if self.metric == DOT else (inverse != 0).double()).float()
        bounds = self._scan(unit, factor, words, stride)
        top = bounds.topk(min(self.chosen + 1, self.groups), dim=1)
        groups = top.indices[:, : self.chosen].contiguous()
        left_out = self._after(top.values, self.chosen)
        bounds = self._look_again(unit, factor, groups, words, stride)
        top = bounds.topk(min(self.rescored + 1, bounds.shape[1]), dim=1)
        left_out = torch.maximum(left_out, self._after(top.values, self.rescored))
        place = top.indices[:, : self.rescored]
        ids = groups.gather(1, place // _ITEMS_IN_GROUP) * _ITEMS_IN_GROUP
        ids = (ids + place % _ITEMS_IN_GROUP).where(top.values[:, : self.rescored] > -torch.inf, -1)
        if not self.exact:
            estimates = top.values[:, : self.rescored]
            estimates = estimates.where(estimates > -torch.inf, torch.nan)
            return opened(self._largest(keys_of(estimates, ids)))
        keys = self._largest(keys_of(self._rescore(queries, ids), ids))
        fits = (lengths <= FITTING) & ((lengths >= 1 / FITTING) | (lengths == 0))
        certain = (left_out == -torch.inf) | (opened(keys)[0][:, -1] > left_out)
        return opened(self._search_again(queries, keys, certain & fits, words, stride))

    def _after(self, values: Tensor, taken: int) -> Tensor:
        """The largest bound that was not taken, [B]."""
        if values.shape[1] > taken:
            return values[:, taken]
        return values.new_full(values.shape[:1], -torch.inf)

    def _largest(self, keys: Tensor) -> Tensor:
        return keys.topk(self.k, dim=1).values

    def _arguments(self, unit: Tensor, factor: Tensor) -> tuple[Any, ...]:
        held, known = self.held, self.known
        return (
            unit, factor, held.data, held.scale, held.bias, known.inverse, known.weight,
            known.slack, self.item_bias,
        )  # fmt: skip

    @property
    def _strides(self) -> tuple[int, ...]:
        return self.held.stride, self.held.width, self.held.number_stride, self.rows.dim

    @property
    def _relative(self) -> float:
        return 2.0**-20 if self.exact else 0.0

    def _scan(self, unit: Tensor, factor: Tensor, words: Tensor | None, stride: int) -> Tensor:
        count = unit.shape[0]
        out = factor.new_empty(count, self.groups)
        queries, warps = tile_of(count)
        scan[(triton.cdiv(count, queries) * triton.cdiv(self.items, ITEMS),)](
            *self._arguments(unit, factor), words, out, count, self.items, self.groups,
            *self._strides, stride, self._relative, STORAGE=self.held.storage, QUERIES=queries,
            ITEMS=ITEMS, DIMS=DIMS, num_warps=warps, num_stages=2,
            **OPTIONS | {"maxnreg": SCAN_REGISTERS},
        )  # fmt: skip
        return out

    def _look_again(
        self, unit: Tensor, factor: Tensor, groups: Tensor, words: Tensor | None, stride: int
    ) -> Tensor:
        count = unit.shape[0]
        out = factor.new_empty(count, self.chosen * _ITEMS_IN_GROUP)
        look_again[(self.chosen, count)](
            *self._arguments(unit, factor), words, groups, out, self.items, self.chosen,
            *self._strides, stride, self._relative, STORAGE=self.held.storage, COLUMNS=DIMS,
            num_warps=4, **OPTIONS,
        )  # fmt: skip
        return out

    def _rescore(self, queries: Tensor, ids: Tensor) -> Tensor:
        offsets = torch.arange(len(queries) + 1, device=queries.device) * ids.shape[1]
        rows = self.rows
        return score_candidates(
            queries, rows.data, rows.scale, rows.bias, rows.inverse_norms, rows.bits,
            ids.reshape(-1), offsets, self.metric, None, self.item_bias, 0.0, None,
            self.item_scale, none_is_nan=True,
        ).view_as(ids)  # fmt: skip

    def _search_again(
        self, queries: Tensor, keys: Tensor, certain: Tensor, words: Tensor | None, stride: int
    ) -> Tensor:
        """The keys, found again for queries that are not certain, MOST_IN_KERNEL at a time."""
        held, count = self.held, queries.shape[0]
        below = torch.full((count,), 2**63 - 1, dtype=torch.int64, device=queries.device)
        found = []
        for start in range(0, self.k, MOST_IN_KERNEL):
            wanted = min(MOST_IN_KERNEL, self.k - start)
            kept = kept_of(wanted)
            best = keys.new_empty(count, self.parts * kept)
            search_exactly[(count, self.parts)](
                queries, held.data, held.scale, held.bias, *packed(self.rows.inverse_norms),
                self.item_bias, self.item_scale, words, certain.to(torch.int8), below, best,
                self.items, self.parts, *self._strides, stride, STORAGE=held.storage,
                IS_COSINE=self.metric == COSINE, PAIRS=PAIRS, COLUMNS=per_step(held.storage),
                KEPT=kept, num_warps=4 if kept <= 128 else 8,
                **OPTIONS | {"maxnreg": EXACT_REGISTERS},
            )  # fmt: skip
            found.append(best.topk(wanted, dim=1).values)
            below = found[-1][:, -1].contiguous()
        return keys.where(certain[:, None], torch.cat(found, dim=1))


def tile_of(count: int) -> tuple[int, int]:
    """(queries, warps) of a tile of the scan."""
    return (16 if count <= 16 else 64), 8


def kept_of(k: int) -> int:
    """Keys that a program of the exact search keeps."""
    return max(PAIRS, min(MOST_IN_KERNEL, int(triton.next_power_of_2(k))))


offer("_triton", cosine_topk)
