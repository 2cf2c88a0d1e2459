"""What a study found: a protocol that anyone can repeat, tables, and pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure


NOTHING = "\N{EN DASH}"  # where there is no number


def short(value: float, decimals: int) -> str:
    """A number as the field prints it: without the zero before the point.

    Parameters
    ----------
    value : float
        NaN is a dash: there is no number.
    decimals : int
        Places after the point.

    Examples
    --------
    >>> [short(value, 2) for value in (0.5, -0.5, 1.0, 10.25, float("nan"))]
    ['.50', '-.50', '1.00', '10.25', '–']
    """
    return _printed(value, f".{decimals}f")


def signed(value: float, decimals: int) -> str:
    """A difference: as `short`, with its sign.

    Parameters
    ----------
    value : float
        NaN is a dash: there is no number.
    decimals : int
        Places after the point.

    Examples
    --------
    >>> [signed(value, 2) for value in (0.5, -0.5, 10.25)]
    ['+.50', '-.50', '+10.25']
    """
    return _printed(value, f"+.{decimals}f")


def interval(low: float, high: float, decimals: int) -> str:
    """Both ends of an interval, each as `short`.

    Parameters
    ----------
    low, high : float
        The ends; NaN is a dash.
    decimals : int
        Places after the point.

    Examples
    --------
    >>> interval(-0.05, 1.0, 3)
    '[-.050, 1.000]'
    """
    return f"[{short(low, decimals)}, {short(high, decimals)}]"


def _printed(value: float, form: str) -> str:
    if np.isnan(value):
        return NOTHING
    text = format(value, form)
    # Only a zero that stands alone before the point: that of 10.25 belongs to the 10.
    return text.replace("0.", ".", 1) if text.lstrip("+-").startswith("0.") else text


@dataclass(frozen=True)
class Table:
    """A table with a sentence about it.

    Parameters
    ----------
    caption : str
        What it shows, in Markdown.
    frame : pandas.DataFrame
        As it is to be printed: texts, or numbers that `decimals` rounds.
    decimals : int
        Places after the point.
    """

    caption: str
    frame: pd.DataFrame
    decimals: int = 3


@dataclass(frozen=True)
class Picture:
    """A plot that is drawn when it is asked for.

    Parameters
    ----------
    name : str
        File name without ending.
    caption : str
        What it shows.
    draw : callable
        Gives the figure.
    """

    name: str
    caption: str
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Study:
    """One question, how it was put, and what came out.

    Parameters
    ----------
    title : str
        A heading.
    protocol : str
        Data, split, candidates, metrics, choices and seeds, in Markdown: enough to repeat it.
    tables : list of Table
        In order.
    pictures : list of Picture
        In order.
    findings : str
        What the numbers say, also where they fall short, in Markdown.

    Examples
    --------
    >>> frame = pd.DataFrame({"NDCG@10": [0.25]}, index=["content"])
    >>> print(Study("Cold items", "Five seeds.", [Table("All films.", frame)]).markdown())
    ## Cold items
    <BLANKLINE>
    Five seeds.
    <BLANKLINE>
    All films.
    <BLANKLINE>
    | | NDCG@10 |
    |---|---|
    | content | .250 |
    """

    title: str
    protocol: str
    tables: list[Table]
    pictures: list[Picture] = field(default_factory=list)
    findings: str = ""

    def markdown(self, pictures: str = "") -> str:
        """As a section of a page; `pictures` is the folder that they are in, seen from the page."""
        parts = [f"## {self.title}", self.protocol]
        for table in self.tables:
            parts += [table.caption, _as_markdown(table)]
        parts += [f"![{one.caption}]({pictures}{one.name}.svg)" for one in self.pictures]
        return "\n\n".join(part for part in [*parts, self.findings] if part)

    def write_pictures(self, folder: Path) -> None:
        """Draw each picture into a folder, as SVG."""
        import matplotlib as mpl

        # Names of parts are drawn at random, and the date is in the file, unless told otherwise.
        with mpl.rc_context({"svg.hashsalt": "llmrec_kernels", "svg.fonttype": "none"}):
            for picture in self.pictures:
                picture.draw().savefig(folder / f"{picture.name}.svg", metadata={"Date": None})


def _as_markdown(table: Table) -> str:
    head = ["", *map(str, table.frame.columns)]
    lines = [f"| {' | '.join(head)} |".replace("|  |", "| |"), "|---" * len(head) + "|"]
    columns = [table.frame.iloc[:, place].tolist() for place in range(table.frame.shape[1])]
    for name, row in zip(table.frame.index, zip(*columns, strict=True), strict=True):
        cells = [str(name), *(_cell(one, table.decimals) for one in row)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: Any, decimals: int) -> str:
    """Whole numbers with commas, others as `short` prints them, texts as they are."""
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return short(float(value), decimals)
    return str(value)
