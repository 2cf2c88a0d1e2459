"""Bags, candidates and quantization beside what their users call today.

A contest is one job of a cell: calls that do it, and those that cannot take part, with the reason.
Quantized peers have codes of their own, so that their answers are near ours, not equal.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llmrec_kernels import Ragged, candidate_scores, embedding_bag, pack, quantize
from llmrec_kernels.benchmarks.cells import BagCell, CandidateCell, QuantizeCell

OURS = "llmrec"


@dataclass
class Contest:
    """Calls by name, ours first."""

    calls: dict[str, Callable[[], Any]]
    left_out: dict[str, str] = field(default_factory=dict)


LookupCell = BagCell | CandidateCell | QuantizeCell


def jobs(cell: LookupCell) -> tuple[str, ...]:
    """The names of a cell's contests."""
    if isinstance(cell, BagCell):
        return ("float32", "int8", "int4")
    if isinstance(cell, CandidateCell):
        return ("float32", "int8", "float32, the 10 best", "int8, the 10 best")
    return ("int8", "int4", "fp8_e4m3", "float16", "bfloat16")


@lru_cache(maxsize=1)
def contest(cell: LookupCell, job: str) -> Contest:
    if isinstance(cell, BagCell):
        return bags(cell, job)
    return candidates(cell, job) if isinstance(cell, CandidateCell) else quantization(cell, job)


def bags(cell: BagCell, storage: str) -> Contest:
    table, indices, offsets = cell.load()
    if storage == "float32":
        lookup = partial(F.embedding_bag, indices, table, offsets, mode="sum")
        return Contest({OURS: partial(embedding_bag, table, indices, offsets), "torch": lookup})
    bits = 8 if storage == "int8" else 4
    found = Contest(
        {
            OURS: partial(embedding_bag, quantize(table, storage), indices, offsets),
            "torch": torch_quantized(table, bits, indices, offsets),
        }
    )
    if importlib.util.find_spec("fbgemm_gpu") is None:
        found.left_out["fbgemm"] = "it is not installed: pip install fbgemm-gpu-cpu"
    else:
        found.calls["fbgemm"] = fbgemm(table, bits, indices, offsets)
    return found


def torch_quantized(
    table: Tensor, bits: int, indices: Tensor, offsets: Tensor
) -> Callable[[], Tensor]:
    """torch's own ops, which are FBGEMM's kernels of one table."""
    ops = torch.ops.quantized
    if bits == 8:
        rows = ops.embedding_bag_byte_prepack(table)
        return partial(ops.embedding_bag_byte_rowwise_offsets, rows, indices, offsets)
    rows = ops.embedding_bag_4bit_prepack(table)
    return partial(ops.embedding_bag_4bit_rowwise_offsets, rows, indices, offsets)


def fbgemm(table: Tensor, bits: int, indices: Tensor, offsets: Tensor) -> Callable[[], Tensor]:
    """The inference operator of many tables, with one, as its authors call it: int32 indices."""
    from fbgemm_gpu.split_embedding_configs import SparseType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
    from fbgemm_gpu.split_table_batched_embeddings_ops_inference import (
        IntNBitTableBatchedEmbeddingBagsCodegen,
    )

    rows, dim = table.shape
    kind = SparseType.INT8 if bits == 8 else SparseType.INT4
    op = IntNBitTableBatchedEmbeddingBagsCodegen(
        [("", rows, dim, kind, EmbeddingLocation.HOST)], device="cpu", output_dtype=SparseType.FP32
    )
    op.initialize_weights()
    codes, numbers = op.split_embedding_weights(split_scale_shifts=True)[0]
    width = dim * bits // 8
    for part in torch.arange(rows).split(1 << 18):
        packed = torch.ops.fbgemm.FloatToFusedNBitRowwiseQuantizedSBHalf(table[part], bits)
        codes[part], numbers[part] = packed[:, :width], packed[:, width:]
    bounds = torch.cat([offsets, torch.tensor([len(indices)])])
    return partial(op, indices.int(), bounds.int())


def candidates(cell: CandidateCell, job: str) -> Contest:
    queries, items, grid = cell.load()
    lists = Ragged(grid.view(-1), torch.arange(cell.queries + 1) * cell.length)
    packed = pack(quantize(items) if job.startswith("int8") else items)

    def einsum() -> Tensor:
        return torch.einsum("bd,bld->bl", queries, items[grid])

    if not job.endswith("best"):
        ours = partial(candidate_scores, queries, packed, lists)
        return Contest({OURS: ours, "torch": lambda: einsum().view(-1)})
    return Contest(
        {
            OURS: lambda: candidate_scores(queries, packed, lists, k=10).scores,
            "torch": lambda: einsum().topk(10).values,
        }
    )


def quantization(cell: QuantizeCell, dtype: str) -> Contest:
    """Beside a copy of the source into memory that is there already."""
    (weight,) = cell.load()
    calls = {OURS: partial(quantize, weight, dtype)}
    calls["copy"] = partial(torch.empty_like(weight).copy_, weight)
    if dtype in ("int8", "int4"):
        bits = "byte" if dtype == "int8" else "4bit"
        calls["torch"] = partial(
            getattr(torch.ops.quantized, f"embedding_bag_{bits}_prepack"), weight
        )
    elif dtype in ("float16", "bfloat16"):
        calls["torch"] = partial(weight.to, getattr(torch, dtype))
    return Contest(calls)
