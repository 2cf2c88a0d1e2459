"""Scores of given pairs in plain torch: the reference score, and its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from llmrec_kernels.ops import contents, score
from llmrec_kernels.ops.rows import Rows

COSINE, DOT = 0, 1
BLOCK = 1 << 18  # gathered elements at a time: no [nnz, d] temporary


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
    """Scores [nnz] float32; see `llmrec_kernels.candidate_scores`."""
    rows = Rows(data, scale, bias, bits, queries.shape[1], inverse_norms)
    lengths = score.norms(queries)
    contents.finite_rows("queries", lengths)
    contents.offsets("candidates offsets", offsets, candidates.shape[0])
    contents.in_range("candidates", candidates, data.shape[0])
    for name, values in (
        ("query_bias", query_bias),
        ("item_bias", item_bias),
        ("query_scale", query_scale),
        ("item_scale", item_scale),
    ):
        contents.finite(name, values)
    inverse = score.invert(lengths)
    owner = owners(offsets, candidates.shape[0])
    result = torch.empty(candidates.shape, dtype=torch.float32, device=candidates.device)
    step = max(1, BLOCK // max(1, rows.dim))
    for start in range(0, candidates.shape[0], step):
        part = slice(start, start + step)
        query, item = owner[part], candidates[part]
        vectors = rows.widen(item)
        similarity = score.lane_dot(queries[query], vectors)
        if metric == COSINE:
            similarity = similarity * inverse[query] * _inverse_norms(rows, vectors, item)
        else:
            _finite_items(similarity, item)
        total = similarity
        for factor, index in ((query_scale, query), (item_scale, item)):
            total = total if factor is None else total * factor[index].double()
        for term, index in ((query_bias, query), (item_bias, item)):
            total = total if term is None else total + term[index].double()
        result[part] = (total + offset).float()
    return result


def _inverse_norms(rows: Rows, vectors: Tensor, item: Tensor) -> Tensor:
    if rows.inverse_norms is not None:
        return rows.inverse_norms[item]
    lengths = score.norms(vectors)
    _finite_items(lengths, item)
    return score.invert(lengths)


def _finite_items(values: Tensor, item: Tensor) -> None:
    bad = ~values.isfinite()
    if bool(bad.any()):
        row = int(item[bad].min())
        raise ValueError(f"items holds NaN or Inf in row {row}; expected finite numbers")


def owners(offsets: Tensor, count: int) -> Tensor:
    """The query of each entry, [nnz]."""
    counts = offsets[1:] - offsets[:-1]
    queries = torch.arange(counts.shape[0], device=offsets.device)
    return queries.repeat_interleave(counts, output_size=count)


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
    values = candidate_scores(
        queries,
        data,
        scale,
        bias,
        inverse_norms,
        bits,
        candidates,
        offsets,
        metric,
        query_bias,
        item_bias,
        offset,
        query_scale,
        item_scale,
    )
    return best_of_lists(values, candidates, offsets, k)


def best_of_lists(
    values: Tensor, candidates: Tensor, offsets: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """The k best entries of each list: scores [B, k] and ids [B, k], padded with -inf and -1."""
    owner = owners(offsets, candidates.shape[0])
    order = candidates.argsort(stable=True)
    order = order[values[order].argsort(descending=True, stable=True)]
    order = order[owner[order].argsort(stable=True)]
    place = torch.arange(order.shape[0], device=order.device) - offsets[owner[order]]
    kept = place < k
    order, place = order[kept], place[kept]
    count = offsets.shape[0] - 1
    scores = values.new_full((count, k), -torch.inf)
    ids = candidates.new_full((count, k), -1)
    scores[owner[order], place] = values[order]
    ids[owner[order], place] = candidates[order]
    return scores, ids


def candidate_scores_backward(
    grad: Tensor,  # [nnz] float32
    queries: Tensor,  # [B, d] float32
    data: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    bits: int,
    candidates: Tensor,
    offsets: Tensor,
    metric: int,
    query_scale: Tensor | None,
    item_scale: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of queries [B, d], items [N, d], and the biases and scales of both, [B] and [N].

    Quantized items have no gradient: [0].
    """
    rows = Rows(data, scale, bias, bits, queries.shape[1])
    owner = owners(offsets, candidates.shape[0])
    grad_queries = torch.zeros_like(queries)
    grad_items = data.new_zeros(data.shape if bits == 0 else (0,), dtype=torch.float32)
    by_query = grad if query_scale is None else grad * query_scale[owner]
    by_item = grad if item_scale is None else grad * item_scale[candidates]
    weight = by_query if item_scale is None else by_query * item_scale[candidates]
    similarity = torch.empty_like(grad)
    step = max(1, BLOCK // max(1, queries.shape[1]))
    for start in range(0, candidates.shape[0], step):
        part = slice(start, start + step)
        query, item = owner[part], candidates[part]
        similarity[part], for_query, for_item = _gradients(queries[query], rows.widen(item), metric)
        grad_queries.index_add_(0, query, weight[part, None] * for_query)
        if bits == 0:
            grad_items.index_add_(0, item, weight[part, None] * for_item)
    if bits == 0:
        grad_items = grad_items.to(data.dtype)
    of_queries, of_items = grad.new_zeros(queries.shape[0]), grad.new_zeros(data.shape[0])
    return (
        grad_queries,
        grad_items,
        of_queries.index_add(0, owner, grad),
        of_items.index_add(0, candidates, grad),
        of_queries.index_add(0, owner, by_item * similarity),
        of_items.index_add(0, candidates, by_query * similarity),
    )


def _gradients(queries: Tensor, items: Tensor, metric: int) -> tuple[Tensor, Tensor, Tensor]:
    """The similarity of paired rows, [n], and its gradients to the query and the item, [n, d].

    With q' = q / |q| and x' = x / |x|: d cos / d q = (x' - cos q') / |q|, and likewise for x;
    0 where a vector is zero, as the similarity is there. Float64 inside, because 1 / |q| may be
    larger than any float32.
    """
    if metric == DOT:
        return score.lane_dot(queries, items).float(), items, queries
    query_inverse = score.invert(score.norms(queries))[:, None]
    item_inverse = score.invert(score.norms(items))[:, None]
    q, x = queries * query_inverse, items * item_inverse
    cosine = (q * x).sum(1, keepdim=True)
    for_query, for_item = (x - cosine * q) * query_inverse, (q - cosine * x) * item_inverse
    return cosine[:, 0].float(), for_query.float(), for_item.float()
