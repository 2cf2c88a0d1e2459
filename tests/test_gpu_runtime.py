"""How the operators behave on a GPU: `pytest -m gpu`, skipped with the reason where there is none.

Streams, graphs, devices, memory, torch.compile, and compute-sanitizer over tests/test_gpu.py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import random
from gpu_dry_run import (
    BACKENDS,
    DRY_RUN,
    ELSEWHERE,
    LARGE,
    cuda,
    device_at,
    needs_gpu,
    require,
    there,
)
from torch import Tensor

from llmrec_kernels import Ragged, candidate_scores, cosine_topk, embedding_bag, pack
from llmrec_kernels import quantize as quantized

pytestmark = needs_gpu
ROOT = Path(__file__).parent.parent
SANITIZED = "LLMREC_UNDER_SANITIZER"  # set where compute-sanitizer runs the tests


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def nothing_waits() -> Iterator[Callable[[], None]]:
    """From its call to the end of the test, torch refuses to synchronise."""
    yield lambda: cuda.set_sync_debug_mode("error")
    cuda.set_sync_debug_mode("default")


class Work:
    """One call of each kind, over tensors that stay where they are."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.queries, self.vectors = there(random(8, 64, seed=1)), there(random(9_000, 64))
        self.table = quantized(self.vectors)
        self.lists = Ragged(there(torch.arange(800)), there(torch.arange(9) * 100))
        self.mask = there(torch.arange(9_000) % 7 == 3)
        self.grid = there(torch.arange(80).view(10, 8))

    CALLS: dict[str, tuple[str, Callable[[Work], Any]]] = {  # noqa: RUF012 - never changed
        "topk": ("cosine_topk", lambda w: cosine_topk(w.queries, w.vectors, 20, backend=w.backend)),
        "large k": (
            "cosine_topk",
            lambda w: cosine_topk(w.queries, w.vectors, 3_000, metric="dot", backend=w.backend),
        ),
        "int8 topk": (
            "cosine_topk",
            lambda w: cosine_topk(w.queries, w.table, 20, backend=w.backend),
        ),
        "filtered topk": (
            "cosine_topk",
            lambda w: cosine_topk(
                w.queries, w.vectors, 20, exclude=w.lists, allow=w.mask, backend=w.backend
            ),
        ),
        "allowed topk": (
            "cosine_topk",
            lambda w: cosine_topk(w.queries, w.vectors, 20, allow=w.lists, backend=w.backend),
        ),
        "bags": ("embedding_bag", lambda w: embedding_bag(w.table, w.grid, backend=w.backend)),
        "bags of queries": (
            "embedding_bag",
            lambda w: embedding_bag(w.queries, w.grid % 8, normalize=True, backend=w.backend),
        ),
        "candidates": (
            "candidate_scores",
            lambda w: candidate_scores(w.queries, w.vectors, w.lists, backend=w.backend),
        ),
        "best candidates": (
            "candidate_scores",
            lambda w: candidate_scores(w.queries, w.vectors, w.lists, k=5, backend=w.backend),
        ),
        "codes": ("quantize", lambda w: quantized(w.queries, "int8", backend=w.backend).codes),
        "pack": ("pack", lambda w: pack(w.queries, backend=w.backend).inverse_norms),
    }

    def run(self, call: str) -> tuple[Tensor, ...]:
        result = self.CALLS[call][1](self)
        return (result,) if isinstance(result, Tensor) else tuple(result)


@pytest.fixture(params=Work.CALLS)
def call(request: pytest.FixtureRequest, backend: str) -> str:
    require(backend, Work.CALLS[request.param][0])
    return str(request.param)


def same(found: tuple[Tensor, ...], want: tuple[Tensor, ...]) -> None:
    for one, other in zip(found, want, strict=True):
        assert torch.equal(one.cpu(), other.cpu())


# ---- streams and graphs ----


def test_a_call_is_captured_in_a_graph(backend: str, call: str) -> None:
    work = Work(backend)
    before = work.run(call)  # compiles what is compiled at the first call
    cuda.synchronize()
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        captured = work.run(call)
    for seed in (2, 3):  # a workspace that is not cleaned shows at the second replay
        work.queries.copy_(random(8, 64, seed=seed))
        graph.replay()
        cuda.synchronize()
        same(captured, work.run(call))
    assert any(not torch.equal(a, b) for a, b in zip(captured, before, strict=True)) or (
        call == "bags"  # which reads no query
    )


def test_work_goes_to_the_stream_of_the_caller(backend: str, call: str) -> None:
    work, want = Work(backend), Work(backend).run(call)
    stream, filled = cuda.Stream(), work.queries
    cuda.synchronize()
    with cuda.stream(stream):
        work.queries = torch.zeros_like(filled)
        cuda._sleep(100_000_000)  # work on another stream would find the zeros
        work.queries.copy_(filled)
        found = work.run(call)
    stream.synchronize()
    same(found, want)


def test_no_call_waits_for_the_device(
    backend: str, call: str, nothing_waits: Callable[[], None]
) -> None:
    """Torch's own watch, and one that sees all: the call is back while the GPU still sleeps."""
    work = Work(backend)
    want = work.run(call)
    cuda.synchronize()
    asleep = cuda.Event()
    nothing_waits()
    cuda._sleep(1_000_000_000)  # half a second
    asleep.record()
    found = work.run(call)
    assert not asleep.query()
    cuda.set_sync_debug_mode("default")
    cuda.synchronize()
    same(found, want)


# ---- devices ----


def test_tensors_on_two_devices_are_refused_in_a_sentence(backend: str) -> None:
    require(backend, "cosine_topk", "candidate_scores", "embedding_bag")
    items, queries = random(20, 8), random(3, 8)
    far, lists = items.to(ELSEWHERE), Ragged.of([[1], [2], []]).to(ELSEWHERE)
    with pytest.raises(
        ValueError, match=f"items is on {ELSEWHERE}; expected {there(items).device}"
    ):
        cosine_topk(there(queries), far, 2, backend=backend)
    with pytest.raises(ValueError, match=f"item_bias is on {ELSEWHERE}; expected"):
        cosine_topk(there(queries), there(items), 2, item_bias=far[:, 0], backend=backend)
    with pytest.raises(ValueError, match=f"candidates is on {ELSEWHERE}; expected"):
        candidate_scores(there(queries), there(items), lists, backend=backend)
    with pytest.raises(ValueError, match=f"indices is on {ELSEWHERE}; expected"):
        embedding_bag(there(items), torch.ones(2, 3).long().to(ELSEWHERE), backend=backend)


def test_the_device_of_the_tensors_counts_not_the_current_one(backend: str, call: str) -> None:
    if cuda.device_count() < 2:
        pytest.skip("torch finds one CUDA device; this takes two")
    work, want = Work(backend), Work(backend).run(call)
    other = device_at(1)
    for name in ("queries", "vectors", "table", "lists", "mask", "grid"):
        setattr(work, name, getattr(work, name).to(other))
    with cuda.device(0):
        found = work.run(call)
        assert all(result.device == other for result in found)
        same(found, want)
    with cuda.device(1):
        same(work.run(call), want)
        same(Work(backend).run(call), want)


# ---- memory ----


def test_a_call_without_memory_says_so_and_the_next_one_works(backend: str) -> None:
    require(backend, "cosine_topk")
    count, width = (64, 3_000) if DRY_RUN else (4_096, 100_000)  # results of 48 MB
    queries, items = there(random(count, 64)), there(random(width, 64, seed=1))

    def run() -> tuple[Tensor, ...]:
        return tuple(cosine_topk(queries, items, 1_000, backend=backend))

    want = tuple(part.cpu() for part in run())
    refusals: list[str] = []
    total = cuda.mem_get_info()[1]
    for spare in (0, *(2**power for power in range(20, 35))):  # up to 16 GB
        cuda.empty_cache()
        allowed = cuda.memory_reserved() + spare
        cuda.set_per_process_memory_fraction(min(1.0, allowed / total))
        try:
            found = run()
        except RuntimeError as error:  # the extension has no kind of its own
            refusals.append(repr(error))
            continue
        finally:
            cuda.set_per_process_memory_fraction(1.0)
        same(found, want)
        break
    assert refusals
    if backend == "cuda":  # of the results torch says so, and of the workspace we do
        sentence = r"cosine_topk found no \d+ bytes of workspace on cuda:\d+: "
        assert any(re.search(sentence, why) for why in refusals), refusals
    else:
        assert all(why.startswith("OutOfMemoryError") for why in refusals), refusals
    same(run(), want)


def test_tables_beyond_two_to_the_31_elements(backend: str) -> None:
    require(backend, "cosine_topk", "candidate_scores", "embedding_bag")
    dim, last = 512, 300
    rows = LARGE // dim + 1_000
    cuda.empty_cache()
    if cuda.mem_get_info()[0] < 6 * rows * dim:
        pytest.skip("the GPU has no room for 2^31 float16 numbers and half as much again")
    table = there(torch.zeros(0, dim, dtype=torch.float16)).new_zeros(rows, dim)
    end = there(random(last, dim).half())
    table[-last:] = end
    queries = there(random(3, dim, seed=1))
    found = cosine_topk(queries, table, 10, backend=backend)
    want = cosine_topk(queries, end, 10, backend=backend)
    same(found, (want.scores, want.ids + rows - last))
    lists = Ragged(there(torch.tensor([0, 299, 5])), there(torch.tensor([0, 1, 2, 3])))
    moved = Ragged(lists.values + rows - last, lists.offsets)
    scores = candidate_scores(queries, table, moved, backend=backend)
    assert torch.equal(scores, candidate_scores(queries, end, lists, backend=backend))
    bags = embedding_bag(table, moved.values[None], backend=backend)
    assert torch.equal(bags, embedding_bag(end, lists.values[None], backend=backend))


# ---- torch.compile ----


@pytest.mark.parametrize("compiler", ["aot_eager"] if DRY_RUN else ["aot_eager", "inductor"])
def test_torch_compile_keeps_the_whole_graph(backend: str, call: str, compiler: str) -> None:
    torch._dynamo.reset()
    work = Work(backend)
    operation = Work.CALLS[call][1]

    def run(queries: Tensor) -> Any:
        work.queries = queries
        return operation(work)

    compiled = torch.compile(run, backend=compiler, fullgraph=True)
    queries = work.queries
    result = compiled(queries)
    work.queries = queries
    same((result,) if isinstance(result, Tensor) else tuple(result), work.run(call))


# ---- compute-sanitizer ----


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_compute_sanitizer_finds_nothing(tool: str) -> None:
    if os.environ.get(SANITIZED):
        pytest.skip("compute-sanitizer runs this process")
    if shutil.which("compute-sanitizer") is None:
        pytest.skip("there is no compute-sanitizer on PATH; it comes with the CUDA toolkit")
    # Memory that torch keeps for later is allocated, as the sanitizer sees it.
    environment = os.environ | {SANITIZED: tool, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    environment = {n: v for n, v in environment.items() if not n.startswith("PYTEST_")}
    run = subprocess.run(
        ["compute-sanitizer", "--tool", tool, "--error-exitcode", "1", sys.executable, "-m",
         "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "tests/test_gpu.py",
         "-k", "slipped or unaligned or empty"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-4_000:] + run.stderr[-2_000:]
    assert " passed" in run.stdout
