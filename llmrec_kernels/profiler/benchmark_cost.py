"""What a benchmark of pytest-benchmark costs, and the table that shows it."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import Field

from llmrec_kernels.profiler import human
from llmrec_kernels.profiler.counter import CostCounter
from llmrec_kernels.profiler.figures import Figure, Model
from llmrec_kernels.profiler.profile import gaps, known_roofs
from llmrec_kernels.profiler.roofline import roofline

COLUMNS = (
    "name", "median", "GB/s", "GFLOP/s", "% of roof", "J per unit", "units per second",
)  # fmt: skip
NAMED = 3  # benchmarks that a note below the table names


class BenchmarkCost(Model):
    """What `extra_info["cost"]` has of a benchmark; rates are those of its median time."""

    device: str = Field(description="whose roofs and energy they are: cpu or cuda:<index>")
    units: float | None = Field(description="units of work in a call; null: given wrongly")
    unit: str = Field(description="such as query")
    units_per_second: float | None
    flops: int | None = Field(description="floating-point operations of a call; null: not counted")
    bytes: int | None = Field(description="compulsory bytes of a call; null: not counted")
    flops_per_second: float | None
    bytes_per_second: float | None
    share_of_roof: float | None = Field(description="least time by the roofs over the median")
    energy: Figure = Field(description="joules of a unit")
    uncounted: dict[str, int] = Field(description="operators without a formula, and their calls")
    notes: list[str] = Field(description="why a figure is missing, or worth less")


class Spent(NamedTuple):
    """What a call of a benchmarked function takes: seconds, work and energy."""

    median: float
    device: str
    counter: CostCounter | None
    energy: Figure
    notes: list[str]


class Row(NamedTuple):
    """A benchmark in the table."""

    name: str
    median: float
    cost: BenchmarkCost


def cost_of(spent: Spent, extra_info: Mapping[str, Any]) -> BenchmarkCost:
    """All figures of a benchmark that says its units in `extra_info`."""
    units, unit, energy, notes = None, "unit", spent.energy, list(spent.notes)
    try:
        units, unit = units_of(extra_info)
        energy = energy.times(1 / units, f"J/{unit}")
    except ValueError as error:
        notes.append(str(error))
        energy = Figure.unavailable("J", str(error))
    counter, share = spent.counter, None
    flops = size = None
    if counter is not None:
        notes += gaps(counter)
        if counter.by_op:
            flops, size = counter.total.flops, counter.total.bytes
            share, doubts = share_of_roof(counter, spent.median, spent.device)
            notes += doubts

    def rate(amount: float | None) -> float | None:
        return None if amount is None or spent.median == 0 else amount / spent.median

    return BenchmarkCost(
        device=spent.device,
        units=units,
        unit=unit,
        units_per_second=rate(units),
        flops=flops,
        bytes=size,
        flops_per_second=rate(flops),
        bytes_per_second=rate(size),
        share_of_roof=share,
        energy=energy,
        uncounted={} if counter is None else counter.uncounted,
        notes=notes,
    )


def units_of(extra_info: Mapping[str, Any]) -> tuple[float, str]:
    """Units of work in a call and their name; a call is one where nothing is said.

    Raises
    ------
    ValueError
        They are no positive number, or their name is no text.

    Examples
    --------
    >>> units_of({"units": 64, "unit": "query"}), units_of({})
    ((64.0, 'query'), (1.0, 'call'))
    """
    units = extra_info.get("units", 1)
    unit = extra_info.get("unit", "unit" if "units" in extra_info else "call")
    if not isinstance(units, numbers.Real) or not 0 < float(units) < math.inf:
        raise ValueError(f'extra_info["units"] is {units!r}; expected a positive number')
    if not isinstance(unit, str):
        raise ValueError(f'extra_info["unit"] is {unit!r}; expected a name such as "query"')
    return float(units), unit


def share_of_roof(
    counter: CostCounter, median: float, device: str
) -> tuple[float | None, list[str]]:
    """Least time of the counted work by the roofs of a device over its median time, and doubts."""
    if median == 0:
        return None, ["its median is 0 s: the timer is too coarse for it"]
    roofs, notes = known_roofs(device)
    place = None if roofs is None else roofline(counter, median, roofs)
    if place is None:
        return None, notes
    if place.explanation is not None:
        waits = "" if device == "cpu" else "; or it did not wait for the GPU"
        notes.append(f"above 100% of the roof: {place.explanation}{waits}")
    return place.share, notes


def table(rows: Sequence[Row]) -> list[str]:
    """A line for each benchmark, and below them their notes."""
    cells = [COLUMNS, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for name, *figures in cells:
        aligned = (cell.rjust(width) for cell, width in zip(figures, widths[1:], strict=True))
        lines.append("  ".join([name.ljust(widths[0]), *aligned]))
    return lines + _footnotes(rows)


def _cells(row: Row) -> tuple[str, ...]:
    cost = row.cost

    def shown(value: float | None, show: Callable[[float], str]) -> str:
        return "-" if value is None else show(value)

    return (
        row.name,
        human.seconds(row.median),
        shown(cost.bytes_per_second, lambda rate: human.number(rate / 1e9)),
        shown(cost.flops_per_second, lambda rate: human.number(rate / 1e9)),
        shown(cost.share_of_roof, human.percent),
        shown(cost.energy.value, lambda _: human.labelled(cost.energy)),
        shown(cost.units_per_second, lambda rate: f"{human.number(rate)} {cost.unit}/s"),
    )


def _footnotes(rows: Sequence[Row]) -> list[str]:
    """Each note once, and whose it is."""
    named: dict[str, list[str]] = {}
    for name, _, cost in rows:
        for note in cost.notes:
            named.setdefault(note, []).append(name)
    lines = []
    for note, names in named.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        lines.append(f"{', '.join(names[:NAMED])}{more}: {note}")
    return lines
