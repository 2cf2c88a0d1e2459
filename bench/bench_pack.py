"""Packing against the two passes that it stands for in torch: a copy, and the norms."""

import pytest
import torch

from llmrec_kernels import pack
from llmrec_kernels.benchmarks.vectors import clustered


@pytest.fixture
def items(benchmark):
    benchmark.group = "pack 100000 x 384"
    return clustered(100_000, 384)


def bench_llmrec(benchmark, items):
    benchmark.pedantic(pack, (items,), rounds=5, warmup_rounds=1)


def bench_torch_clone_and_norm(benchmark, items):
    benchmark.pedantic(
        lambda: (items.clone(), torch.linalg.vector_norm(items, dim=1)), rounds=5, warmup_rounds=1
    )
