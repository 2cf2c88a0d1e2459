"""The CUDA emulator finds each planted fault, and what kernels are made of is right in it."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EMULATION = ROOT / "tests" / "emulation"
BUILDS = {
    "plain": (),
    "address": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "thread": ("-fsanitize=thread",),
}
# Which build finds it, and what it says; "" where the result is wrong.
FAULTS = {
    "missing barrier": ("thread", "data race"),
    "missing warp barrier": ("thread", "data race"),
    "divergent barrier": ("plain", "not all threads reach a barrier"),
    "lane outside its mask": ("plain", "a lane calls with a mask that it is not in"),
    "shared memory overrun": ("address", "heap-buffer-overflow"),
    "misaligned vector load": ("plain", "a vector load is not aligned"),
    "race of blocks": ("thread", "data race"),
    "copy read too early": ("plain", ""),
    "misaligned copy": ("plain", "an async copy is not aligned to its 16 bytes"),
}
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)

emulates = pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which("g++") is None,
    reason="the emulator needs g++ on x86-64",
)
compiles = pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc on PATH")


def command_for(program: Path, arguments: list[str]) -> list[str]:
    """ThreadSanitizer wants addresses less random than some systems make them."""
    steady = ["setarch", "-R"]
    able = subprocess.run([*steady, "true"], capture_output=True, check=False).returncode == 0
    return [*(steady if able else []), str(program), *arguments]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[int, str]]:
    """Runs a source of tests/emulation in a build of it: (status, what it printed)."""
    folder, known = tmp_path_factory.mktemp("emulation"), set()

    def run(source: str, build: str, *arguments: str) -> tuple[int, str]:
        program = folder / f"{source}-{build}"
        if program not in known:
            subprocess.run(
                ["g++", "-x", "c++", "-std=c++20", "-O1", "-g", "-Wall", "-Wextra", "-Werror",
                 "-ffp-contract=off", "-DLLMREC_EMULATE_CUDA", f"-I{EMULATION}",
                 f"-I{ROOT / 'csrc'}", *BUILDS[build], str(EMULATION / f"{source}.cu"),
                 "-o", str(program)],
                check=True,
            )  # fmt: skip
            known.add(program)
        ended = subprocess.run(
            command_for(program, list(arguments)),
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        return ended.returncode, ended.stdout + ended.stderr

    return run


@emulates
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(run: Callable[..., tuple[int, str]], fault: str) -> None:
    build, says = FAULTS[fault]
    status, right = run("faults", "plain", fault, "right")
    assert status == 0, right
    status, found = run("faults", build, fault, "faulty")
    assert status != 0 if says else status == 0
    assert says in found
    assert found != right


@emulates
@pytest.mark.parametrize("build", BUILDS)
def test_kernels_without_a_fault_pass(run: Callable[..., tuple[int, str]], build: str) -> None:
    for fault in FAULTS:
        assert run("faults", build, fault, "right") == run("faults", "plain", fault, "right")


@emulates
@pytest.mark.parametrize("build", ["plain", "address"])
def test_what_kernels_are_made_of_is_right(run: Callable[..., tuple[int, str]], build: str) -> None:
    assert run("primitives", build) == (0, "")


@compiles
@pytest.mark.parametrize("source", ["faults", "primitives"])
def test_the_same_sources_compile_for_each_architecture(source: str, tmp_path: Path) -> None:
    codes = [f"-gencode=arch=compute_{sm},code=sm_{sm}" for sm in ARCHITECTURES]
    subprocess.run(
        ["nvcc", "-std=c++20", "-Werror", "all-warnings", "--threads", "2", *codes,
         f"-I{ROOT / 'csrc'}", "-c", str(EMULATION / f"{source}.cu"), "-o",
         str(tmp_path / "kernel.o")],
        check=True,
    )  # fmt: skip
