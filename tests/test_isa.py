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


# The operating system refuses AMX's tile data: a seccomp filter answers arch_prctl(0x1023), by
# which a process asks for it, with EPERM.
REFUSE_TILES = """
import ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)
steps = [(0x20, 0, 0, 0), (0x15, 0, 3, 158), (0x20, 0, 0, 16), (0x15, 0, 1, 0x1023),
         (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
header = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(program))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, header) == 0
"""
HAS_AMX = platform.system() == "Linux" and "amx_int8" in Path("/proc/cpuinfo").read_text().split()


@pytest.mark.skipif(not HAS_AMX, reason="the processor has no AMX to refuse")
def test_amx_that_the_system_refuses_falls_to_avx512():
    def call(**environment):
        kept = {name: value for name, value in os.environ.items() if name != "LLMREC_ISA"}
        return subprocess.run(
            [sys.executable, "-c", REFUSE_TILES + CALL],
            env=kept | environment,
            capture_output=True,
            text=True,
        )

    fallen = call()
    assert fallen.stdout.split()[-1] == "avx512", fallen.stderr
    refused = call(LLMREC_ISA="amx")
    assert refused.returncode == 1
    assert (
        "ValueError: LLMREC_ISA=amx cannot run here: the operating system refuses the AMX tile "
        "data: Operation not permitted" in refused.stderr
    )


EXACT = """
import torch
from llmrec_kernels import cosine_topk, pack

def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

queries, items = draw(40, 70, seed=0), draw(5000, 70, seed=1)
items[100:900] = items[100]
bias, seen = draw(5000, seed=2) / 9, [list(range(n, 3000, 7)) for n in range(40)]
for options in ({}, {"metric": "dot"}, {"item_bias": bias, "item_scale": bias}, {"exclude": seen}):
    expected = cosine_topk(queries, items, 60, backend="reference", **options)
    for source in (items, pack(items)):
        for part in (slice(40), slice(1), slice(5)):
            chosen = options | ({"exclude": seen[part]} if "exclude" in options else {})
            found = cosine_topk(queries[part], source, 60, backend="cpu", **chosen)
            assert torch.equal(found.ids, expected.ids[part]), options
            assert torch.equal(found.scores, expected.scores[part]), options
fast = cosine_topk(queries, pack(items), 60, precision="fast")  # no reference but itself
print(fast.ids.tolist(), fast.scores.view(torch.int32).tolist())
"""


def test_every_level_of_the_machine_gives_the_same_bits():
    refused = _library.build_info()["refused_levels"]
    levels = [name for name in ("scalar", "avx2", "avx512", "amx", "neon") if name not in refused]
    printed = {}
    for level in levels:
        run = subprocess.run(
            [sys.executable, "-c", EXACT],
            env={**os.environ, "LLMREC_ISA": level},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, f"{level}: {run.stderr}"
        printed[level] = run.stdout
    assert len(set(printed.values())) == 1, printed
