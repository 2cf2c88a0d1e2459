"""Tables of plain text, laid out by rich: aligned columns, with no lines and no colours."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table

from llmrec_kernels.profiler import human

WIDTH = 100


def columns(*names: str) -> Table:
    """A table; a name that begins with `>` is of a column of numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    for name in names:
        numbers = name.startswith(">")
        table.add_column(
            human.plain(name.removeprefix(">")),
            justify="right" if numbers else "left",
            no_wrap=numbers,
            overflow="fold",
        )
    return table


def pairs(*rows: tuple[str, str]) -> Table:
    """A table of names and what they are."""
    table = columns("", "")
    table.show_header = False
    for row in rows:
        table.add_row(*row)
    return table


def section(title: str, body: RenderableType) -> list[RenderableType]:
    """A title, and under it what belongs to it."""
    return ["", title, indented(body)]


def indented(body: RenderableType) -> Padding:
    """As a section has its body."""
    return Padding(body, (0, 0, 0, 2))


def text(parts: Iterable[RenderableType]) -> str:
    """What rich would print to a file of this width; markup in names is text."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=WIDTH,
        color_system=None,
        force_jupyter=False,
        markup=False,
        emoji=False,
        highlight=False,
    )
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())
