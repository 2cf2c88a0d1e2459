"""Our operators and their peers on a GPU: one command, one report.

    python bench/gpu.py                     # every cell of bench/gpu_cells.py
    python bench/gpu.py 'topk-1-*' 'bags-*' # some
    python bench/gpu.py --dry-run           # every cell, tiny, on the CPU: no figure means anything

Writes `bench/results/<gpu>.json` after each cell, and `<gpu>.md` from it. The JSON holds:

- `schema_version`, `dry_run`, `complete`;
- `environment`: GPU, driver, CUDA, package, commit, and the versions of torch and of each peer;
- `roofs`: bytes and operations a second, measured before the first cell; `sheet`: the datasheet's;
- `cells`, a list of
  - `name`, `job`, `sizes`, `cold` (nothing in the GPU's cache), `reduced` (what memory did not
    allow, or null), `clocks` before and after, `ours` (the fastest of our backends that ran);
  - `contestants`, by name: `kind` ("ours" or "peer"), `exact`, `agreement` (with the reference, on
    a sample), `turns` (seconds of a call, by round), `seconds`, `ratio` (its time over ours, where
    one of ours ran) and `call_seconds` (with what Python and the driver add, and never cold), each
    as median and quartiles; and of ours `roof`: the least bytes and operations, and what share they
    are of the roofs that were measured, and of the datasheet's;
  - `left_out`, by name, the reason; `wrong`, those of ours that the reference contradicts or
    that failed.

Contestants take turns, round after round; a ratio is that of two turns of one round.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lookups
from gpu_cells import CELLS, Work, fitting, work
from gpu_contests import Contest, LeftOut, Prepare
from gpu_lookups import bags, candidates, packing, quantization
from gpu_machine import Call, DryRun, Facts, Gpu, Machine, first_line
from gpu_summary import summarise
from gpu_topk import topk
from turns import Turns, quartiles, summary

from llmrec_kernels.benchmarks.cells import (
    BagCell,
    CandidateCell,
    Cell,
    PackCell,
    TopkCell,
    tiny,
)

ROUNDS = 20
RESULTS = Path(__file__).parent / "results"


def jobs(cell: Cell) -> tuple[str, ...]:
    """The names of a cell's contests."""
    return ("float32",) if isinstance(cell, TopkCell | PackCell) else lookups.jobs(cell)


def contest(cell: Cell, job: str, machine: Machine) -> Contest:
    if isinstance(cell, TopkCell):
        return topk(cell, machine)
    if isinstance(cell, PackCell):
        return packing(cell, machine)
    if isinstance(cell, BagCell):
        return bags(cell, job, machine)
    if isinstance(cell, CandidateCell):
        return candidates(cell, job, machine)
    return quantization(cell, job, machine)


def blank(cell: Cell, job: str, machine: Machine) -> Facts:
    """The report of a job before anybody took part."""
    cell, reduced = fitting(cell, machine.free())
    return {
        "cell": cell,
        "name": cell.name,
        "job": job,
        "sizes": {name: size for name, size in asdict(cell).items() if name != "name"},
        "reduced": reduced,
        "contestants": {},
        "left_out": {},
        "wrong": [],
        "ours": None,
        "cold": False,
    }


def measure(report: Facts, machine: Machine, rounds: int) -> None:
    """Run one job of a cell: check who is right, then let them take turns."""
    cell, job = report["cell"], report["job"]
    held = contest(cell, job, machine)
    report["cold"] = held.cold
    calls = admit(held, machine, report)
    if calls.keys().isdisjoint(held.ours):
        return
    before = machine.clocks()
    turns, latencies = take_turns(calls, machine, rounds, held, report)
    report["clocks"] = {"before": before, "after": machine.clocks()}
    report["ours"] = next((name for name in held.ours if name in calls), None)
    for name, measured in summary(turns, report["ours"]).items():
        report["contestants"][name] |= measured
        report["contestants"][name]["call_seconds"] = quartiles(latencies[name])
    for name in held.ours:
        if name in calls:
            mine = report["contestants"][name]
            mine["work"] = asdict(work(cell, job, name))


def take_turns(
    calls: dict[str, Call], machine: Machine, rounds: int, held: Contest, report: Facts
) -> tuple[Turns, dict[str, list[float]]]:
    """Seconds on the device and of whole calls, by name; who fails is left out, of `calls` too."""
    counts: dict[str, int] = {}
    turns: Turns = {name: {} for name in calls}
    latencies: dict[str, list[float]] = {name: [] for name in calls}

    def warm_up(name: str, call: Call) -> None:
        counts[name] = machine.calls_in_turn(call, held.cold)

    def take_turn(name: str, call: Call) -> None:
        turns[name][len(turns[name])] = machine.turn(call, counts[name], held.cold)
        latencies[name].append(machine.latency(call))

    for step in (warm_up, *[take_turn] * rounds):
        for name, call in list(calls.items()):
            try:
                step(name, call)
            except Exception as error:  # noqa: PERF203 - a turn has its own clock
                del calls[name], turns[name], report["contestants"][name]
                leave_out(name, error, held, report)
    return turns, latencies


def leave_out(name: str, error: Exception, held: Contest, report: Facts) -> None:
    """Somebody failed; that is wrong of ours."""
    report["left_out"][name] = f"it failed: {first_line(error)}"
    if name in held.ours:
        report["wrong"].append(name)


def admit(held: Contest, machine: Machine, report: Facts) -> dict[str, Call]:
    """The calls of those that can take part, each made once; the report has who does not, and why.

    What goes wrong with a peer is that peer's reason, whatever it is: the run goes on.
    """
    calls: dict[str, Call] = {}
    for name, prepare in (held.ours | held.peers).items():
        mine = name in held.ours
        try:
            call, agreement, wrong = tried(prepare, held, mine, machine)
        except LeftOut as reason:
            report["left_out"][name] = str(reason)
            continue
        except Exception as error:
            leave_out(name, error, held, report)
            continue
        if wrong:
            report["wrong"].append(name)
            report["left_out"][name] = f"it is wrong: {agreement:.2%} as the reference"
            continue
        calls[name] = call
        report["contestants"][name] = {
            "kind": "ours" if mine else "peer",
            "exact": name not in held.inexact,
            "agreement": agreement,
        }
    return calls


def tried(
    prepare: Prepare, held: Contest, mine: bool, machine: Machine
) -> tuple[Call, float, bool]:
    """A call that was made once, its agreement, and whether it is wrong; its answer is let go."""
    machine.release()
    call = prepare()
    answer = call()
    machine.wait()
    return call, held.agreement(answer), mine and not held.right(answer)


def shares(report: Facts, roofs: Facts, sheet: Facts | str) -> None:
    """Enter what share of the roofs our times are; of those that were measured."""
    bandwidth = max(roofs["read_bytes_per_second"], roofs["copy_bytes_per_second"])
    for row in report["contestants"].values():
        if "work" not in row:
            continue
        needed, seconds = Work(**row.pop("work")), row["seconds"]["median"]
        peak = roofs[f"{needed.kind}_operations_per_second"]
        found: Facts = {**asdict(needed), "bytes_share": needed.bytes / bandwidth / seconds}
        if needed.operations and not isinstance(peak, str):
            found["operations_share"] = needed.operations / peak / seconds
        found["share"] = max(found["bytes_share"], found.get("operations_share", 0.0))
        if not isinstance(sheet, str):
            found["sheet_bytes_share"] = needed.bytes / sheet["bytes_per_second"] / seconds
            peak = sheet.get(f"{needed.kind}_operations_per_second")
            if needed.operations and peak:
                found["sheet_operations_share"] = needed.operations / peak / seconds
        row["roof"] = found


def chosen(patterns: Sequence[str]) -> list[Cell]:
    """The cells of these names; a star stands for anything."""
    names = [cell.name for cell in CELLS]
    wanted: set[str] = set()
    for pattern in patterns or ["*"]:
        found = fnmatch.filter(names, pattern)
        if not found:
            raise SystemExit(f"there is no cell {pattern!r}; there are {', '.join(names)}")
        wanted |= set(found)
    return [cell for cell in CELLS if cell.name in wanted]


def run(cells: Sequence[Cell], machine: Machine, rounds: int, folder: Path) -> Facts:
    """Measure all, writing after each cell: a run that breaks off leaves what it had."""
    dry = isinstance(machine, DryRun)
    report: Facts = {
        "schema_version": 1,
        "dry_run": dry,
        "complete": False,
        "environment": machine.environment(),
        "roofs": machine.roofs(),
        "sheet": machine.sheet(),
        "cells": [],
    }
    for cell in cells:
        for job in jobs(cell):
            each = blank(tiny(cell) if dry else cell, job, machine)
            try:
                measure(each, machine, rounds)
                shares(each, report["roofs"], report["sheet"])
            except Exception as error:  # the next cell may still run
                each |= {"ours": None, "contestants": {}}
                each["left_out"]["everybody"] = f"the cell failed: {first_line(error)}"
            del each["cell"]
            report["cells"].append(each)
            print(f"{cell.name}, {job}: {line_of(each)}", flush=True)
        write(report, folder)
    report["complete"] = True
    write(report, folder)
    return report


def line_of(cell: Facts) -> str:
    if cell["ours"] is None:
        return "; ".join(f"not {name}: {why}" for name, why in cell["left_out"].items())
    mine = cell["contestants"][cell["ours"]]
    return (
        f"{cell['ours']} {1e3 * mine['seconds']['median']:.3f} ms, roof {mine['roof']['share']:.0%}"
    )


def paths(report: Facts, folder: Path) -> tuple[Path, Path]:
    """The JSON and the Markdown of a GPU."""
    name = re.sub(r"[^a-z0-9]+", "-", report["environment"]["gpu"].lower()).strip("-")
    return folder / f"{name}.json", folder / f"{name}.md"


def write(report: Facts, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    data, text = paths(report, folder)
    data.write_text(json.dumps(report, indent=1) + "\n")
    text.write_text(summarise(json.loads(data.read_text())))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and tell where the report is; 1 where one of our backends was wrong or failed."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("cells", nargs="*", metavar="cell", help="all by default")
    parser.add_argument("--dry-run", action="store_true", help="tiny cells on the CPU")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each contestant")
    parser.add_argument("--out", type=Path, help="folder for the report")
    given: Any = parser.parse_args(arguments)
    machine: Machine = DryRun() if given.dry_run else Gpu()
    folder = given.out or (Path(tempfile.mkdtemp()) if given.dry_run else RESULTS)
    report = run(chosen(given.cells), machine, given.rounds, folder)
    print(*paths(report, folder), sep="\n")
    return int(any(cell["wrong"] for cell in report["cells"]))


if __name__ == "__main__":
    raise SystemExit(main())
