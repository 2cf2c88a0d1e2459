"""Runs of several machines, or of one on several days, beside each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llmrec_kernels.profiler import files, summary
from llmrec_kernels.profiler.report import Bench, Report


class Merged(NamedTuple):
    """The reports of all runs, and what is missing from them, in sentences."""

    reports: list[Report]
    missing: list[str]


def merge(paths: Sequence[Path]) -> Merged:
    """Read runs, or single reports, and put their reports beside each other.

    Raises
    ------
    ValueError
        There is no file, or one is no report, damaged, or of a newer version.
    OSError
        A file cannot be read.
    """
    if not paths:
        raise ValueError("--compare has no files; expected runs, such as a.json b.json")
    runs = {path: read(path) for path in paths}
    missing = []
    for path, found in runs.items():
        if not found.complete:
            missing.append(f"{path} broke off: not all of its cells were run")
        missing += [f"{path}: not {name}: {why}" for name, why in found.left_out.items()]
    return Merged(told_apart(list(runs.values())), missing)


def read(path: Path) -> Bench:
    """A run; a single report is a run of one."""
    found = files.read(path)
    return found if isinstance(found, Bench) else files.bench_of([found])


def told_apart(runs: Sequence[Bench]) -> list[Report]:
    """All reports; where several runs name one machine, its name has the date of the run."""
    times = Counter(name for run in runs for name in {_machine(each) for each in run.reports})
    return [
        _dated(report, run.environment.created) if times[_machine(report)] > 1 else report
        for run in runs
        for report in run.reports
    ]


def _machine(report: Report) -> tuple[str, str]:
    return summary.hardware(report), report.device


def _dated(report: Report, created: str) -> Report:
    """The same report, whose processor has the date behind its name."""
    environment = report.environment
    date = created.replace("T", " ").removesuffix("+00:00")
    if report.device == "cpu" or environment.gpu is None:
        named: dict[str, Any] = {"cpu": f"{environment.cpu} ({date})"}
    else:
        name = f"{environment.gpu.name} ({date})"
        named = {"gpu": environment.gpu.model_copy(update={"name": name})}
    return report.model_copy(update={"environment": environment.model_copy(update=named)})
