"""Scores of given pairs, and the k best of each list, by NVRTC.

The kernels and the launches of csrc/candidate_scores/candidates.cu.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from llmrec_kernels.ops import nvrtc_common as nvrtc
from llmrec_kernels.ops.candidate_scores.reference import COSINE
from llmrec_kernels.ops.candidate_scores.schema import offer
from llmrec_kernels.ops.rows import Rows

SOURCE = "candidate_scores/candidates.cu"
PAIR_THREADS, BEST_THREADS = 128, 256  # kPairThreads, kBestThreads
PAIRS = PAIR_THREADS // nvrtc.TEAM  # kPairs

CALL = nvrtc.struct(
    "queries", "count", ("items", nvrtc.ROWS), "candidates", "offsets", "entries", "cosine",
    "query_bias", "item_bias", "query_scale", "item_scale", ("offset", np.float64), "inverse",
    "scores", "k", "ids", "keys",
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
    k: int,
) -> tuple[Tensor, Tensor]:
    """Scores [nnz], and no ids; or with a k, the best [B, k] and their ids [B, k]."""
    count, entries = queries.shape[0], candidates.shape[0]
    scores = queries.new_empty((count, k) if k else (entries,), dtype=torch.float32)
    ids = queries.new_empty(count, k, dtype=torch.int64)
    if count == 0:
        return scores, ids
    items = nvrtc.DeviceRows.of(Rows(data, scale, bias, bits, queries.shape[1], inverse_norms))
    held = nvrtc.packed(
        queries, candidates, offsets, query_bias, item_bias, query_scale, item_scale
    )
    terms = list(map(nvrtc.pointer, held))
    workspace = queries.new_empty(8 * (count + (entries if k else 0)), dtype=torch.uint8)
    inverse = nvrtc.pointer(workspace)
    call = np.array(
        (
            terms[0], count, items.values, *terms[1:3], entries, metric == COSINE, *terms[3:],
            offset, inverse, nvrtc.pointer(scores), k, nvrtc.pointer(ids), inverse + 8 * count,
        ),
        CALL,
    )  # fmt: skip
    measure, best = nvrtc.expression("measure_queries"), nvrtc.expression("best_of_lists")
    pairs = nvrtc.expression("score_pairs", items.storage)
    with nvrtc.kernels(data.device, {SOURCE: [measure, pairs, best]}) as launch:
        if entries > 0:
            launch(measure, (nvrtc.parts(count, PAIRS),), PAIR_THREADS, 0, call)
            launch(pairs, (nvrtc.parts(entries, PAIRS),), PAIR_THREADS, 0, call)
        if k > 0:
            launch(best, (count,), BEST_THREADS, nvrtc.BEST_BYTES, call)
    return scores, ids


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
        item_bias, offset, query_scale, item_scale, 0,
    )[0]  # fmt: skip


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
    if data.shape[0] > nvrtc.MOST_ITEMS:
        raise ValueError(
            f"items has {data.shape[0]} rows; backend 'nvrtc' ranks {nvrtc.MOST_ITEMS}"
        )
    return score(
        queries, data, scale, bias, inverse_norms, bits, candidates, offsets, metric, query_bias,
        item_bias, offset, query_scale, item_scale, k,
    )  # fmt: skip


offer("_nvrtc", candidate_scores, candidate_topk)
