"""Reports on disk: JSON that is checked when it is read, and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from llmrec_kernels._files import write_text
from llmrec_kernels.profiler.figures import Figure
from llmrec_kernels.profiler.report import SCHEMA_VERSION, Bench, Report

SCHEMA = Path(__file__).parent / f"report-{SCHEMA_VERSION}.schema.json"
_EITHER: TypeAdapter[Report | Bench] = TypeAdapter(Report | Bench)


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a report and of a run of benchmarks.

    Examples
    --------
    >>> sorted(schema()["$defs"])[:3]
    ['Assumption', 'Bench', 'Ceiling']
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Reports of llmrec_kernels.profiler, version {SCHEMA_VERSION}",
        **_EITHER.json_schema(),
    }


def read(path: str | Path) -> Report | Bench:
    """Read what `Report.to_json` or `llmrec-kernels bench` wrote.

    Raises
    ------
    ValueError
        The file is no report, is damaged, or is of a newer version.
    """
    path = Path(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    version = found.get("schema_version") if isinstance(found, dict) else None
    if not isinstance(version, int):
        raise ValueError(f"{path} is no report of llmrec_kernels: it has no schema_version")
    if version > SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema_version {version}; this llmrec_kernels reads up to "
            f"{SCHEMA_VERSION}: upgrade it"
        )
    kind = Bench if "reports" in found else Report
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(
            f"{path} is no whole report: {where}: {first['msg']} "
            f"({error.error_count()} such errors)"
        ) from error


def bench_of(
    reports: Sequence[Report], complete: bool = True, left_out: Mapping[str, str] | None = None
) -> Bench:
    """Reports of one machine as one run; its environment is that of the first.

    Raises
    ------
    ValueError
        There is no report.
    """
    if not reports:
        raise ValueError("reports is empty; expected at least one report")
    return Bench(
        schema_version=SCHEMA_VERSION,
        complete=complete,
        environment=reports[0].environment,
        reports=list(reports),
        left_out=dict(left_out or {}),
    )


def write_json(report: Report | Bench, path: str | Path) -> None:
    """Write whole or not at all."""
    write_text(report.model_dump_json(indent=1) + "\n", path)


def write_csv(reports: Sequence[Report], path: str | Path) -> None:
    """A line for each report."""
    text = io.StringIO()
    rows = [row(report) for report in reports]
    writer = csv.DictWriter(text, list(dict.fromkeys(name for each in rows for name in each)))
    writer.writeheader()
    writer.writerows(rows)
    write_text(text.getvalue(), path)


def row(report: Report) -> dict[str, Any]:
    """A report as one flat line: times in seconds of a call, figures with their labels."""
    line: dict[str, Any] = {
        "name": report.name,
        "device": report.device,
        "gpu": report.environment.gpu.name if report.environment.gpu else "",
        "cpu": report.environment.cpu,
        "units": report.units,
        "unit": report.unit,
        "cache": report.cache,
        "n": report.time.n,
        **{f"{part}_seconds": getattr(report.time, part) for part in ("median", "low", "high")},
        "kernel_seconds": report.kernel_time.median if report.kernel_time else "",
        "flops": report.work.flops,
        "int_ops": report.work.int_ops,
        "bytes": report.work.bytes_read + report.work.bytes_written,
    }
    if report.roofline is not None:
        line |= {
            "ops_per_second": report.roofline.attained,
            "bytes_per_second": report.roofline.attained_bytes,
            "share_of_roof": report.roofline.share,
            "bound": report.roofline.bound,
        }
    for energy in report.energy:
        line |= labelled(f"{energy.component}_joules", energy.gross)
    for costs in report.costs:
        for part in ("energy", "carbon", "energy_money", "instance_money"):
            figure: Figure = getattr(costs, part)
            line |= labelled(f"{part} ({figure.unit}) of {costs.amount}", figure)
    return line | {"uncounted": " ".join(report.uncounted), "warnings": "; ".join(report.warnings)}


def labelled(name: str, figure: Figure) -> dict[str, Any]:
    """A figure and its label; nothing, and not 0, where there is none."""
    value = "" if figure.value is None else figure.value
    return {name: value, f"{name}: quality": figure.quality}
