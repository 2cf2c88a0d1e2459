"""`llmrec-kernels bench`: the named cells on this machine, and runs of many in one table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmrec_kernels.cli.app import app, checked_output, errors_as_sentences
from llmrec_kernels.cli.cost import Grid, HtmlFile, Pue, UsdPerHour, UsdPerKwh, cost_model

if TYPE_CHECKING:
    from llmrec_kernels.benchmarks.run import Run
    from llmrec_kernels.profiler import CostModel, Report

ENERGY_WINDOW = 5.0  # seconds: a GPU's counter ticks every 0.1, which is 2% of it
QUICK = "tiny sizes, to try the command: no figure of this run means anything"


@app.command()
def bench(
    cells: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CELL",
            help="Names, in which * stands for anything; a default choice of some minutes. "
            "With --compare: files of runs.",
        ),
    ] = None,
    listing: Annotated[
        bool, typer.Option("--list", help="Print names and sizes; + is in the default choice.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda:0; a GPU if there is one, else the CPU.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write, .json; else bench-<GPU or CPU>.json in this folder."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny sizes, to try it; no figure means anything.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Show runs of several machines in one table.")
    ] = False,
    html_file: HtmlFile = None,
    grid: Grid = None,
    pue: Pue = None,
    usd_per_kwh: UsdPerKwh = None,
    usd_per_hour: UsdPerHour = None,
) -> None:
    """Measure the named benchmark cells, ours beside plain torch, and write one JSON.

    It is written after each cell, so that a run that is stopped leaves what it measured. The two
    run one after the other: bench/compare.py in the source lets them take turns, with more peers.

    Examples: llmrec-kernels bench --list

    llmrec-kernels bench 'headline-*' --out mine.json

    llmrec-kernels bench --compare mine.json yours.json --html page.html
    """
    with errors_as_sentences():
        if html_file is not None:
            checked_output("--html", html_file, (".html",))
        if compare:
            from llmrec_kernels.benchmarks.merge import merge

            if any((listing, quick, device, out, grid, pue, usd_per_kwh, usd_per_hour)):
                raise ValueError("--compare takes files of runs and --html, and nothing else")
            _show(*merge([Path(name) for name in cells or []]), html_file)
        elif listing:
            _list(cells or ["*"])
        else:
            cost = cost_model(grid, pue, usd_per_kwh, usd_per_hour, None)
            run = _run(cells or [], device, out, quick, cost)
            _show(run.reports, run.sentences(), html_file)
            typer.echo(f"\nwritten: {run.path}")


def _list(patterns: Sequence[str]) -> None:
    from llmrec_kernels.benchmarks.cells import DEFAULT, chosen

    for cell in chosen(patterns):
        typer.echo(f"{'+' if cell.name in DEFAULT else ' '} {cell.name:22}{cell.sizes}")


def _run(
    patterns: Sequence[str], device: str | None, out: Path | None, quick: bool, cost: CostModel
) -> Run:
    from llmrec_kernels.benchmarks.cells import chosen, tiny
    from llmrec_kernels.benchmarks.run import Run

    where = _device(device)
    path = out or Path(f"bench-{_file_name(where)}.json")
    checked_output("--out", path, (".json",))
    cells = chosen(patterns)
    run = Run(path, where, {"cost": cost, "energy_window": ENERGY_WINDOW})
    if quick:
        typer.echo(QUICK, err=True)
        cells = [replace(tiny(cell), name=f"tiny {cell.name}") for cell in cells]
        run = Run(path, where, {"cost": cost, "min_time": 0.01, "energy_window": 0.1}, (QUICK,))
    try:
        run.over(cells)
    except KeyboardInterrupt as error:
        kept = f"{len(run.reports)} reports are in {path}" if run.reports else "nothing was kept"
        typer.echo(f"llmrec-kernels: stopped: {kept}", err=True)
        raise SystemExit(130) from error  # as shells have it of what was interrupted
    return run


def _device(asked: str | None) -> str:
    import torch

    from llmrec_kernels.profiler.environment import device_of

    return device_of(asked or ("cuda" if torch.cuda.is_available() else "cpu"))


def _file_name(device: str) -> str:
    """Of the GPU or the CPU, in letters that any file system takes."""
    import torch

    from llmrec_kernels.info import cpu_model

    name = cpu_model() if device == "cpu" else torch.cuda.get_device_name(device)
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


def _show(reports: Sequence[Report], missing: Sequence[str], html_file: Path | None) -> None:
    from llmrec_kernels.profiler.html import write_html
    from llmrec_kernels.profiler.terminal import comparison

    typer.echo(comparison(reports))
    for sentence in missing:
        typer.echo(sentence)
    if html_file is not None:
        write_html(reports, html_file)
