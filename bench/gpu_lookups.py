"""Bags, candidates, quantization and packing on a GPU: ours, torch and FBGEMM."""

from __future__ import annotations

from functools import partial
from typing import Any

import lookups
import torch
import torch.nn.functional as F
from gpu_contests import SAMPLE, Contest, Prepare, by_backend, close, installed, part_of
from gpu_machine import Call, Machine
from torch import Tensor

from llmrec_kernels import (
    PackedItems,
    QuantizedTable,
    Ragged,
    TopK,
    candidate_scores,
    embedding_bag,
    pack,
    quantize,
)
from llmrec_kernels.benchmarks.cells import BagCell, CandidateCell, PackCell, QuantizeCell


def bags(cell: BagCell, storage: str, machine: Machine) -> Contest:
    source, indices, offsets = (part.to(machine.device) for part in cell.load())
    table: Any = source if storage == "float32" else quantize(source, storage)
    entries = SAMPLE * cell.length
    truth = embedding_bag(table, indices[:entries], offsets[:SAMPLE], backend="reference")
    ours = by_backend(
        machine,
        "embedding_bag",
        lambda backend: partial(embedding_bag, table, indices, offsets, backend=backend),
    )
    if storage == "float32":
        plain = partial(F.embedding_bag, mode="sum")
        peers: dict[str, Prepare] = {
            "torch": lambda: partial(plain, indices, source, offsets),
            "torch.compile": lambda: partial(machine.compiled(plain), indices, source, offsets),
        }
    else:
        bits = 8 if storage == "int8" else 4
        given = (source, bits, indices, offsets, machine)
        peers = {
            "torch quantized": partial(torch_quantized, *given),
            "fbgemm": partial(fbgemm, *given),
        }

    def agreement(answer: Tensor) -> float:
        return close(answer[:SAMPLE], truth)

    return Contest(
        ours, peers, agreement, lambda answer: agreement(answer) == 1,
        frozenset() if storage == "float32" else frozenset(peers), cold=True,
    )  # fmt: skip


def torch_quantized(
    table: Tensor, bits: int, indices: Tensor, offsets: Tensor, machine: Machine
) -> Call:
    """torch's own operator; its rows are packed on the CPU."""
    call: Any = lookups.torch_quantized(table.cpu(), bits, indices, offsets)
    return partial(call.func, *(part.to(machine.device) for part in call.args))


def fbgemm(table: Tensor, bits: int, indices: Tensor, offsets: Tensor, machine: Machine) -> Call:
    """The inference operator of many tables, with one, where the table is."""
    on_cpu = machine.device == "cpu"
    installed("fbgemm_gpu", "fbgemm-gpu-cpu" if on_cpu else "fbgemm-gpu")
    from fbgemm_gpu.split_embedding_configs import SparseType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
    from fbgemm_gpu.split_table_batched_embeddings_ops_inference import (
        IntNBitTableBatchedEmbeddingBagsCodegen,
    )

    rows, dim = table.shape
    kind = SparseType.INT8 if bits == 8 else SparseType.INT4
    place = EmbeddingLocation.HOST if on_cpu else EmbeddingLocation.DEVICE
    op = IntNBitTableBatchedEmbeddingBagsCodegen(
        [("", rows, dim, kind, place)], device=table.device, output_dtype=SparseType.FP32
    )
    op.initialize_weights()
    codes, numbers = op.split_embedding_weights(split_scale_shifts=True)[0]
    width = dim * bits // 8
    for start in range(0, rows, 1 << 18):
        part = slice(start, start + (1 << 18))
        packed = torch.ops.fbgemm.FloatToFusedNBitRowwiseQuantizedSBHalf(table[part], bits)
        codes[part], numbers[part] = packed[:, :width], packed[:, width:]
    bounds = F.pad(offsets, (0, 1), value=indices.shape[0])
    return partial(op, indices.int(), bounds.int())


def candidates(cell: CandidateCell, job: str, machine: Machine) -> Contest:
    queries, items, grid = (part.to(machine.device) for part in cell.load())
    starts = torch.arange(cell.queries + 1, device=machine.device) * cell.length
    lists, k = Ragged(grid.flatten(), starts), 10 if job.endswith("best") else None
    packed = pack(quantize(items) if job.startswith("int8") else items)
    few = part_of(lists, SAMPLE, cell.queries)
    truth = candidate_scores(queries[:SAMPLE], packed, few, k=k, backend="reference")
    scores = truth if k is None else truth.scores

    def gather() -> Tensor:
        found = torch.einsum("bd,bld->bl", queries, items[grid])
        return found.flatten() if k is None else found.topk(k).values

    def first(answer: Any) -> Tensor:
        """Of the sample, in the shape of `scores`."""
        return (answer.scores if isinstance(answer, TopK) else answer)[: scores.shape[0]]

    def right(answer: Any) -> bool:
        same = torch.equal(first(answer), scores)
        return same and (k is None or torch.equal(answer.ids[: scores.shape[0]], truth.ids))

    ours = by_backend(
        machine,
        "candidate_scores",
        lambda backend: partial(candidate_scores, queries, packed, lists, k=k, backend=backend),
    )
    peers: dict[str, Prepare] = {
        "torch gather and einsum": lambda: gather,
        "torch.compile gather and einsum": lambda: machine.compiled(gather),
    }
    inexact = frozenset(peers) if job.startswith("int8") else frozenset()
    return Contest(
        ours, peers, lambda answer: close(first(answer), scores), right, inexact, cold=True
    )


# ---- codes and packs ----


def quantization(cell: QuantizeCell, dtype: str, machine: Machine) -> Contest:
    weight = cell.load()[0].to(machine.device)
    truth = quantize(weight[:SAMPLE], dtype, backend="reference")
    wide = truth.dequantize()
    peers: dict[str, Prepare] = {}
    if dtype in ("int8", "int4"):
        bits = "byte" if dtype == "int8" else "4bit"
        prepack = getattr(torch.ops.quantized, f"embedding_bag_{bits}_prepack")
        peers["torch prepack"] = lambda: (
            lambda: QuantizedTable.from_rows(prepack(weight), dtype, cell.dim)
        )
    elif dtype in ("float16", "bfloat16"):
        peers["torch cast"] = lambda: partial(weight.to, getattr(torch, dtype))
    else:
        peers["torch.compile"] = lambda: partial(machine.compiled(to_fp8), weight)

    def values(answer: Any) -> Tensor:
        if isinstance(answer, QuantizedTable):
            rows = answer.rows()
            return rows.widen(slice(0, SAMPLE))
        codes, *scale = answer if isinstance(answer, tuple) else (answer,)
        return codes[:SAMPLE].float() * (scale[0][:SAMPLE] if scale else 1)

    def right(answer: QuantizedTable) -> bool:
        part = answer.codes[:SAMPLE]
        return torch.equal(part.view(torch.uint8), truth.codes.view(torch.uint8))

    ours = by_backend(
        machine,
        "quantize",
        lambda backend: partial(quantize, weight, dtype, backend=backend),
    )
    return Contest(
        ours, peers, lambda answer: close(values(answer), wide), right, frozenset(peers), cold=True
    )


def to_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Row-wise, as a user of torch would write it."""
    scale = weight.abs().amax(dim=1, keepdim=True) / 448
    return (weight / scale).to(torch.float8_e4m3fn), scale


def packing(cell: PackCell, machine: Machine) -> Contest:
    items = cell.load()[0].to(machine.device)
    truth = pack(items[:16], backend="reference")
    sketch = truth.sketch
    assert sketch is not None

    def copy_and_norm() -> Tensor:
        items.clone()
        return 1 / torch.linalg.vector_norm(items, dim=1)

    def norms(answer: Any) -> Tensor:
        return answer.inverse_norms if isinstance(answer, PackedItems) else answer

    def right(answer: PackedItems) -> bool:
        same = torch.equal(answer.inverse_norms[:16], truth.inverse_norms)
        ours = answer.sketch
        return same and ours is not None and torch.equal(ours.codes[:1], sketch.codes)

    ours = by_backend(machine, "pack", lambda backend: partial(pack, items, backend=backend))
    return Contest(
        ours,
        {"torch clone and norm": lambda: copy_and_norm},
        lambda answer: close(norms(answer)[:16], truth.inverse_norms),
        right,
        frozenset({"torch clone and norm"}),
        cold=True,
    )
