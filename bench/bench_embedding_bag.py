"""Pooled lookup against torch's own and FBGEMM's, in each storage."""

import pytest
from lookups import contest, jobs

from llmrec_kernels.benchmarks.cells import BAGS


@pytest.mark.parametrize("peer", ["llmrec", "torch", "fbgemm"])
@pytest.mark.parametrize(
    ("cell", "job"), [pytest.param(c, j, id=f"{c.name}-{j}") for c in BAGS for j in jobs(c)]
)
def bench_embedding_bag(benchmark, cell, job, peer):
    held = contest(cell, job)
    if peer not in held.calls:
        pytest.skip(held.left_out.get(peer, "it has no such operator"))
    benchmark.group = f"{cell.name} {job}"
    benchmark.pedantic(held.calls[peer], rounds=10, warmup_rounds=2)
