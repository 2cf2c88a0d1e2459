"""Row-wise quantization against a copy, and against torch's ops for the same."""

import pytest
from lookups import contest, jobs

from llmrec_kernels.benchmarks.cells import QUANTIZE


@pytest.mark.parametrize("peer", ["llmrec", "copy", "torch"])
@pytest.mark.parametrize(
    ("cell", "job"), [pytest.param(c, j, id=f"{c.name}-{j}") for c in QUANTIZE for j in jobs(c)]
)
def bench_quantize(benchmark, cell, job, peer):
    held = contest(cell, job)
    if peer not in held.calls:
        pytest.skip(held.left_out.get(peer, "it has no such operator"))
    benchmark.group = f"{cell.name} {job}"
    benchmark.pedantic(held.calls[peer], rounds=10, warmup_rounds=2)
