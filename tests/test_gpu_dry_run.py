"""The tests of a GPU run to their end on the CPU: none waits for a GPU with a slip of the pen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from gpu_dry_run import StandIn

from llmrec_kernels import _library

ROOT = Path(__file__).parent.parent
GPU_TESTS = tuple(f"tests/test_gpu{part}.py" for part in ("", "_index", "_runtime", "_profiler"))
# Runs the program behind its four words of options, for one tool; that is enough here.
SANITIZER = """#!/bin/sh
[ "$2" = memcheck ] || { echo 1 passed; exit 0; }
shift 4
exec "$@"
"""


def run(folder: Path, dry: bool) -> list[ElementTree.Element]:
    """The test cases of `pytest -m gpu` in a process of its own."""
    (folder / "compute-sanitizer").write_text(SANITIZER)
    (folder / "compute-sanitizer").chmod(0o755)
    theirs = ("PYTEST_", "TRITON_INTERPRET", "LLMREC_GPU_DRY_RUN")
    environment = {n: v for n, v in os.environ.items() if not n.startswith(theirs)}
    environment["PATH"] = f"{folder}{os.pathsep}{environment['PATH']}"
    environment |= {"OMP_NUM_THREADS": "1"} | ({"LLMREC_GPU_DRY_RUN": "1"} if dry else {})
    report = folder / "report.xml"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider",
         f"--junitxml={report}", *GPU_TESTS],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]
    return list(ElementTree.parse(report).iter("testcase"))


def skipped(cases: list[ElementTree.Element]) -> list[str]:
    """Why, of each that was skipped."""
    return [str(why.get("message")) for case in cases for why in case.iter("skipped")]


def test_every_test_of_a_gpu_passes_with_a_stand_in(tmp_path: Path) -> None:
    cases = run(tmp_path, dry=True)
    names = {str(case.get("name")).partition("[")[0] for case in cases}
    assert len(cases) > 400
    assert len(names) > 25
    if _library.load_error is None:
        assert not skipped(cases)
    else:  # the reference alone
        assert len(skipped(cases)) < len(cases) / 2
        assert all(_library.load_error in why for why in skipped(cases))


def test_the_stand_in_has_no_name_that_torch_has_not() -> None:
    for name in set(vars(StandIn())) | set(vars(StandIn)):
        if not name.startswith("__") and name not in ("sleeps", "_caches", "_starved"):
            assert hasattr(torch.cuda, name), name


OPERATORS = """
import dataclasses
from gpu_dry_run import backends, operator
able = (dataclasses.replace(each, reasons=lambda op, device: []) for each in backends.BACKENDS)
backends.BACKENDS = tuple(able)
for op in ("embedding_bag", "candidate_scores"):
    print(operator(op, "nvrtc"), operator(op, "reference"))
"""


def test_an_operator_is_there_before_anybody_called_it() -> None:
    """In a process that has not imported the rooms of NVRTC, as a GPU runs a test on its own."""
    done = subprocess.run(
        [sys.executable, "-c", OPERATORS],
        cwd=ROOT / "tests", env=os.environ | {"LLMREC_GPU_DRY_RUN": "1"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    assert done.stdout.splitlines() == [
        f"llmrec.{op}_nvrtc llmrec.{op}_reference" for op in ("embedding_bag", "candidate_scores")
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which runs them")
def test_without_a_gpu_each_is_skipped_with_the_reason(tmp_path: Path) -> None:
    cases = run(tmp_path, dry=False)
    assert len(skipped(cases)) == len(cases) > 400
    assert set(skipped(cases)) == {"torch finds no CUDA device"}
