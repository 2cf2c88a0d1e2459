"""The least time that work can take under given roofs, and what share of it was reached.

An operator waits for its bytes or for its operations, whichever takes longer (Williams, Waterman,
Patterson, *Roofline*, CACM 52(4), 2009); operators follow one another, so their least times add up.
A device's roofs are what it was measured to do, or what its datasheet says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol, cast

from llmrec_kernels.cost import Cost
from llmrec_kernels.profiler.counter import CostCounter, OpCost
from llmrec_kernels.profiler.hardware import Hardware
from llmrec_kernels.profiler.report import Ceiling, Kind, Op, Roofline, Work
from llmrec_kernels.profiler.roofs import SIZES, Roofs

Bound = Literal["memory", "cache", "compute", "none"]


class Ceilings(Protocol):
    """The roofs of a device."""

    @property
    def memory(self) -> Ceiling:
        """Bytes a second from main memory."""

    @property
    def peaks(self) -> Mapping[Kind, Ceiling]:
        """Operations a second by kind of arithmetic."""

    def bandwidth(self, size: int) -> Ceiling:
        """Bytes a second that so many bytes can be had with."""


class Sheet(NamedTuple):
    """The roofs that a datasheet gives. Its caches are not known: everything is in memory."""

    row: Hardware

    @property
    def memory(self) -> Ceiling:
        """The datasheet's bandwidth."""
        return self._ceiling(self.row.bandwidth)

    @property
    def peaks(self) -> Mapping[Kind, Ceiling]:
        """The datasheet's operations a second."""
        return {kind: self._ceiling(rate) for kind, rate in self.row.peaks.items()}

    def bandwidth(self, size: int) -> Ceiling:
        """Of any size: that of the memory."""
        return self.memory

    def _ceiling(self, rate: float) -> Ceiling:
        source = f"hardware.csv, row {self.row.name}"
        return Ceiling(per_second=rate, source=source, repeatability=None)


class Least(NamedTuple):
    """Seconds that bytes and operations take at least."""

    memory: float
    compute: float

    @property
    def seconds(self) -> float:
        """The longer of the two."""
        return max(self)

    @property
    def bound(self) -> Literal["memory", "compute", "none"]:
        """What takes longer."""
        if self.seconds == 0:
            return "none"
        return "memory" if self.memory >= self.compute else "compute"


def operations(work: Cost | Work) -> int:
    """Floating-point and integer operations."""
    return work.flops + work.int_ops


# Where a kind of arithmetic has no peak, that of another which is no slower bounds it too.
_INSTEAD: dict[str, tuple[Kind, ...]] = {
    "float64": ("float32",),
    "float16": ("bfloat16", "float32"),
    "bfloat16": ("float16", "float32"),
    "tf32": ("float16", "float32"),
    "fp8": ("int8",),
    "int8": ("fp8", "bfloat16", "float32"),
}


def peak_of(kind: str, ceilings: Ceilings) -> Ceiling | None:
    """Operations a second of a kind of arithmetic, or of one that is no slower."""
    for each in (kind, *_INSTEAD.get(kind, ())):
        found = ceilings.peaks.get(cast(Kind, each))
        if found is not None:
            return found
    return None


def lacking(counter: CostCounter, ceilings: Ceilings) -> list[str]:
    """Kinds of arithmetic that were counted and have no peak of their own."""
    kinds = {each.kind for each in counter.by_op.values() if operations(each.cost)}
    return sorted(kinds - set(ceilings.peaks))


def least(entry: OpCost, ceilings: Ceilings) -> Least:
    """Of all calls of an operator.

    Rows that a lookup names more than once are in a cache from the second time on.
    """
    size = entry.cost.bytes
    peak = peak_of(entry.kind, ceilings)
    return Least(
        size / ceilings.bandwidth(footprint(entry) // max(1, entry.calls)).per_second,
        0.0 if peak is None else operations(entry.cost) / peak.per_second,
    )


def footprint(entry: OpCost) -> int:
    """Bytes in different places that all calls touch, one row of a lookup counted once."""
    if not entry.rows or entry.unique_rows is None:
        return entry.cost.bytes
    return entry.cost.bytes * entry.unique_rows // entry.rows


def by_op(counter: CostCounter, ceilings: Ceilings | None) -> list[Op]:
    """What was counted, the slowest operator first."""
    return [
        Op(
            name=name,
            calls=entry.calls,
            seconds=entry.seconds,
            work=work_of(entry.cost),
            kind=cast(Kind, entry.kind),
            counted=entry.counted,
            rows=entry.rows,
            unique_rows=entry.unique_rows,
            least_seconds=0.0 if ceilings is None else least(entry, ceilings).seconds,
        )
        for name, entry in sorted(counter.by_op.items(), key=lambda item: -item[1].seconds)
    ]


def work_of(cost: Cost) -> Work:
    """As the report has it. No counter of moved bytes is read: none is there without privileges."""
    return Work(
        flops=cost.flops,
        int_ops=cost.int_ops,
        bytes_read=cost.bytes_read,
        bytes_written=cost.bytes_written,
        measured_bytes=None,
    )


def main_kind(counter: CostCounter) -> Kind:
    """The arithmetic of most operations."""
    totals: dict[str, int] = {}
    for entry in counter.by_op.values():
        totals[entry.kind] = totals.get(entry.kind, 0) + operations(entry.cost)
    return cast(Kind, max(totals, key=lambda kind: totals[kind], default="float32"))


def roofline(counter: CostCounter, seconds: float, ceilings: Ceilings) -> Roofline | None:
    """Where work that took `seconds` stands; None where nothing was counted."""
    total = counter.total
    size, count = total.bytes, operations(total)
    if size == 0 and count == 0:
        return None
    leasts = [least(entry, ceilings) for entry in counter.by_op.values()]
    needed = sum(each.seconds for each in leasts)
    largest = max(leasts, key=lambda each: each.seconds)
    touched = sum(footprint(entry) for entry in counter.by_op.values())
    cached = ceilings.bandwidth(touched)
    in_cache = isinstance(ceilings, Roofs) and ceilings.in_cache(touched)
    bound: Bound = largest.bound
    return Roofline(
        bandwidth=ceilings.memory,
        cached_bandwidth=cached if in_cache else None,
        peaks=dict(ceilings.peaks),
        kind=main_kind(counter),
        intensity=count / size if size else None,
        attained=count / seconds,
        attained_bytes=size / seconds,
        least_seconds=needed,
        share=needed / seconds,
        bound="cache" if bound == "memory" and in_cache else bound,
        modelled=isinstance(ceilings, Sheet),
        explanation=explanation(needed / seconds, touched, bound, ceilings),
    )


def explanation(share: float, size: int, bound: Bound, ceilings: Ceilings) -> str | None:
    """Why a share is above 1, which no work can be; None where it is not."""
    if share <= 1:
        return None
    if isinstance(ceilings, Sheet):
        return "the datasheet's figures are lower than what the device does"
    if isinstance(ceilings, Roofs) and ceilings.device != "cpu" and ceilings.in_cache(size):
        return f"its {size:,} bytes fit into the GPU's second-level cache, which has no roof here"
    peak = max((c.repeatability or 0.0 for c in ceilings.peaks.values()), default=0.0)
    known = peak if bound == "compute" else ceilings.bandwidth(size).repeatability or 0.0
    if bound != "compute" and size < SIZES[0]:
        return (
            f"its {size:,} bytes fit into caches that are faster than the smallest buffer that "
            f"was measured, of {SIZES[0]:,} bytes"
        )
    if share <= 1 + known:
        return f"the roofs are known to {known:.0%}, which this is within"
    return (
        "the roofs were measured when the machine was slower (its clock, or what else it ran), or "
        "the work needs less than its formula says (an allow-mask counts as if all were allowed)"
    )
