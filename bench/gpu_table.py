"""The rows of `gpu_resources.md`: what a kernel takes, what is wrong, what is worse than before.

Occupancy follows from the limits of a multiprocessor (SM). Spills, a block that fits on no SM, and
the lack of instructions that a kernel was written for are wrong whatever the table says.
"""

from __future__ import annotations

import fnmatch
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sass import WIDTHS

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
    # Of the CUDA C++ kernels alone, by the kinds of sass.py:
    mix: dict[str, int] = field(default_factory=dict)
    loops: tuple[dict[str, int], ...] = ()  # a turn of each main loop
    outside: dict[str, int] = field(default_factory=dict)  # at least


Table = dict[Key, Resources]
EXPECTATIONS = ("16-byte loads", "tensor cores", "async copies", "dot products of bytes")


def has(resources: Resources, what: str) -> bool:
    """Whether the code has instructions of this one of EXPECTATIONS."""
    if what == "16-byte loads":
        return not resources.loads.keys().isdisjoint({"32 B", "16 B", "TMA"})
    if what == "tensor cores":
        return bool(resources.tensor_cores)
    if what == "async copies":
        return any(kind.startswith("LDGSTS") for kind in resources.mix)
    if what == "dot products of bytes":
        return "IDP" in resources.mix
    raise ValueError(f"a variant expects {what!r}; there are {', '.join(EXPECTATIONS)}")


def violations(expects: Iterable[str], resources: Resources, stack: int = 0) -> list[str]:
    """What no row may have, whatever the table says; so much stack is explained."""
    found = []
    if resources.stack > stack or (resources.spills and not stack):
        found.append(f"{resources.spills} bytes of spills, {resources.stack} bytes of stack")
    if any(kind[:3] in ("LDL", "STL") for loop in resources.loops for kind in loop):
        found.append("local memory in a main loop")
    if not resources.warps:
        found.append("a block fits on no SM")
    lacking = (what for what in sorted(expects) if not has(resources, what))
    return found + [f"no {what}" for what in lacking]


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


def counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{count} x {what}" for what, count in counted.items())


def selected(name: object, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(str(name), pattern) for pattern in patterns)


def sampled(name: object, one_in: int) -> bool:
    return zlib.crc32(str(name).encode()) % one_in == 0


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
    if now.warps < before.warps:
        grown.append(f"resident warps fell from {before.warps} to {now.warps}")
    lost = (what for what in EXPECTATIONS if has(before, what) and not has(now, what))
    return grown + [f"no {what} any more" for what in lost]


class Outcome(NamedTuple):
    """What a room has found."""

    complaints: list[str]
    rows: int  # compiled
    text: str  # its part of the document, written again


class NotComparableError(Exception):
    """The table is of another compiler."""
