"""Exact top-K and its peers, one after the other; bench/compare.py has the logic, interleaved."""

from functools import partial

import pytest
import torch
from peers import PEERS, Size
from threadpoolctl import threadpool_limits
from turns import SECONDS, rounds_for

from llmrec_kernels.benchmarks.cells import TOPK

# Cells outside, so that their items are made once; a peer is freed before the next is prepared.
PAIRS = [pytest.param(cell, name, id=f"{cell.name}-{name}") for cell in TOPK for name in PEERS]


@pytest.mark.parametrize(("cell", "name"), PAIRS)
def bench_peer(benchmark, cell, name):
    queries, items = cell.load()
    size = Size(len(queries), len(items), items.shape[1], cell.k)
    benchmark.group = f"cosine_topk {cell.name} {size}"
    peer = PEERS[name]()
    why = peer.refusal(size)
    if why is not None:
        pytest.skip(f"{name}: {why}")
    peer.prepare(items)
    with threadpool_limits(torch.get_num_threads()):
        peer.tune(queries, cell.k)
        benchmark.extra_info["configuration"] = peer.configuration
        rounds = rounds_for(partial(peer.search, queries, cell.k), SECONDS)
        benchmark.pedantic(peer.search, (queries, cell.k), rounds=rounds, warmup_rounds=1)
