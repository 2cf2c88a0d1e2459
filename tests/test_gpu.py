"""What only a GPU can show: `pytest -m gpu`, skipped with the reason where there is none."""

from __future__ import annotations

import os
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
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("Triton's interpreter is on in this process; run pytest -m gpu")
    return str(request.param)


def on_gpu(items: Any) -> Any:
    return items.to("cuda")


def same_topk(found: Any, want: Any) -> None:
    """The same ids, and the same bits of scores."""
    assert torch.equal(found.ids.cpu(), want.ids)
    assert torch.equal(found.scores.cpu(), want.scores)


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("storage", STORAGES)
def test_topk_is_that_of_the_cpu(backend: str, storage: str, metric: str) -> None:
    items = stored(random(20_000, 100, seed=1), storage)
    for count, k in ((1, 10), (70, 100), (300, 3), (2, 1500)):
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
    torch.testing.assert_close(found.cpu(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("storage", STORAGES)
def test_candidates_are_those_of_the_cpu(backend: str, storage: str) -> None:
    items, queries = stored(random(5_000, 200), storage), random(30, 200, seed=1)
    lists = Ragged(torch.randint(5_000, (3_000,)), torch.arange(31) * 100)
    there = Ragged(lists.values.cuda(), lists.offsets.cuda())
    want = candidate_scores(queries, items, lists)
    found = candidate_scores(queries.cuda(), on_gpu(items), there, backend=backend)
    assert torch.equal(found.cpu(), want)
    for k in (7, 300):
        best = candidate_scores(queries.cuda(), on_gpu(items), there, k=k, backend=backend)
        same_topk(best, candidate_scores(queries, items, lists, k=k))


@pytest.mark.parametrize("dtype", ["int8", "int4", "fp8_e4m3", "float16", "bfloat16"])
def test_codes_are_those_of_the_cpu(backend: str, dtype: str) -> None:
    weight = random(3_000, 130)
    found = quantized(weight.cuda(), dtype, backend=backend)
    want = quantized(weight, dtype)
    for name, value in want.state_dict().items():
        if isinstance(value, Tensor):
            ours = found.state_dict()[name].cpu().contiguous()
            assert torch.equal(ours.view(torch.uint8), value.contiguous().view(torch.uint8)), name


def test_indices_and_offsets_that_slipped_through_read_nothing_outside(backend: str) -> None:
    """Below the public functions, which check what they can; compute-sanitizer sees the rest."""
    table, far = random(9, 8).cuda(), 2**40
    wrong = torch.tensor([0, -1, 9, far, 3, -far, 2, 2], device="cuda")
    for bad in ([0, 5, 8], [-5, 3, far], [2**63 - 1, -(2**63), 0]):
        offsets = torch.tensor(bad, device="cuda")
        operator = getattr(torch.ops.llmrec, f"embedding_bag_{backend}")
        bags = operator(table, None, None, 0, 8, wrong, offsets, 0, None, -1, False, 0)
        assert bags.isfinite().all()
        operator = getattr(torch.ops.llmrec, f"candidate_scores_{backend}")
        arguments = (table[:2], table, None, None, None, 0, wrong, offsets, 0)
        terms = (None, None, 0.0, None, None)
        operator(*arguments, *terms)
        for k in (2, 300):
            operator(*arguments, *terms, k)
    torch.cuda.synchronize()  # a fault is reported here


@pytest.mark.parametrize("op", ["topk", "filtered topk", "bags", "candidates", "best", "codes"])
def test_an_operator_is_captured_in_a_graph(backend: str, op: str) -> None:
    items, queries = pack(random(9_000, 64).cuda()), random(8, 64, seed=1).cuda()
    lists = Ragged(torch.arange(800).cuda(), torch.arange(9).cuda() * 100)

    def run() -> tuple[Tensor, ...]:
        if op == "topk":
            return tuple(cosine_topk(queries, items, 20, backend=backend))
        if op == "filtered topk":
            return tuple(cosine_topk(queries, items, 20, exclude=lists, backend=backend))
        if op == "bags":
            return (embedding_bag(queries, lists.values[:80].view(10, 8) % 8, backend=backend),)
        if op == "candidates":
            return (candidate_scores(queries, items, lists, backend=backend),)
        if op == "best":
            return tuple(candidate_scores(queries, items, lists, k=5, backend=backend))
        return (quantized(queries, "int8", backend=backend).codes,)

    run()  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    queries.copy_(random(8, 64, seed=2))
    graph.replay()
    torch.cuda.synchronize()
    for ours, want in zip(captured, run(), strict=True):
        assert torch.equal(ours, want)


def test_work_goes_to_the_stream_of_the_caller(backend: str) -> None:
    items, queries = random(9_000, 64).cuda(), random(8, 64, seed=1).cuda()
    want = cosine_topk(queries, items, 5, backend=backend)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        later = torch.zeros_like(items)
        torch.cuda._sleep(100_000_000)  # another stream would find the zeros
        later.copy_(items)
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
