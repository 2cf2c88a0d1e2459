"""What stands in a roofline picture: the roofs of a machine, and the work under them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from llmrec_kernels.profiler.report import Kind, Report


class Roofs(NamedTuple):
    """What bounds the work, a second."""

    bandwidth: float
    cached: float | None
    peaks: dict[Kind, float]
    used: set[Kind]  # arithmetic of the work

    @property
    def slopes(self) -> dict[str, float]:
        """The bandwidths by name."""
        cached = {} if self.cached is None else {"cache": self.cached}
        return {"main memory": self.bandwidth, **cached}

    @property
    def top(self) -> float:
        """Where the slopes end; where no peak is known, somewhere."""
        return max(self.peaks.values(), default=1000 * self.bandwidth)


class Mark(NamedTuple):
    """Work under the roofs."""

    label: str  # what stands beside it
    name: str
    intensity: float  # operations per byte
    rate: float  # operations a second
    whole: bool  # the call, among its operators
    hollow: bool  # modelled


def roofs(reports: Sequence[Report]) -> Roofs | None:
    """The highest of each roof: what was seen once the machine can do. None where none is known."""
    found = [report.roofline for report in reports if report.roofline is not None]
    if not found:
        return None
    cached = [each.cached_bandwidth.per_second for each in found if each.cached_bandwidth]
    peaks: dict[Kind, float] = {}
    for each in found:
        for kind, roof in each.peaks.items():
            peaks[kind] = max(roof.per_second, peaks.get(kind, 0.0))
    return Roofs(
        bandwidth=max(each.bandwidth.per_second for each in found),
        cached=max(cached, default=None),
        peaks=peaks,
        used={each.kind for each in found},
    )


def call(report: Report, label: str, *, whole: bool) -> list[Mark]:
    """The mark of a call; none where it has no operations, no bytes, or no roofline."""
    roofline = report.roofline
    if roofline is None or not roofline.intensity or not roofline.attained:
        return []
    return [
        Mark(label, report.name, roofline.intensity, roofline.attained, whole, roofline.modelled)
    ]


def operators(report: Report) -> list[Mark]:
    """The marks of operators, without those that have no operations, no bytes or no time."""
    modelled = report.roofline is not None and report.roofline.modelled
    marks = []
    for op in report.ops:
        operations = op.work.flops + op.work.int_ops
        moved = op.work.bytes_read + op.work.bytes_written
        if operations and moved and op.seconds:
            intensity, rate = operations / moved, operations / op.seconds
            marks.append(Mark(op.name, op.name, intensity, rate, whole=False, hollow=modelled))
    return marks
