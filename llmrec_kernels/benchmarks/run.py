"""Runs cells one after the other: what was measured is on disk at any time, whatever stops it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from llmrec_kernels.benchmarks import memory
from llmrec_kernels.benchmarks.cells import Cell
from llmrec_kernels.benchmarks.contests import Contest, Entrant, contest
from llmrec_kernels.profiler import files, human
from llmrec_kernels.profiler.profile import profile
from llmrec_kernels.profiler.report import Bench, Report

SPARE = 2**30  # bytes that stay free


class NoRoomError(Exception):
    """The free memory does not hold what was asked for."""


@dataclass
class Run:
    """One run over some cells.

    Parameters
    ----------
    path
        The JSON, written anew after each report.
    device
        "cpu" or "cuda:<index>".
    options
        Those of `profiler.profile` that hold for all.
    notes
        Warnings that each report carries first.
    reports, left_out
        What was measured, and what was not, with the reason.

    Examples
    --------
    >>> import tempfile
    >>> from llmrec_kernels.benchmarks.cells import CELLS, tiny
    >>> path = Path(tempfile.mkdtemp()) / "run.json"
    >>> run = Run(path, "cpu", {"min_time": 0.01, "energy_window": 0.01})
    >>> [report.name for report in run.over([tiny(CELLS["k-10"])]).reports]
    ['k-10: llmrec', 'k-10: torch']
    """

    path: Path
    device: str
    options: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    reports: list[Report] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def over(self, cells: Sequence[Cell]) -> Bench:
        """Measure all entrants of all cells; one that fails is left out.

        Raises
        ------
        RuntimeError
            Nothing could be measured.
        """
        contests = [(cell, contest(cell)) for cell in cells]
        count = sum(len(held.entrants) for _, held in contests)
        with tqdm(total=count, unit="report", file=sys.stderr, disable=None) as bar:
            for cell, held in contests:
                self._measure(cell, held, bar)
        if not self.reports:
            raise RuntimeError("nothing was measured:\n" + "\n".join(self.sentences()))
        return self._save(complete=True)

    def sentences(self) -> list[str]:
        """What was left out, for a person to read."""
        return [f"not {name}: {why}" for name, why in self.left_out.items()]

    def _measure(self, cell: Cell, held: Contest, bar: Any) -> None:
        """All entrants of a cell, on the same inputs."""
        try:
            bar.set_description(cell.name)
            inputs = self._inputs(cell)
        except Exception as error:  # whatever it is, the other cells may run
            self.left_out[cell.name] = _sentence(error)
            bar.update(len(held.entrants))
            return
        for entrant in held.entrants:
            name = f"{cell.name}: {entrant.name}"
            bar.set_description(name)
            try:
                self.reports.append(self._report(name, held, entrant, inputs))
                bar.write(_line(self.reports[-1]), file=sys.stderr)
            except Exception as error:
                self.left_out[name] = _sentence(error)
            if self.reports:
                self._save(complete=False)
            bar.update()

    def _inputs(self, cell: Cell) -> tuple[Tensor, ...]:
        """They are made on the CPU, so that they are the same everywhere."""
        for device in dict.fromkeys(("cpu", self.device)):
            _check_room(cell.bytes, device)
        return tuple(tensor.to(self.device) for tensor in cell.load())

    def _report(
        self, name: str, held: Contest, entrant: Entrant, inputs: tuple[Tensor, ...]
    ) -> Report:
        _check_room(entrant.bytes, self.device)
        report = profile(
            entrant.prepare(*inputs), held.units, held.unit,
            name=name, device=self.device, **self.options,
        )  # fmt: skip
        return report.model_copy(update={"warnings": [*self.notes, *report.warnings]})

    def _save(self, complete: bool) -> Bench:
        found = files.bench_of(self.reports, complete, self.left_out)
        files.write_json(found, self.path)
        return found


def _check_room(size: int, device: str) -> None:
    free = memory.free(device)
    if free is not None and free < size + SPARE:
        raise NoRoomError(
            f"it takes {human.quantity(size, 'B')} of memory beside "
            f"{human.quantity(SPARE, 'B')} that stay free, and {device} has "
            f"{human.quantity(free, 'B')}"
        )


def _sentence(error: Exception) -> str:
    if isinstance(error, NoRoomError):
        return str(error)
    return f"it failed with {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _line(report: Report) -> str:
    share = report.roofline and f", {human.percent(report.roofline.share)} of the roof"
    return f"{report.name}: {human.seconds(report.time.median)}{share or ''}"
