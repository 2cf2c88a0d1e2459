"""Numbers and names as people read them, the same in a terminal and on a page."""

from __future__ import annotations

import math

from llmrec_kernels.profiler.figures import Figure
from llmrec_kernels.profiler.report import Kind

_PREFIXES = ("p", "n", "µ", "m", "", "k", "M", "G", "T", "P", "E")
_LONG_TIMES = ((172_800, 86_400, "days"), (7_200, 3_600, "h"), (120, 60, "min"))


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits.

    Examples
    --------
    >>> number(51922.4), number(0.999961), number(2.8e-7)
    ('51,922', '1.00', '2.80e-07')
    """
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    if exponent < -4:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def exact(value: float) -> str:
    """A number that was given, as it was given.

    Examples
    --------
    >>> exact(64.0), exact(1e8), exact(56.039)
    ('64', '100,000,000', '56.039')
    """
    return f"{value:,.10g}"


def quantity(value: float, unit: str, digits: int = 3) -> str:
    """A number in the multiple of its unit that reads best.

    Examples
    --------
    >>> quantity(812.4e9, "B/s"), quantity(64, "B"), quantity(3e-9, "kWh")
    ('812 GB/s', '64 B', '3.00 µWh')
    """
    factor, name = _multiple(value, unit, digits)
    if factor == 1 and value == int(value):
        return f"{value:,.0f} {name}"
    return f"{number(value * factor, digits)} {name}"


def interval(low: float, high: float, unit: str, digits: int = 3) -> str:
    """Two numbers in the multiple that fits the larger.

    Examples
    --------
    >>> interval(0.00123, 0.0345, "s")
    '1.23 to 34.5 ms'
    """
    return _between(low, high, *_multiple(max(abs(low), abs(high)), unit, digits), digits)


def seconds(value: float) -> str:
    """A time, four digits: medians differ late.

    Examples
    --------
    >>> seconds(0.00123456), seconds(19282.0)
    ('1.235 ms', '5.356 h')
    """
    for least, factor, unit in _LONG_TIMES:
        if value >= least:
            return f"{number(value / factor, 4)} {unit}"
    return quantity(value, "s", 4)


def rate(value: float, kind: Kind) -> str:
    """Operations a second.

    Examples
    --------
    >>> rate(1.2e12, "float32"), rate(1.2e12, "int8")
    ('1.20 TFLOP/s', '1.20 TOP/s')
    """
    return quantity(value, "OP/s" if kind == "int8" else "FLOP/s")


def percent(share: float) -> str:
    """A share.

    Examples
    --------
    >>> percent(1.314), percent(0.0312), percent(0)
    ('131%', '3.1%', '0%')
    """
    return f"{share:.0%}" if share >= 0.1 else f"{number(100 * share, 2)}%"


def value(figure: Figure) -> str:
    """The number of a figure, or that there is none.

    Examples
    --------
    >>> value(Figure.unavailable("J", "there is no counter"))
    'unavailable'
    """
    return "unavailable" if figure.value is None else quantity(figure.value, figure.unit)


def bounds(figure: Figure) -> str:
    """Between what the true number is, in the multiple of the value; empty: nothing bounds it.

    Examples
    --------
    >>> bounds(Figure(value=0.9, unit="J", quality="measured", method="RAPL", low=0.8, high=1.1))
    '800 to 1,100 mJ'
    """
    low, high = figure.low, figure.high
    if figure.value is None or low is None or low == high:
        return ""
    if high is None:
        return f"at least {quantity(low, figure.unit)}"
    return _between(low, high, *_multiple(figure.value or high, figure.unit, 3), 3)


def labelled(figure: Figure) -> str:
    """The number and where it comes from.

    Examples
    --------
    >>> labelled(Figure(value=0.002, unit="J", quality="estimated", method="TDP"))
    '2.00 mJ (estimated)'
    """
    return value(figure) + ("" if figure.value is None else f" ({figure.quality})")


def plain(text: str) -> str:
    r"""Text in which nothing steers a terminal or a browser: control characters are written out.

    Examples
    --------
    >>> plain("a\x1b[31m\u202eb")
    'a\\x1b[31m\\u202eb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _between(low: float, high: float, factor: float, name: str, digits: int) -> str:
    return f"{number(low * factor, digits)} to {number(high * factor, digits)} {name}"


def _multiple(size: float, unit: str, digits: int) -> tuple[float, str]:
    """What to multiply by, and the name of the unit then."""
    if size == 0 or unit == "USD":
        return 1, unit
    if unit == "g CO2e" and abs(size) >= 1e6:
        return 1e-6, "t CO2e"
    if unit == "kWh":
        factor, name = _multiple(size * 1e3, "Wh", digits)
        return factor * 1e3, name
    exponent = int(f"{size:.{digits - 1}e}".partition("e")[2])
    power = min(max(exponent // 3, -4), 6)
    return math.pow(10, -3 * power), _PREFIXES[power + 4] + unit
