"""The CUDA C++ kernels' rows of `gpu_resources.md`.

Each file of csrc is compiled whole for every architecture. ptxas reports registers, spills and
static shared memory; the launchers' formulas give dynamic shared memory, from constants of the
source; nvdisasm shows the instructions, of which sass.py tells the main loops of kernels whose time
is modelled.
"""

from __future__ import annotations

import functools
import hashlib
import math
import multiprocessing
import re
import shutil
import struct
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import sass
from gpu_table import (
    LIMITS,
    Key,
    NotComparableError,
    Outcome,
    Resources,
    Table,
    by_width,
    compare,
    counts,
    on_tensor_cores,
    resident_warps,
    sampled,
    selected,
    violations,
)
from sass import Route
from tqdm import tqdm

CSRC = Path(__file__).resolve().parent.parent / "csrc"
FLAGS = ("-std=c++20", "--expt-relaxed-constexpr", "-O3", "-Werror", "all-warnings")
WORKERS = 2
STORAGES = (
    "float32", "float16", "bfloat16", "int8_affine", "int8_symmetric", "int4_affine",
    "int4_symmetric", "fp8_e4m3",
)  # fmt: skip  # as enum Storage of common/rows.h counts them

BITS = (32, 16, 16, 8, 8, 4, 4, 8)  # of an element

# What a kernel is launched with and written for.

Constants = Mapping[str, int]
Numbers = Sequence[int]  # template arguments


class Main(NamedTuple):
    """How the main loops of a kernel are found; by architecture, template arguments and threads.

    Parameters
    ----------
    unit
        The kind of instruction that they are for.
    inside, outside
        What is on the way through each of them, and through the rest.
    loops
        How many there are.
    """

    unit: Callable[[int], str]
    inside: Callable[[int, Numbers, int], Route]
    outside: Route = Route()
    loops: int = 1


class Kernel(NamedTuple):
    """What is not in a kernel's code.

    Parameters
    ----------
    shared
        Bytes of dynamic shared memory that its launcher asks for: at most, where that depends on
        the shape.
    expects
        By architecture, the instructions that it was written for.
    main
        Its main loops, where its time is modelled.
    """

    shared: Callable[[Constants, Numbers], int] = lambda _, __: 0
    expects: Callable[[int], tuple[str, ...]] = lambda _: ()
    main: Main | None = None


def selection(constants: Constants, _: Numbers) -> int:
    return (constants["kDigits"] + 4) * 4


def sorting(constants: Constants, numbers: Numbers) -> int:
    return constants["kSorting"] * 8 + selection(constants, numbers)


def scan_shared(constants: Constants, numbers: Numbers) -> int:
    _, columns, sides = numbers
    queries = columns * sides * 8
    stage = (constants["kTileItems"] + queries) * constants["kStep"]
    groups = constants["kTileItems"] // constants["kGroup"]
    known = constants["kTileItems"] * 2 + groups * (4 + queries) + queries  # struct Knows
    return constants["kStages"] * stage + known * 4


def pack_shared(constants: Constants, numbers: Numbers) -> int:
    bits = BITS[numbers[0]]
    items, chunk = constants["kItems"], constants["kChunk"]
    codes = 2 * items * chunk
    room = (constants["kShared"] - codes) // items - 32
    tile = room * 8 // bits // chunk * chunk
    return codes + items * (tile * bits // 8 + 32)


def scan_route(sm: int, numbers: Numbers, threads: int) -> Route:
    """Each thread copies its share of a step: 32 bytes of 128 items, and of the block's queries."""
    _, columns, sides = numbers
    copies = math.ceil((128 + 8 * columns * sides) * 32 / 16 / threads)
    return Route({"LDGSTS.128" if sm >= 80 else "STS.128": copies}, (imma(sm),))


def imma(sm: int) -> str:
    return "IMMA.16832" if sm >= 80 else "IMMA.8816"


def most(*kinds: str) -> Callable[[int, Numbers, int], Route]:
    return lambda _, __, ___: Route({}, kinds)


def wide(_: int) -> tuple[str, ...]:
    return ("16-byte loads",)


EPILOGUE = Route({}, ("I2FP", "I2F"))  # sums become floats: those of all queries
KERNELS: dict[str, Kernel] = {
    "scan": Kernel(
        scan_shared,
        lambda sm: ("tensor cores", "async copies") if sm >= 80 else ("tensor cores",),
        Main(imma, scan_route, EPILOGUE),
    ),
    "scan_few": Kernel(
        lambda constants, numbers: constants["kChunkGroups"] * numbers[0] * 4,
        lambda _: ("16-byte loads", "dot products of bytes"),
        Main(lambda _: "LDG.128", most("LDG.128", "IDP"), EPILOGUE),
    ),
    "set_threshold": Kernel(selection),
    "narrow": Kernel(selection),
    "choose_groups": Kernel(selection),
    "write_results": Kernel(sorting),
    "best_of_lists": Kernel(sorting),
    "score_pairs": Kernel(main=Main(lambda _: "FP64", most("FP64"))),
    "pool": Kernel(expects=wide, main=Main(lambda _: "LDG.128", most("LDG.128", "FFMA"))),
    "quantize": Kernel(
        expects=wide, main=Main(lambda _: "LDG.128", most("LDG.128", "F2I"), loops=2)
    ),
    "pack": Kernel(pack_shared, wide, Main(lambda _: "FP64", most("FP64"), loops=2)),
}
MODELLED = {  # of kernels with main loops, those instances whose time is modelled
    "scan_few": ("scan_few 1", "scan_few 8"),
    "score_pairs": ("score_pairs float32", "score_pairs int8_affine"),
    "pool": ("pool float32, sum", "pool int8_affine, sum"),
    "quantize": ("quantize int8_affine",),
    "pack": ("pack float32",),
}

# Stack that is accepted, in bytes of a thread, by rows, and why.
EXPLAINED = {
    "topk.cu scan 4, 8, 2 sm_100": (48, "once a tile, in front of and behind the loop over steps"),
    "topk.cu score_groups float32 sm_8?": (
        8,
        "once a group of 32 items, in a kernel for rare cases",
    ),
    "topk.cu rescore *float16 sm_100": (8, "once a pair of 32 candidates"),
    "bag.cu pool int4_*, sum sm_*": (16, "once a bag, outside of the loops over its rows"),
    "bag.cu pool *float16, max sm_100": (8, "once a bag, outside of the loops over its rows"),
    "quantize.cu quantize int4_* sm_100": (
        8,
        "four bytes read again in each turn of the loop that encodes eight elements",
    ),
}

# From a file to its resources.


class Unit(NamedTuple):
    """A file for an architecture: what is compiled at a time."""

    op: str
    sm: int

    def __str__(self) -> str:
        return f"{self.op} sm_{self.sm}"


class Reported(NamedTuple):
    """What ptxas says of a kernel."""

    registers: int
    spills: int
    stack: int
    shared: int


def sources() -> list[Path]:
    """Those that have kernels."""
    files = sorted(CSRC.glob("*/*.cu"))
    return [file for file in files if any("__global__" in code_of(f) for f in closure(file))]


def compile_file(source: Path, sm: int) -> dict[str, tuple[Resources, list[str]]]:
    """The rows of a file's kernels by their names, each with what is not as KERNELS has it."""
    from triton import knobs  # its wheel has an nvdisasm

    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        command = ["nvcc", *FLAGS, f"-I{CSRC}", f"-I{source.parent}", f"-arch=sm_{sm}"]
        command += ["-cubin", "-Xptxas", "-v", "-o", str(cubin), str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            first = re.search(r"^.*\b(?:error|fatal)\b.*$", done.stdout + done.stderr, re.MULTILINE)
            raise RuntimeError(f"does not compile: {first[0] if first else done.stderr.strip()}")
        reported = reports(done.stdout + done.stderr)
        threads = threads_of(cubin.read_bytes())
        text = subprocess.check_output([knobs.nvidia.nvdisasm.path, "-c", str(cubin)], text=True)
    constants = constants_of(source)
    dynamic = dynamic_kernels(source)
    return {
        name_of(kernel): row_of(
            kernel, sm, reported[kernel], threads[kernel], lines, constants, dynamic
        )
        for kernel, lines in sass.functions(text).items()
    }


def reports(log: str) -> dict[str, Reported]:
    """What `ptxas -v` wrote, by mangled name."""
    found = {}
    for part in log.split("Compiling entry function '")[1:]:
        # Functions that the kernel calls have lines of their own, in front of the next kernel.
        frame = re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part
        )
        used = re.search(r"Used (\d+) registers.*", part)
        if frame is None or used is None:
            raise ValueError(f"ptxas reports no resources of {part.partition(chr(39))[0]}")
        shared = re.search(r"(\d+) bytes smem", used[0])
        found[part.partition("'")[0]] = Reported(
            int(used[1]),
            int(frame[2]) + int(frame[3]),
            int(frame[1]),
            int(shared[1]) if shared else 0,
        )
    return found


def threads_of(cubin: bytes) -> dict[str, int]:
    """The launch bounds of kernels, by mangled name, from the sections .nv.info.<kernel>."""
    (sections,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names_at = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", cubin, sections + i * size) for i in range(count)]
    names = headers[names_at][4]
    found = {}
    for header in headers:
        start = names + header[0]
        name = cubin[start : cubin.index(b"\0", start)].decode()
        if not name.startswith(".nv.info."):
            continue
        at, end = header[4], header[4] + header[5]
        while at < end:
            layout, attribute, value = struct.unpack_from("<BBH", cubin, at)
            if (layout, attribute) == (4, 5):  # EIFMT_SVAL, EIATTR_MAX_THREADS
                found[name.removeprefix(".nv.info.")] = math.prod(
                    struct.unpack_from("<III", cubin, at + 4)
                )
            at += 4 + (value if layout == 4 else 0)
    return found


def parts_of(mangled: str) -> tuple[str, list[tuple[str, int]]]:
    """A kernel's name, and its template arguments with their types."""
    rest, name = mangled.removeprefix("_ZN"), ""
    while found := re.match(r"\d+", rest):
        size = int(found[0])
        name = rest[found.end() : found.end() + size]
        rest = rest[found.end() + size :]
    arguments = rest[1:].partition("EE")[0] + "E" if rest.startswith("I") else ""
    found_arguments = re.findall(r"L(\D*?|NS_\d+\D+)(\d+)E", arguments)
    return name, [(kind, int(value)) for kind, value in found_arguments]


def name_of(mangled: str) -> str:
    """As a row has it: `scan 4, 8, 2`, `pool int8_affine, max`."""
    name, arguments = parts_of(mangled)
    shown = []
    for kind, value in arguments:
        if "Storage" in kind:
            shown.append(STORAGES[value])
        elif kind == "b":
            shown.append("max" if value else "sum")  # the one flag that there is: of pool
        else:
            shown.append(str(value))
    return " ".join([name, ", ".join(shown)]).strip()


def row_violations(key: Key, row: Resources) -> list[str]:
    """What a row may not have, whatever the table says."""
    stack = next((most for rows, (most, _) in EXPLAINED.items() if selected(key, [rows])), 0)
    expects = KERNELS.get(key.name.partition(" ")[0], Kernel()).expects(key.sm)
    return violations(expects, row, stack)


def row_of(
    mangled: str,
    sm: int,
    reported: Reported,
    threads: int,
    lines: Sequence[str],
    constants: Constants,
    dynamic: set[str],
) -> tuple[Resources, list[str]]:
    name, arguments = parts_of(mangled)
    numbers = [value for _, value in arguments]
    kernel = KERNELS.get(name, Kernel())
    found = []
    asked = kernel.shared(constants, numbers)
    if (asked > 0) != (name in dynamic):
        found.append("its dynamic shared memory is not as KERNELS of cuda_resources.py has it")
    opcodes = sass.opcodes(lines)
    mix: Counter[str] = Counter()
    for opcode, count in opcodes.items():
        if opcode != "NOP":
            mix[sass.kind_of(opcode)] += count
    work = None
    if kernel.main is not None and name_of(mangled) in MODELLED.get(name, (name_of(mangled),)):
        main = kernel.main
        route = main.inside(sm, numbers, threads)
        work = sass.work_of(lines, main.unit(sm), main.loops, route, main.outside)
        if work is None:
            found.append("its main loops are not as KERNELS of cuda_resources.py has them")
    shared = reported.shared + asked
    resources = Resources(
        registers=reported.registers,
        spills=reported.spills,
        stack=reported.stack,
        shared=shared,
        threads=threads,
        warps=resident_warps(sm, threads // 32, reported.registers, shared, 0),
        loads=by_width(opcodes),
        tensor_cores=on_tensor_cores(opcodes),
        instructions=opcodes.total() - opcodes["NOP"],
        mix=dict(sorted(mix.items())),
        loops=tuple(dict(sorted(loop.items())) for loop in work.loops) if work else (),
        outside=dict(sorted(work.outside.items())) if work else {},
    )
    return resources, found


# The sources.


@functools.cache
def closure(source: Path) -> tuple[Path, ...]:
    """A file, and all of csrc that it includes."""
    found, todo = [source], [source]
    while todo:
        file = todo.pop()
        for name in re.findall(r'^\s*#include "([^"]+)"', file.read_text(), re.MULTILINE):
            path = next((f / name for f in (CSRC, file.parent) if (f / name).is_file()), None)
            if path is not None and path not in found:
                found.append(path)
                todo.append(path)
    return tuple(found)


def code_of(file: Path) -> str:
    """Without comments and layout."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", file.read_text(), flags=re.DOTALL)
    return " ".join(text.split())


def digest(source: Path) -> str:
    """Of the sources that decide what is compiled, whatever their layout and comments."""
    code = "\n".join(sorted(code_of(file) for file in closure(source)))
    return hashlib.sha256(code.encode()).hexdigest()[:12]


def constants_of(source: Path) -> dict[str, int]:
    """Integers that are spelled out, or made of others."""
    found: dict[str, int] = {}
    for file in reversed(closure(source)):
        for name, text in re.findall(r"constexpr int\w* (k\w+) = ([^;]+);", code_of(file)):
            for known in set(re.findall(r"k[A-Z]\w*", text)) & found.keys():
                text = re.sub(rf"\b{known}\b", str(found[known]), text)
            if re.fullmatch(r"[\d\s+*()<]+", text):
                found[name] = eval(text)
    return found


def dynamic_kernels(source: Path) -> set[str]:
    """Those that have dynamic shared memory."""
    found = set()
    for file in closure(source):
        for part in code_of(file).split("__global__")[1:]:
            head, _, body = part.partition("{")
            name = re.search(r"(\w+)\s*\([^()]*\)\s*$", head)
            if name and "DYNAMIC_SHARED(" in body:
                found.add(name[1])
    return found


# All of them, in worker processes.


def compile_all(units: Mapping[Unit, Path]) -> tuple[Table, list[str]]:
    """These files' rows, and the violations in them."""
    if not units:
        return {}, []
    table: Table = {}
    complaints = []
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
        results = pool.map(compile_unit, units, units.values())
        for unit, rows in tqdm(zip(units, results, strict=True), total=len(units), disable=None):
            if isinstance(rows, str):
                complaints.append(f"{unit}: {rows}")
                continue
            for name, (row, found) in rows.items():
                key = Key(unit.op, name, unit.sm)
                table[key] = row
                found += row_violations(key, row)
                complaints += [f"{key}: {each}" for each in found]
    return table, complaints


def compile_unit(unit: Unit, source: Path) -> dict[str, tuple[Resources, list[str]]] | str:
    """In a worker: rows, or why there are none."""
    try:
        return compile_file(source, unit.sm)
    except RuntimeError as error:
        return str(error)


def nvcc_version() -> str | None:
    if shutil.which("nvcc") is None:
        return None
    text = subprocess.check_output(["nvcc", "--version"], text=True)
    found = re.search(r"V([\d.]+)", text)
    return found[1] if found else "of no version"


# The table.

HEAD = """
## What the CUDA C++ kernels take of a GPU

As above, of the files of csrc, by nvcc {version} for what all GPUs of an architecture have. Shared
bytes are at most, where they depend on the shape. Instructions are counted by kind and the bits of
a thread's access; FP64 is arithmetic in float64. Of kernels whose time is modelled: what a warp
issues in a turn of each main loop, and at least outside of them. Stack that is accepted:

{explained}

CUDA sources: {sources}.

| file | kernel | sm | registers | spills | stack | shared | threads | warps | loads \
| tensor cores | instructions | of which | in a turn of the loops | outside |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- | ---: | --- | --- | --- |
"""


def render(table: Table, version: str, digests: Mapping[str, str]) -> str:
    import cuda_model  # and with it pandas and torch

    known = ", ".join(f"{op} {digest}" for op, digest in sorted(digests.items()))
    rows = [rendered_row(key, table[key]) for key in sorted(table)]
    explained = "\n".join(
        f"- `{rows}`, {most} bytes: {why}." for rows, (most, why) in EXPLAINED.items()
    )
    head = HEAD.format(version=version, sources=known, explained=explained)
    return head + "".join(rows) + cuda_model.section(table)


def rendered_row(key: Key, row: Resources) -> str:
    used = (row.registers, row.spills, row.stack, row.shared, row.threads)
    warps = f"{row.warps}/{LIMITS[key.sm][0]}"
    shown = {kind: count for kind, count in row.mix.items() if kind in SHOWN}
    shown["other"] = row.instructions - sum(shown.values())
    loops = "; ".join(counts(loop) for loop in row.loops)
    cells = (*key, *used, warps, counts(row.loads), counts(row.tensor_cores), row.instructions)
    cells = (*cells, counts(shown), loops, counts(row.outside))
    return f"| {' | '.join(map(str, cells))} |\n"


SHOWN = (
    "LDG.128", "LDGSTS.128", "LDS.32", "LDS.64", "LDS.128", "IMMA.16832", "IMMA.8816", "IDP",
    "FP64", "F2F", "F2F.64", "I2F", "I2FP", "F2I", "ATOM", "BAR",
)  # fmt: skip


def parsed(text: str) -> Table:
    """The table of a document that `render` wrote."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    return dict(parsed_row(*cells) for cells in lines if len(cells) == 15 and cells[2].isdigit())


def parsed_row(op: str, name: str, sm: str, *cells: str) -> tuple[Key, Resources]:
    *used, warps, loads, tensor_cores, instructions, mix, loops, outside = cells
    used.append(warps.partition("/")[0])
    return Key(op, name, int(sm)), Resources(
        *map(int, used),
        counted(loads),
        counted(tensor_cores),
        int(instructions),
        counted(mix),
        tuple(counted(loop) for loop in loops.split(";") if loop.strip()),
        counted(outside),
    )


def counted(cell: str) -> dict[str, int]:
    return {what: int(count) for count, what in re.findall(r"(\d+) x (\d+ B|[\w.]+)", cell)}


def digests_in(text: str) -> dict[str, str]:
    line = text.partition("CUDA sources: ")[2].partition(".\n")[0]
    return dict(re.findall(r"([\w.]+) ([0-9a-f]{12})", line))


def shown_row(row: Resources) -> str:
    """What a row looks like, whatever it is of."""
    return rendered_row(Key("", "", 90), row)


def update(
    files: Sequence[Path], text: str, only: Sequence[str], check: bool, sample: int
) -> Outcome:
    """Compile what is asked for, and compare it with the table or write it again."""
    version, committed = nvcc_version(), parsed(text)
    offered = {Unit(file.name, sm): file for file in files for sm in LIMITS}
    units = {unit: file for unit, file in offered.items() if selected(unit, only)}
    kept = {key: row for key, row in committed.items() if not selected(unit_of(key), only)}
    known, current = digests_in(text), {file.name: digest(file) for file in files}
    if check and version is None:
        return Outcome(list(without_compiler(committed, units, known, current)), 0, "")
    if version is None:
        raise NotComparableError("cannot be written: there is no nvcc, nothing was compiled")
    if committed and (kept or check) and f"by nvcc {version} " not in text:
        raise NotComparableError(
            f"is not by nvcc {version}; write all of it again: --only '*.cu sm_*'"
        )
    if not check:
        now, complaints = compile_all(units)
        whole = current.keys() - {key.op for key in kept}
        digests = {op: current[op] if op in whole else known.get(op, 12 * "0") for op in current}
        return Outcome(complaints, len(now), render(kept | now, version, digests))

    fresh = {op for op in current if known.get(op) != current[op]}
    seen = {u: file for u, file in units.items() if u.op in fresh or sampled(u, sample)}
    now, complaints = compile_all(seen)
    complaints += [
        line for line in committed_violations(committed, units) if line not in complaints
    ]
    then = {key: row for key, row in committed.items() if unit_of(key) in seen}
    complaints += compare(then, now)
    for key in sorted(then.keys() & now.keys()):
        if key.op in fresh and shown_row(then[key]) != shown_row(now[key]):
            complaints.append(f"{key}: its source has changed, and with it the row; write it again")
    return Outcome(complaints, len(now), "")


def unit_of(key: Key) -> Unit:
    return Unit(key.op, key.sm)


def committed_violations(committed: Table, units: Mapping[Unit, Path]) -> Iterator[str]:
    """What no compiler is needed for."""
    for unit in units:
        rows = {key: row for key, row in committed.items() if unit_of(key) == unit}
        if not rows:
            yield f"{unit}: not in the table"
        for key, row in rows.items():
            yield from (f"{key}: {each}" for each in row_violations(key, row))


def without_compiler(
    committed: Table,
    units: Mapping[Unit, Path],
    known: Mapping[str, str],
    current: Mapping[str, str],
) -> Iterator[str]:
    """A check by the sources' digests alone."""
    print("There is no nvcc: no CUDA C++ was compiled, its table and its sources were read.")
    yield from committed_violations(committed, units)
    for op in sorted({unit.op for unit in units}):
        if known.get(op) != current[op]:
            yield f"{op}: its sources are not those of the table, and no nvcc can compile them"
