"""Row-wise quantization against torch's prepack ops, which write the same row format."""

import pytest
import torch
from shapes import clustered

from llmrec_kernels import quantize

PEERS = {
    "int8": torch.ops.quantized.embedding_bag_byte_prepack,
    "int4": torch.ops.quantized.embedding_bag_4bit_prepack,
}


@pytest.fixture(params=sorted(PEERS))
def cell(request, benchmark):
    benchmark.group = f"quantize 100000 x 128 to {request.param}"
    return request.param, clustered(100_000, 128)


def bench_llmrec(benchmark, cell):
    storage, table = cell
    benchmark.pedantic(quantize, (table, storage), rounds=5, warmup_rounds=1)


def bench_torch_prepack(benchmark, cell):
    storage, table = cell
    benchmark.pedantic(PEERS[storage], (table,), rounds=5, warmup_rounds=1)
