"""LLMREC_ISA lowers the instruction set level, and refuses what the machine lacks, in words."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from llmrec_kernels import _library, backends

if _library.extension is None:
    pytest.skip(f"no extension: {_library.load_error}", allow_module_level=True)

CALL = (
    "import torch, llmrec_kernels as l; x = torch.eye(3); "
    "print(l.cosine_topk(x, x, 1).ids.tolist(), l.explain('cosine_topk', x).level)"
)
FOREIGN = "neon" if platform.machine() in ("x86_64", "AMD64") else "avx2"


def call_at(level):
    return subprocess.run(
        [sys.executable, "-c", CALL],
        env={**os.environ, "LLMREC_ISA": level},
        capture_output=True,
        text=True,
    )


def test_scalar_runs_everywhere():
    result = call_at("scalar")
    assert result.stdout.split() == ["[[0],", "[1],", "[2]]", "scalar"], result.stderr


def test_a_level_of_another_processor_is_refused_with_the_reason():
    result = call_at(FOREIGN)
    assert result.returncode != 0
    assert f"ValueError: LLMREC_ISA={FOREIGN} cannot run here: this is" in result.stderr


def test_a_word_that_is_no_level_is_refused_with_the_levels():
    result = call_at("sse9")
    assert result.returncode != 0
    assert (
        "ValueError: LLMREC_ISA is 'sse9'; expected scalar, avx2, avx512, amx or neon"
        in result.stderr
    )


def test_an_empty_wish_is_none():
    assert call_at("").returncode == 0


def test_every_level_is_either_possible_or_refused_with_a_reason():
    built = _library.build_info()
    assert built["level"] not in built["refused_levels"]
    assert FOREIGN in built["refused_levels"]
    assert all(built["refused_levels"].values())
    assert set(built["levels"]) == set(backends.OPS)


@pytest.mark.skipif(platform.system() != "Linux", reason="/proc/cpuinfo is Linux's")
@pytest.mark.parametrize(
    ("level", "flags"),
    [
        ("avx2", {"avx2", "fma", "f16c"}),
        ("avx512", {"avx512f", "avx512_vnni"}),
        ("amx", {"amx_int8"}),
    ],
)
def test_levels_agree_with_what_the_kernel_says_of_the_processor(level, flags):
    has = flags <= set(Path("/proc/cpuinfo").read_text().split())
    refused = _library.build_info()["refused_levels"]
    if has:
        assert level not in refused or "operating system" in refused[level]
    else:
        assert level in refused
