"""The Triton kernels' rows of `gpu_resources.md`.

Every configuration that `triton_variants.<op>.variants()` offers is compiled for every
architecture as a launch would. ptxas reports registers and spills, nvdisasm the instructions.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import io
import multiprocessing
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from tqdm import tqdm

if TYPE_CHECKING:
    from triton_variants import Variant

OPS = ("candidate_scores", "cosine_topk", "embedding_bag", "quantize")
MODULES = tuple(f"triton_variants.{op}" for op in OPS)
WORKERS = 2

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


def disassemble(cubin: bytes, folder: Path) -> Counter[str]:
    """How often each opcode with its modifiers, like LDG.E.128, is in the code."""
    from triton import knobs

    path = folder / "kernel.cubin"
    path.write_bytes(cubin)
    # Without data-flow analysis, which only names the targets of jumps: a quarter less time.
    command = [knobs.nvidia.nvdisasm.path, "-c", "-ndf", str(path)]
    return sass.opcodes(subprocess.check_output(command, text=True).splitlines())


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
    return resources, violations(variant.expects, resources)


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


def update(
    modules: Sequence[str], text: str, only: Sequence[str], check: bool, sample: int
) -> Outcome:
    """Compile what is asked for, and compare it with the table or write it again."""
    from triton import __version__  # its wheel brings ptxas and nvdisasm

    committed = parsed(text)
    others = {key: row for key, row in committed.items() if not selected(key, only)}
    if text and (others or check) and f"Triton {__version__}," not in text:
        raise NotComparableError(f"is not by Triton {__version__}; write all of it again")
    offered = all_rows(modules)
    keys = [key for key in sorted(offered) if selected(key, only)]
    known, current = digests_in(text), {op_of(each): digest(each) for each in modules}
    fresh = {op for op in current if known.get(op) != current[op]}
    unseen = []
    if check:
        unseen = [key for key in keys if key.op not in fresh and not sampled(key, sample)]
        keys = [key for key in keys if key not in set(unseen)]
        others |= {key: row for key, row in committed.items() if key in set(unseen)}
    now, complaints = compile_all(offered, keys)
    if check:
        complaints += compare(committed, others | now)
        complaints += [f"{op}: its sources have changed; write the table again" for op in fresh]
        for key in unseen:  # what no compiler is needed for
            expects = variants(offered[key])[key.name].expects
            row = committed.get(key)
            found = violations(expects, row) if row else ["not in the table"]
            complaints += [f"{key}: {each}" for each in found]
        return Outcome(complaints, len(now), "")
    whole = current.keys() - {key.op for key in others}  # or some rows are of other sources
    digests = {op: current[op] if op in whole else known.get(op, 12 * "0") for op in current}
    return Outcome(complaints, len(now), render(others | now, __version__, digests))
