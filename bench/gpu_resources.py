"""What each Triton kernel takes of a GPU, read from its compiled code. No GPU is needed.

    python bench/gpu_resources.py                            # writes bench/gpu_resources.md
    python bench/gpu_resources.py --only '*int8*' '*sm_90'   # these rows again; the others stay
    python bench/gpu_resources.py --check                    # is anything worse than there?

Every configuration that `triton_variants.<op>.variants()` offers is compiled for every
architecture as a launch would. `--check` compiles all of an operator whose sources are not those
that the table names, and one row in SAMPLE of the others: they cannot have changed.

ptxas reports registers and spills, nvdisasm the instructions; occupancy follows from the limits of
a multiprocessor (SM). Spills, a block that fits on no SM, and the lack of instructions that a
configuration was written for are wrong whatever the table says.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import fnmatch
import functools
import hashlib
import importlib
import io
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

if TYPE_CHECKING:
    from triton_variants import Variant

TABLE = Path(__file__).with_suffix(".md")
OPS = ("candidate_scores", "cosine_topk", "embedding_bag", "quantize")
MODULES = tuple(f"triton_variants.{op}" for op in OPS)
WORKERS = 2
SAMPLE = 16

# Of an SM, by architecture: warps, blocks, KiB of shared memory. CUDA Programming Guide, section
# "Compute Capabilities". Granularities below are those of NVIDIA's cuda_occupancy.h.
LIMITS = {
    75: (32, 16, 64),
    80: (64, 32, 164),
    86: (48, 16, 100),
    89: (48, 24, 100),
    90: (64, 32, 228),
    100: (64, 32, 228),
    120: (48, 24, 100),
}
PARTS, REGISTERS_OF_PART = 4, 16384
TENSOR_MEMORY = 512  # columns for accumulators, from sm_100 on


def resident_warps(sm: int, warps: int, registers: int, shared: int, tensor_memory: int) -> int:
    """How many warps of such blocks an SM holds; 0 where not even one block fits."""
    most_warps, most_blocks, kibibytes = LIMITS[sm]
    reserved, granularity = (0, 256) if sm < 80 else (1024, 128)  # by the driver in each block
    by_registers = PARTS * (REGISTERS_OF_PART // rounded_up(32 * registers, 256))
    blocks = min(
        most_blocks,
        most_warps // warps,
        by_registers // warps,
        1024 * kibibytes // max(rounded_up(shared + reserved, granularity), 1),
        TENSOR_MEMORY // max(tensor_memory, 1),
    )
    return blocks * warps


def rounded_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


class Key(NamedTuple):
    """Names a row."""

    op: str
    name: str
    sm: int

    def __str__(self) -> str:
        return f"{self.op} {self.name} sm_{self.sm}"


@dataclass(frozen=True)
class Resources:
    """The rest of a row."""

    registers: int  # of a thread
    spills: int  # bytes of spill stores and loads in a thread's code
    stack: int  # bytes of a thread
    shared: int  # bytes of a block
    threads: int  # of a block
    warps: int  # resident on an SM
    loads: dict[str, int]  # of global memory, by the bytes that a thread gets: "16 B"; or "TMA"
    tensor_cores: dict[str, int]  # instructions, by name
    instructions: int  # without the NOPs that fill up


Table = dict[Key, Resources]
EXPECTATIONS = ("16-byte loads", "tensor cores")


def has(resources: Resources, what: str) -> bool:
    """Whether the code has instructions of this one of EXPECTATIONS."""
    if what == "16-byte loads":
        return not resources.loads.keys().isdisjoint({"32 B", "16 B", "TMA"})
    if what == "tensor cores":
        return bool(resources.tensor_cores)
    raise ValueError(f"a variant expects {what!r}; there are {', '.join(EXPECTATIONS)}")


def violations(variant: Variant, resources: Resources) -> list[str]:
    """What no row may have, whatever the table says."""
    found = []
    if resources.spills or resources.stack:
        found.append(f"{resources.spills} bytes of spills, {resources.stack} bytes of stack")
    if not resources.warps:
        found.append("a block fits on no SM")
    lacking = (what for what in sorted(variant.expects) if not has(resources, what))
    return found + [f"no {what}" for what in lacking]


# From a kernel to its resources.


def compile_source(variant: Variant, sm: int) -> Any:
    """What Triton makes for one architecture, in a process that has no TRITON_INTERPRET."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from llmrec_kernels.ops.triton_common import OPTIONS

    kernel = variant.kernel
    if not isinstance(kernel, triton.JITFunction):
        raise TypeError(f"expected a JITFunction, got {kernel!r}; unset TRITON_INTERPRET")
    places = {name: (place,) for place, name in enumerate(kernel.arg_names)}
    if wrong := {*variant.signature, *variant.constants, *variant.aligned} ^ set(places):
        raise ValueError(f"signature and constants differ from the arguments in {sorted(wrong)}")
    source = ASTSource(
        kernel,
        signature={name: variant.signature.get(name, "constexpr") for name in places},
        constexprs={places[name]: value for name, value in variant.constants.items()},
        attrs={places[name]: [["tt.divisibility", 16]] for name in variant.aligned},
    )
    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages, **OPTIONS}
    options["maxnreg"] = getattr(variant, "registers", OPTIONS["maxnreg"])
    return triton.compile(source, GPUTarget("cuda", sm, 32), options)


def compile_variant(variant: Variant, sm: int) -> Resources:
    """What the code for one architecture takes."""
    from triton import knobs

    with (
        tempfile.TemporaryDirectory() as folder,
        knobs.cache.scope(),
        knobs.nvidia.scope(),
        contextlib.redirect_stdout(io.StringIO()) as log,
    ):
        knobs.cache.dir = folder  # always empty: ptxas runs, and nothing stays behind
        knobs.nvidia.dump_ptxas_log = True
        compiled = compile_source(variant, sm)
        opcodes = disassemble(compiled.asm["cubin"], Path(folder))

    def reported(pattern: str) -> list[int]:
        return [int(number) for number in re.findall(pattern, log.getvalue())]

    used, registers = compiled.metadata, max(reported(r"Used (\d+) registers"))
    held = resident_warps(sm, used.num_warps, registers, used.shared, used.tmem_size or 0)
    return Resources(
        registers=registers,
        spills=sum(reported(r"(\d+) bytes spill (?:stores|loads)")),
        stack=sum(reported(r"(\d+) bytes stack frame")),
        shared=used.shared,
        threads=32 * used.num_warps,
        warps=held,
        loads=by_width(opcodes),
        tensor_cores=on_tensor_cores(opcodes),
        instructions=opcodes.total() - opcodes["NOP"],
    )


INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")


def disassemble(cubin: bytes, folder: Path) -> Counter[str]:
    """How often each opcode with its modifiers, like LDG.E.128, is in the code."""
    from triton import knobs

    path = folder / "kernel.cubin"
    path.write_bytes(cubin)
    # Without data-flow analysis, which only names the targets of jumps: a quarter less time.
    command = [knobs.nvidia.nvdisasm.path, "-c", "-ndf", str(path)]
    return Counter(INSTRUCTION.findall(subprocess.check_output(command, text=True)))


WIDTHS = {"256": 32, "128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}


def by_width(opcodes: Mapping[str, int]) -> dict[str, int]:
    """Loads of global memory, into registers (LDG) or shared memory (LDGSTS), and bulk copies."""
    found: Counter[int] = Counter()
    for opcode, count in opcodes.items():
        name, *modifiers = opcode.split(".")
        if name in ("LDG", "LDGSTS"):
            found[next((WIDTHS[each] for each in modifiers if each in WIDTHS), 4)] += count
        elif name in ("UTMALDG", "UBLKCP"):
            found[0] += count
    return {f"{width} B" if width else "TMA": found[width] for width in sorted(found)[::-1]}


def on_tensor_cores(opcodes: Mapping[str, int]) -> dict[str, int]:
    """HMMA (float), IMMA (int8), QMMA (float8), DMMA; HGMMA on Hopper, UTCHMMA on Blackwell.

    HFMA2.MMA is none: it multiplies and adds two halves, in another pipe.
    """
    found: Counter[str] = Counter()
    for opcode, count in opcodes.items():
        name, _, _ = opcode.partition(".")
        if name.endswith("MMA"):
            found[name] += count
    return dict(sorted(found.items()))


def specializations(kernel: Any, calls: Iterable[Mapping[str, Any]]) -> set[str]:
    """The keys under which Triton keeps what it compiles for these calls: one compilation each.

    A call has the kernel's arguments and options by name, tensors of any device. The key is made
    as in `JITFunction.run`: of types, of constexpr values, and of which integers are 1 and which
    integers and pointers are multiples of 16.
    """
    from triton.backends.compiler import GPUTarget
    from triton.compiler import make_backend
    from triton.runtime.jit import compute_cache_key, create_function_from_signature

    backend = make_backend(GPUTarget("cuda", 90, 32))
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    return {compute_cache_key({}, *bind(**call)[1:]) for call in calls}


# All of them, in worker processes.


def all_rows(modules: Sequence[str]) -> dict[Key, str]:
    """What can be compiled, and the module that offers it."""
    return {
        Key(op_of(module), name, sm): module
        for module in modules
        for name, variant in variants(module).items()
        for sm in LIMITS
        if sm >= variant.minimum_sm
    }


def op_of(module: str) -> str:
    return module.rpartition(".")[2]


def digest(module: str) -> str:
    """Of the sources that decide what is compiled, whatever their layout and comments."""
    found = importlib.import_module(module)
    files = [Path(file) for file in getattr(found, "SOURCES", (found.__file__,))]
    code = "\n".join(ast.unparse(ast.parse(file.read_text())) for file in files)
    return hashlib.sha256(code.encode()).hexdigest()[:12]


def sampled(key: Key, one_in: int) -> bool:
    return zlib.crc32(str(key).encode()) % one_in == 0


def compile_all(offered: Mapping[Key, str], keys: Sequence[Key]) -> tuple[Table, list[str]]:
    """These rows, and the violations in them."""
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
        rows = pool.map(compile_row, [offered[key] for key in keys], keys)
        results = dict(zip(keys, tqdm(rows, total=len(keys), disable=None), strict=True))
    table = {key: resources for key, (resources, _) in results.items() if resources}
    return table, [f"{key}: {each}" for key, (_, found) in results.items() for each in found]


def compile_row(module: str, key: Key) -> tuple[Resources | None, list[str]]:
    """In a worker: a row, if the kernel compiles, and its violations."""
    variant = variants(module)[key.name]
    with tempfile.TemporaryFile() as messages:
        os.dup2(messages.fileno(), 2)  # MLIR gives its reasons on the standard error alone
        try:
            resources = compile_variant(variant, key.sm)
        except Exception as error:  # whatever Triton raises: the other rows are still wanted
            messages.seek(0)
            return None, [f"does not compile: {reason(error, messages.read().decode())}"]
    return resources, violations(variant, resources)


def reason(error: Exception, messages: str) -> str:
    """The compiler's first error, or the exception's last line."""
    first = re.search(r"^.*\b(error|fatal)\s*:.*$", f"{messages}\n{error}", re.MULTILINE)
    return first[0] if first else f"{type(error).__name__}: {str(error).strip()}".splitlines()[-1]


@functools.cache
def variants(module: str) -> dict[str, Variant]:
    """What a module offers, by name."""
    offered = importlib.import_module(module).variants()
    named = {variant.name: variant for variant in offered}
    if len(named) < len(offered):
        raise ValueError(f"{module}.variants() has two of one name; expected a name for each")
    return named


def matches(key: Key, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(str(key), pattern) for pattern in patterns)


# The table.

HEAD = """\
# What the Triton kernels take of a GPU

Made by `python bench/gpu_resources.py` with Triton {version}, without a GPU: read from compiled
code, not measured. Registers are of a thread; spills, in the code, and stack are bytes of a thread,
shared bytes of a block; warps are those that an SM holds, of those that it could. Loads are of
global memory, by the bytes that a thread gets; they and tensor-core instructions are counted as
they stand, not as they run. From sm_90 on the code is for one architecture's own features (sm_90a).

Sources: {sources}.

| kernel | configuration | sm | registers | spills | stack | shared | threads | warps | loads \
| tensor cores | instructions |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- | ---: |
"""


def render(table: Table, version: str, digests: Mapping[str, str]) -> str:
    import gpu_model  # and with it pandas

    rows = [rendered_row(key, table[key]) for key in sorted(table)]
    sources = ", ".join(f"{op} {known}" for op, known in sorted(digests.items()))
    return HEAD.format(version=version, sources=sources) + "".join(rows) + gpu_model.section()


def digests_in(text: str) -> dict[str, str]:
    """Of the sources that all rows of an operator in a document are of."""
    return dict(
        re.findall(r"(\w+) ([0-9a-f]{12})", text.partition("Sources: ")[2].partition(".")[0])
    )


def rendered_row(key: Key, row: Resources) -> str:
    used = (row.registers, row.spills, row.stack, row.shared, row.threads)
    warps = f"{row.warps}/{LIMITS[key.sm][0]}"
    cells = (*key, *used, warps, counts(row.loads), counts(row.tensor_cores), row.instructions)
    return f"| {' | '.join(map(str, cells))} |\n"


def counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{count} x {what}" for what, count in counted.items())


def parsed(text: str) -> Table:
    """The table of a document that `render` wrote."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    return dict(parsed_row(*cells) for cells in lines if len(cells) == 12 and cells[2].isdigit())


def parsed_row(op: str, name: str, sm: str, *cells: str) -> tuple[Key, Resources]:
    *used, warps, loads, tensor_cores, instructions = cells
    used.append(warps.partition("/")[0])
    counted = [
        {what: int(count) for count, what in re.findall(r"(\d+) x (\d+ B|\w+)", cell)}
        for cell in (loads, tensor_cores)
    ]
    return Key(op, name, int(sm)), Resources(*map(int, used), *counted, int(instructions))


def compare(committed: Table, now: Table) -> list[str]:
    """What is worse now, or on one side alone."""
    lines = []
    for key in sorted(committed | now):
        if key not in committed:
            lines.append(f"{key}: not in the table; write it again")
        elif key not in now:
            lines.append(f"{key}: in the table, but not offered or not compiled now")
        else:
            lines += [f"{key}: {each}" for each in worse(committed[key], now[key])]
    return lines


def worse(before: Resources, now: Resources) -> list[str]:
    grown = [
        f"{name} grew from {getattr(before, name)} to {getattr(now, name)}"
        for name in ("registers", "spills", "stack", "shared")
        if getattr(now, name) > getattr(before, name)
    ]
    lost = (what for what in EXPECTATIONS if has(before, what) and not has(now, what))
    return grown + [f"no {what} any more" for what in lost]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the table; write none")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="of rows")
    parser.add_argument("--modules", nargs="+", default=MODULES, help="with another --table")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--sample", type=int, default=SAMPLE, help="compile one row in so many")
    arguments = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("TRITON_")]:
        del os.environ[name]  # the interpreter, and whatever else changes what is compiled
    from triton import __version__  # its wheel brings ptxas and nvdisasm

    text = arguments.table.read_text() if arguments.table.exists() else ""
    committed = parsed(text)
    others = {key: row for key, row in committed.items() if not matches(key, arguments.only)}
    if text and (others or arguments.check) and f"Triton {__version__}," not in text:
        print(f"{arguments.table} is not by Triton {__version__}; write all of it again")
        return 2
    offered = all_rows(arguments.modules)
    keys = [key for key in sorted(offered) if matches(key, arguments.only)]
    known, current = digests_in(text), {op_of(each): digest(each) for each in arguments.modules}
    fresh = {op for op in current if known.get(op) != current[op]}
    unseen = []
    if arguments.check:
        unseen = [k for k in keys if k.op not in fresh and not sampled(k, arguments.sample)]
        keys = [key for key in keys if key not in set(unseen)]
        others |= {key: row for key, row in committed.items() if key in set(unseen)}
    now, complaints = compile_all(offered, keys)
    if arguments.check:
        complaints += compare(committed, others | now)
        complaints += [f"{op}: its sources have changed; write the table again" for op in fresh]
        for key in unseen:  # what no compiler is needed for
            row = committed.get(key)
            found = (
                violations(variants(offered[key])[key.name], row) if row else ["not in the table"]
            )
            complaints += [f"{key}: {each}" for each in found]
    else:
        whole = current.keys() - {key.op for key in others}  # or some rows are of other sources
        digests = {op: current[op] if op in whole else known.get(op, 12 * "0") for op in current}
        arguments.table.write_text(render(others | now, __version__, digests))
    print(*complaints, f"{len(now)} rows, {len(complaints)} complaints", sep="\n")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
