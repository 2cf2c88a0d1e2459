"""Scores of given pairs in Triton, and the k best of each list.

Work is split by pairs, because lists are uneven: a program scores a few entries and finds their
queries by bisection of the offsets. A pair whose item is out of range, or whose score is no
number, has -inf, and is never among the best.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from llmrec_kernels.ops.candidate_scores.reference import COSINE, owners
from llmrec_kernels.ops.candidate_scores.schema import offer
from llmrec_kernels.ops.rows import Rows
from llmrec_kernels.ops.triton_common import (
    LOWEST,
    MOST_ITEMS,
    STORAGES,
    DeviceRows,
    Variant,
    better_keys,
    key_of,
    opened,
    owner_of,
    reference_scores,
    row_types,
)

PAIRS, COLUMNS, WARPS = 16, 64, 4
MOST_IN_KERNEL = 256  # results that a program keeps: more are sorted, 1024 would compile for long
PART = 4096  # entries of a list for one program, about
MOST_PARTS = 64


@triton.jit(do_not_specialize=["count", "items", "entries", "steps"])
def score_pairs(
    queries, data, scale, bias, inverse_norms, candidates, offsets, query_bias, item_bias, offset,
    query_scale, item_scale, out, count, items, entries, dim, stride, width, number_stride, steps,
    STORAGE: tl.constexpr, IS_COSINE: tl.constexpr, PAIRS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out[e] = the score of entry e."""
    entry = tl.program_id(0).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)
    inside = entry < entries
    query = owner_of(offsets, count, entry, inside, steps, PAIRS)
    item = tl.load(candidates + entry, mask=inside, other=-1)
    real = inside & (item >= 0) & (item < items)
    scores = reference_scores(
        queries, data, scale, bias, inverse_norms, query_bias, item_bias, offset, query_scale,
        item_scale, query, tl.where(real, item, 0), real, dim, stride, width, number_stride,
        STORAGE, IS_COSINE, PAIRS, COLUMNS,
    )  # fmt: skip
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
        score = tl.load(scores + entry, mask=inside, other=float("-inf"))
        item = tl.load(candidates + entry, mask=inside, other=0)
        keys = tl.where(score > float("-inf"), key_of(score, item), LOWEST)
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
    rows = DeviceRows.of(Rows(data, scale, bias, bits, queries.shape[1], inverse_norms))
    entries, count = candidates.shape[0], queries.shape[0]
    out = queries.new_empty(entries, dtype=torch.float32)
    if entries == 0 or count == 0:
        return out
    exact = torch.full((1,), offset, dtype=torch.float64, device=queries.device)
    with torch.cuda.device_of(queries):
        score_pairs[(triton.cdiv(entries, PAIRS),)](
            queries.contiguous(), rows.data, rows.scale, rows.bias, inverse_norms,
            candidates.contiguous(), offsets.contiguous(), query_bias, item_bias, exact,
            query_scale, item_scale, out, count, data.shape[0], entries, queries.shape[1],
            rows.stride, rows.width, rows.number_stride, count.bit_length(), STORAGE=rows.storage,
            IS_COSINE=metric == COSINE, PAIRS=PAIRS, COLUMNS=COLUMNS, num_warps=WARPS,
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
    scores = candidate_scores(
        queries, data, scale, bias, inverse_norms, bits, candidates, offsets, metric, query_bias,
        item_bias, offset, query_scale, item_scale,
    )  # fmt: skip
    if data.shape[0] > MOST_ITEMS:
        raise ValueError(f"items has {data.shape[0]} rows; backend 'triton' ranks {MOST_ITEMS}")
    count, entries = queries.shape[0], candidates.shape[0]
    if k > MOST_IN_KERNEL or count == 0 or entries == 0:
        return _sorted(scores, candidates, offsets, k)
    kept = max(16, triton.next_power_of_2(k))
    parts = min(MOST_PARTS, triton.cdiv(triton.cdiv(entries, count), PART))
    best = torch.empty(count, parts * kept, dtype=torch.int64, device=queries.device)
    with torch.cuda.device_of(queries):
        best_of_part[(count, parts)](
            scores, candidates.contiguous(), offsets.contiguous(), best, entries, parts,
            BLOCK=max(kept, 512), KEPT=kept, num_warps=WARPS if kept < 128 else 8,
        )  # fmt: skip
    return opened(best.topk(k, dim=1).values)


def _sorted(scores: Tensor, candidates: Tensor, offsets: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of each list by sorting them all: for a k that no program can keep."""
    owner = owners(offsets, candidates.shape[0])
    order = candidates.argsort(stable=True)
    order = order[scores[order].argsort(descending=True, stable=True)]
    order = order[owner[order].argsort(stable=True)]
    owner, scores, candidates = owner[order], scores[order], candidates[order]
    # One place more than results, for all that come after them.
    place = (torch.arange(order.shape[0], device=order.device) - offsets[owner]).clamp(max=k)
    best = scores.new_full((offsets.shape[0] - 1, k + 1), -torch.inf)
    ids = candidates.new_full(best.shape, -1)
    best[owner, place] = scores
    ids[owner, place] = candidates.where(scores > -torch.inf, -1)
    return best[:, :k].contiguous(), ids[:, :k].contiguous()


offer("_triton", candidate_scores, candidate_topk)


def variants() -> list[Variant]:
    """The configurations that are launched."""
    integers = ("count", "items", "entries", "dim", "stride", "width", "number_stride", "steps")
    terms = ("query_bias", "item_bias", "query_scale", "item_scale")
    found = []
    for storage, name in enumerate(STORAGES):
        for packed in (False, True):
            types = row_types(storage)
            signature: dict[str, str] = {
                "queries": "*fp32", **types, "candidates": "*i64", "offsets": "*i64",
                "offset": "*fp64", "out": "*fp32", **dict.fromkeys(integers, "i64"),
            }  # fmt: skip
            constants: dict[str, Any] = {
                "STORAGE": storage, "IS_COSINE": True, "PAIRS": PAIRS, "COLUMNS": COLUMNS,
            }  # fmt: skip
            constants |= {n: None for n in ("scale", "bias") if n not in types}
            if packed:  # and all terms
                signature |= dict.fromkeys(terms, "*fp32") | {"inverse_norms": "*fp64"}
            else:
                constants |= dict.fromkeys((*terms, "inverse_norms"))
            found.append(
                Variant(
                    f"score_pairs {name}{', packed, all terms' if packed else ''}", score_pairs,
                    signature, constants, ("queries", *types, "out", "stride", "width", "dim"),
                    WARPS, 3,
                    frozenset({"16-byte loads"}),
                )
            )  # fmt: skip
    found.extend(
            Variant(
                f"best_of_part {kept}", best_of_part,
                {
                    "scores": "*fp32", "candidates": "*i64", "offsets": "*i64", "best": "*i64",
                    "entries": "i64", "parts": "i64",
                },
                {"BLOCK": max(kept, 512), "KEPT": kept},
                ("scores", "candidates", "offsets", "best"),
                WARPS if kept < 128 else 8, 3, frozenset(),
            )
            for kept in (16, 128, MOST_IN_KERNEL)
        )  # fmt: skip
    return found
