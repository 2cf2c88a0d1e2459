"""One function from a callable to its report: time, work, roofline, energy, cost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from llmrec_kernels.profiler import environment, hardware, roofline
from llmrec_kernels.profiler.cost_model import CostModel
from llmrec_kernels.profiler.counter import CostCounter
from llmrec_kernels.profiler.energy import EnergyMonitor, Reading
from llmrec_kernels.profiler.predict import check_prices, predictions
from llmrec_kernels.profiler.report import SCHEMA_VERSION, Energy, Report
from llmrec_kernels.profiler.roofs import Roofs, roofs
from llmrec_kernels.profiler.timing import Cache, sample, timing

ENERGY_WINDOW = 10.0  # seconds: a GPU's counter ticks every 0.1, and 2% is asked for
TRIAL = 0.2  # seconds of a window that finds out whether there is a counter
OUTSIDE = 0.5  # share of the time outside of counted operators, from which a report says so
HOT_ENERGY = "energy is that of calls that follow one another, with hot caches"
IDLE = 2.0  # seconds for which the idle machine is measured, where there is a counter


def profile(
    fn: Callable[[], Any],
    units: float = 1,
    unit: str = "call",
    *,
    name: str | None = None,
    device: str | torch.device | None = None,
    min_time: float = 0.5,
    energy_window: float = ENERGY_WINDOW,
    cache: Cache = "hot",
    cost: CostModel | None = None,
    gpus: str | Sequence[str] = (),
    prices: Mapping[str, float] | None = None,
) -> Report:
    """Time, work, roofline, energy and cost of a callable, in a report that prints as a table.

    The callable runs once to warm up, once under `CostCounter`, and then as often as time and
    energy ask for. It must do the same work each time.

    Parameters
    ----------
    fn
        What to run, without arguments.
    units, unit
        Units of work in a call, such as the queries of a batch, and their name.
    name
        Of what is profiled; the callable's by default.
    device
        "cpu" or "cuda:<index>"; a GPU that is in use by default, else the CPU.
    min_time
        Seconds of samples, of which there are ten at least.
    energy_window
        Seconds of the window in which a counter measures energy; less is used where there is no
        counter and energy is estimated.
    cache
        "cold" empties the caches before each call, outside of its time.
    cost
        Grid, overhead and prices; without prices there is no money in the report.
    gpus
        Names in `hardware.csv` to model the same work on.
    prices
        USD an hour of these.

    Raises
    ------
    ValueError
        An argument is out of its range or unknown.
    Exception
        What `fn` raises: windows are closed then, and sensors released.

    Examples
    --------
    >>> import torch
    >>> from llmrec_kernels import cosine_topk, pack, profiler
    >>> items, queries = pack(torch.randn(2000, 64)), torch.randn(8, 64)
    >>> search = lambda: cosine_topk(queries, items, 10)
    >>> report = profiler.profile(search, units=8, unit="query", min_time=0.05)
    >>> report.ops[0].name, report.work.flops
    ('llmrec.cosine_topk', 2048000)
    >>> report.energy[-1].gross.quality in ("measured", "integrated", "estimated")
    True
    """
    where = _checked(fn, units, unit, min_time, energy_window, cache, cost, device)
    model = cost or CostModel()
    gpus = [gpus] if isinstance(gpus, str) else list(gpus)
    check_prices(gpus, prices or {})  # what is unknown is refused before anything runs
    with environment.current(where):
        return _profile(
            fn, units, unit, name or str(getattr(fn, "__qualname__", type(fn).__name__)), where,
            min_time, energy_window, cache, model, gpus, prices or {},
        )  # fmt: skip


def _profile(
    fn: Callable[[], Any],
    units: float,
    unit: str,
    name: str,
    where: str,
    min_time: float,
    energy_window: float,
    cache: Cache,
    model: CostModel,
    gpus: Sequence[str],
    prices: Mapping[str, float],
) -> Report:
    fn()
    before = environment.collect(where)  # a GPU's clock rises with its first work
    counter = _counted(fn)
    samples = sample(fn, min_time, where, cache)
    wall = timing(samples.wall, samples.calls_per_sample)
    energy, notes = energy_of_call(fn, wall.median, energy_window, where)
    after = environment.collect(where)
    roof, missing = known_roofs(where)
    kernel = (
        timing(samples.kernel, samples.calls_per_sample, "cuda events") if samples.kernel else None
    )
    seconds = (kernel or wall).median
    total = energy[-1].gross
    return Report(
        schema_version=SCHEMA_VERSION,
        name=name,
        device=where,
        units=units,
        unit=unit,
        cache=cache,
        environment=after.model_copy(
            update={"created": before.created, "load_average": before.load_average}
        ),
        time=wall,
        kernel_time=kernel,
        work=roofline.work_of(counter.total),
        ops=roofline.by_op(counter, roof),
        uncounted=counter.uncounted,
        roofline=None if roof is None else _roofline(counter, seconds, roof),
        energy=energy,
        costs=model.costs(wall.median, units, unit, total),
        assumptions=model.assumptions(),
        predictions=predictions(counter, units, unit, gpus, model, prices),
        warnings=[
            *missing,
            *notes,
            *environment.disturbances(before, after),
            *gaps(counter, 1 - counter.seconds / wall.median),
            *([] if roof is None else _stand_ins(counter, roof)),
            *([HOT_ENERGY] if cache == "cold" else []),
        ],
    )


def _checked(
    fn: Any, units: Any, unit: Any, min_time: float, energy_window: float, cache: str, cost: Any,
    device: Any,
) -> str:  # fmt: skip
    if not callable(fn):
        raise TypeError(f"fn is {type(fn).__name__}; expected a callable without arguments")
    if not isinstance(unit, str):
        raise TypeError(f"unit is {unit!r}; expected the name of a unit of work")
    if cost is not None and not isinstance(cost, CostModel):
        raise TypeError(f"cost is {cost!r}; expected a CostModel")
    for argument, value in (("units", units), ("min_time", min_time)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{argument} is {value!r}; expected a positive number")
        if not 0 < value < math.inf:
            raise ValueError(f"{argument} is {value}; expected a positive number")
    if not 0 < energy_window < math.inf:
        raise ValueError(
            f"energy_window is {energy_window}; expected a positive number of seconds: a window "
            "of no length has no energy"
        )
    if cache not in ("cold", "hot"):
        raise ValueError(f"cache is {cache!r}; expected 'cold' or 'hot'")
    return environment.device_of(device)


def _counted(fn: Callable[[], Any]) -> CostCounter:
    counter = CostCounter(details=True)
    with counter:
        fn()
    return counter


def energy_of_call(
    fn: Callable[[], Any], seconds: float, window: float, device: str
) -> tuple[list[Energy], list[str]]:
    """Energy of a call that takes so many seconds, by component, and notes on where it is from.

    A window of `window` seconds is worth its time only where there is a counter.
    """
    watts = _gpu_watts(device)
    readings, calls = _window(fn, min(TRIAL, window), EnergyMonitor(device, gpu_watts=watts))
    if any(each.gross.quality in ("measured", "integrated") for each in readings[:-1]):
        monitor = EnergyMonitor(device, gpu_watts=watts, idle_seconds=min(IDLE, window))
        readings, calls = _window(fn, max(window, 2 * seconds), monitor)
    found = [
        Energy(
            component=each.component,
            gross=each.gross.times(1 / calls, "J"),
            net=each.net.times(1 / calls, "J"),
            calls=calls,
            window_seconds=each.window_seconds,
        )
        for each in readings
    ]
    return found, list(
        dict.fromkeys(f"{r.component}: {note}" for r in readings for note in r.notes)
    )


def _window(
    fn: Callable[[], Any], seconds: float, monitor: EnergyMonitor
) -> tuple[list[Reading], int]:
    calls = 0
    with monitor:
        began = time.perf_counter()
        while calls == 0 or time.perf_counter() - began < seconds:
            fn()
            calls += 1
    return monitor.readings, calls


def _gpu_watts(device: str) -> tuple[float, float] | None:
    """For an estimate: between nothing and the datasheet's TDP."""
    if device == "cpu":
        return None
    row = hardware.named_by_driver(torch.cuda.get_device_name(device))
    return None if row is None else (0.0, row.watts)


def known_roofs(device: str) -> tuple[Roofs | None, list[str]]:
    """The roofs of a device; where nothing can measure them None, and why."""
    try:
        return roofs(device), []
    except RuntimeError as error:
        return None, [f"no roofline: {error}"]


def _roofline(counter: CostCounter, seconds: float, roof: Roofs) -> Any:
    """Under the roofs; measured again where they seem too low, for they may be of a worse hour."""
    found = roofline.roofline(counter, seconds, roof)
    if found is not None and found.share > 1:
        found = roofline.roofline(counter, seconds, roof.higher(roofs(roof.device, refresh=True)))
    return found


def _stand_ins(counter: CostCounter, roof: Roofs) -> list[str]:
    return [
        f"there is no roof of {kind}: that of faster arithmetic stands for it"
        for kind in roofline.lacking(counter, roof)
    ]


def gaps(counter: CostCounter, outside: float = 0.0) -> list[str]:
    """What is missing from the counted work, in sentences; `outside`: time of no operator."""
    if not counter.by_op:
        return ["no torch operator ran in this thread: there is no work to count"]
    found = []
    if counter.uncounted:
        names = ", ".join(sorted(counter.uncounted))
        found.append(f"operations without a formula are not counted: {names}")
    if outside > OUTSIDE:
        found.append(
            f"{outside:.0%} of the time passed outside of the operators that are counted: in "
            "Python, in other libraries or in other threads, whose work is not in the figures"
        )
    return found
