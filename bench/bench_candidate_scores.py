"""Scores of given candidates against gathering their rows and an einsum."""

import pytest
import torch
from shapes import CANDIDATES, clustered, queries_near

from llmrec_kernels import Ragged, candidate_scores, pack, quantize


@pytest.fixture(params=CANDIDATES, ids=lambda cell: cell.name)
def cell(request, benchmark):
    found = request.param
    benchmark.group = f"candidate_scores {found}"
    items = clustered(found.items, found.dim)
    generator = torch.Generator().manual_seed(2)
    values = torch.randint(found.items, (found.queries * found.length,), generator=generator)
    offsets = torch.arange(found.queries + 1) * found.length
    return queries_near(items, found.queries), items, Ragged(values, offsets)


@pytest.mark.parametrize("storage", ["float32", "int8"])
def bench_llmrec(benchmark, cell, storage):
    queries, items, candidates = cell
    packed = pack(items if storage == "float32" else quantize(items))
    benchmark.pedantic(candidate_scores, (queries, packed, candidates), rounds=10, warmup_rounds=1)


def bench_torch_einsum(benchmark, cell):
    queries, items, candidates = cell
    grid = candidates.values.view(queries.shape[0], -1)
    benchmark.pedantic(
        lambda: torch.einsum("bd,bld->bl", queries, items[grid]), rounds=10, warmup_rounds=1
    )
