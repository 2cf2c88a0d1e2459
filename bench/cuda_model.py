"""The time that the CUDA C++ kernels take on GPUs that are not here: modelled, not measured.

For a kernel and a shape, the largest of the times that each of these would take alone:

    memory     compulsory bytes over the datasheet's bandwidth
    L2         bytes that multiprocessors (SMs) ask of it
    in flight  turns of a loop that waits for memory, one after the other, over the warps that an
               SM holds
    load/store, tensor, float64, conversions, dot products: instructions over what a pipe does
    issue      all instructions, at one a cycle and scheduler

Instructions are those of the compiled main loops, times their turns, and of the shortest way
through the rest of the kernel. Launches, the last wave, and whatever waits for more than one of
these are left out: a GPU takes longer. Each constant says where it is from.

A call of cosine_topk is many kernels. Of the whole call there are the scans of its batches and of
their samples, modelled as above, the rows that are scored again, and a constant for each launch.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from gpu_model import BAGS, BITS, GPUS, SECTOR, Gpu, sectors
from gpu_table import Key, Resources, Table
from sass import MEMORY, MULTIPLIES

from llmrec_kernels.benchmarks.cells import (
    CANDIDATES,
    QUANTIZE,
    BagCell,
    CandidateCell,
    QuantizeCell,
)
from llmrec_kernels.ops.cosine_topk.nvrtc_plan import GROUP, Plan, Tuning, scan_for

LANES, SCHEDULERS = 32, 4
# Results that an SM has in a cycle, by architecture. CUDA Programming Guide, "Throughput of Native
# Arithmetic Instructions"; 10.0 and 12.0 as 9.0 and 8.9, where it has no column (assumed).
FLOAT64 = {75: 2, 80: 32, 86: 2, 89: 2, 90: 64, 100: 64, 120: 2}
FLOAT64_CONVERSIONS = {75: 2, 80: 16, 86: 2, 89: 2, 90: 16, 100: 16, 120: 2}
CONVERSIONS = 16  # I2F, F2I, F2F and MUFU; I2FP, from sm_86 on, is no slower than others
DOT_PRODUCTS = 64  # IDP: as multiplications of integers
# Bytes that an SM's shared memory and L1 move in a cycle: 32 banks of 4; half on Turing (Jia et
# al., arXiv:1903.07486).
SHARED = {75: 64}
# int8 operations that an SM's tensor cores do in a cycle at the dense peak (NVIDIA's white papers
# of the architectures); with the datasheet's peak it tells the clock.
INT8 = {75: 2048, 80: 4096, 86: 2048, 89: 2048, 90: 8192, 100: 16384, 120: 2048}
# Of that peak, what mma.sync reaches. Hopper: 62.9% (Luo et al., arXiv:2402.13499). sm_120: all
# (931 TOPS measured on an RTX 5090, github.com/kekzl/imp/pull/254). sm_80: nearly all (Sun et al.,
# arXiv:2206.02874), assumed of sm_75, 86 and 89. sm_100: Hopper's rate of an SM (assumed).
MMA_SYNC = {90: 0.629, 100: 0.629 / 2}
# Bytes a second. T4: Jia et al.; A100: white paper, 5,120 bytes a cycle; RTX 4090 and H100: read
# off the tests of Chips and Cheese; the others by SMs and clock from their likes (assumed).
L2 = {
    "T4": 1.27e12, "A100-80-SXM": 7.2e12, "A10": 1.9e12, "RTX-4090": 5.0e12, "H100-SXM": 6.6e12,
    "B200": 16e12, "RTX-5090": 6.3e12,
}  # fmt: skip
LATENCY = 0.6e-6  # seconds from a load to memory to its value (assumed: published are 0.4 to 0.7)
# Seconds that a launch takes which waits for the one before it, with the work of a kernel that is
# small (assumed, and measured on no GPU).
LAUNCH = 2.5e-6
# Why the scan alone is far from the peak of int8 on tensor cores, by architecture.
FAR_FROM_PEAK = {
    90: "operands of 128 x 128 tiles come from L2 and shared memory for mma.sync; "
    "wgmma would be needed",
    100: "mma.sync has a fraction of the peak, and its operands come from shared memory; "
    "tcgen05 would be needed",
}


class Load(NamedTuple):
    """What a kernel does for a shape: warps in all, turns of each main loop, bytes asked of L2."""

    warps: float
    turns: list[float]
    l2_bytes: float


class Cell(NamedTuple):
    """A kernel at work on a shape.

    Parameters
    ----------
    name
        What the table calls it.
    op, kernel
        The file, and a pattern of the kernel's name: of several, the one with the largest numbers.
    bytes
        Compulsory.
    load
        By the numbers in the kernel's name, and its row.
    operations
        Of tensor cores.
    target
        The share of the roofline that it is meant to have, or None.
    waits
        Whether a turn of the loop waits for memory.
    together
        Loads of which a warp's lanes share addresses: a cycle each, whatever their width.
    """

    name: str
    op: str
    kernel: str
    bytes: float
    load: Callable[[Sequence[int], Resources], Load]
    operations: float = 0
    target: float | None = None
    waits: bool = True
    together: tuple[str, ...] = ()


def products(counts: Mapping[str, int]) -> int:
    """Multiplications of int8 on tensor cores."""
    return sum(
        count * MULTIPLIES[kind.partition(".")[2]]
        for kind, count in counts.items()
        if kind.startswith("IMMA.")
    )


def cells() -> list[Cell]:
    (pairs,), (rows,) = CANDIDATES, QUANTIZE
    return [
        *(scan(4096, 1_000_000, dim) for dim in (384, 768, 1536)),
        *(scan_few(queries, 1_000_000, 384) for queries in (1, 8)),
        *(pool(bag, storage) for bag in BAGS for storage in STORAGES),
        *(score_pairs(pairs, storage) for storage in STORAGES),
        quantize(rows),
        pack(1_000_000, 384),
    ]


STORAGES = {"float32": "float32", "int8": "int8_affine"}  # what cells and kernels call them
TILE = 128  # items of a block of scan, and of a warp of scan_few


def scan(queries: int, items: int, dim: int) -> Cell:
    def load(numbers: Sequence[int], row: Resources) -> Load:
        _, columns, sides = numbers
        side = 8 * columns * sides  # queries of a block
        blocks = -(-items // TILE) * -(-queries // side)
        warps = row.threads / LANES
        turns = TILE * side * dim / warps / products(row.loops[0])
        return Load(blocks * warps, [turns], blocks * (TILE + side) * dim)

    size, operations = items * (dim + 16) + queries * dim, 2 * queries * items * dim
    name = f"scan, B = {queries}, d = {dim}"
    kernel = "scan 2, 4, 1" if queries <= 32 else "scan 4, 8, 2"
    return Cell(name, "topk.cu", kernel, size, load, operations, waits=False)


def scan_few(queries: int, items: int, dim: int) -> Cell:
    size = items * (dim + 16)

    def load(_: Sequence[int], row: Resources) -> Load:
        return Load(items / TILE, turns_of(row, "LDG.128", dim / 4), size)

    name, together = f"scan_few, B = {queries}, d = {dim}", ("LDS.32", "LDS.64", "LDS.128")
    kernel = f"scan_few {queries}"
    return Cell(name, "topk.cu", kernel, size, load, together=together)


def pool(bag: BagCell, storage: str) -> Cell:
    row_bytes = bag.dim * BITS[storage] // 8
    touched = sectors(row_bytes) + (SECTOR if storage != "float32" else 0)
    size = bag.bags * (bag.length * (touched + 8) + 4 * bag.dim)

    def load(_: Sequence[int], row: Resources) -> Load:
        turns = turns_of(row, "LDG.128", bag.length)
        return Load(bag.bags * (row_bytes / 16) / LANES, turns, size)

    name, kernel = f"pool {bag.name}, {storage}", f"pool {STORAGES[storage]}, sum"
    return Cell(name, "bag.cu", kernel, size, load, target=0.80, together=("LDG.32", "LDG.64"))


def score_pairs(cell: CandidateCell, storage: str) -> Cell:
    pairs = cell.queries * cell.length
    touched = pairs * (sectors(cell.dim * BITS[storage] // 8) + SECTOR + 12)

    def load(_: Sequence[int], row: Resources) -> Load:
        turns = turns_of(row, "FP64", 2 * cell.dim / 8)  # the product, and the item's length
        return Load(pairs * 8 / LANES, turns, touched)

    size = touched + 4 * cell.dim * cell.queries
    name, kernel = f"score_pairs {cell.name}, {storage}", f"score_pairs {STORAGES[storage]}"
    return Cell(name, "candidates.cu", kernel, size, load)


def quantize(cell: QuantizeCell) -> Cell:
    size = cell.rows * (5 * cell.dim + 8)

    def load(_: Sequence[int], row: Resources) -> Load:
        # A lane has eight elements: two loads to find the range, two to encode.
        return Load(cell.rows * cell.dim / 8 / LANES, turns_of(row, "LDG.128", 2, 2), size)

    name = f"quantize {cell.rows} x {cell.dim}, float32 to int8"
    return Cell(name, "quantize.cu", "quantize int8_affine", size, load)


def pack(items: int, dim: int) -> Cell:
    size = items * (5 * dim + 16)

    def load(_: Sequence[int], row: Resources) -> Load:
        # Each of eight lanes has every eighth element, of shared memory: to measure, to encode.
        return Load(items * 8 / LANES, turns_of(row, "LDS", dim / 8, dim / 8), size)

    name = f"pack {items} x {dim}, float32, without a copy"
    return Cell(name, "pack.cu", "pack float32", size, load, waits=False)


def turns_of(row: Resources, kind: str, *in_all: float) -> list[float]:
    """Turns of loops in which a warp has so many instructions of a kind in all."""
    return [
        all_of_them / sum(count for name, count in loop.items() if name.startswith(kind))
        for all_of_them, loop in zip(in_all, row.loops, strict=True)
    ]


class Modelled(NamedTuple):
    """Seconds."""

    roofline: float
    times: dict[str, float]

    @property
    def limit(self) -> str:
        return max(self.times, key=self.times.__getitem__)

    @property
    def seconds(self) -> float:
        return self.times[self.limit]

    @property
    def share(self) -> float:
        return self.roofline / self.seconds


def modelled(cell: Cell, key: Key, row: Resources, name: str, gpu: Gpu) -> Modelled:
    """A cell on a GPU, by the row of its architecture."""
    load = cell.load(numbers_in(key.name), row)
    total: Counter[str] = Counter(row.outside)
    for loop, count in zip(row.loops, load.turns, strict=True):
        total.update({kind: round(count * each) for kind, each in loop.items()})
    cycles = gpu.int8 / INT8[gpu.sm]  # of all SMs
    times = {
        "memory": cell.bytes / gpu.bandwidth,
        "L2": load.l2_bytes / L2[name],
        **{pipe: each * load.warps / cycles for pipe, each in pipes(total, gpu.sm, cell).items()},
    }
    if cell.waits:
        waves = max(1.0, load.warps / gpu.multiprocessors / row.warps)
        times["in flight"] = waves * sum(load.turns) * LATENCY
    return Modelled(max(times["memory"], cell.operations / gpu.int8), times)


def numbers_in(name: str) -> list[int]:
    """Of template arguments."""
    return [int(each) for each in re.findall(r"(?<![\w])\d+", name)]


def key_of(cell: Cell, table: Table, sm: int) -> Key | None:
    """The row that a cell is of, if there is one with main loops."""
    found = [
        key
        for key, row in table.items()
        if key.op == cell.op
        and key.sm == sm
        and row.loops
        and fnmatch.fnmatchcase(key.name, cell.kernel)
    ]
    return max(found, key=lambda key: math.prod(numbers_in(key.name)), default=None)


def pipes(counts: Mapping[str, int], sm: int, cell: Cell) -> dict[str, float]:
    """Cycles of an SM's pipes for these instructions of a warp."""
    found = dict.fromkeys(("load/store", "tensor", "float64", "conversions", "dot products"), 0.0)
    for kind, count in counts.items():
        name, _, width = kind.partition(".")
        if name in MEMORY:
            cycles = max(1.0, LANES * int(width) / 8 / SHARED.get(sm, 128))
            found["load/store"] += count * (1.0 if kind in cell.together else cycles)
        elif name in ("SHFL", "ATOM"):
            found["load/store"] += count
        elif kind == "FP64":
            found["float64"] += count * LANES / FLOAT64[sm]
        elif kind.endswith(".64"):
            found["conversions"] += count * LANES / FLOAT64_CONVERSIONS[sm]
        elif name in ("I2F", "F2I", "F2F", "FRND", "MUFU"):
            found["conversions"] += count * LANES / CONVERSIONS
        elif name == "IDP":
            found["dot products"] += count * LANES / DOT_PRODUCTS
    rate = INT8[sm] / 2 * MMA_SYNC.get(sm, 1.0)
    found["tensor"] = products(counts) / rate
    found["issue"] = sum(counts.values()) / SCHEDULERS
    return found


class Call(NamedTuple):
    """A call of cosine_topk on packed items without a filter, and the share that it is to have."""

    queries: int
    items: int
    dim: int
    k: int
    target: float

    @property
    def plan(self) -> Plan:
        sizes = (self.queries, self.items, self.dim, self.k)
        return Plan.of(*sizes, filtered=False, per_query=False, sketched=True, tuning=Tuning())

    @property
    def batches(self) -> list[int]:
        """Queries of each."""
        starts = range(0, self.queries, self.plan.batch)
        return [min(self.plan.batch, self.queries - start) for start in starts]

    def scan_of(self, queries: int, items: int) -> Cell:
        few = scan_for(queries).few
        return (scan_few if few else scan)(queries, items, self.dim)


def calls() -> list[Call]:
    many = [(4096, dim, 0.55) for dim in (384, 768, 1536)]
    few = [(queries, 384, 0.88) for queries in (1, 8)]
    return [
        Call(queries, 1_000_000, dim, k, target)
        for queries, dim, target in many + few
        for k in (100, 2048)
    ]


def launches(plan: Plan, items: int) -> int:
    """Of a batch, as topk.cu makes them."""
    scans = 2 if plan.overflows else 1
    sample = 2 if plan.sampled else 0  # scan, set_threshold
    chunks = -(-items // plan.chunk) * 2 * scans  # scan, narrow
    # sketch_queries; score_groups, choose_groups, rescore, write_results
    return 1 + sample + chunks + 4


class WholeCall(NamedTuple):
    """One scan of all queries, and the seconds that the whole call is made of."""

    alone: Modelled
    scans: float
    samples: float
    rescored: float
    launching: float
    launches: int

    @property
    def seconds(self) -> float:
        return self.scans + self.samples + self.rescored + self.launching

    @property
    def share(self) -> float:
        return self.alone.roofline / self.seconds


def modelled_call(call: Call, table: Table, name: str, gpu: Gpu) -> WholeCall:
    def scanned(queries: int, items: int) -> Modelled:
        cell = call.scan_of(queries, items)
        key = key_of(cell, table, gpu.sm)
        if key is None:
            raise ValueError(f"the table has no {cell.kernel} of sm_{gpu.sm}")
        return modelled(cell, key, table[key], name, gpu)

    count, sample = launches(call.plan, call.items) * len(call.batches), call.plan.sampled * GROUP
    return WholeCall(
        scanned(call.queries, call.items),
        sum(scanned(queries, call.items).seconds for queries in call.batches),
        sum(scanned(queries, sample).seconds for queries in call.batches) if sample else 0.0,
        4 * call.queries * min(call.k, call.items) * call.dim / gpu.bandwidth,
        count * LAUNCH,
        count,
    )


def reason(call: Call, found: WholeCall, gpu: Gpu) -> str:
    """Why the target is missed, or nothing."""
    if found.share >= call.target:
        return ""
    reasons = []
    if found.scans > 2 * found.alone.seconds:
        count, size = len(call.batches), call.plan.batch
        reasons.append(f"{count} batches of {size} queries, each of which reads all items")
    if found.alone.share < call.target:
        reasons.append(FAR_FROM_PEAK.get(gpu.sm, f"the scan's {found.alone.limit}"))
    if reasons:
        return "; ".join(reasons)
    parts = {
        "launches": found.launching,
        "sample": found.samples,
        "rows scored again": found.rescored,
        "scans by batch": found.scans - found.alone.seconds,
    }
    ranked = sorted(parts, key=parts.__getitem__, reverse=True)
    return " and ".join(f"{each} {1e3 * parts[each]:.3f} ms" for each in ranked[:2])


def section(table: Table) -> str:
    """The section of `gpu_resources.md`."""
    return section_of_kernels(table) + section_of_calls(table)


def section_of_kernels(table: Table) -> str:
    head = [
        "",
        "## Modelled times of the CUDA C++ kernels",
        "",
        "**Modelled**, by `bench/cuda_model.py`, from the loops above and datasheets, and measured",
        "on none of these GPUs. Milliseconds: of the roofline, which is compulsory bytes over",
        "bandwidth or int8 operations over the dense tensor peak, and of what limits the kernel in",
        "the model. The share is the first over the second. Scans have no target of their own:",
        "that is of whole calls, below.",
        "",
        "| kernel and shape | GPU | roofline | modelled | share | target | limit | next |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    lines = []
    for cell in cells():
        for name, gpu in GPUS.items():
            key = key_of(cell, table, gpu.sm)
            if key is None:
                continue
            found = modelled(cell, key, table[key], name, gpu)
            ranked = sorted(found.times, key=found.times.__getitem__, reverse=True)
            limits = [f"{each} {1e3 * found.times[each]:.3f}" for each in ranked[:3]]
            lines.append(
                f"| {cell.name} | {name} | {1e3 * found.roofline:.3f} "
                f"| {1e3 * found.seconds:.3f} | {found.share:.0%} "
                f"| {verdict(cell.target, found.share)} | {ranked[0]} | {', '.join(limits[1:])} |"
            )
    return "\n".join([*head, *lines]) + "\n"


def section_of_calls(table: Table) -> str:
    head = [
        "",
        "### Whole calls of cosine_topk",
        "",
        "**Modelled** as well, of N packed items without a filter. The roofline is that of the",
        "scan, the target of the whole call. Milliseconds: of one scan of all queries alone; and",
        "of the whole call, with a scan of each batch that its workspace holds, the scans of their",
        "samples, the float32 rows of the k best, which are scored again at least, and",
        f"{1e6 * LAUNCH:.1f} microseconds for each launch, as it waits for the one before:",
        "**assumed, and not measured**. What else the small kernels do is left out.",
        "",
        "| call | GPU | launches | roofline | scan alone | share | whole call | share | target "
        "| why it is missed |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    lines = []
    for call in calls():
        for name, gpu in GPUS.items():
            if key_of(call.scan_of(call.queries, call.items), table, gpu.sm) is None:
                continue
            found = modelled_call(call, table, name, gpu)
            alone = found.alone
            lines.append(
                f"| B = {call.queries}, N = {call.items:,}, d = {call.dim}, k = {call.k} | {name} "
                f"| {found.launches} | {1e3 * alone.roofline:.3f} | {1e3 * alone.seconds:.3f} "
                f"| {alone.share:.1%} | {1e3 * found.seconds:.3f} | {found.share:.1%} "
                f"| {verdict(call.target, found.share)} | {reason(call, found, gpu)} |"
            )
    return "\n".join([*head, *lines]) + "\n"


def verdict(target: float | None, share: float) -> str:
    if target is None:
        return "none"
    return f"{target:.0%}: {'met' if share >= target else 'missed'}"
