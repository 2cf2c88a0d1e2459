"""Roofs are measured by real loops and kept for the machine that they were measured on."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmrec_kernels import _library
from llmrec_kernels.profiler import environment
from llmrec_kernels.profiler.report import Ceiling
from llmrec_kernels.profiler.roofs import KINDS, LEVELS, MEMORY, SIZES, Roofs

roofs = importlib.import_module("llmrec_kernels.profiler.roofs")  # and not its function
# Operations of one thread in a cycle, at the very most: two for each lane of each unit.
MOST = {"scalar": 128, "avx2": 96, "avx2_vnni": 192, "avx512": 384, "amx": 2048, "neon": 128}
HERTZ = 8e9
extension = pytest.mark.skipif(
    _library.load_error is not None, reason=f"no extension: {_library.load_error}"
)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """One round of short loops, kept in a folder of its own."""
    monkeypatch.setattr(roofs, "REPETITIONS", 1)
    monkeypatch.setattr(roofs, "ROUNDS", (2, 2))
    monkeypatch.setattr(roofs, "SIZES", (2**21, 2**26))
    monkeypatch.setattr(roofs, "MEMORY", 2**26)
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path))
    return tmp_path / "roofs"


def made(**rates: float) -> Roofs:
    ceilings = {
        name.replace("_", " "): Ceiling(per_second=rate, source="made up", repeatability=0.01)
        for name, rate in rates.items()
    }
    return Roofs(
        device="cpu", fingerprint="f", threads=1, rates=ceilings, refused={}, cache_bytes=1000
    )


@extension
def test_every_roof_is_measured_or_refused_in_a_sentence(quick: Path) -> None:
    found = roofs.roofs("cpu")
    refused = _library.build_info()["refused_levels"]
    for level in LEVELS:
        for kind in KINDS:
            for name in (f"{level} {kind}", f"{level} {kind} alone"):
                if name in found.refused:
                    assert level in found.refused[name] or kind in found.refused[name]
                    continue
                # A loop that the compiler threw away would be faster than any processor.
                threads = 1 if "alone" in name else found.threads
                assert 1e6 < found.rates[name].per_second < threads * MOST[level] * HERTZ, name
        if level != "avx2_vnni":
            assert (f"{level} int8" in found.refused) == (level in refused)
    assert "scalar int8" in found.rates
    for name in ("read 67108864", "read 67108864 alone", "copy", "copy alone"):
        assert 1e8 < found.rates[name].per_second < found.threads * 128 * HERTZ, name
    assert all(0 <= (rate.repeatability or 0) < 1 for rate in found.rates.values())
    assert "repeatable within" in str(found)


@extension
def test_roofs_are_measured_once_for_a_machine(
    quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = roofs.roofs("cpu")
    monkeypatch.setattr(roofs, "_cpu_rates", lambda: pytest.fail("measured again"))
    assert roofs.roofs("cpu") == first
    (kept,) = quick.iterdir()
    assert kept.suffix == ".json"


@extension
def test_what_cannot_be_read_or_is_of_another_machine_is_measured_again(
    quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {f"read {roofs.MEMORY}": lambda: 2e9, "scalar int8": lambda: 3e9}
    monkeypatch.setattr(roofs, "_cpu_rates", lambda: rates)
    assert roofs.roofs("cpu").memory.per_second == 2e9
    (kept,) = quick.iterdir()
    kept.write_text("damaged")
    rates[f"read {roofs.MEMORY}"] = lambda: 4e9
    assert roofs.roofs("cpu").memory.per_second == 4e9
    rates[f"read {roofs.MEMORY}"] = lambda: 5e9
    assert roofs.roofs("cpu").memory.per_second == 4e9
    assert roofs.roofs("cpu", refresh=True).memory.per_second == 5e9
    monkeypatch.setattr(roofs, "fingerprint", lambda device: "another machine")
    rates[f"read {roofs.MEMORY}"] = lambda: 6e9
    assert roofs.roofs("cpu").memory.per_second == 6e9


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "roofs").write_text("a file where the folder should be")
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path))
    monkeypatch.setattr(roofs, "_cpu_rates", lambda: {f"read {MEMORY}": lambda: 2e9})
    assert roofs.roofs("cpu").memory.per_second == 2e9


def test_without_a_memory_roof_there_are_none_and_nothing_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full() -> float:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path))
    rates = {f"read {MEMORY}": full, "scalar int8": lambda: 1e9}
    monkeypatch.setattr(roofs, "_cpu_rates", lambda: rates)
    with pytest.raises(RuntimeError, match="cpu has no memory roof: no room"):
        roofs.roofs("cpu")
    assert not (tmp_path / "roofs").exists()


def test_rounds_go_on_until_the_best_two_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    disturbed = iter([1.0, 5.0, 9.0, 9.1])
    calm = iter([7.0, 7.0])
    found = roofs._repeated({"disturbed": lambda: next(disturbed), "calm": lambda: next(calm)})
    assert isinstance(found["disturbed"], Ceiling)
    assert isinstance(found["calm"], Ceiling)
    assert found["disturbed"].per_second == 9.1
    assert found["disturbed"].repeatability == pytest.approx(0.1 / 9.1)
    assert (found["calm"].per_second, found["calm"].repeatability) == (7.0, 0.0)
    assert next(calm, None) is None  # two rounds were enough for it


def test_a_smaller_buffer_is_never_slower_than_a_larger_one() -> None:
    names = dict(zip(SIZES, (90e9, 95e9, 40e9, 20e9, 21e9), strict=True))
    found = made(**{f"read_{size}": rate for size, rate in names.items()})
    assert found.memory.per_second == 21e9
    assert found.bandwidth(2 * MEMORY).per_second == 21e9
    assert found.bandwidth(2**27).per_second == 21e9  # a disturbed 20
    assert found.bandwidth(2**25 + 1).per_second == 40e9
    assert found.bandwidth(2**22).per_second == 95e9
    assert found.bandwidth(10).per_second == 95e9


def test_what_is_larger_than_the_last_cache_is_in_memory() -> None:
    found = made(**{f"read_{MEMORY}": 1e9})
    assert found.in_cache(1000)
    assert not found.in_cache(1001)


def test_the_peak_is_that_of_the_best_level_with_all_threads() -> None:
    found = made(scalar_int8=1e9, avx2_int8=4e9, avx2_int8_alone=9e9, avx2_float32=2e9)
    best = found.peak("int8")
    assert best is not None
    assert best.per_second == 4e9
    assert found.peak("bfloat16") is None
    assert {kind: peak.per_second for kind, peak in found.peaks.items()} == {
        "int8": 4e9,
        "float32": 2e9,
    }


def test_of_two_measurements_the_better_counts() -> None:
    name = f"read_{MEMORY}"
    found = made(**{name: 2e9, "avx2_int8": 4e9}).higher(made(**{name: 3e9, "avx2_int8": 1e9}))
    assert found.memory.per_second == 3e9
    assert found.rates["avx2 int8"].per_second == 4e9


def test_without_the_extension_a_cpu_has_no_roofs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path))
    monkeypatch.setattr(_library, "load_error", "there was no compiler")
    with pytest.raises(RuntimeError, match="measures roofs, but there was no compiler"):
        roofs.roofs("cpu", refresh=True)


def test_sums_copies_and_products_of_torch_are_the_roofs_of_a_gpu() -> None:
    """On the CPU, which stands in for a GPU: the same calls, timed by its clock."""

    def seconds(call: Callable[[], Any]) -> float:
        call()
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    rates = roofs.torch_rates("cpu", seconds, 2**20, 64)
    found = {name: rate() for name, rate in rates.items()}
    assert set(found) == {f"read {MEMORY}", "copy"} | {
        f"tensor {kind}" for kind in ("int8", "float16", "bfloat16", "float32", "tf32")
    }
    assert all(rate > 0 for rate in found.values())
    assert rates["copy"]() > 0
    assert torch.get_float32_matmul_precision() == "highest"


def test_rates_of_a_gpu_are_work_over_time() -> None:
    rates = roofs.torch_rates("cpu", lambda call: 0.5, 2**20, 64)
    assert rates[f"read {MEMORY}"]() == 2**20 / 0.5
    assert rates["copy"]() == 2 * 2**20 / 0.5
    assert rates["tensor float32"]() == 2 * 64**3 / 0.5


@extension
@pytest.mark.parametrize(
    ("op", "arguments", "why"),
    [
        ("peak_roof", (6, 0, 1, True), "level is 6; expected 0 to 5"),
        ("peak_roof", (0, 3, 1, True), "kind is 3; expected 0 to 2"),
        ("peak_roof", (0, 0, 0, True), "repetitions is 0; expected at least 1"),
        ("read_roof", (0, 0, 1, True), "bytes is 0; expected at least 1"),
        ("copy_roof", (0, 0, 1, False), "bytes is 0; expected at least 1"),
        ("read_roof", (-1, 1, 1, True), "level is -1; expected 0 to 5"),
    ],
)
def test_the_loops_check_what_they_are_asked(op: str, arguments: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        getattr(torch.ops.llmrec, op)(*arguments)


def test_the_fingerprint_is_that_of_the_machine_and_its_threads() -> None:
    before, threads = environment.fingerprint("cpu"), torch.get_num_threads()
    try:
        assert environment.fingerprint("cpu") == before
        torch.set_num_threads(threads + 1)
        assert environment.fingerprint("cpu") != before
    finally:
        torch.set_num_threads(threads)
