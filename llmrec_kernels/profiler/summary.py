"""What the terminal and the page both take from reports: the main figures, and their grouping.

Benchmark runs from several machines are merged into cells: a cell is one name with one state of
the caches, and stands once, with what each machine took for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from llmrec_kernels.profiler import human
from llmrec_kernels.profiler.figures import Figure
from llmrec_kernels.profiler.report import (
    Ceiling,
    Costs,
    Environment,
    Op,
    Prediction,
    Report,
    Roofline,
    Work,
)

TOP = 10  # operators that are shown one by one
COSTS = {
    "energy": "energy",
    "carbon": "carbon",
    "energy_money": "price of energy",
    "instance_money": "price of machine",
}


class Cell(NamedTuple):
    """A line of the table of merged runs."""

    name: str
    cache: str
    reports: dict[str, list[Report]]  # by machine; a machine can have run it more than once


def hardware(report: Report) -> str:
    """The processor that did the work."""
    gpu = report.environment.gpu
    return report.environment.cpu if report.device == "cpu" or gpu is None else gpu.name


def machines(reports: Sequence[Report]) -> list[str]:
    """The machine and device of each report, named apart where two machines have one name."""
    names = [f"{hardware(report)}, {report.device}" for report in reports]
    known: dict[str, list[str]] = {}
    for name, report in zip(names, reports, strict=True):
        found = known.setdefault(name, [])
        if report.environment.fingerprint not in found:
            found.append(report.environment.fingerprint)
    return [
        name
        if len(known[name]) == 1
        else f"{name} ({known[name].index(report.environment.fingerprint) + 1})"
        for name, report in zip(names, reports, strict=True)
    ]


def cells(reports: Sequence[Report]) -> list[Cell]:
    """The reports by cell and machine, both in the order in which they first come."""
    found: dict[tuple[str, str], Cell] = {}
    for machine, report in zip(machines(reports), reports, strict=True):
        key = (report.name, report.cache)
        cell = found.setdefault(key, Cell(*key, reports={}))
        cell.reports.setdefault(machine, []).append(report)
    return list(found.values())


def energy_per_unit(report: Report) -> Figure:
    """Joules of one unit of work, of all components that are known."""
    for energy in report.energy:
        if energy.component == "total":
            return energy.gross.times(1 / report.units, "J")
    return Figure.unavailable("J", "energy was not measured")


def of_a_million(costs: Sequence[Costs]) -> Costs | None:
    """The costs of a million units, where they are among them."""
    return next((each for each in costs if each.units == 1e6), None)


def energy_notes(report: Report) -> dict[str, str]:
    """How energy was measured, by the components that it is said of."""
    how = {each.component: each.gross.method for each in report.energy}
    for each in report.energy:
        if each.net.value is None and each.gross.value is not None:
            how[f"{each.component} without idle"] = each.net.method
    return _together(how)


def cost_notes(report: Report) -> dict[str, str]:
    """How costs were found, or why there are none, by the parts that it is said of."""
    return _together(
        {
            name: ", ".join(dict.fromkeys(getattr(each, part).method for each in report.costs))
            for part, name in COSTS.items()
        }
    )


def prediction_notes(found: Sequence[Prediction]) -> dict[str, str]:
    """What is doubtful, by the GPUs that it is said of."""
    return _together(
        {
            each.gpu: "; ".join(note for note in (each.unsupported, each.doubt) if note)
            for each in found
        }
    )


def _together(notes: dict[str, str]) -> dict[str, str]:
    """Notes by name, those names together that have the same one; empty ones left out."""
    names: dict[str, list[str]] = {}
    for name, note in notes.items():
        if note:
            names.setdefault(note, []).append(name)
    return {", ".join(together): note for note, together in names.items()}


def roofs(roofline: Roofline) -> list[tuple[str, str, Ceiling]]:
    """Each roof: its name, its height, and where that comes from."""
    found = [("main memory", roofline.bandwidth)]
    if roofline.cached_bandwidth is not None:
        found.append(("cache", roofline.cached_bandwidth))
    memory = [(name, human.quantity(roof.per_second, "B/s"), roof) for name, roof in found]
    peaks = sorted(roofline.peaks.items(), key=lambda item: item[1].per_second)
    return [*memory, *((kind, human.rate(roof.per_second, kind), roof) for kind, roof in peaks)]


def repeated(roof: Ceiling) -> str:
    """Where a roof comes from, and how well it repeats."""
    if roof.repeatability is None:
        return roof.source
    return f"{roof.source}, repeats within {human.percent(roof.repeatability)}"


def operations(work: Work) -> str:
    """Operations, those on integers apart."""
    if not work.int_ops:
        return human.quantity(work.flops, "FLOP")
    integer = human.quantity(work.int_ops, "OP")
    return f"{human.quantity(work.flops, 'FLOP')} + {integer}" if work.flops else integer


def counted(op: Op) -> str:
    """Operations of all calls of an operator; what has no formula is not 0."""
    return operations(op.work) if op.counted else "not counted"


def moved(work: Work) -> str:
    """Compulsory bytes, read and written."""
    return human.quantity(work.bytes_read + work.bytes_written, "B")


def least(report: Report, op: Op) -> str:
    """The least time of an operator; there is none without roofs."""
    return "unavailable" if report.roofline is None else human.seconds(op.least_seconds)


def looked_up(op: Op) -> str:
    """Rows that a lookup names, and how many of them differ."""
    return f"{op.rows:,} rows" + ("" if op.unique_rows is None else f", {op.unique_rows:,} differ")


def facts(environment: Environment) -> dict[str, str]:
    """The machine and the software by name."""
    known = {
        "CPU": environment.cpu,
        "Architecture": environment.machine,
        "Logical CPUs": environment.logical_cpus,
        "Threads": environment.threads,
        "Instruction set": environment.level or "no compiled kernels",
        "Memory": _bytes(environment.memory_bytes),
        "Load average": environment.load_average,
        "CPU clock": _clock(environment.cpu_mhz),
        **_gpu_facts(environment),
        "llmrec_kernels": environment.package,
        "Commit": environment.commit or "not a checkout",
        "Python": environment.python,
        "torch": environment.torch,
        "CUDA": environment.cuda or "none",
        "Triton": environment.triton or "none",
        "Platform": environment.platform,
        "Fingerprint": environment.fingerprint,
        "Created": environment.created,
    }
    words = {None: "not known", True: "yes", False: "no"}
    return {
        name: words[value] if value is None or isinstance(value, bool) else str(value)
        for name, value in known.items()
    }


def _gpu_facts(environment: Environment) -> dict[str, str | bool | None]:
    gpu = environment.gpu
    if gpu is None:
        return {}
    return {
        "GPU": gpu.name,
        "UUID": gpu.uuid,
        "Compute capability": gpu.compute_capability,
        "GPU memory": _bytes(gpu.memory_bytes),
        "Driver": gpu.driver,
        "Multiprocessor clock": _clock(gpu.sm_mhz),
        "Memory clock": _clock(gpu.memory_mhz),
        "Temperature": None if gpu.celsius is None else f"{gpu.celsius:g} °C",
        "Slice of a GPU (MIG)": gpu.mig,
        "Shared with other processes": gpu.shared,
    }


def _bytes(count: int | None) -> str | None:
    return None if count is None else human.quantity(count, "B")


def _clock(megahertz: float | None) -> str | None:
    return None if megahertz is None else f"{megahertz:,.0f} MHz"
