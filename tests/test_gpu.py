"""What only a GPU can show: `pytest -m gpu`, skipped with the reason where there is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import random, stored
from torch import Tensor

from llmrec_kernels import Ragged, candidate_scores, cosine_topk, embedding_bag, explain, pack
from llmrec_kernels import quantize as quantized

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]
STORAGES = ("float32", "float16", "bfloat16", "int8", "int8-symmetric", "int4", "fp8_e4m3")
OPS = ("cosine_topk", "candidate_scores", "embedding_bag", "quantize")


@pytest.fixture(params=["triton"])
def backend(request: pytest.FixtureRequest) -> str:
    try:
        for op in OPS:
            explain(op, torch.empty(0, device="cuda"), backend=request.param)
    except ValueError as error:
        pytest.skip(str(error))
    return str(request.param)


def on_gpu(items: Any) -> Any:
    return items.to("cuda")


def same_topk(found: Any, want: Any) -> None:
    """Ids agree but where scores are equal to the last bits."""
    scores, ids = found.scores.cpu(), found.ids.cpu()
    torch.testing.assert_close(scores, want.scores, rtol=1e-6, atol=1e-7)
    differ = ids != want.ids
    ties = (scores - want.scores).abs() <= 1e-6 * want.scores.abs() + 1e-7
    assert bool((~differ | ties).all())


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("storage", STORAGES)
def test_topk_is_that_of_the_cpu(backend: str, storage: str, metric: str) -> None:
    items = stored(random(20_000, 100, seed=1), storage)
    for count, k in ((1, 10), (70, 100), (300, 3)):
        queries = random(count, 100)
        exclude = Ragged.of([[row, row + 7] for row in range(count)])
        options: dict[str, Any] = {"metric": metric, "item_bias": random(20_000, seed=2)}
        want = cosine_topk(queries, items, k, exclude=exclude, **options)
        options["item_bias"] = options["item_bias"].cuda()
        lists = Ragged(exclude.values.cuda(), exclude.offsets.cuda())
        found = cosine_topk(
            queries.cuda(), on_gpu(items), k, exclude=lists, backend=backend, **options
        )
        same_topk(found, want)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("storage", STORAGES)
def test_bags_are_those_of_the_cpu(backend: str, storage: str, mode: str) -> None:
    table, grid = stored(random(5_000, 200), storage), torch.randint(5_000, (300, 20))
    want = embedding_bag(table, grid, mode=mode)
    found = embedding_bag(on_gpu(table), grid.cuda(), mode=mode, backend=backend)
    torch.testing.assert_close(found.cpu(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("storage", STORAGES)
def test_candidates_are_those_of_the_cpu(backend: str, storage: str) -> None:
    items, queries = stored(random(5_000, 200), storage), random(30, 200, seed=1)
    lists = Ragged(torch.randint(5_000, (3_000,)), torch.arange(31) * 100)
    there = Ragged(lists.values.cuda(), lists.offsets.cuda())
    want = candidate_scores(queries, items, lists)
    found = candidate_scores(queries.cuda(), on_gpu(items), there, backend=backend)
    torch.testing.assert_close(found.cpu(), want, rtol=1e-6, atol=1e-7)
    best = candidate_scores(queries.cuda(), on_gpu(items), there, k=7, backend=backend)
    same_topk(best, candidate_scores(queries, items, lists, k=7))


@pytest.mark.parametrize("dtype", ["int8", "int4", "fp8_e4m3", "float16", "bfloat16"])
def test_codes_are_those_of_the_cpu(backend: str, dtype: str) -> None:
    weight = random(3_000, 130)
    found = quantized(weight.cuda(), dtype, backend=backend)
    want = quantized(weight, dtype)
    assert torch.equal(found.codes.cpu().view(torch.uint8), want.codes.view(torch.uint8))


def test_a_search_is_captured_in_a_graph(backend: str) -> None:
    items, queries = pack(random(9_000, 64).cuda()), random(8, 64, seed=1).cuda()

    def search() -> tuple[Tensor, Tensor]:
        return tuple(cosine_topk(queries, items, 20, backend=backend))

    search()  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        scores, ids = search()
    queries.copy_(random(8, 64, seed=2))
    graph.replay()
    torch.cuda.synchronize()
    want = search()
    assert torch.equal(scores, want[0])
    assert torch.equal(ids, want[1])


def test_work_goes_to_the_stream_of_the_caller(backend: str) -> None:
    items, queries = random(9_000, 64).cuda(), random(8, 64, seed=1).cuda()
    want = cosine_topk(queries, items, 5, backend=backend)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        later = items * 1  # on this stream alone
        found = cosine_topk(queries, later, 5, backend=backend)
    stream.synchronize()
    assert torch.equal(found.ids, want.ids)


def test_tables_beyond_two_to_the_31_elements(backend: str) -> None:
    rows, dim = 2**31 // 512 + 1_000, 512
    if torch.cuda.mem_get_info()[0] < 4 * rows * dim:
        pytest.skip("the GPU has no room for 2^31 bytes and as much again")
    table = torch.zeros(rows, dim, dtype=torch.float16, device="cuda")
    table[-300:] = random(300, dim).half().cuda()
    queries = random(3, dim, seed=1).cuda()
    found = cosine_topk(queries, table, 10, backend=backend)
    end = cosine_topk(queries, table[-300:].clone(), 10, backend=backend)
    assert torch.equal(found.ids, end.ids + rows - 300)
    indices = torch.tensor([[rows - 1, rows - 300]], device="cuda")
    want = table[indices[0]].float().sum(0)
    torch.testing.assert_close(embedding_bag(table, indices, backend=backend)[0], want)
