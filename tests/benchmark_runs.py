"""Runs of pytest over files of benchmarks, on a machine with known roofs and a known counter.

PYTEST_DONT_REWRITE: it holds fixtures, and test modules import it before it is a plugin.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import reports

from llmrec_kernels.profiler import environment, pytest_plugin
from llmrec_kernels.profiler.report import Ceiling, Energy
from llmrec_kernels.profiler.roofs import KINDS, SIZES, Roofs

MEMORY_BYTES, PEAK = 1e11, 1e12  # a second, of the machine whose roofs are on the disk
JOULES = 6.4
MODULE = "test_of_an_inner_run"
BATCH, ITEMS, WIDTH, K = 64, 2000, 32, 10
SEARCH = f"""
import torch
from llmrec_kernels import cosine_topk

def test_search(benchmark):
    queries, items = torch.randn({BATCH}, {WIDTH}), torch.randn({ITEMS}, {WIDTH})
    benchmark.extra_info |= {{"units": {BATCH}, "unit": "query"}}
    found = benchmark(cosine_topk, queries, items, {K})
    assert found.ids.shape == ({BATCH}, {K})
"""
PRODUCT = """
import torch
LEFT = torch.ones(3, 5)
RIGHT = torch.ones(5, 7)
"""
PRODUCT_FLOPS, PRODUCT_BYTES = 2 * 3 * 5 * 7, 4 * (3 * 5 + 5 * 7 + 3 * 7)

Run = Callable[..., "Outcome"]


class Outcome:
    """A run of pytest over one file: what it printed, and its benchmarks as they were saved."""

    def __init__(self, result: pytest.RunResult, saved: Path) -> None:
        self.result = result
        self.text = result.stdout.str()
        found = json.loads(saved.read_text())["benchmarks"] if saved.exists() else []
        self.benchmarks = {each["name"]: each for each in found}

    def passed(self, count: int) -> Outcome:
        self.result.assert_outcomes(passed=count)
        return self

    def cost(self, name: str) -> dict[str, Any]:
        return self.benchmarks[name]["extra_info"]["cost"]

    def row(self, name: str) -> dict[str, str]:
        """The cells of a benchmark in the second table, by column."""
        lines = self.text.partition("cost of the benchmarks")[2].splitlines()
        header, (row,) = lines[1], [line for line in lines if line.startswith(f"{name}  ")]
        cells = [re.split(r"\s{2,}", line.strip()) for line in (header, row)]
        return dict(zip(*cells, strict=True))

    def notes(self, name: str) -> list[str]:
        lines = self.text.partition("cost of the benchmarks")[2].splitlines()
        return [line.partition(": ")[2] for line in lines if line.startswith(f"{name}: ")]


class Inside:
    """A plugin of the inner run, which shares this process."""

    def __init__(self) -> None:
        self.modules: dict[str, Any] = {}

    def pytest_benchmark_generate_machine_info(self) -> dict[str, Any]:
        return {}  # pytest-benchmark takes seconds to look at the processor

    def pytest_unconfigure(self) -> None:
        self.modules |= {name: each for name, each in sys.modules.items() if name != MODULE}

    def keep_imports(self) -> None:
        """pytester forgets what a run imports, but torch cannot be imported twice."""
        for name, module in self.modules.items():
            sys.modules.setdefault(name, module)


def roofs(device: str = "cpu", memory: float = MEMORY_BYTES, peak: float = PEAK) -> Roofs:
    def ceiling(rate: float) -> Ceiling:
        return Ceiling(per_second=rate, source="measured here", repeatability=0.01)

    rates = {f"read {size}": ceiling(memory) for size in SIZES}
    rates |= {f"scalar {kind}": ceiling(peak) for kind in KINDS}
    fingerprint = environment.fingerprint("cpu")
    return Roofs(
        device=device,
        fingerprint=fingerprint,
        threads=1,
        rates=rates,
        refused={},
        cache_bytes=2**20,
    )


@pytest.fixture
def keep_roofs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Roofs], None]:
    """Put roofs where the profiler looks for those of this machine."""
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "cache" / "roofs" / f"{environment.fingerprint('cpu')}-cpu.json"

    def write(known: Roofs) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(known.model_dump_json())

    return write


@pytest.fixture
def inside() -> Iterator[Inside]:
    """Begun before pytester, and so ended after it."""
    inside = Inside()
    yield inside
    inside.keep_imports()


@pytest.fixture
def run_benchmarks(
    inside: Inside,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    keep_roofs: Callable[[Roofs], None],
) -> Run:
    """Run a file of benchmarks in a folder of its own, on a machine with known roofs."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # turns pytest-benchmark off
    keep_roofs(roofs())

    def call(source: str, *options: str) -> Outcome:
        pytester.makepyfile(**{MODULE: source})
        saved = pytester.path / "saved.json"
        result = pytester.runpytest(
            "-p", pytest_plugin.__name__, "--benchmark-max-time=0.01", "--benchmark-min-rounds=2",
            f"--benchmark-json={saved}", *options, plugins=[inside],
        )  # fmt: skip
        inside.keep_imports()
        return Outcome(result, saved)

    return call


@pytest.fixture
def replayed_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for a counter of energy: each call takes the same, and is made."""

    def energy(
        fn: Callable[[], Any], seconds: float, window: float, device: str
    ) -> tuple[list[Energy], list[str]]:
        fn()
        return [reports.energy("total", reports.figure(JOULES, "J", "measured"))], ["dram: unseen"]

    monkeypatch.setattr(pytest_plugin, "energy_of_call", energy)
