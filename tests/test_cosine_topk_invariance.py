"""The result of `cosine_topk` is a function of its inputs alone."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import oracle
import pytest
import torch
from cases import SETTINGS, random
from cases import check_topk as check

from llmrec_kernels import cosine_topk

OPS = ("cosine_topk", "pack", "quantize")


def test_memory_layout_changes_nothing(backend: str) -> None:
    queries, items, bias = random(5, 10), random(60, 10, seed=1), random(60, seed=2)
    expected = check(backend, queries, items, 6, item_bias=bias)
    layouts = {
        "transposed": lambda t: t.t().contiguous().t() if t.dim() == 2 else t,
        "strided": lambda t: t.repeat_interleave(3, dim=-1)[..., ::3],
        "offset": lambda t: torch.cat([t[:1], t])[1:],
        "negative strides": lambda t: t.flip(0).numpy()[::-1],
        "read-only": lambda t: np.frombuffer(t.numpy().tobytes(), t.numpy().dtype).reshape(t.shape),
        "big-endian": lambda t: t.numpy().astype(">f4"),
        "rows of padding": lambda t: torch.nn.functional.pad(t, (2, 5))[..., 2:-5],
    }
    for change in layouts.values():
        result = cosine_topk(
            change(queries), change(items), 6, item_bias=change(bias), backend=backend
        )
        oracle.assert_same_bits(torch.as_tensor(result.ids), expected.ids.numpy())
        oracle.assert_same_bits(torch.as_tensor(result.scores), expected.scores.numpy())
    repeated = items[:1].expand(60, 10)
    check(backend, queries[:1].expand(5, 10), repeated, 6)


def test_results_come_back_in_the_library_of_the_queries(backend: str) -> None:
    queries, items = random(2, 4), random(9, 4, seed=1)
    arrays = cosine_topk(queries.numpy(), items, 3, backend=backend)
    tensors = cosine_topk(queries, items.numpy(), 3, backend=backend)
    assert isinstance(arrays.scores, np.ndarray)
    assert isinstance(arrays.ids, np.ndarray)
    assert isinstance(tensors.scores, torch.Tensor)
    oracle.assert_same_bits(tensors.scores, arrays.scores)


def test_batch_size_changes_no_bit(backend: str) -> None:
    queries, items = random(300, 33), random(800, 33, seed=1)
    whole = cosine_topk(queries, items, 11, backend=backend)
    for size in (7, 127, 128, 129, 299):
        parts = [cosine_topk(part, items, 11, backend=backend) for part in queries.split(size)]
        oracle.assert_same_bits(torch.cat([part.ids for part in parts]), whole.ids.numpy())
        oracle.assert_same_bits(torch.cat([part.scores for part in parts]), whole.scores.numpy())


def test_order_of_queries_permutes_the_rows(backend: str) -> None:
    queries, items = random(20, 16), random(500, 16, seed=1)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    expected = cosine_topk(queries, items, 8, backend=backend)
    result = cosine_topk(queries[order], items, 8, backend=backend)
    assert torch.equal(result.ids, expected.ids[order])
    assert torch.equal(result.scores, expected.scores[order])


def test_order_of_items_changes_no_score(backend: str) -> None:
    queries, items = random(6, 16), random(100, 16, seed=1).repeat(3, 1)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    expected = cosine_topk(queries, items, 300, backend=backend)
    result = cosine_topk(queries, items[order], 300, backend=backend)
    by_id = torch.empty(6, 300).scatter_(1, expected.ids, expected.scores)
    oracle.assert_same_bits(by_id.gather(1, order[result.ids]), result.scores.numpy())
    oracle.assert_same_bits(result.scores, expected.scores.numpy())


def test_a_smaller_k_is_the_head_of_a_larger(backend: str) -> None:
    queries, items = random(4, 24), random(900, 24, seed=1)
    longest = cosine_topk(queries, items, 950, backend=backend)
    for k in (1, 2, 31, 32, 33, 899, 900):
        head = cosine_topk(queries, items, k, backend=backend)
        assert torch.equal(head.ids, longest.ids[:, :k])
        assert torch.equal(head.scores, longest.scores[:, :k])


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_setting_of_torch_changes_a_bit(backend: str, setting: str) -> None:
    queries = random(33, 48)
    items = random(40, 48, seed=1).repeat(150, 1)
    items += 1e-4 * random(6000, 48, seed=2)  # ties that bfloat16 or TF32 would get wrong
    expected = check(backend, queries, items, 10)
    with SETTINGS[setting]():
        result = cosine_topk(queries, items, 10, backend=backend)
    oracle.assert_same_bits(result.ids, expected.ids.numpy())
    oracle.assert_same_bits(result.scores, expected.scores.numpy())


def test_inputs_are_left_as_they_were(backend: str) -> None:
    inputs = [random(3, 6), random(20, 6, seed=1), random(20, seed=2), random(20, seed=3)]
    exclude, allow = torch.tensor([5, 1, 1]), torch.ones(3, 20, dtype=torch.bool)
    inputs += [exclude, allow]
    copies = [tensor.clone() for tensor in inputs]
    queries, items, bias, scale = inputs[:4]
    options = {"item_bias": bias, "item_scale": scale, "exclude": exclude, "allow": allow}
    cosine_topk(queries, items, 30, backend=backend, **options)
    assert all(torch.equal(now, then) for now, then in zip(inputs, copies, strict=True))


def test_what_needs_gradients_may_be_searched(backend: str) -> None:
    queries, items = random(3, 6).requires_grad_(), random(20, 6, seed=1).requires_grad_()
    result = check(backend, queries, items, 4)
    assert not result.scores.requires_grad


def test_fast_precision_returns_real_scores_of_what_it_returns(backend: str) -> None:
    queries, items = random(5, 32), random(400, 32, seed=1)
    scores, ids = cosine_topk(queries, items, 10, precision="fast", backend=backend)
    exact = np.take_along_axis(oracle.scores(queries, items), ids.numpy(), axis=1)
    np.testing.assert_allclose(scores.numpy(), exact, atol=2e-2)
    overlap = ids[:, :, None] == cosine_topk(queries, items, 10, backend=backend).ids[:, None]
    assert overlap.any(2).double().mean() > 0.9


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is counted in kilobytes on Linux")
def test_the_matrix_of_all_scores_is_never_held(backend: str) -> None:
    code = f"""
import resource, torch
from llmrec_kernels import cosine_topk

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

queries, items = torch.randn(1000, 2), torch.randn(40_000, 2)
cosine_topk(queries[:2], items[:2000], 5, backend={backend!r})
before = peak()
cosine_topk(queries, items, 10, backend={backend!r})
print(peak() - before)
"""
    # Freed blocks go back to the system at once, so that the peak is what was needed at a time.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert int(run.stdout) < 1000 * 40_000 * 4 // 2


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_search_of_a_million_works_in_one_percent_of_the_matrix(backend: str) -> None:
    if backend == "reference":
        pytest.skip("the bound is of the compiled kernels; plain torch takes a minute for this")
    code = """
import re
from pathlib import Path
import torch
from llmrec_kernels import cosine_topk, pack

def memory(what):
    return int(re.search(what + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

queries, items = torch.randn(1024, 8), pack(torch.randn(1_000_000, 8))
cosine_topk(queries[:2], items, 5)
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from now on
before = memory("VmRSS")
found = cosine_topk(queries, items, 100)
print(memory("VmHWM") - before - found.scores.nbytes - found.ids.nbytes)
"""
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 1 << 20 < int(run.stdout) < 1024 * 1_000_000 * 4 // 100
