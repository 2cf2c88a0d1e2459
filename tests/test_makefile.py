"""What the Makefile decides by itself: what is built and run where there is no GPU, or no nvcc."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[1] / "Makefile"
MAKE = shutil.which("make")

pytestmark = pytest.mark.skipif(MAKE is None, reason="there is no make")


def make(
    folder: Path, target: str, *, text: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a target where there is no nvcc, with an environment that has nothing to install."""
    (folder / "Makefile").write_text(text or MAKEFILE.read_text())
    ours = ("MAKEFLAGS", "MAKELEVEL", "LLMREC_CUDA", "LLMREC_REQUIRE_NVCC")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        [str(MAKE), target, "READY=", f"BIN={folder}"], cwd=folder, capture_output=True, text=True,
        env=environment | {"PATH": str(folder)} | variables, check=False,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a Python that says what it is asked for."""
    (tmp_path / "python").write_text('#!/bin/sh\necho "ran $*"\n')
    (tmp_path / "python").chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("device", "choice"),
    [("nvidia0", "auto"), ("nvidia3", "auto"), ("dxg", "auto"), ("nvidiactl", "0"), ("null", "0")],
)
def test_a_gpu_is_seen_wherever_the_system_shows_it(folder: Path, device: str, choice: str) -> None:
    (folder / device).touch()
    text = (
        MAKEFILE.read_text().replace("/dev/", f"{folder}/") + "\ntold:\n\t@echo $(LLMREC_CUDA);\n"
    )
    assert make(folder, "told", text=text).stdout.split() == [choice]
    assert make(folder, "told", text=text, LLMREC_CUDA="1").stdout.split() == ["1"]


@pytest.mark.parametrize("target", ["cuda", "resources"])
def test_a_missing_nvcc_is_a_failure_where_one_is_required(folder: Path, target: str) -> None:
    run = make(folder, target)
    assert (run.returncode, run.stderr) == (0, "")
    assert "ran " in run.stdout
    run = make(folder, target, LLMREC_REQUIRE_NVCC="1")
    assert run.returncode != 0
    assert "LLMREC_REQUIRE_NVCC=1, but there is no nvcc on PATH" in run.stderr
    assert "ran " not in run.stdout
    (folder / "nvcc").write_text("#!/bin/sh\n")
    (folder / "nvcc").chmod(0o755)
    assert make(folder, target, LLMREC_REQUIRE_NVCC="1").returncode == 0


def test_the_tests_that_run_anywhere_are_not_those_of_a_gpu(folder: Path) -> None:
    run = make(folder, "--dry-run", text=MAKEFILE.read_text() + "\n.DEFAULT_GOAL := test\n")
    assert '-m pytest -q -n 2 -m "not gpu"' in run.stdout


def told(folder: Path, variable: str) -> list[str]:
    """The words of a variable of the Makefile."""
    text = f"{MAKEFILE.read_text()}\ntold:\n\t@echo $({variable});\n"
    return make(folder, "told", text=text).stdout.split()


def test_what_runs_once_is_named_by_the_files_that_there_are(folder: Path) -> None:
    tests = [path.stem for path in MAKEFILE.parent.glob("tests/test_*.py")]
    for name in told(folder, "ONCE"):
        assert any(name in test for test in tests), name


def test_no_operator_is_left_out_at_lower_levels_and_without_the_extension(folder: Path) -> None:
    operators = [
        path.parent.name for path in MAKEFILE.parent.glob("llmrec_kernels/ops/*/schema.py")
    ]
    assert len(operators) >= 5
    for operator in operators:
        assert not [name for name in told(folder, "ONCE") if name in f"test_{operator}"]


@pytest.mark.parametrize("built", [{"cuda": None}, {}, {"cuda": {"version": "13.0"}}])
def test_a_benchmark_without_cuda_kernels_says_so_and_goes_on(
    folder: Path, built: dict[str, object]
) -> None:
    package = folder / "llmrec_kernels"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "_library.py").write_text(f"def build_info():\n    return {built}\n")
    (folder / "bench").mkdir()
    (folder / "bench" / "gpu.py").write_text("print('measured')\n")
    (folder / "python").unlink()
    (folder / "python").symlink_to(sys.executable)
    run = make(folder, "bench-gpu")
    assert (run.returncode, "measured" in run.stdout) == (0, True)
    assert ("WARNING: the extension has no CUDA kernels" in run.stdout) == (not built.get("cuda"))
