"""Scores of each query's own candidates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from llmrec_kernels import backends
from llmrec_kernels.ops import checks
from llmrec_kernels.ops.arrays import returner
from llmrec_kernels.ops.candidate_scores.schema import OP
from llmrec_kernels.ops.cosine_topk import METRICS, TopK
from llmrec_kernels.ops.rows import rows_of
from llmrec_kernels.ragged import Ragged

__all__ = ["candidate_scores"]


def candidate_scores(
    queries: Any,
    items: Any,
    candidates: Any,
    *,
    metric: str = "cosine",
    query_bias: Any = None,
    item_bias: Any = None,
    offset: float = 0.0,
    query_scale: Any = None,
    item_scale: Any = None,
    k: int | None = None,
    backend: str | None = None,
) -> Any:
    """Score each query against its own list of items.

    score = similarity * query_scale * item_scale + query_bias + item_bias + offset, computed in
    that order in float64 and rounded once to float32: the multiplicative user bias of embedding
    recommenders, and the biased prediction mu + b_u + b_i + similarity of collaborative
    filtering.

    Parameters
    ----------
    queries : array, [B, d] float32, float16, bfloat16 or float64
        Of torch, NumPy, CuPy or JAX. Float64 is read as float32.
    items : array [N, d], PackedItems or QuantizedTable
        What the candidates are rows of.
    candidates : Ragged, or what `Ragged.of` takes
        A list of item ids for each query; an id may come again.
    metric : "cosine" or "dot"
        Cosine with a zero vector is 0.
    query_bias, query_scale : array, [B], optional
    item_bias, item_scale : array, [N], optional
    offset : float
        Added to every score.
    k : int, optional
        Return the k best of each list instead of all scores.
    backend
        Force one backend; None takes the best that can run.

    Returns
    -------
    Tensor, [nnz] float32
        One score for each entry of `candidates`. Gradients flow to queries, float items and
        biases.
    TopK
        With `k`: scores descending, equal ones by smaller id; id -1 and score -inf fill a row
        with fewer than k candidates. No gradient.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        For a wrong shape, dtype or device, k < 1, NaN or Inf, or offsets that are not monotone.
    IndexError
        If a candidate does not exist.

    Examples
    --------
    >>> items = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> candidate_scores(torch.tensor([[2.0, 0.0]]), items, [[2, 1]], offset=3.0)
    tensor([3.7071, 3.0000])
    >>> candidate_scores(torch.tensor([[2.0, 0.0]]), items, [[2, 1]], k=1).ids
    tensor([[2]])
    """
    vectors = checks.float_array("queries", queries, "[B, d]")
    rows = rows_of("items", items)
    if vectors.shape[1] != rows.dim:
        raise ValueError(f"queries has {vectors.shape[1]} columns but items has {rows.dim}")
    device = vectors.device
    checks.same_device("items", rows.data, device)
    lists = Ragged.of(candidates, name="candidates")
    count, width = vectors.shape[0], rows.data.shape[0]
    if lists.count != count:
        raise ValueError(f"candidates has {lists.count} lists but there are {count} queries")
    checks.same_device("candidates", lists.values, device)
    arguments = (
        vectors.float(), rows.data, rows.scale, rows.bias, rows.inverse_norms, rows.bits,
        lists.values, lists.offsets, checks.choice("metric", metric, METRICS),
        checks.vector("query_bias", query_bias, count, "[B]", device),
        checks.vector("item_bias", item_bias, width, "[N]", device),
        checks.finite_number("offset", offset),
        checks.vector("query_scale", query_scale, count, "[B]", device),
        checks.vector("item_scale", item_scale, width, "[N]", device),
    )  # fmt: skip
    op = getattr(torch.ops.llmrec, backends.select(OP, device, backend))
    back = returner(queries)
    if k is None:
        scores: Tensor = op(*arguments)
        return back(scores)
    best, ids = op.topk(*arguments, checks.positive_int("k", k))
    return TopK(back(best), back(ids))
