"""Exact top-K by cosine or dot product."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmrec_kernels import backends
from llmrec_kernels.ops import checks
from llmrec_kernels.ops.arrays import as_tensor, returner
from llmrec_kernels.ops.cosine_topk.schema import OP
from llmrec_kernels.ops.rows import rows_of
from llmrec_kernels.ragged import Ragged, is_flat

METRICS = ("cosine", "dot")
PRECISIONS = ("exact", "fast")

__all__ = ["METRICS", "TopK", "cosine_topk"]


class TopK(NamedTuple):
    """The best items of each query.

    Parameters
    ----------
    scores : [B, k] float32
        Descending; -inf where there are fewer than k items.
    ids : [B, k] int64
        Equal scores by smaller id; -1 where there are fewer than k items.
    """

    scores: Tensor
    ids: Tensor


def cosine_topk(
    queries: Any,
    items: Any,
    k: int,
    *,
    metric: str = "cosine",
    item_bias: Any = None,
    item_scale: Any = None,
    exclude: Any = None,
    allow: Any = None,
    precision: str = "exact",
    backend: str | None = None,
) -> TopK:
    """Find the k best items of each query: the ids and scores of an exact brute force.

    score = similarity * item_scale + item_bias, in float64 over fixed lanes and rounded once to
    float32 (`llmrec_kernels.ops.score`). The result depends on the inputs alone, not on batch
    size, threads, or instruction set. The scores of all items are never held at once. Beyond the
    results the compiled kernels use at most 1% of what they would take (4 B N bytes), or 16 MB if
    that is more, for candidates, and 1 MB a thread; with k in the tens of thousands, room for 32
    queries' candidates, 48 k bytes each. The CUDA kernels use 1 GiB for a batch of queries, or
    what 8 queries take: 20 bytes for each of max(8192, 128 k) candidates, and N / 4. Plain torch
    uses a few times B k entries and a tile of at most 64 MB.

    Parameters
    ----------
    queries : array, [B, d] float32, float16, bfloat16 or float64
        Of torch, NumPy, CuPy or JAX. Float64 is read as float32.
    items : array [N, d], PackedItems or QuantizedTable
        What is searched. `pack` them once to search many times.
    k : int
        At least 1; more than N gives a padded tail.
    metric : "cosine" or "dot"
        Cosine with a zero vector is 0.
    item_bias, item_scale : array, [N], optional
        Added to the similarity, and multiplied with it first.
    exclude : ids, optional
        Never returned. One-dimensional ids for all queries, or a list for each query (`Ragged`,
        list of lists, CSR of SciPy or torch). Ids that do not exist are ignored.
    allow : mask or ids, optional
        The only ones returned. A bool mask [N] or [B, N], one-dimensional ids, or a list for
        each query.
    precision : "exact" or "fast"
        "fast" lets the scan alone decide, where a kernel has one (int8 on the CPU and in CUDA,
        float16 in Triton): scores are its estimates, and of clustered unit vectors (d = 384,
        k = 100) int8 finds 99% of the best and more. Vectors whose length, times scale, is outside
        2^-60 to 2^60 have no estimate but 0. The plain torch reference has no such scan and is
        exact.
    backend
        Force one backend; None takes the best that can run.

    Returns
    -------
    TopK
        Scores descending, equal ones by smaller id; id -1 and score -inf fill a row with fewer
        than k items. On the device of `queries`; NumPy or CuPy when the queries came so.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        For a wrong shape, dtype or device, k < 1, NaN or Inf, or offsets that are not monotone.
    IndexError
        If `allow` holds an id that does not exist.

    Examples
    --------
    >>> items = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> scores, ids = cosine_topk(torch.tensor([[2.0, 0.0]]), items, k=2)
    >>> ids.tolist(), scores.tolist()
    ([[0, 2]], [[1.0, 0.7071067690849304]])
    >>> cosine_topk(torch.tensor([[2.0, 0.0]]), items, k=2, exclude=[[0]]).ids.tolist()
    [[2, 1]]
    """
    vectors = checks.float_array("queries", queries, "[B, d]")
    rows = rows_of("items", items)
    if vectors.shape[1] != rows.dim:
        raise ValueError(f"queries has {vectors.shape[1]} columns but items has {rows.dim}")
    device = vectors.device
    checks.same_device("items", rows.data, device)
    count, width = vectors.shape[0], rows.data.shape[0]
    best = checks.positive_int("k", k)
    kind = checks.choice("metric", metric, METRICS)
    exact = checks.choice("precision", precision, PRECISIONS) == 0
    item_bias = checks.vector("item_bias", item_bias, width, "[N]", device)
    item_scale = checks.vector("item_scale", item_scale, width, "[N]", device)
    exclude_ids, exclude_offsets = _ids_or_lists("exclude", exclude, count, device)
    mask = _mask(allow, count, width, device)
    allow_ids, allow_offsets = _ids_or_lists(
        "allow", allow if mask is None else None, count, device
    )
    codes, unit_scale, residual = (None, None, None) if rows.sketch is None else rows.sketch
    op = getattr(torch.ops.llmrec, backends.select(OP, device, backend))
    scores, ids = op(
        vectors.float(),
        rows.data,
        rows.scale,
        rows.bias,
        rows.inverse_norms,
        codes,
        unit_scale,
        residual,
        rows.bits,
        best,
        kind,
        item_bias,
        item_scale,
        exclude_ids,
        exclude_offsets,
        mask,
        allow_ids,
        allow_offsets,
        exact,
    )
    back = returner(queries)
    return TopK(back(scores), back(ids))


def _mask(allow: Any, count: int, width: int, device: torch.device) -> Tensor | None:
    """`allow` if it is a dense bool mask, [N] or [B, N]."""
    if str(getattr(allow, "dtype", "")).rpartition(".")[2] != "bool" or not is_flat(allow):
        return None
    mask = as_tensor("allow", allow)
    for_all = mask.dim() == 1 and mask.shape[0] == width
    for_each = mask.dim() == 2 and mask.shape[0] == count and mask.shape[1] == width
    if not for_all and not for_each:
        raise ValueError(
            f"allow is a mask of shape {list(mask.shape)}; "
            f"expected [{width}] for all queries or [{count}, {width}]"
        )
    checks.same_device("allow", mask, device)
    return mask


def _ids_or_lists(
    name: str, ids: Any, count: int, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """(ids, None) for ids that hold for all queries, (ids, offsets) for a list per query."""
    if ids is None:
        return None, None
    if is_flat(ids):
        flat = checks.id_array(name, ids, "[n]")
        checks.same_device(name, flat, device)
        return flat, None
    lists = Ragged.of(ids, name=name)
    if lists.count != count:
        raise ValueError(f"{name} has {lists.count} lists but there are {count} queries")
    checks.same_device(name, lists.values, device)
    return lists.values, lists.offsets
