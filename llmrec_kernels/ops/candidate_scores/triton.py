"""Scores of given pairs in Triton, and the k best of each list.

Work is split by pairs, because lists are uneven: a program scores a few entries and finds their
queries by bisection of the offsets. A pair whose item is out of range, or whose score is no
number, has -inf, and is never among the best.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from llmrec_kernels.ops.candidate_scores.reference import COSINE
from llmrec_kernels.ops.candidate_scores.schema import offer
from llmrec_kernels.ops.rows import Rows
from llmrec_kernels.ops.triton_common import (
    LOWEST,
    MOST_ITEMS,
    OPTIONS,
    DeviceRows,
    better_keys,
    key_of,
    keys_of,
    opened,
    owner_of,
    packed,
    per_step,
    reference_scores,
)

PAIRS, WARPS = 64, 2  # a thread has 16 bytes of a row, or 32
MOST_IN_KERNEL = 256  # results that a program keeps: more are sorted, 1024 would compile for long
PART = 4096  # entries of a list for one program, about
MOST_PARTS = 64


@triton.jit(do_not_specialize=["count", "items", "entries", "steps"])
def score_pairs(
    queries, data, scale, bias, inverse_norms, candidates, offsets, query_bias, item_bias, offset,
    query_scale, item_scale, out, count, items, entries, dim, stride, width, number_stride, steps,
    STORAGE: tl.constexpr, IS_COSINE: tl.constexpr, PAIRS: tl.constexpr, COLUMNS: tl.constexpr,
    NONE_IS_NAN: tl.constexpr,
):  # fmt: skip
    """out[e] = the score of entry e; -inf, or NaN, where there is none."""
    entry = tl.program_id(0).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)
    inside = entry < entries
    query = owner_of(offsets, count, entry, steps, PAIRS)
    item = tl.load(candidates + entry, mask=inside, other=-1)
    real = (item >= 0) & (item < items)
    scores = reference_scores(
        queries, data, scale, bias, inverse_norms, query_bias, item_bias, offset, query_scale,
        item_scale, query, item, real, dim, stride, width, number_stride,
        STORAGE, IS_COSINE, PAIRS, COLUMNS,
    )  # fmt: skip
    if not NONE_IS_NAN:
        scores = tl.where(scores == scores, scores, float("-inf"))
    tl.store(out + entry, scores, mask=inside)


@triton.jit(do_not_specialize=["entries", "parts"])
def best_of_part(
    scores, candidates, offsets, best, entries, parts, BLOCK: tl.constexpr, KEPT: tl.constexpr
):
    """best[q, p] = keys of the KEPT best entries of part p of list q, and LOWEST behind them."""
    query = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    start = tl.maximum(tl.load(offsets + query), 0)
    end = tl.minimum(tl.load(offsets + query + 1), entries)
    length = (end - start + parts - 1) // parts
    first = start + part * length
    end = tl.minimum(end, first + length)
    kept = tl.full((KEPT,), LOWEST, tl.int64)
    for at in range(first, end, BLOCK):
        entry = at + tl.arange(0, BLOCK)
        inside = entry < end
        score = tl.load(scores + entry, mask=inside, other=float("nan"))
        item = tl.load(candidates + entry, mask=inside, other=0)
        keys = tl.where(score == score, key_of(score, item), LOWEST)
        if tl.max(keys, axis=0) > tl.min(kept, axis=0):
            kept = better_keys(kept, keys, KEPT)
    place = (query * parts + part) * KEPT + tl.arange(0, KEPT)
    tl.store(best + place, kept)


def candidate_scores(
    queries: Tensor,
    data: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    inverse_norms: Tensor | None,
    bits: int,
    candidates: Tensor,
    offsets: Tensor,
    metric: int,
    query_bias: Tensor | None,
    item_bias: Tensor | None,
    offset: float,
    query_scale: Tensor | None,
    item_scale: Tensor | None,
) -> Tensor:
    """As `reference.candidate_scores`, with no look at contents."""
    return score(
        queries, data, scale, bias, inverse_norms, bits, candidates, offsets, metric, query_bias,
        item_bias, offset, query_scale, item_scale, none_is_nan=False,
    )  # fmt: skip


def score(
    queries: Tensor,
    data: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    inverse_norms: Tensor | None,
    bits: int,
    candidates: Tensor,
    offsets: Tensor,
    metric: int,
    query_bias: Tensor | None,
    item_bias: Tensor | None,
    offset: float,
    query_scale: Tensor | None,
    item_scale: Tensor | None,
    *,
    none_is_nan: bool,
) -> Tensor:
    """Scores [nnz] float32: -inf, or NaN, for a candidate that has none."""
    rows = DeviceRows.of(Rows(data, scale, bias, bits, queries.shape[1], inverse_norms))
    entries, count = candidates.shape[0], queries.shape[0]
    out = queries.new_empty(entries, dtype=torch.float32)
    if entries == 0 or count == 0:
        return out
    exact = torch.full((1,), offset, dtype=torch.float64, device=queries.device)
    with torch.cuda.device_of(queries):
        score_pairs[(triton.cdiv(entries, PAIRS),)](
            queries.contiguous(), rows.data, rows.scale, rows.bias, *packed(inverse_norms),
            candidates.contiguous(), offsets.contiguous(), *packed(query_bias, item_bias), exact,
            *packed(query_scale, item_scale), out, count, data.shape[0], entries,
            queries.shape[1], rows.stride, rows.width, rows.number_stride, count.bit_length(),
            STORAGE=rows.storage, IS_COSINE=metric == COSINE, PAIRS=PAIRS,
            COLUMNS=per_step(rows.storage), NONE_IS_NAN=none_is_nan, num_warps=WARPS, **OPTIONS,
        )  # fmt: skip
    return out


def candidate_topk(
    queries: Tensor,
    data: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    inverse_norms: Tensor | None,
    bits: int,
    candidates: Tensor,
    offsets: Tensor,
    metric: int,
    query_bias: Tensor | None,
    item_bias: Tensor | None,
    offset: float,
    query_scale: Tensor | None,
    item_scale: Tensor | None,
    k: int,
) -> tuple[Tensor, Tensor]:
    """The k best of each query's own candidates, in (score down, id) order."""
    scores = score(
        queries, data, scale, bias, inverse_norms, bits, candidates, offsets, metric, query_bias,
        item_bias, offset, query_scale, item_scale, none_is_nan=True,
    )  # fmt: skip
    if data.shape[0] > MOST_ITEMS:
        raise ValueError(f"items has {data.shape[0]} rows; backend 'triton' ranks {MOST_ITEMS}")
    count, entries = queries.shape[0], candidates.shape[0]
    if count == 0:
        return opened(candidates.new_empty(0, k))
    if k > MOST_IN_KERNEL or entries == 0:
        return _sorted(scores, candidates, offsets, k)
    kept = max(16, triton.next_power_of_2(k))
    parts = min(MOST_PARTS, triton.cdiv(triton.cdiv(entries, count), PART))
    best = torch.empty(count, parts * kept, dtype=torch.int64, device=queries.device)
    with torch.cuda.device_of(queries):
        best_of_part[(count, parts)](
            scores, candidates.contiguous(), offsets.contiguous(), best, entries, parts,
            BLOCK=max(kept, 512), KEPT=kept, num_warps=4 if kept < 128 else 8, **OPTIONS,
        )  # fmt: skip
    return opened(best.topk(k, dim=1).values)


def _sorted(scores: Tensor, candidates: Tensor, offsets: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of each list by sorting them all: for a k that no program can keep."""
    entries = torch.arange(candidates.shape[0], device=offsets.device)
    # Not `owners`: whatever offsets hold, these are lists that exist.
    owner = torch.searchsorted(offsets[1:].contiguous(), entries, right=True)
    owner = owner.clamp(max=offsets.shape[0] - 2)
    keys = keys_of(scores, candidates)
    order = keys.argsort(descending=True)
    order = order[owner[order].argsort(stable=True)]
    owner = owner[order]
    # One place more than results, for all that come after them.
    place = (entries - offsets[owner]).clamp(0, k)
    best = keys.new_full((offsets.shape[0] - 1, k + 1), LOWEST.value)
    best[owner, place] = keys[order]
    return opened(best[:, :k].contiguous())


offer("_triton", candidate_scores, candidate_topk)
