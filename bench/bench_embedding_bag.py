"""Pooled lookup against torch's own: float32 `embedding_bag`, and the quantized ops of FBGEMM."""

import pytest
import torch
from shapes import BAGS

from llmrec_kernels import embedding_bag, quantize


@pytest.fixture(params=BAGS, ids=lambda cell: cell.name)
def cell(request, benchmark):
    found = request.param
    benchmark.group = f"embedding_bag {found}"
    return found.load()


@pytest.mark.parametrize("storage", ["float32", "int8", "int4"])
def bench_llmrec(benchmark, cell, storage):
    table, indices, offsets = cell
    rows = table if storage == "float32" else quantize(table, storage)
    benchmark.pedantic(embedding_bag, (rows, indices, offsets), rounds=20, warmup_rounds=2)


def bench_torch_float32(benchmark, cell):
    table, indices, offsets = cell
    benchmark.pedantic(
        torch.nn.functional.embedding_bag,
        (indices, table, offsets),
        {"mode": "sum"},
        rounds=20,
        warmup_rounds=2,
    )


def bench_torch_int8(benchmark, cell):
    table, indices, offsets = cell
    rows = torch.ops.quantized.embedding_bag_byte_prepack(table)
    op = torch.ops.quantized.embedding_bag_byte_rowwise_offsets
    benchmark.pedantic(op, (rows, indices, offsets), rounds=20, warmup_rounds=2)


def bench_torch_int4(benchmark, cell):
    table, indices, offsets = cell
    rows = torch.ops.quantized.embedding_bag_4bit_prepack(table)
    op = torch.ops.quantized.embedding_bag_4bit_rowwise_offsets
    benchmark.pedantic(op, (rows, indices, offsets), rounds=20, warmup_rounds=2)
