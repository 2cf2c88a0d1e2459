"""What compiled Triton kernels take of a GPU is read rightly, and what gets worse is reported.

The kernels are planted: their text is written to a module, and the tool runs in processes of its
own, for Triton decides once, where a kernel is decorated, whether it interprets or compiles it.
"""

import importlib
import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("no triton: pip install triton", allow_module_level=True)

ROOT = Path(__file__).parent.parent
BENCH = ROOT / "bench"

KERNELS = '''
from typing import Any, NamedTuple

import triton
import triton.language as tl


class Variant(NamedTuple):
    name: str
    kernel: Any
    signature: dict
    constants: dict
    aligned: tuple
    num_warps: int = 4
    num_stages: int = 2
    expects: frozenset = frozenset()
    minimum_sm: int = 75


@triton.jit
def copy(source, out, bias, n, B: tl.constexpr):
    """Scaled by its sum, so that all of a block is in registers at once; bias may be None."""
    i = tl.program_id(0) * B + tl.arange(0, B)
    values = tl.load(source + i, mask=i < n, other=0.0)
    if bias is not None:
        values += tl.load(bias)
    tl.store(out + i, values * tl.sum(values), mask=i < n)


@triton.jit
def dot(a, b, out, d, N: tl.constexpr, PRECISION: tl.constexpr):
    i, j, k = tl.arange(0, N)[:, None], tl.arange(0, N)[None, :], tl.arange(0, 32)
    total = tl.dot(
        tl.load(a + i * d + k[None, :]),
        tl.load(b + j * d + k[:, None]),
        input_precision=PRECISION,
    )
    tl.store(out + i * N + j, total)


@triton.jit(do_not_specialize=["n"])
def count(out, n, m, B: tl.constexpr):
    tl.store(out + tl.program_id(0), n + m + B)


@triton.jit(do_not_specialize=["n"])
def count_long(out, n: tl.int64, m: tl.int64, B: tl.constexpr):
    tl.store(out + tl.program_id(0), n + m + B)


def copies(name, block, warps=4, aligned=("source", "out", "n"), expects=("16-byte loads",)):
    types = {"source": "*fp32", "out": "*fp32", "n": "i32"}
    constants = {"bias": None, "B": block}
    return Variant(name, copy, types, constants, aligned, warps, expects=frozenset(expects))


def dots(name, dtype, precision="tf32", out="*fp32", minimum_sm=75):
    types = {"a": f"*{dtype}", "b": f"*{dtype}", "out": out, "d": "i32"}
    constants = {"N": 32, "PRECISION": precision}
    expects = frozenset({"tensor cores"})
    return Variant(name, dot, types, constants, tuple(types), 4, 2, expects, minimum_sm)
'''

GOOD = """
from kernels import copies, dots

def variants():
    return [copies("copy 1024", 1024), dots("dot float16", "fp16", minimum_sm=80)]
"""

BAD = """
from kernels import copies, dots

def variants():
    return [
        copies("spilling", 8192, warps=1),
        copies("unaligned", 1024, aligned=()),
        dots("no tensor cores", "fp32", precision="ieee"),
        dots("int8", "i8", out="*i32"),
    ]
"""


def run(folder, *arguments):
    """Run Python where the planted kernels are, as a caller who interprets other kernels would."""
    path = os.pathsep.join((str(folder), str(BENCH)))
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ
        | {
            "PYTHONPATH": path,
            "TRITON_INTERPRET": "1",
            "HOME": str(folder),
            "TMPDIR": str(scratch),
        },
    )


def resources(folder, module, *arguments, only=("*sm_75", "*sm_90")):
    table = folder / f"{module}.md"
    options = ("--modules", module, "--table", table, "--only", *only)
    return run(folder, BENCH / "gpu_resources.py", *options, *arguments)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A folder with the planted modules, and the table of the good one."""
    folder = tmp_path_factory.mktemp("planted")
    for name, text in {"kernels": KERNELS, "good": GOOD, "bad": BAD}.items():
        (folder / f"{name}.py").write_text(text)
    result = resources(folder, "good")
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture(scope="module")
def tool():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module("gpu_resources")


@pytest.fixture
def table(planted, tool):
    return tool.parsed((planted / "good.md").read_text())


def test_a_row_says_what_the_compiled_kernel_takes(tool, table):
    assert {str(key) for key in table} == {
        "good copy 1024 sm_75",
        "good copy 1024 sm_90",
        "good dot float16 sm_90",  # offered from sm_80 on
    }
    for sm in (75, 90):
        copy = table[tool.Key("good", "copy 1024", sm)]
        assert copy.loads == {"16 B": 2}  # 1,024 floats, 128 threads, 4 floats a load
        assert (copy.threads, copy.spills, copy.stack, copy.tensor_cores) == (128, 0, 0, {})
        assert copy.warps == tool.LIMITS[sm][0]  # few registers: full
        assert 8 < copy.registers <= 64
        assert 0 < copy.shared <= 64  # for the sum over the warps
        assert 30 < copy.instructions < 300
    dot = table[tool.Key("good", "dot float16", 90)]
    assert sum(dot.tensor_cores.values()) == dot.tensor_cores["HMMA"] > 0
    assert dot.loads["16 B"] > 0
    assert dot.shared >= 2 * 32 * 32 * 2  # both operands


def test_what_was_written_is_read_back_and_written_again_alike(planted, tool, table):
    text = (planted / "good.md").read_text()
    again = tool.render(table, "3.0.1", tool.digests_in(text))
    assert again == text.replace(triton_version(text), "3.0.1")


def triton_version(text):
    return text.partition("with Triton ")[2].partition(",")[0]


def test_nothing_is_left_behind(planted):
    assert not (planted / ".triton").exists()
    assert not list((planted / "scratch").iterdir())


def test_the_same_code_passes_the_check(planted):
    result = resources(planted, "good", "--check", "--sample", "1")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 rows, 0 complaints" in result.stdout


def test_a_check_that_compiles_little_reads_all_rows(planted, tool, table):
    copy, dot = (tool.Key("good", name, 90) for name in ("copy 1024", "dot float16"))
    text = (planted / "good.md").read_text()
    wrong = planted / "wrong.md"
    rows = {key: row for key, row in table.items() if key != dot}
    rows[copy] = replace(rows[copy], spills=8, loads={"4 B": 2})
    wrong.write_text(tool.render(rows, triton_version(text), tool.digests_in(text)))
    result = resources(planted, "good", "--check", "--table", wrong, "--sample", str(2**40))
    assert result.returncode == 1
    assert result.stdout.splitlines() == [
        "good copy 1024 sm_90: 8 bytes of spills, 0 bytes of stack",
        "good copy 1024 sm_90: no 16-byte loads",
        "good dot float16 sm_90: not in the table",
        "0 rows, 3 complaints",
    ]


def test_sources_that_changed_are_compiled_and_named(planted, tool):
    for name in ("good", "kernels"):
        text = (planted / f"{name}.py").read_text()
        (planted / f"{name}.py").rename(planted / f"{name}.kept")
        (planted / f"{name}.py").write_text(text.replace('"copy 1024", 1024', '"copy 1024", 2048'))
    try:
        result = resources(planted, "good", "--check", only=("*copy*sm_90",))
        # Some rows are written again: the others are still of other sources.
        some = planted / "some_sources.md"
        some.write_text((planted / "good.md").read_text())
        resources(planted, "good", "--table", some, only=("*copy*sm_90",))
    finally:
        for name in ("good", "kernels"):
            (planted / f"{name}.kept").rename(planted / f"{name}.py")
    assert result.returncode == 1
    assert "good: its sources have changed; write the table again" in result.stdout
    assert "1 rows" in result.stdout
    assert tool.digests_in(some.read_text()) == tool.digests_in((planted / "good.md").read_text())


def test_a_check_names_each_row_that_is_worse_missing_or_no_longer_offered(planted, tool, table):
    copy, dot = (tool.Key("good", name, 90) for name in ("copy 1024", "dot float16"))
    better = {
        copy: replace(table[copy], registers=8, tensor_cores={"HMMA": 4}),
        dot: replace(table[dot], shared=64),
        tool.Key("good", "copy 2048", 90): table[copy],
    }
    old = planted / "old.md"
    text = (planted / "good.md").read_text()
    old.write_text(tool.render(better, triton_version(text), tool.digests_in(text)))
    result = resources(planted, "good", "--check", "--table", old, "--sample", "1")
    assert result.returncode == 1
    assert result.stdout.splitlines() == [
        "good copy 1024 sm_75: not in the table; write it again",
        f"good copy 1024 sm_90: registers grew from 8 to {table[copy].registers}",
        "good copy 1024 sm_90: no tensor cores any more",
        "good copy 2048 sm_90: in the table, but not offered or not compiled now",
        f"good dot float16 sm_90: shared grew from 64 to {table[dot].shared}",
        "3 rows, 5 complaints",
    ]


def test_less_is_no_complaint(tool, table):
    key = tool.Key("good", "copy 1024", 90)
    more = replace(table[key], registers=200, shared=9999, spills=8, stack=8, instructions=1)
    assert tool.compare({key: more}, {key: table[key]}) == []
    assert tool.compare({key: table[key]}, {key: more}) == [
        f"{key}: registers grew from {table[key].registers} to 200",
        f"{key}: spills grew from 0 to 8",
        f"{key}: stack grew from 0 to 8",
        f"{key}: shared grew from {table[key].shared} to 9999",
    ]


def test_some_rows_are_written_again_and_the_others_stay(planted, tool, table):
    path = planted / "some.md"
    text = (planted / "good.md").read_text()
    other = replace(next(iter(table.values())), registers=77)
    gone, kept = tool.Key("good", "copy 7", 90), tool.Key("good", "copy 7", 75)
    rows = table | {gone: other, kept: other}
    path.write_text(tool.render(rows, triton_version(text), tool.digests_in(text)))
    arguments = (planted, "good", "--table", path, "--only", "*copy*sm_90")
    assert resources(*arguments).returncode == 0
    assert tool.parsed(path.read_text()) == table | {kept: other}
    assert resources(*arguments, "--check", "--sample", "1").returncode == 0
    path.write_text(path.read_text().replace(triton_version(text), "3.0.1"))
    assert resources(*arguments).returncode == 2
    assert resources(*arguments[:-2], "--check").returncode == 2


def test_spills_narrow_loads_idle_tensor_cores_and_failures_are_each_reported(planted, tool):
    result = resources(planted, "bad")
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    for sm in (75, 90):
        (spilling,) = (line for line in lines if line.startswith(f"bad spilling sm_{sm}: "))
        assert " bytes of spills" in spilling
        assert f"bad unaligned sm_{sm}: no 16-byte loads" in lines
        assert f"bad no tensor cores sm_{sm}: no tensor cores" in lines
    # Triton has no int8 products for sm_75, and says so on the standard error of C++ alone.
    (failure,) = (line for line in lines if line.startswith("bad int8 sm_75: "))
    assert "does not compile: " in failure
    assert "error: 'arith.extf' op" in failure
    assert lines[-1] == "7 rows, 7 complaints"
    rows = tool.parsed((planted / "bad.md").read_text())
    spilling = rows[tool.Key("bad", "spilling", 90)]
    assert spilling.spills > spilling.stack > 0  # what is stored is loaded, too
    assert rows[tool.Key("bad", "int8", 90)].tensor_cores
    assert set(rows[tool.Key("bad", "unaligned", 90)].loads) == {"4 B"}


def test_instructions_are_told_apart(tool):
    assert tool.by_width(
        {"LDG.E": 1, "LDG.E.LTC128B.64.CONSTANT": 2, "LDGSTS.E.BYPASS.128": 3, "LDG.E.128.SYS": 4}
        | {"LDG.E.U8": 5, "LDG.E.S16": 6, "LDG.E.ENL2.256": 7, "UTMALDG.2D": 8, "LDS.128": 9}
    ) == {"32 B": 7, "16 B": 7, "8 B": 2, "4 B": 1, "2 B": 6, "1 B": 5, "TMA": 8}
    assert tool.on_tensor_cores(
        {"HMMA.16816.F32": 1, "HMMA.1688.F32.TF32": 2, "HFMA2.MMA": 3, "IMMA.16832.S8.S8": 4}
        | {"HGMMA.64": 5, "UTCHMMA": 6, "QMMA.16832.F32.E4M3.E4M3": 7, "DMMA.884": 8, "FFMA": 9}
    ) == {"HMMA": 3, "IMMA": 4, "HGMMA": 5, "UTCHMMA": 6, "QMMA": 7, "DMMA": 8}


# Resident warps by NVIDIA's cuda_occupancy.h, for blocks of so many warps, registers of a thread,
# and bytes of shared memory.
BLOCKS = [(1, 24, 0), (4, 40, 0), (4, 96, 40000), (2, 64, 101376), (8, 255, 0), (16, 255, 0)]
BLOCKS += [(4, 32, 32768), (1, 16, 4100)]
RESIDENT = {
    75: [16, 32, 4, 0, 8, 0, 8, 15],
    80: [32, 48, 16, 2, 8, 0, 16, 32],
    86: [16, 48, 8, 2, 8, 0, 12, 16],
    89: [24, 48, 8, 2, 8, 0, 12, 19],
    90: [32, 48, 20, 4, 8, 0, 24, 32],
    100: [32, 48, 20, 4, 8, 0, 24, 32],
    120: [24, 48, 8, 2, 8, 0, 12, 19],
}


def test_occupancy_is_that_of_the_published_limits(tool):
    assert tool.LIMITS.keys() == RESIDENT.keys()
    for sm, expected in RESIDENT.items():
        assert [tool.resident_warps(sm, *block, 0) for block in BLOCKS] == expected, sm


def test_tensor_memory_limits_the_blocks_of_an_sm(tool):
    assert tool.resident_warps(100, 4, 32, 1024, 64) == 8 * 4
    assert tool.resident_warps(100, 4, 32, 1024, 1024) == 0


SPECIALIZATIONS = """
import os
del os.environ["TRITON_INTERPRET"]
import torch
from gpu_resources import specializations
from kernels import count, count_long

floats = torch.zeros(100)

def compilations(kernel, argument, *values):
    rest = {"out": floats, "n": 3, "m": 3, "B": 8, "num_warps": 4}
    return len(specializations(kernel, [rest | {argument: value} for value in values]))
"""
COMPILATIONS = {
    "count, 'n', 1, 16, 17, 100_000": 1,
    "count, 'n', 1, 2**31": 2,  # an int32 and an int64
    "count_long, 'n', 1, 16, 17, 2**31": 1,
    "count, 'm', 1, 16, 17, 32, 100_001": 3,  # 1; multiples of 16; others
    "count_long, 'm', 1, 16, 17, 32, 2**31": 3,
    "count, 'B', 1, 16, 17": 3,
    "count, 'out', floats, floats[4:], floats[1:]": 2,  # a multiple of 16 bytes, or not
    "count, 'num_warps', 4, 8": 2,
}


def test_an_argument_that_is_not_specialized_is_compiled_once(planted):
    calls = "\n".join(f"print(compilations({call}))" for call in COMPILATIONS)
    result = run(planted, "-c", f"{SPECIALIZATIONS}\n{calls}")
    assert result.returncode == 0, result.stderr
    found = map(int, result.stdout.split())
    assert dict(zip(COMPILATIONS, found, strict=True)) == COMPILATIONS


def test_no_committed_row_is_worse_now(tmp_path):
    # All rows are one of the long rungs: make resources.
    result = run(tmp_path, BENCH / "gpu_resources.py", "--check", "--only", "*int8 affine* sm_90")
    if result.returncode == 2:
        pytest.skip(result.stdout.strip())
    assert result.returncode == 0, result.stdout + result.stderr


ROUNDINGS = """
import os, re
del os.environ["TRITON_INTERPRET"]
from gpu_resources import compile_source, variants

for op, name in (
    ("cosine_topk", "squares int8 affine"),
    ("cosine_topk", "scan int8 affine, 64 queries"),
    ("candidate_scores", "score_pairs int8 affine, cosine, packed, all terms"),
):
    ptx = compile_source(variants(f"triton_variants.{op}")[name], 90).asm["ptx"]
    print(*sorted(set(re.findall(r"\\b(?:fma|sqrt|div)[.\\w]*[.]f(?:32|64)\\b", ptx))), sep=",")
"""


def test_products_are_rounded_before_they_are_added_and_roots_are_exact(planted):
    """Or the last bits would not be the reference's: an element is a product and a sum."""
    result = run(planted, "-c", ROUNDINGS)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n")[:3] == ["", "", "div.rn.f64,sqrt.rn.f64"]


SHAPES = """
import importlib, os
del os.environ["TRITON_INTERPRET"]
import torch
from gpu_resources import MODULES, specializations

TYPES = {"fp64": torch.float64, "fp32": torch.float32, "fp16": torch.float16, "i64": torch.int64,
         "i32": torch.int32, "i16": torch.int16, "i8": torch.int8, "u8": torch.uint8}
OF_ROWS = {"stride", "width", "number_stride", "dim"}  # of the vectors, not of how many there are
kernels = {}
for module in MODULES:
    for variant in importlib.import_module(module).variants():
        kernels.setdefault(variant.kernel.__name__, variant)
for name, variant in kernels.items():
    call = {**variant.constants, "num_warps": variant.num_warps}
    for argument, kind in variant.signature.items():
        if kind.startswith("*"):
            call[argument] = torch.zeros(64, dtype=TYPES[kind[1:]])
        else:
            call[argument] = 0.5 if kind == "fp32" else 32
    for argument, kind in variant.signature.items():
        if kind in ("i32", "i64") and argument not in OF_ROWS:
            values = [call | {argument: value} for value in (1, 16, 17, 100_000)]
            print(name, argument, len(specializations(variant.kernel, values)))
"""


def test_shapes_are_values_of_the_run_and_compile_nothing_again(planted):
    result = run(planted, "-c", SHAPES)
    assert result.returncode == 0, result.stderr
    found = [line.split() for line in result.stdout.splitlines()]
    assert {"scan", "look_again", "search_exactly", "pool", "score_pairs", "quantize_rows"} <= {
        kernel for kernel, _, _ in found
    }
    assert [line for line in found if line[2] != "1"] == []
