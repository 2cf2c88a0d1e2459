"""Code of a level runs only where the level was chosen: nobody else's functions are made of it.

Instructions that a plain x86-64 processor lacks belong into functions of anonymous namespaces in
a level's own file, and into its entry points. A function that the linker may share (an inline
function or a template of a header) or that runs while the extension loads must have none: it is
called at every level, and the linker keeps whichever file's copy it likes.
"""

import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmrec_kernels import _library

if platform.machine() not in ("x86_64", "AMD64"):
    pytest.skip("no x86 code on this machine", allow_module_level=True)
if shutil.which("objdump") is None:
    pytest.skip("no objdump (binutils)", allow_module_level=True)

ROOT = Path(__file__).parent.parent
LEVELS = {"avx2": "%ymm", "avx2_vnni": "%ymm", "avx512": "%zmm", "amx": "%tmm"}
# The extension's own objects, and those of tests/cpp.
OBJECTS = sorted(
    path
    for folder in ("build/temp*/csrc", "build/cpp/plain/csrc")
    for path in ROOT.glob(f"{folder}/**/*.o")
    if (ROOT / "csrc" / path.parent.name / f"{path.stem}.cpp").exists()
)

FUNCTION = re.compile(r"[0-9a-f]+ <(.+)>:$")
ENTRY_POINT = re.compile(rf"_ZN6llmrec\d+\w+_({'|'.join(LEVELS)})E")
# VEX, EVEX and tile instructions by their registers or names, and what comes with the levels.
LEVELED = re.compile(
    r"%[yzt]mm|%k[0-7]|^v[a-z]|^tile|^(ld|st)tilecfg|^tdp"
    r"|^(andn|bextr|blsi|blsmsk|blsr|bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx|popcnt|crc32)[lqwb]*\b"
)


def functions(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Each function's symbol and instructions."""
    listing = subprocess.run(
        ["objdump", "--disassemble", "--wide", "--no-show-raw-insn", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    symbol, instructions = "", []
    for line in listing.stdout.splitlines():
        if start := FUNCTION.match(line):
            yield symbol, instructions
            symbol, instructions = start[1], []
        elif "\t" in line:
            instructions.append(re.sub(r"^\{\w+\} ", "", line.split("\t", 1)[1]))
    yield symbol, instructions


def leveled(instructions: list[str]) -> list[str]:
    return [each for each in instructions if LEVELED.search(each)]


def is_private(symbol: str) -> bool:
    """Whether no other file can call or replace a function, but through a level's table."""
    return "_GLOBAL__N_1" in symbol or ENTRY_POINT.match(symbol) is not None


def leaks(path: Path, *, private: bool) -> list[str]:
    """Functions that anyone may run, with the first of their instructions that not anyone can."""
    return [
        f"{symbol}: {found[0]}"
        for symbol, instructions in functions(path)
        if not (private and is_private(symbol)) and (found := leveled(instructions))
    ]


def test_the_extension_keeps_each_level_to_itself():
    if _library.extension is None:
        pytest.skip(f"no extension: {_library.load_error}")
    path = Path(str(_library.extension.__file__))
    assert not leaks(path, private=True)
    code = " ".join(each for _, instructions in functions(path) for each in instructions)
    assert all(register in code for register in LEVELS.values())


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_object_file_shares_no_code_of_a_level(path):
    assert not leaks(path, private=path.stem in LEVELS)
    if path.stem in LEVELS and path.parent.name == "cosine_topk":
        own = [line for _, instructions in functions(path) for line in leveled(instructions)]
        assert any(LEVELS[path.stem] in line for line in own)
