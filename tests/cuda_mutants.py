"""Does each barrier, mask, bound and tie-break of the CUDA kernels matter to a test?

    python tests/cuda_mutants.py            # tries again what has changed, and writes the table
    python tests/cuda_mutants.py --check    # and fails where the table was not up to date

All changes are compiled into one program, each behind a number; LLMREC_MUTANT chooses one. The
program is the driver of tests/cpp over the emulator of tests/emulation, which runs until a check
fails: first as it is, then with AddressSanitizer, and with ThreadSanitizer. `cuda_mutants.md` says
of each change which group of checks failed under which, or why none can: then it is not tried. A
function is tried again when its source is not the one that the table has a digest of.

The changes:

*   a barrier, or a wait for copies, dropped;
*   each side of a condition made what makes it matter no more, a lone condition true and false;
*   `<` made `<=`, `>` made `>=`, and back;
*   the tie-break: what makes smaller ids first in a key dropped.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pathlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from cuda_mutants_explained import EXPLAINED
from triton_mutants import cell, known_verdicts, section

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE = ROOT / "tests" / "cuda_mutants.md"
BUILD = ROOT / "build" / "cpp"
WORKERS = 2
# Seconds; a mutant that never ends is found, too.
LIMITS = {"plain": 120, "address": 240, "thread": 600}
BUILDS = ("plain", "address", "thread")
FLAGS = {
    "plain": ("-O2",),
    "address": ("-Og", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "thread": ("-O1", "-fsanitize=thread"),
}
HALT = {"TSAN_OPTIONS": "halt_on_error=1"}
SOURCES = ("common/keys.cuh", "common/select.cuh", "common/score.cuh", "common/decode.cuh",
           "cosine_topk/call.cuh", "cosine_topk/scan.cuh", "cosine_topk/decide.cuh",
           "candidate_scores/candidates.cu", "embedding_bag/bag.cu", "quantize/quantize.cu",
           "pack/pack.cu")  # fmt: skip
# The groups of checks that run a file's kernels, but for those that take longest.
MOST_GROUPS = "races,emulated cuda,extremes,filters,draws"
GROUPS = {
    "common/keys.cuh": "selection,races,candidate_scores",
    "common/select.cuh": "selection,races,candidate_scores",
    "common/score.cuh": "races,candidate_scores,emulated cuda,extremes",
    "common/decode.cuh": "embedding_bag,candidate_scores,races",
    "candidate_scores/candidates.cu": "candidate_scores,emulated cuda",
    "embedding_bag/bag.cu": "embedding_bag,emulated cuda",
    "quantize/quantize.cu": "quantize,emulated cuda",
}
PRELUDE = """\
#pragma once
#include <cstdlib>
namespace llmrec {
inline const char* const asked = std::getenv("LLMREC_MUTANT");
inline const int mutant = asked ? std::atoi(asked) : 0;
}
"""

_BARRIER = re.compile(r"(?:__syncthreads\(\)|__syncwarp\(\)|wait_for_copies<[^;]*>\(\));")
_HEADER = re.compile(r"^(?:__global__|__device__|struct|class|template)\b", re.MULTILINE)
_COMPARISON = re.compile(r" (<=|>=|<|>) ")
_OTHER = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}


class Mutant(NamedTuple):
    """One change of one function."""

    number: int
    file: str
    function: str
    change: str


class Function(NamedTuple):
    """A kernel, what a kernel calls, or a struct with such, at the margin of its file."""

    name: str
    start: int
    end: int


def functions_of(text: str) -> Iterator[Function]:
    """The functions for a GPU, by the layout that clang-format gives them."""
    at = 0
    while found := _HEADER.search(text, at):
        start = found.start()
        brace = text.find("{", start)
        line = text.find("\n", brace)
        end = line if text[line - 1] == "}" else text.find("\n}", start)
        at = found.end()
        semicolon = text.find(";", start)
        if end < 0 or brace < 0 or -1 < semicolon < brace:
            continue
        head = re.sub(r"__launch_bounds__\(.*?\)\s|template <.*?>\n", "", text[start:brace])
        head = re.sub(r"template <[^\n]*\n", "", head)
        name = re.search(r"(?:struct|class) (?:alignas\(\d+\) )?(\w+)|(\w+)\(", head)
        if not name:
            continue
        yield Function(name[1] or name[2], start, end)
        at = end


def closing(text: str, start: int) -> int:
    """Where the bracket at `start` is closed."""
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] in "([{") - (text[at] in ")]}")
        if depth == 0:
            return at
    raise ValueError(f"a bracket is never closed: {text[start : start + 40]}")


def split(text: str, mark: str) -> list[str]:
    """Parts of an expression between marks that are in no brackets."""
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0 and text.startswith(mark, at):
            parts.append(text[start:at])
            start = at + len(mark)
    return [*parts, text[start:]]


class Instrument:
    """Puts every change of a file behind its number."""

    def __init__(self, file: str, first: int) -> None:
        self.file, self.next = file, first
        self.mutants: list[Mutant] = []
        self.function = ""
        self.seen: dict[str, int] = {}

    def whole(self, text: str) -> str:
        """The file with all its changes in it."""
        code = re.split(r"// ---- for the host|#if !defined\(__CUDACC_RTC__\)\n\n", text)[0]
        for function in sorted(functions_of(code), key=lambda f: f.start, reverse=True):
            self.function, self.seen = function.name, {}
            body = self.body(text[function.start : function.end])
            text = text[: function.start] + body + text[function.end :]
        return text

    def new(self, change: str) -> str:
        """A condition that is true where this change is asked for."""
        self.seen[change] = self.seen.get(change, 0) + 1
        if self.seen[change] > 1:
            change += f" (place {self.seen[change]})"
        self.mutants.append(Mutant(self.next, self.file, self.function, change))
        self.next += 1
        return f"llmrec::mutant == {self.next - 1}"

    def body(self, text: str) -> str:
        """A function, statement by statement."""
        result, at = [], 0
        while at < len(text):
            rest = text[at:]
            if rest.startswith("//"):
                end = len(rest.partition("\n")[0])
            elif found := re.match(r"(?:static )?constexpr\b[^;]*;", rest):
                end = found.end()
            elif found := _BARRIER.match(rest):
                end = found.end()
                result.append(f"if (!({self.new(f'{found[0]} dropped')})) {found[0]}")
                at += end
                continue
            elif found := re.match(r"\b(?:if|while) \(", rest):
                close = closing(rest, found.end() - 1)
                inside = rest[found.end() : close]
                result.append(f"{found[0]}{self.condition(inside, lone=True)})")
                at += close + 1
                continue
            elif found := re.match(r"\bfor \(", rest):
                close = closing(rest, found.end() - 1)
                result.append(f"for ({self.loop(rest[found.end() : close])})")
                at += close + 1
                continue
            elif found := re.match(r"(?:const bool \w+ =|return) ([^;{]*);", rest):
                value = found[1]
                end = found.end()
                head = rest[: found.start(1)]
                result.append(f"{head}{self.value(value)};")
                at += end
                continue
            elif found := re.match(
                r"(?:[\w\[\]\.\->:<>\*]+ )*?[\w\[\]\.\->]+ (?:[|&+-]?=) ([^;{]*\?[^;{]*);", rest
            ):
                head = rest[: found.start(1)]
                result.append(f"{head}{self.value(found[1])};")
                at += found.end()
                continue
            else:
                found = re.match(r"\w+|\s+|.", rest, re.DOTALL)
                assert found
                end = found.end()
            result.append(rest[:end])
            at += end
        return "".join(result)

    def loop(self, text: str) -> str:
        """The head of a loop whose bound is no constant."""
        parts = text.split(";")
        if len(parts) != 3 or re.search(r"[<>]=? (?:\d+|k[A-Z]\w*)$", parts[1]):
            return text
        parts[1] = " " + self.condition(parts[1].strip(), lone=False)
        return ";".join(parts)

    def value(self, text: str) -> str:
        """What is returned or assigned: a condition, or a choice by one."""
        if text == "kLastId - id":
            return f"{self.new('the larger of two ids first')} ? id : {text}"
        if len(split(text, ", ")) > 1:
            return text
        chosen = split(text, " ? ")
        if len(chosen) > 1:
            rest = " ? ".join(chosen[1:])
            return f"({self.condition(chosen[0], lone=True)}) ? {rest}"
        if len(split(text, " && ")) + len(split(text, " || ")) > 2 or _COMPARISON.search(text):
            if "<" in text and re.search(r"\w<\w", text):  # a template's
                return text
            return self.condition(text, lone=False)
        return text

    def condition(self, text: str, *, lone: bool) -> str:
        """A condition with each of its sides behind a number."""
        for mark, matters_not in ((" || ", "false"), (" && ", "true")):
            sides = split(text, mark)
            if len(sides) > 1:
                return mark.join(self.side(side.strip(), (matters_not,)) for side in sides)
        return self.side(text, ("true", "false") if lone else ())

    def side(self, text: str, becomes: tuple[str, ...]) -> str:
        """One side, as it is or as the changes have it."""
        before = ""
        for value in becomes:
            before += f"{self.new(f'{flat(text)} -> {value}')} ? {value} : "
        inner = text
        if text.startswith("(") and closing(text, 0) == len(text) - 1:
            inner = f"({self.condition(text[1:-1], lone=False)})"
        elif len(parts := _COMPARISON.split(text)) == 3 and not text.startswith("!"):
            left, sign, right = parts
            other = f"{left} {_OTHER[sign]} {right}"
            before += f"{self.new(f'{flat(text)} -> {flat(other)}')} ? ({other}) : "
        return f"({before}{inner})" if before else inner


def flat(text: str) -> str:
    """On one line."""
    return " ".join(text.split())


def digest(text: str) -> str:
    """Of a function's source, whatever its layout."""
    return hashlib.sha256(flat(text).encode()).hexdigest()[:12]


def digests(file: str) -> dict[str, str]:
    """A digest of each function of a file."""
    text = (ROOT / "csrc" / file).read_text()
    return {f.name: digest(text[f.start : f.end]) for f in functions_of(text)}


def instrumented(folder: pathlib.Path) -> list[Mutant]:
    """Writes the sources with all their changes; what the changes are."""
    mutants: list[Mutant] = []
    for file in SOURCES:
        one = Instrument(file, len(mutants) + 1)
        text = one.whole((ROOT / "csrc" / file).read_text())
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f'#include "mutant.h"\n{text}')
        mutants += one.mutants
    (folder / "mutant.h").write_text(PRELUDE)
    return sorted(mutants, key=lambda mutant: SOURCES.index(mutant.file))


def build_all(folder: pathlib.Path) -> None:
    """The driver of each build, over the instrumented sources."""
    drivers = [str(BUILD / build / "driver") for build in BUILDS]
    subprocess.run(
        ["make", "-f", "tests/cpp/Makefile", f"-j{WORKERS}", *drivers],
        cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    sources = [path for path in ROOT.glob("csrc/*/*.cu") if path.name != "device.cu"]  # no kernel
    sources += ROOT.glob("tests/cpp/*.cu")

    def compiled(build: str, source: pathlib.Path) -> None:
        target = folder / build / f"{source.stem}.o"
        target.parent.mkdir(exist_ok=True)
        changed = folder / source.parent.name / source.name
        source = changed if changed.exists() else source
        subprocess.run(
            ["g++", "-x", "c++", "-std=c++20", "-g1", "-ffp-contract=off", "-pthread", "-w",
             "-DLLMREC_EMULATE_CUDA", f"-I{folder}", f"-I{ROOT / 'csrc'}",
             f"-I{ROOT / 'tests' / 'emulation'}", *FLAGS[build], "-c", str(source), "-o",
             str(target)],
            check=True,
        )  # fmt: skip

    with ThreadPoolExecutor(WORKERS) as pool:
        list(
            pool.map(
                lambda job: compiled(*job), [(b, source) for b in BUILDS for source in sources]
            )
        )
    for build in BUILDS:
        objects = [
            str(path) for path in (BUILD / build).rglob("*.o") if not path.name.endswith(".cu.o")
        ]
        ours = [str(folder / build / f"{source.stem}.o") for source in sources]
        subprocess.run(["g++", *FLAGS[build], "-pthread", *objects, *ours, "-o",
                        str(folder / f"driver-{build}")], check=True)  # fmt: skip


def found_by(folder: pathlib.Path, build: str, number: int, groups: str) -> str | None:
    """What says that a change is wrong in one build; None where nothing does."""
    steady = ["setarch", "-R"] if build == "thread" else []
    command = [*steady, str(folder / f"driver-{build}"), "--quick", "--emulated", "--first",
               "--groups", groups]  # fmt: skip
    try:
        ended = subprocess.run(
            command, env=os.environ | HALT | {"LLMREC_MUTANT": str(number)}, capture_output=True,
            text=True, timeout=LIMITS[build], errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"{build}: never ends"
    if ended.returncode == 0:
        return None
    said = ended.stdout + ended.stderr
    group = (re.findall(r"^group (.*)$", said, re.MULTILINE) or ["the beginning"])[-1]
    for pattern in (r"(data race)", r"AddressSanitizer: ([\w-]+)", r"runtime error: ([a-z ]+)",
                    r"emulator: (?:thread \d+ waits.*\nemulator: )?([^;\n]+)"):  # fmt: skip
        if found := re.search(pattern, said):
            return f"{build}: {group}: {found[1].strip()}"
    return f"{build}: {group}"


def killer(folder: pathlib.Path, mutant: Mutant) -> str | None:
    """Which build and group of checks finds a change first."""
    barrier = mutant.change.split(" (place")[0].endswith("dropped")
    for build in ("thread", "plain") if barrier else ("plain", "address", "thread"):
        if said := found_by(folder, build, mutant.number, GROUPS.get(mutant.file, MOST_GROUPS)):
            return said
    return None


HEAD = f"""\
# Mutants of the CUDA kernels

{__doc__.split(chr(10))[0]}
`python tests/cuda_mutants.py` tries each change alone, in the emulator of tests/emulation, but not
those that have a reason here, and writes this down; it tells what the changes are.
Beside a function's name is a digest of its source: what is not the same is tried again by
`make mutants`.
"""


def table_of(mutants: list[Mutant], verdicts: dict[Mutant, str]) -> str:
    """The table; what has no verdict yet says so."""
    parts = [HEAD]
    for file in SOURCES:
        parts.append(f"## {file}\n")
        known = digests(file)
        for function in dict.fromkeys(m.function for m in mutants if m.file == file):
            own = [m for m in mutants if (m.file, m.function) == (file, function)]
            said = {m.change: verdicts.get(m, "not tried") for m in own}
            parts.append(section(function, known[function], said))
    return "\n".join(parts)


def main() -> int:
    """Try what has changed; 1 where something survives that nobody explained."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail where the table changes")
    parser.add_argument("--only", default="", help="tries those whose file or function holds this")
    options = parser.parse_args()
    before = TABLE.read_text() if TABLE.exists() else ""
    known = known_verdicts(before)
    folder = ROOT / "build" / "cuda_mutants"
    mutants = instrumented(folder)
    known_digests = {file: digests(file) for file in SOURCES}
    verdicts: dict[Mutant, str] = {}
    for mutant in mutants:
        heading = f"{mutant.function} ({known_digests[mutant.file][mutant.function]})"
        verdict = known.get((heading, cell(mutant.change)), "")
        if (mutant.function, mutant.change) in EXPLAINED:
            verdicts[mutant] = EXPLAINED[mutant.function, mutant.change]
        elif verdict.split(":")[0] in BUILDS:
            verdicts[mutant] = verdict
    pending = [
        mutant
        for mutant in mutants
        if mutant not in verdicts and options.only in f"{mutant.file} {mutant.function}"
    ]

    def as_it_is(build: str) -> None:
        groups = ",".join({GROUPS.get(mutant.file, MOST_GROUPS) for mutant in pending})
        if said := found_by(folder, build, 0, groups):
            raise SystemExit(f"{said}: fails as it is")

    def tried(mutant: Mutant) -> None:
        said = killer(folder, mutant) or "SURVIVED"
        print(f"{mutant.function}: {mutant.change}: {said}", flush=True)
        with writing:
            verdicts[mutant] = said
            TABLE.write_text(table_of(mutants, verdicts))  # what is known stays if this ends early

    writing = threading.Lock()
    with ThreadPoolExecutor(WORKERS) as pool:
        if pending:
            build_all(folder)
            list(pool.map(as_it_is, BUILDS))
        list(pool.map(tried, pending))
    text = table_of(mutants, verdicts)
    TABLE.write_text(text)
    survivors = len(mutants) - sum(verdict != "SURVIVED" for verdict in verdicts.values())
    print(f"{len(mutants)} mutants, {len(pending)} tried now, {survivors} without a reason")
    if options.check and text != before:
        print(f"{TABLE.relative_to(ROOT)} was not up to date; commit it as it is now")
        return 1
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
