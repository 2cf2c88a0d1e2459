"""Pooled embedding lookup from float and quantized tables."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from llmrec_kernels import backends
from llmrec_kernels.ops import checks
from llmrec_kernels.ops.arrays import returner
from llmrec_kernels.ops.embedding_bag.reference import OUT_DTYPES
from llmrec_kernels.ops.embedding_bag.schema import OP
from llmrec_kernels.ops.pack import PackedItems
from llmrec_kernels.ops.rows import rows_of

MODES = ("sum", "mean", "max")

__all__ = ["embedding_bag"]


def embedding_bag(
    table: Any,
    indices: Any,
    offsets: Any = None,
    *,
    mode: str = "sum",
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
    normalize: bool = False,
    out_dtype: torch.dtype = torch.float32,
    backend: str | None = None,
) -> Any:
    """Look rows up and pool them, bag by bag: user profiles from item embeddings.

    As `torch.nn.functional.embedding_bag` defines it, and besides: quantized tables, weights
    with the mean, L2-normalised results. Pooling is float32 in the order of the indices: weight x
    row is added, and of a quantized table (scale x weight) x code, and bias x weight in a sum of
    its own, which comes last. Instruction sets with fused multiply-adds round a product and its
    sum as one, and have the same bits; the scalar level and plain torch round both, and have the
    same bits. Unweighted float rows are the same everywhere.

    Parameters
    ----------
    table : array [V, D] float32, float16, bfloat16 or float64, or QuantizedTable
        What is looked up. Float64 is read as float32.
    indices : array, [nnz] or [B, L] integers
        Rows of the table; two dimensions are B bags of L each.
    offsets : array, [B] integers, optional
        Where each bag begins in one-dimensional `indices`.
    mode : "sum", "mean" or "max"
        An empty bag is zeros.
    per_sample_weights : array, the shape of `indices`, optional
        For sum, and for mean: sum(w x) / sum(w), zeros where sum(w) is 0.
    include_last_offset : bool
        `offsets` has B + 1 entries; the last is the number of indices.
    padding_idx : int, optional
        Entries with this index do not count; negative ones count from the table's end.
    normalize : bool
        L2-normalise each pooled row; a zero row stays zero.
    out_dtype : torch.float32, torch.float16 or torch.bfloat16
        The result is pooled in float32 and rounded once.
    backend
        Force one backend; None takes the best that can run.

    Returns
    -------
    Tensor, [B, D]
        On the table's device; NumPy or CuPy when the indices came so. Gradients flow to a float
        table and to the weights.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        For a wrong shape, dtype or device, weights with max, or offsets that are not monotone.
    IndexError
        If an index or `padding_idx` is out of range.

    Examples
    --------
    >>> table = torch.tensor([[1.0, 0.0], [0.0, 2.0], [4.0, 4.0]])
    >>> embedding_bag(table, torch.tensor([0, 1, 2]), torch.tensor([0, 2]), mode="mean")
    tensor([[0.5000, 1.0000],
            [4.0000, 4.0000]])
    """
    if isinstance(table, PackedItems):
        raise TypeError("table is PackedItems; expected an array or a QuantizedTable")
    rows = rows_of("table", table)
    device = rows.data.device
    flat, bounds = _bags(indices, offsets, include_last_offset)
    checks.same_device("indices", flat, device)
    kind = checks.choice("mode", mode, MODES)
    weights = _weights(per_sample_weights, indices, mode, device)
    op = getattr(torch.ops.llmrec, backends.select(OP, device, backend))
    pooled: Tensor = op(
        rows.data, rows.scale, rows.bias, rows.bits, rows.dim, flat, bounds, kind, weights,
        padding_row(padding_idx, rows.data.shape[0]), normalize, out_index(out_dtype),
    )  # fmt: skip
    return returner(indices)(pooled)


def _bags(indices: Any, offsets: Any, include_last_offset: bool) -> tuple[Tensor, Tensor]:
    """Flat indices [nnz] and bounds [B + 1], both int64."""
    if offsets is None:
        grid = checks.id_array("indices", indices, "[B, L] where offsets is None")
        bags, length = grid.shape
        return grid.reshape(-1), torch.arange(bags + 1, device=grid.device) * length
    flat = checks.id_array("indices", indices, "[nnz]")
    bounds = checks.id_array("offsets", offsets, "[B]")
    checks.same_device("offsets", bounds, flat.device)
    if include_last_offset:
        if bounds.shape[0] == 0:
            raise ValueError(
                "offsets is empty; expected [B + 1] entries, the last the indices' end"
            )
        return flat, bounds
    if bounds.shape[0] == 0 and flat.shape[0] != 0:
        raise ValueError(
            f"offsets is empty but there are {flat.shape[0]} indices; "
            "expected where each bag begins"
        )
    return flat, torch.cat([bounds, bounds.new_full((1,), flat.shape[0])])


def _weights(weights: Any, indices: Any, mode: str, device: torch.device) -> Tensor | None:
    if weights is None:
        return None
    if mode == "max":
        raise ValueError("per_sample_weights are for mode 'sum' or 'mean', not for 'max'")
    shape = tuple(indices.shape) if hasattr(indices, "shape") else (len(indices),)
    tensor = checks.float_array(
        "per_sample_weights", weights, "[B, L]" if len(shape) == 2 else "[nnz]"
    )
    if tuple(tensor.shape) != shape:
        raise ValueError(
            f"per_sample_weights has shape {list(tensor.shape)}; "
            f"expected that of the indices, {list(shape)}"
        )
    checks.same_device("per_sample_weights", tensor, device)
    return tensor.reshape(-1).float()


def out_index(out_dtype: torch.dtype) -> int:
    """The place of a result's type in OUT_DTYPES."""
    if out_dtype not in OUT_DTYPES:
        raise ValueError(f"out_dtype is {out_dtype}; expected float32, float16 or bfloat16")
    return OUT_DTYPES.index(out_dtype)


def padding_row(padding_idx: int | None, rows: int) -> int:
    """The padding row counted from the start, and -1 for none."""
    if padding_idx is None:
        return -1
    padding_idx = checks.integer("padding_idx", padding_idx)
    if not -rows <= padding_idx < rows:
        raise IndexError(f"padding_idx is {padding_idx}; expected {-rows} to {rows - 1}")
    return padding_idx % rows
