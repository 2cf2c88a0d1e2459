"""The profiler on a GPU: its clock, its roofs, its energy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_dry_run import DRY_RUN, needs_gpu, there

from llmrec_kernels import _library, cosine_topk, pack, profiler
from llmrec_kernels.profiler import Report, hardware

pytestmark = needs_gpu
NAME = "cpu" if DRY_RUN else "cuda:0"


@pytest.fixture(scope="module")
def report() -> Report:
    if DRY_RUN and _library.load_error is not None:
        pytest.skip(f"a CPU has no roofs: {_library.load_error}")
    items, queries = pack(there(torch.randn(20_000, 64))), there(torch.randn(32, 64))
    return profiler.profile(
        lambda: cosine_topk(queries, items, 10), units=32, unit="query", device=NAME,
        min_time=0.1, energy_window=6.0, gpus=["H100-SXM"],
    )  # fmt: skip


def test_the_gpus_own_clock_is_told_beside_the_walls(report: Report) -> None:
    assert report.device == NAME
    if DRY_RUN:
        assert report.kernel_time is None
        return
    assert report.kernel_time is not None
    assert report.kernel_time.clock == "cuda events"
    assert 0 < report.kernel_time.median <= 1.5 * report.time.median


def test_roofs_are_those_of_the_gpu(report: Report, tmp_path: Path) -> None:
    assert report.roofline is not None
    kinds = {"int8", "float32"}  # of which every CPU has instructions
    if not DRY_RUN:
        kinds |= {"bfloat16", "float16", "tf32"}
    assert set(report.roofline.peaks) >= kinds
    assert report.roofline.share <= 1 or report.roofline.explanation
    assert "GB/s" in str(profiler.roofs(NAME))
    row = None if DRY_RUN else hardware.named_by_driver(torch.cuda.get_device_name(0))
    if row is not None:  # a device does not do more than its datasheet says
        assert 0.3 * row.bandwidth < report.roofline.bandwidth.per_second < 1.05 * row.bandwidth
        for kind in ("int8", "float16", "bfloat16"):
            assert report.roofline.peaks[kind].per_second < 1.1 * row.peaks[kind]


def test_the_energy_of_the_gpu_is_told_with_its_source(report: Report) -> None:
    components = {each.component: each.gross for each in report.energy}
    assert ("gpu" in components) is not DRY_RUN
    assert all(figure.value is None or figure.value > 0 for figure in components.values())


def test_the_gpu_says_what_it_is(report: Report) -> None:
    gpu = report.environment.gpu
    assert (gpu is None) is DRY_RUN
    if gpu is not None:
        assert gpu.name == torch.cuda.get_device_name(0)
        assert gpu.memory_bytes > 2**30


def test_work_is_counted_as_on_a_cpu(report: Report) -> None:
    assert report.work.flops == 2 * 32 * 20_000 * 64
    assert report.ops[0].name == "llmrec.cosine_topk"
    assert report.uncounted == {}


def test_cold_calls_find_nothing_in_the_cache() -> None:
    rows = there(torch.randn(1000, 64))
    found = profiler.profile(lambda: rows.sum(), device=NAME, min_time=0.05, cache="cold")
    assert found.time.calls_per_sample == 1


def test_calls_are_compared_when_the_gpu_is_done() -> None:
    matrix = there(torch.randn(512, 512))

    def product(times: int) -> Any:
        def run() -> None:
            for _ in range(times):
                matrix @ matrix

        return run

    assert profiler.compare(product(4), product(16), device=NAME).verdict == "SLOWER"
