"""Top-K on a GPU: ours, torch, FAISS and cuVS, with filters and without."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from gpu_cells import FilterCell
from gpu_contests import (
    SAMPLE,
    Contest,
    LeftOut,
    Prepare,
    by_backend,
    installed,
    no_gpu,
    part_of,
    recall,
)
from gpu_machine import Call, Machine
from torch import Tensor

from llmrec_kernels import PackedItems, Ragged, TopK, cosine_topk, pack
from llmrec_kernels.benchmarks.cells import TopkCell


def topk(cell: TopkCell, machine: Machine) -> Contest:
    asked, vectors = (part.to(machine.device) for part in cell.load())
    k = min(cell.k, cell.items)
    options, hide = filters(cell, machine)
    some = {name: part_of(value, SAMPLE, cell.queries) for name, value in options.items()}
    truth = cosine_topk(asked[:SAMPLE], vectors, k, backend="reference", **some)
    held: list[PackedItems] = []  # packed at the first use, once for all backends

    def ours(backend: str) -> Call:
        if not held:
            held.append(pack(vectors))
        return partial(cosine_topk, asked, held[0], k, backend=backend, **options)

    def agreement(answer: Any) -> float:
        ids = answer.ids if isinstance(answer, TopK) else answer
        return recall(ids[:SAMPLE], truth.ids)

    def right(answer: Any) -> bool:
        same = torch.equal(answer.ids[:SAMPLE], truth.ids)
        return same and torch.equal(answer.scores[:SAMPLE], truth.scores)

    # A quarter of the memory for scores at a time.
    batch = max(1, machine.free() // 4 // (4 * cell.items))

    def product(dtype: torch.dtype, compiles: bool) -> Call:
        queries, transposed = asked.to(dtype), vectors.to(dtype).T

        def step(part: Tensor, start: int) -> Tensor:
            scores = part @ transposed
            if hide is not None:
                hide(scores, start)
            return scores.topk(k).indices

        run = machine.compiled(step) if compiles else step
        parts = [(part, at * batch) for at, part in enumerate(queries.split(batch))]
        return lambda: torch.cat([run(*part) for part in parts])

    peers: dict[str, Prepare] = {
        "torch float32": partial(product, torch.float32, False),
        "torch float16": partial(product, torch.float16, False),
        "torch.compile float32": partial(product, torch.float32, True),
        "torch.compile float16": partial(product, torch.float16, True),
        "faiss": partial(faiss_flat, asked, vectors, k, cell, machine),
        "cuvs": partial(cuvs_brute_force, asked, vectors, k, options, machine),
    }
    inexact = frozenset({"torch float16", "torch.compile float16"})
    backends = by_backend(machine, "cosine_topk", ours)
    few = cell.queries < 32  # memory is the limit
    return Contest(backends, peers, agreement, right, inexact, cold=few)


def filters(
    cell: TopkCell, machine: Machine
) -> tuple[dict[str, Any], Callable[[Tensor, int], None] | None]:
    """Our filter, and how torch does the same: it overwrites the scores from query `start` on."""
    if not isinstance(cell, FilterCell):
        return {}, None
    given = cell.forbidden().to(machine.device)
    if given.dtype != torch.bool:
        starts = torch.arange(cell.queries + 1, device=machine.device) * given.shape[1]

        def exclude(scores: Tensor, start: int) -> None:
            scores.scatter_(1, given[start : start + scores.shape[0]], -torch.inf)

        return {"exclude": Ragged(given.flatten(), starts)}, exclude

    def allow(scores: Tensor, start: int) -> None:
        rows = given[start : start + scores.shape[0]] if given.dim() == 2 else given
        scores.masked_fill_(~rows, -torch.inf)

    return {"allow": given}, allow


def faiss_flat(queries: Tensor, items: Tensor, k: int, cell: TopkCell, machine: Machine) -> Call:
    no_gpu(machine)
    installed("faiss", "faiss-gpu-cu12")
    import faiss

    if not hasattr(faiss, "StandardGpuResources"):
        raise LeftOut("the FAISS that is installed has no GPU part: pip install faiss-gpu-cu12")
    if k > 2048:
        raise LeftOut("it finds at most 2048 on a GPU")
    if isinstance(cell, FilterCell):
        raise LeftOut("its flat index on a GPU takes no filter")
    import faiss.contrib.torch_utils  # tensors in and out, on torch's stream

    resources = faiss.StandardGpuResources()
    index = faiss.GpuIndexFlatIP(resources, items.shape[1])
    index.add(items)
    return lambda: index.search(queries, k)[1]


def cuvs_brute_force(
    queries: Tensor, items: Tensor, k: int, options: dict[str, Any], machine: Machine
) -> Call:
    no_gpu(machine)
    installed("cuvs", "cuvs-cu13 (cuvs-cu12 where torch is for CUDA 12)")
    from cuvs.common import Resources
    from cuvs.neighbors import brute_force, filters

    if "exclude" in options:
        raise LeftOut("it takes bits for each query and item, not lists of ids")
    stream = torch.cuda.current_stream().cuda_stream
    resources = Resources(stream=stream)
    index = brute_force.build(items, metric="inner_product", resources=resources)
    resources.sync()
    keep = None
    if "allow" in options:
        mask = options["allow"]
        make = filters.from_bitset if mask.dim() == 1 else filters.from_bitmap
        keep = make(bits_of(mask.flatten()))
    rows = queries.shape[0]
    ids = torch.empty(rows, k, dtype=torch.int64, device=machine.device)
    distances = torch.empty(rows, k, device=machine.device)

    def search() -> Tensor:
        brute_force.search(
            index, queries, k, neighbors=ids, distances=distances, resources=resources,
            prefilter=keep,
        )  # fmt: skip
        return ids

    return search


def bits_of(mask: Tensor) -> Tensor:
    """A flat mask as words of 32 bits, the first in the lowest."""
    padded = F.pad(mask.to(torch.int32), (0, -mask.shape[0] % 32)).view(-1, 32)
    shifts = torch.arange(32, device=mask.device, dtype=torch.int32)
    return (padded << shifts).sum(dim=1, dtype=torch.int32).view(torch.uint32)
