"""Reports as plain text, 100 columns wide: what `print(report)` shows.

The text has no colours and no lines drawn with characters that an old terminal lacks, so that it
reads the same on a screen, in a file and in a log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table

from llmrec_kernels.profiler import human, summary
from llmrec_kernels.profiler.figures import Figure
from llmrec_kernels.profiler.layout import columns, indented, pairs, section, text
from llmrec_kernels.profiler.report import Prediction, Report, Timing

_NO_COUNTER = "unavailable: no hardware counter"


def table(report: Report) -> str:
    """A report for reading.

    Parameters
    ----------
    report
        What to show; every figure that was not measured stands with its label.

    Returns
    -------
    str
        Lines of at most 100 columns, with no codes for colours and none from the names in it.

    Examples
    --------
    >>> from llmrec_kernels import profiler
    >>> report = profiler.profile(lambda: sum(range(1000)), name="a sum", min_time=0.01)
    >>> table(report).splitlines()[0]
    'a sum'
    """
    return text(
        [
            *_head(report),
            *_time(report),
            *_work(report),
            *_roofline(report),
            *_operators(report),
            *_energy(report),
            *_costs(report),
            *_predictions(report.predictions),
            *_assumptions(report),
            *_warnings(report),
        ]
    )


def predictions(found: Sequence[Prediction]) -> str:
    """The same work on several GPUs, in the order given.

    Examples
    --------
    >>> from llmrec_kernels import profiler
    >>> found = profiler.predict("pack", {"N": 1000, "d": 64}, "H100-SXM")
    >>> print(predictions(found).strip())
    On other GPUs: the least it can take (modelled)
      GPU            call  bound by           energy of a call  price of 1,000,000
      H100-SXM   176.9 ns  memory (float32)  124 µJ (modelled)         unavailable
    """
    return text(_predictions(found))


def comparison(reports: Sequence[Report]) -> str:
    """Many reports in one table: what each machine took for a cell stands together.

    Parameters
    ----------
    reports
        Of one run of benchmarks, or of several merged; cells and machines keep their order.

    Raises
    ------
    ValueError
        There is no report.

    Examples
    --------
    >>> comparison([])
    Traceback (most recent call last):
    ...
    ValueError: reports is empty; expected at least one report
    """
    if not reports:
        raise ValueError("reports is empty; expected at least one report")
    parts: list[RenderableType] = [_cell_columns()]
    for cell in summary.cells(reports):
        lines = _cell_columns()
        lines.show_header = False
        for machine, found in cell.reports.items():
            for report in found:
                lines.add_row(
                    f"  {human.plain(machine)}",
                    human.seconds(report.time.median),
                    _share(report),
                    human.labelled(summary.energy_per_unit(report)),
                )
        parts += [human.plain(f"{cell.name}, {cell.cache} caches"), lines]
    return text(parts)


def _cell_columns() -> Table:
    """Columns of equal width for every cell, so that the cells stand under one head."""
    lines = columns("cell", ">median", ">share of roof", ">energy of a unit")
    for column, width in zip(lines.columns, (46, 11, 15, 20), strict=True):
        column.width = width
    return lines


def _head(report: Report) -> list[RenderableType]:
    environment = report.environment
    version = f"llmrec_kernels {environment.package}"
    commit = f" ({environment.commit})" if environment.commit else ""
    where = [summary.hardware(report), report.device, f"{report.cache} caches"]
    software = [
        f"{version}{commit}",
        f"torch {environment.torch}",
        f"{environment.threads} threads",
    ]
    return [
        human.plain(report.name),
        "  " + human.plain(", ".join([*where, f"{human.exact(report.units)} {report.unit}/call"])),
        "  " + human.plain(", ".join([*software, environment.created])),
    ]


def _time(report: Report) -> list[RenderableType]:
    lines = columns("clock", ">call", ">95% interval", f">{report.unit}", ">p5 to p95", ">n")
    clocks = [report.time] if report.kernel_time is None else [report.time, report.kernel_time]
    for timing in clocks:
        lines.add_row(
            timing.clock,
            human.seconds(timing.median),
            human.interval(timing.low, timing.high, "s", 4),
            human.seconds(timing.median / report.units),
            human.interval(timing.p5, timing.p95, "s"),
            f"{timing.n:,}",
        )
    return [*section("Time", lines), indented(_throughput(report.time, report))]


def _throughput(timing: Timing, report: Report) -> str:
    low, high = (report.units / seconds for seconds in (timing.high, timing.low))
    middle = human.number(report.units / timing.median, 4)
    interval = f"{human.number(low, 4)} to {human.number(high, 4)}"
    return human.plain(f"throughput: {middle} {report.unit}/s ({interval})")


def _work(report: Report) -> list[RenderableType]:
    work = report.work
    measured = work.measured_bytes
    lines = pairs(
        ("operations", summary.operations(work)),
        ("bytes read", human.quantity(work.bytes_read, "B")),
        ("bytes written", human.quantity(work.bytes_written, "B")),
        ("bytes moved", _NO_COUNTER if measured is None else human.quantity(measured, "B")),
    )
    if report.uncounted:
        calls = (f"{name} (calls: {count:,})" for name, count in report.uncounted.items())
        lines.add_row("not counted", human.plain(", ".join(calls)))
    return section("Compulsory work of a call", lines)


def _roofline(report: Report) -> list[RenderableType]:
    roofline = report.roofline
    if roofline is None:
        return section("Roofline", "unavailable: no roof is known")
    place = pairs(
        ("share of roof", _share(report)),
        ("bound by", roofline.bound),
        ("least time", human.seconds(roofline.least_seconds)),
        ("attained", f"{human.rate(roofline.attained, roofline.kind)} ({roofline.kind})"),
        ("", human.quantity(roofline.attained_bytes, "B/s")),
    )
    if roofline.intensity is not None:
        place.add_row("intensity", f"{human.number(roofline.intensity)} operations per byte")
    if roofline.explanation is not None:
        place.add_row("above 100%", human.plain(roofline.explanation))
    roofs = columns("roof", ">height", "source")
    for name, height, roof in summary.roofs(roofline):
        roofs.add_row(name, height, human.plain(summary.repeated(roof)))
    return [*section("Roofline", place), "", indented(roofs)]


def _share(report: Report) -> str:
    if report.roofline is None:
        return "unavailable"
    label = " (modelled)" if report.roofline.modelled else ""
    return human.percent(report.roofline.share) + label


def _operators(report: Report) -> list[RenderableType]:
    whole = sum(op.seconds for op in report.ops)
    if not whole:
        return section("Time by operator", "unavailable: no operator was counted")
    lines = columns("operator", ">calls", ">time", ">share", ">operations", ">bytes", ">least time")
    for op in report.ops[: summary.TOP]:
        lines.add_row(
            human.plain(op.name),
            f"{op.calls:,}",
            human.seconds(op.seconds),
            human.percent(op.seconds / whole),
            summary.counted(op),
            summary.moved(op.work),
            summary.least(report, op),
        )
    rest = report.ops[summary.TOP :]
    if rest:
        time = sum(op.seconds for op in rest)
        calls = sum(op.calls for op in rest)
        lines.add_row(
            f"{len(rest)} more", f"{calls:,}", human.seconds(time), human.percent(time / whole)
        )
    return section("Time by operator, in the pass that counts", lines)


def _energy(report: Report) -> list[RenderableType]:
    if not report.energy:
        return section("Energy", "unavailable: energy was not measured")
    lines = columns("component", ">call", ">without idle", f">{report.unit}")
    for energy in report.energy:
        lines.add_row(
            human.plain(energy.component),
            _cell(energy.gross),
            _cell(energy.net),
            _cell(energy.gross.times(1 / report.units, energy.gross.unit)),
        )
    return [*section("Energy", lines), *_notes(summary.energy_notes(report))]


def _costs(report: Report) -> list[RenderableType]:
    if not report.costs:
        return []
    lines = columns("", *(f">{costs.amount}" for costs in report.costs))
    lines.add_row("time", *(human.seconds(costs.seconds) for costs in report.costs))
    for part, name in summary.COSTS.items():
        lines.add_row(name, *(_cell(getattr(costs, part)) for costs in report.costs))
    return [*section("Costs", lines), *_notes(summary.cost_notes(report))]


def _predictions(found: Sequence[Prediction]) -> list[RenderableType]:
    if not found:
        return []
    lines = columns("GPU", ">call", "bound by", ">energy of a call", ">price of 1,000,000")
    for each in found:
        million = summary.of_a_million(each.costs)
        lines.add_row(
            human.plain(each.gpu),
            "unavailable" if each.unsupported else human.seconds(each.seconds),
            "" if each.unsupported else f"{each.bound} ({each.kind})",
            "" if each.unsupported else _cell(each.energy),
            "" if each.unsupported or million is None else _cell(million.instance_money),
        )
    title = "On other GPUs: the least it can take (modelled)"
    return [*section(title, lines), *_notes(summary.prediction_notes(found))]


def _assumptions(report: Report) -> list[RenderableType]:
    if not report.assumptions:
        return []
    lines = columns("assumption", ">value", "source")
    for each in report.assumptions:
        year = "" if each.year is None else f" ({each.year})"
        lines.add_row(
            human.plain(each.name),
            human.plain(f"{human.exact(each.value)} {each.unit}".rstrip()),
            human.plain(f"{each.source}{year}"),
        )
    return section("Costs rest on", lines)


def _warnings(report: Report) -> list[RenderableType]:
    return ["", *(human.plain(f"warning: {warning}") for warning in report.warnings)]


def _notes(notes: Mapping[str, str]) -> list[RenderableType]:
    return [indented(human.plain(f"{names}: {note}")) for names, note in notes.items()]


def _cell(figure: Figure) -> str:
    """A figure with its label, and under it the interval."""
    return "\n".join(line for line in (human.labelled(figure), human.bounds(figure)) if line)
