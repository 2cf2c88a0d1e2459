"""Exact top-K against what users call today, which is not exact: torch's matmul and topk."""

import pytest
import torch
from shapes import TOPK, TopkCell, clustered, queries_near

from llmrec_kernels import cosine_topk, pack


@pytest.fixture(params=TOPK, ids=lambda cell: cell.name)
def cell(request, benchmark):
    found: TopkCell = request.param
    benchmark.group = f"cosine_topk {found}"
    items = clustered(found.items, found.dim)
    return found, queries_near(items, found.queries), items


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def bench_llmrec(benchmark, cell, backend):
    shape, queries, items = cell
    packed = pack(items)
    benchmark.pedantic(
        cosine_topk, (queries, packed, shape.k), {"backend": backend}, rounds=5, warmup_rounds=1
    )


def bench_torch_float32(benchmark, cell):
    shape, queries, items = cell
    benchmark.pedantic(lambda: torch.topk(queries @ items.T, shape.k), rounds=5, warmup_rounds=1)
