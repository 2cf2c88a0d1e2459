"""Where the labels of a picture go, so that none lies on another.

A label is placed once, the most important first: of the places around its point that are free,
the one that is nearest and crosses the fewest lines. Where no place is free there is no label.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

ADVANCE = 6.6  # width of a character: 0.6 of a font size of 11, as monospaced fonts have it
HEIGHT = 14.0  # of a line, with what hangs below it
_DISTANCES = (9, 15, 24, 36)  # between a point and its label
_CROSSING = 20.0  # a label that lies on a line is as bad as one this much further away


class Box(NamedTuple):
    """A rectangle from its upper left corner, in pixels."""

    x: float
    y: float
    width: float
    height: float

    def meets(self, other: Box) -> bool:
        """Whether the two have a point in common."""
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )

    def holds(self, other: Box) -> bool:
        """Whether the other lies inside."""
        return (
            self.x <= other.x
            and self.y <= other.y
            and other.x + other.width <= self.x + self.width
            and other.y + other.height <= self.y + self.height
        )

    def widened(self, by: float) -> Box:
        """The box with a margin."""
        return Box(self.x - by, self.y - by, self.width + 2 * by, self.height + 2 * by)

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the box that is nearest to another."""
        return (
            min(max(x, self.x), self.x + self.width),
            min(max(y, self.y), self.y + self.height),
        )


class Segment(NamedTuple):
    """A straight line between two points, in pixels."""

    x1: float
    y1: float
    x2: float
    y2: float

    def crosses(self, box: Box) -> bool:
        """Whether it touches the box."""
        left, right = sorted((self.x1, self.x2))
        top, bottom = sorted((self.y1, self.y2))
        if right < box.x or left > box.x + box.width:
            return False
        if bottom < box.y or top > box.y + box.height:
            return False
        sides = {
            (self.x2 - self.x1) * (y - self.y1) > (self.y2 - self.y1) * (x - self.x1)
            for x in (box.x, box.x + box.width)
            for y in (box.y, box.y + box.height)
        }
        return len(sides) == 2


def width(text: str) -> float:
    """Pixels that a text takes in a monospaced font; wide characters take two places.

    Examples
    --------
    >>> round(width("aten.mm"), 1)
    46.2
    """
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return (len(text) + wide) * ADVANCE


def shortened(text: str, most: int) -> str:
    """A text of at most so many characters: its beginning and its end say the most.

    Examples
    --------
    >>> shortened("aten.linalg_vector_norm", 13)
    'aten.l…r_norm'
    """
    if len(text) <= most:
        return text
    half = (most - 1) // 2
    return f"{text[: most - 1 - half]}…{text[len(text) - half :]}"


def place(
    text: str,
    points: Iterable[tuple[float, float]],
    *,
    frame: Box,
    taken: Sequence[Box],
    lines: Sequence[Segment],
) -> Box | None:
    """The best free place for a text beside one of the points.

    Parameters
    ----------
    text
        In one line.
    points
        What the text names, in pixels; of a line several points, the best first.
    frame
        Outside of it there is no place.
    taken
        What a label must not lie on.
    lines
        What it had better not lie on.

    Examples
    --------
    >>> place("a", [(50, 50)], frame=Box(0, 0, 100, 100), taken=[], lines=[])
    Box(x=59, y=43.0, width=6.6, height=14.0)
    """
    best, least = None, math.inf
    for turn, point in enumerate(points):
        for box, distance in _around(*point, width(text)):
            if not frame.holds(box) or any(box.meets(other) for other in taken):
                continue
            cost = distance + 2 * turn + _CROSSING * sum(line.crosses(box) for line in lines)
            if cost < least:
                best, least = box, cost
    return best


def _around(x: float, y: float, wide: float) -> Iterator[tuple[Box, float]]:
    """Boxes right, left, above and below of a point and between these, and how far each is."""
    for distance in _DISTANCES:
        slant = distance * 0.7
        corners = (
            (x + distance, y - HEIGHT / 2),
            (x - distance - wide, y - HEIGHT / 2),
            (x + slant, y - slant - HEIGHT),
            (x + slant, y + slant),
            (x - slant - wide, y - slant - HEIGHT),
            (x - slant - wide, y + slant),
            (x - wide / 2, y - distance - HEIGHT),
            (x - wide / 2, y + distance),
        )
        for turn, (left, top) in enumerate(corners):
            yield Box(left, top, wide, HEIGHT), distance + turn / 2
