"""What an energy window says of each component, and of all together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from llmrec_kernels.profiler.figures import Figure, Quality

_WORSE: tuple[Quality, ...] = ("measured", "integrated", "estimated")


@dataclass(frozen=True)
class Reading:
    """The energy of one component in one window.

    Parameters
    ----------
    component
        "cpu", "dram", "gpu" or "total".
    gross
        Joules of the window.
    net
        Joules without those that the idle machine takes. Below 0 where the window took less than
        the idle one, which is noise: the interval tells how much of it.
    window_seconds
        How long the window was for the source of these figures.
    notes
        What makes the figures worth less, and why better sources gave none.
    """

    component: str
    gross: Figure
    net: Figure
    window_seconds: float
    notes: list[str] = field(default_factory=list)


def total(readings: Sequence[Reading], seconds: float) -> Reading:
    """The components that are known, added.

    Examples
    --------
    >>> cpu = Figure(value=2.0, unit="J", quality="estimated", method="", low=1.0, high=4.0)
    >>> dram = Figure.unavailable("J", "no counter")
    >>> both = [Reading("cpu", cpu, dram, 1.0), Reading("dram", dram, dram, 1.0)]
    >>> print(total(both, 1.0).gross.method)
    cpu, without dram: no counter
    >>> print(total(both, 1.0).net)
    unavailable: cpu: no counter; dram: no counter
    """
    gross, net = (
        _sum({reading.component: getattr(reading, part) for reading in readings})
        for part in ("gross", "net")
    )
    return Reading("total", gross, net, seconds)


def table(readings: Sequence[Reading]) -> str:
    """A line for each component, and below what its figures are worth.

    Examples
    --------
    >>> cpu = Figure(value=2.0, unit="J", quality="estimated", method="", low=1.0, high=4.0)
    >>> print(table([Reading("cpu", cpu, Figure.unavailable("J", "no idle window"), 1.0)]))
    component   gross                         net
    cpu         2 J ±100% (estimated)         unavailable
    cpu: net is unavailable: no idle window
    """
    rows = [("component", "gross", "net")]
    notes = []
    for reading in readings:
        rows.append((reading.component, _cell(reading.gross), _cell(reading.net)))
        notes += [f"{reading.component}: {note}" for note in reading.notes]
        if reading.net.value is None and reading.net != reading.gross:
            notes.append(f"{reading.component}: net is {reading.net}")
    return "\n".join([f"{name:12}{gross:30}{net}" for name, gross, net in rows] + notes)


def _cell(figure: Figure) -> str:
    return "unavailable" if figure.value is None else str(figure)


def _sum(figures: dict[str, Figure]) -> Figure:
    missing = "; ".join(f"{name}: {f.method}" for name, f in figures.items() if f.value is None)
    known = {name: figure for name, figure in figures.items() if figure.value is not None}
    lost = figures.get("gpu")  # it is there where a GPU works: the rest would be told as all
    if not known or (lost is not None and lost.value is None):
        return Figure.unavailable("J", missing)
    return Figure(
        value=_added([figure.value for figure in known.values()]),
        unit="J",
        quality=max((figure.quality for figure in known.values()), key=_WORSE.index),
        method=" + ".join(known) + (f", without {missing}" if missing else ""),
        low=_added([figure.low for figure in known.values()]),
        high=None if missing else _added([figure.high for figure in known.values()]),
    )


def _added(numbers: Sequence[float | None]) -> float | None:
    """None where one is not known."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None
