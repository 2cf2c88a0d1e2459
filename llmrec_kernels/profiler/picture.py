"""The roofline picture: how fast work is, over how much it does with a byte, under the roofs.

Both axes are logarithmic, so that a bandwidth is a slope and a peak of arithmetic a level line.
Here everything gets its place in pixels; `templates/roofline.svg` draws it. There are two sizes,
since a picture for a screen shrunk to a telephone cannot be read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llmrec_kernels.profiler import human
from llmrec_kernels.profiler.marks import Mark, Roofs
from llmrec_kernels.profiler.placing import HEIGHT, Box, Segment, place, shortened, width

_MARGIN = 3  # how many times further than the outermost mark or roof an axis reaches
_ABOVE, _BELOW = 30, 42  # pixels for the titles and ticks of the axes
_RADIUS = 6.0
_BESIDE = 12.0  # pixels up to which a label stands beside its dot
_ALONG = (0.3, 0.2, 0.4, 0.1, 0.5, 0.6, 0.7, 0.8, 0.9)  # where a slope's name can stand
_PREFIXES = ("f", "p", "n", "µ", "m", "", "k", "M", "G", "T", "P", "E")


class Size(NamedTuple):
    """Of a picture in pixels: all of it, and what is left and right of its plot."""

    name: str
    width: float
    height: float
    left: float
    right: float
    characters: int  # of the longest label of a mark


WIDE = Size("wide", 760, 440, 52, 156, 44)
NARROW = Size("narrow", 340, 380, 46, 66, 18)


class Line(NamedTuple):
    """A roof."""

    style: str
    text: str
    at: Segment


class Label(NamedTuple):
    """A text, from the left end of its base line."""

    style: str
    text: str
    x: float
    y: float
    width: float


class Dot(NamedTuple):
    """A mark at its place."""

    x: float
    y: float
    mark: Mark


@dataclass(frozen=True)
class Picture:
    """All that is drawn."""

    size: Size
    plot: Box
    across: list[tuple[float, str]]  # ticks
    up: list[tuple[float, str]]
    lines: list[Line]
    leaders: list[Segment]  # from levels and dots to labels that are not beside them
    labels: list[Label]
    dots: list[Dot]
    unnamed: int  # marks with no room for a label


class _Axis(NamedTuple):
    """A logarithmic axis from `low` at pixel `start` to `high` at pixel `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        share = math.log10(value / self.low) / math.log10(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, apart: float) -> list[tuple[float, str]]:
        """Powers of ten, at least so many pixels apart."""
        first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
        decade = abs(self.end - self.start) / math.log10(self.high / self.low)
        step = math.ceil(apart / decade)
        return [(self.at(10.0**n), power(n)) for n in range(first, last + 1) if n % step == 0]


def picture(roofs: Roofs, marks: Sequence[Mark], size: Size) -> Picture:
    """Give everything its place.

    Parameters
    ----------
    roofs
        Of the machine.
    marks
        The work; the most important first, for where there is no room a mark has no label.
    size
        `WIDE` or `NARROW`.

    Examples
    --------
    >>> roofs = Roofs(bandwidth=1e11, cached=None, peaks={"float32": 1e12}, used={"float32"})
    >>> [label.text for label in picture(roofs, [], WIDE).labels]
    ['float32 1.00 TFLOP/s', 'main memory 100 GB/s']
    """
    plot = Box(
        size.left, _ABOVE, size.width - size.left - size.right, size.height - _ABOVE - _BELOW
    )
    across, up = _axes(roofs, marks, plot)
    slopes, levels = _slopes(roofs, across, up), _levels(roofs, across, up)
    dots = [Dot(across.at(mark.intensity), up.at(mark.rate), mark) for mark in marks]
    ends, leaders = _ends(levels, plot, size)
    names, more = _names(slopes, levels, dots, plot, size)
    return Picture(
        size=size,
        plot=plot,
        across=across.ticks(apart=44),
        up=up.ticks(apart=26),
        lines=[*levels, *slopes],
        leaders=[*leaders, *more],
        labels=[*ends, *names],
        dots=dots,
        unnamed=len(dots) - sum(label.style.startswith("mark") for label in names),
    )


def power(n: int) -> str:
    """A power of ten as a tick has it.

    Examples
    --------
    >>> power(-2), power(1), power(10)
    ('0.01', '10', '10 G')
    """
    if -3 <= n < 0:
        return f"{10.0**n:g}"
    if not -15 <= n < 21:
        return f"1e{n}"
    return f"{10 ** (n % 3)} {_PREFIXES[n // 3 + 5]}".rstrip()


def _axes(roofs: Roofs, marks: Sequence[Mark], plot: Box) -> tuple[_Axis, _Axis]:
    """Axes that hold all marks, all levels, and where slopes and levels meet."""
    levels = list(roofs.peaks.values()) or [roofs.top]
    ridges = [level / slope for level in levels for slope in roofs.slopes.values()]
    across = [*ridges, *(mark.intensity for mark in marks)]
    up = [*levels, *(mark.rate for mark in marks)]
    right, bottom = plot.x + plot.width, plot.y + plot.height
    return (
        _Axis(min(across) / _MARGIN, max(across) * _MARGIN, plot.x, right),
        _Axis(min(up) / _MARGIN, max(up) * _MARGIN, bottom, plot.y),
    )


def _slopes(roofs: Roofs, across: _Axis, up: _Axis) -> list[Line]:
    """Bandwidths, from the edge of the plot to the highest level."""
    found = []
    for name, slope in roofs.slopes.items():
        start, end = max(across.low, up.low / slope), roofs.top / slope
        at = Segment(across.at(start), up.at(start * slope), across.at(end), up.at(end * slope))
        style = "slope cache" if name == "cache" else "slope"
        found.append(Line(style, f"{name} {human.quantity(slope, 'B/s')}", at))
    return found


def _levels(roofs: Roofs, across: _Axis, up: _Axis) -> list[Line]:
    """Peaks, the highest first, from the first slope that reaches them to the right edge."""
    steepest = max(roofs.slopes.values())
    return [
        Line(
            "level used" if kind in roofs.used else "level",
            f"{kind} {human.rate(peak, kind)}",
            Segment(across.at(peak / steepest), up.at(peak), across.end, up.at(peak)),
        )
        for kind, peak in sorted(roofs.peaks.items(), key=lambda item: -item[1])
    ]


def _ends(levels: Sequence[Line], plot: Box, size: Size) -> tuple[list[Label], list[Segment]]:
    """The names of the levels, right of the plot, moved apart where levels are close."""
    labels: list[Label] = []
    leaders: list[Segment] = []
    middle = -math.inf
    for turn, (style, text, at) in enumerate(levels):
        lowest = plot.y + plot.height - HEIGHT * (len(levels) - 1 - turn)
        middle = min(max(at.y2, middle + HEIGHT), lowest)
        short = text if width(text) <= size.right - 14 else text.partition(" ")[0]
        labels.append(Label(style, short, at.x2 + 10, middle + 4, width(short)))
        leaders.append(Segment(at.x2, at.y2, at.x2 + 8, middle))
    return labels, leaders


def _names(
    slopes: Sequence[Line], levels: Sequence[Line], dots: Sequence[Dot], plot: Box, size: Size
) -> tuple[list[Label], list[Segment]]:
    """The names of slopes and dots, as far as there is room, and lines to those that are far."""
    taken = [Box(d.x - _RADIUS, d.y - _RADIUS, 2 * _RADIUS, 2 * _RADIUS) for d in dots]
    lines = [line.at for line in (*slopes, *levels)]
    labels: list[Label] = []
    leaders: list[Segment] = []

    def add(style: str, text: str, points: Sequence[tuple[float, float]]) -> Box | None:
        box = place(text, points, frame=plot, taken=taken, lines=lines)
        if box is not None:
            taken.append(box)
            labels.append(Label(style, text, box.x, box.y + HEIGHT - 3, box.width))
        return box

    for style, text, at in slopes:
        add(style, text, [_along(at, share) for share in _ALONG])
    for x, y, mark in dots:
        style = "mark whole" if mark.whole else "mark"
        box = add(style, shortened(human.plain(mark.label), size.characters), [(x, y)])
        if box is not None and not box.widened(_BESIDE).holds(Box(x, y, 0, 0)):
            leaders.append(Segment(x, y, *box.nearest(x, y)))
    return labels, leaders


def _along(line: Segment, share: float) -> tuple[float, float]:
    return line.x1 + share * (line.x2 - line.x1), line.y1 + share * (line.y2 - line.y1)
