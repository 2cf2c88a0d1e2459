"""Reports as one HTML page that needs nothing else: no script, no font, no network.

The page is also well-formed XML. Its text comes from `templates/`, where everything that is put
in is escaped; its picture from `picture.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from llmrec_kernels._files import write_text
from llmrec_kernels.profiler import human, marks, summary
from llmrec_kernels.profiler.picture import NARROW, WIDE, Picture, picture
from llmrec_kernels.profiler.report import Report


def write_html(reports: Sequence[Report], path: str | Path) -> None:
    """Write the page of some reports, whole or not at all.

    Parameters
    ----------
    reports
        One, or those of benchmark runs, of one machine or of several.
    path
        Of the file; its folder is there.

    Raises
    ------
    ValueError
        There is no report, or no such folder.

    Examples
    --------
    >>> write_html([], "report.html")
    Traceback (most recent call last):
    ...
    ValueError: reports is empty; expected at least one report
    """
    write_text(page(reports), path)


def page(reports: Sequence[Report]) -> str:
    """The page of one report; or of many: a summary, a roofline for each machine, and each report.

    Parameters
    ----------
    reports
        One, or those of benchmark runs, of one machine or of several.

    Raises
    ------
    ValueError
        There is no report.

    Examples
    --------
    >>> from llmrec_kernels import profiler
    >>> report = profiler.profile(lambda: sum(range(1000)), name="a < b", min_time=0.01)
    >>> "<h1>a &lt; b</h1>" in page([report])
    True
    """
    if not reports:
        raise ValueError("reports is empty; expected at least one report")
    name = "report.html" if len(reports) == 1 else "reports.html"
    return _environment().get_template(name).render(reports=reports)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        finalize=_plain,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        name: getattr(human, name)
        for name in (
            "bounds",
            "exact",
            "interval",
            "number",
            "percent",
            "quantity",
            "rate",
            "seconds",
            "value",
        )
    }
    environment.filters["pixel"] = "{:.1f}".format
    environment.globals |= {
        "draw_call": _draw_call,
        "draw_machine": _draw_machine,
        "summary": summary,
        "undrawn": _undrawn,
    }
    return environment


def _plain(value: Any) -> Any:
    """What is put into a template: text with its control characters written out."""
    return human.plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _draw_call(report: Report) -> list[Picture]:
    """The roofline of a call and its operators, for each width; none where no roof is known."""
    return _draw(
        marks.roofs([report]),
        [*marks.call(report, "whole call", whole=True), *marks.operators(report)],
    )


def _draw_machine(cells: Sequence[summary.Cell], machine: str) -> list[Picture]:
    """The roofline of a machine, for each width, with the numbers of its cells from 1."""
    found = [cell.reports.get(machine, []) for cell in cells]
    return _draw(
        marks.roofs([report for reports in found for report in reports]),
        [
            mark
            for number, reports in enumerate(found, 1)
            for report in reports
            for mark in marks.call(report, str(number), whole=False)
        ],
    )


def _draw(roofs: marks.Roofs | None, drawn: Sequence[marks.Mark]) -> list[Picture]:
    return [] if roofs is None else [picture(roofs, drawn, size) for size in (WIDE, NARROW)]


def _undrawn(report: Report) -> list[str]:
    """Operators that have no place in the picture."""
    drawn = {mark.name for mark in marks.operators(report)}
    return [op.name for op in report.ops if op.name not in drawn]
