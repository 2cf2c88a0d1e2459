"""The least time that benchmark shapes can take on GPUs that are not here: modelled, not measured.

The larger of compulsory bytes over memory bandwidth and tensor-core operations over their dense
peak, from datasheets. What a kernel does beyond that, and whether it reaches it, only a GPU tells.
"""

from __future__ import annotations

from typing import NamedTuple

from llmrec_kernels.benchmarks.cells import CANDIDATES, QUANTIZE, TOPK, BagCell
from llmrec_kernels.profiler import hardware

SECTOR = 32  # bytes that memory hands out at least


class Gpu(NamedTuple):
    """Bytes, and dense float16 and int8 operations, a second: what the models here ask for."""

    bandwidth: float
    float16: float
    sm: int
    int8: float
    multiprocessors: int


def datasheet(name: str) -> Gpu:
    """A row of the profiler's table."""
    row = hardware.gpu(name)
    major, minor = row.compute_capability
    peaks = row.peaks
    sm = 10 * major + minor
    return Gpu(row.bandwidth, peaks["float16"], sm, peaks["int8"], row.multiprocessors)


# One or two of each architecture that the kernels are built for.
NAMES = ("T4", "A100-80-SXM", "A10", "RTX-4090", "H100-SXM", "B200", "RTX-5090")
GPUS = {name: datasheet(name) for name in NAMES}
# What the CPU's cells are called; a GPU's cache holds none of these tables but the hot ones.
BAGS = (
    BagCell("bags-64", 4096, 32, 2_000_000, 64),
    BagCell("bags-128", 4096, 32, 2_000_000, 128),
    BagCell("bags-384", 4096, 20, 1_000_000, 384),
)
BITS = {"float32": 32, "int8": 8, "int4": 4}


class Work(NamedTuple):
    """Compulsory bytes, operations of tensor cores, and the oldest architecture."""

    bytes: int
    operations: int
    minimum_sm: int


def sectors(size: int) -> int:
    return -(-size // SECTOR) * SECTOR


def work() -> dict[str, Work]:
    """By shape: what must be read and written once, random rows by whole sectors."""
    found = {}
    for cell in TOPK:
        if cell.items:  # the others are counted when their texts are there
            size = 4 * cell.dim * (cell.items + cell.queries) + 12 * cell.queries * cell.k
            found[f"cosine_topk {cell.name}"] = Work(
                size, 2 * cell.queries * cell.items * cell.dim, 80
            )
    for bag in BAGS:
        for storage, bits in BITS.items():
            row = sectors(bag.dim * bits // 8) + (SECTOR if bits < 32 else 0)
            size = bag.bags * (bag.length * (row + 8) + 4 * bag.dim)
            found[f"embedding_bag {bag.name}, {storage}"] = Work(size, 0, 75)
    for cell in CANDIDATES:
        for storage in ("float32", "int8"):
            row = sectors(cell.dim * BITS[storage] // 8) + SECTOR
            size = cell.queries * (cell.length * (row + 12) + 4 * cell.dim)
            found[f"candidate_scores {cell.name}, {storage}"] = Work(size, 0, 75)
    for cell in QUANTIZE:
        size = cell.rows * (4 * cell.dim + cell.dim + 8)
        found[f"quantize {cell.name}, int8"] = Work(size, 0, 75)
    return found


def section() -> str:
    """The section of `gpu_resources.md`."""
    lines = [
        "",
        "## Modelled times",
        "",
        "Milliseconds that the shapes of `llmrec_kernels/benchmarks/cells.py` take at least:",
        "**modelled**, by `bench/gpu_model.py`, from datasheets; measured on none of these GPUs.",
        "",
        f"| shape | {' | '.join(GPUS)} |",
        f"| --- |{' ---: |' * len(GPUS)}",
    ]
    for shape, each in work().items():
        cells = [
            f"{1e3 * max(each.bytes / gpu.bandwidth, each.operations / gpu.float16):.3f}"
            if gpu.sm >= each.minimum_sm
            else "not offered"
            for gpu in GPUS.values()
        ]
        lines.append(f"| {shape} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
