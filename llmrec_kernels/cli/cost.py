"""`llmrec-kernels profile`, `roofs`, `predict` and `compare`: what work costs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrec_kernels.cli.app import app, checked_output, errors_as_sentences

if TYPE_CHECKING:
    from llmrec_kernels.profiler import Bench, CostModel, Report

Device = Annotated[
    str | None, typer.Option(help="cpu or cuda:0; a GPU that is in use, else the CPU.")
]
Storage = Annotated[
    str | None,
    typer.Option(help="packed, float32, float16, bfloat16, int8, int4 or fp8_e4m3."),
]
Sizes = Annotated[
    list[str] | None, typer.Argument(help="Sizes such as B=256 N=100000 d=384 k=100.")
]
Grid = Annotated[
    str | None,
    typer.Option(help="Country such as FRA, or g CO2e per kWh; the world when left out."),
]
Pue = Annotated[
    str | None,
    typer.Option(help="Overhead of the data centre: a number, aws, google, microsoft or none."),
]
UsdPerKwh = Annotated[float | None, typer.Option(help="Price of electricity.")]
UsdPerHour = Annotated[float | None, typer.Option(help="Price of the machine.")]
PerDay = Annotated[float | None, typer.Option(help="Units of work a day, to reckon a day.")]
Gpus = Annotated[
    list[str] | None,
    typer.Option("--gpu", help="Model the same work on this GPU; repeat for more; all: every one."),
]
Prices = Annotated[
    list[str] | None, typer.Option("--price", help="GPU=USD an hour; repeat for more.")
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="File to write, .json.")]
HtmlFile = Annotated[Path | None, typer.Option("--html", help="File to write, .html.")]
CsvFile = Annotated[Path | None, typer.Option("--csv", help="File to write, .csv.")]


class By(str, Enum):
    """What GPUs are ranked by."""

    time = "time"
    energy = "energy"
    money = "money"


class Cache(str, Enum):
    """What the caches hold before a call."""

    hot = "hot"
    cold = "cold"


@app.command()
def profile(
    what: Annotated[
        str,
        typer.Argument(
            help="demo; an operator, with its sizes; or module:function, which takes no arguments."
        ),
    ],
    sizes: Sizes = None,
    storage: Storage = None,
    device: Device = None,
    units: Annotated[
        float | None, typer.Option(help="Units of work in a call of module:function.")
    ] = None,
    unit: Annotated[str | None, typer.Option(help="What a unit is, such as query.")] = None,
    min_time: Annotated[float, typer.Option(help="Seconds of samples at least.")] = 0.5,
    energy_window: Annotated[
        float, typer.Option(help="Seconds of the energy window, where there is a counter.")
    ] = 10.0,
    cache: Annotated[Cache, typer.Option(help="cold: caches are emptied before a call.")] = (
        Cache.hot
    ),
    grid: Grid = None,
    pue: Pue = None,
    usd_per_kwh: UsdPerKwh = None,
    usd_per_hour: UsdPerHour = None,
    per_day: PerDay = None,
    gpu: Gpus = None,
    price: Prices = None,
    by: Annotated[By, typer.Option(help="What GPUs are ranked by.")] = By.time,
    json_file: JsonFile = None,
    html_file: HtmlFile = None,
    csv_file: CsvFile = None,
) -> None:
    """Measure time, work, share of the roofline, energy and cost.

    Examples: llmrec-kernels profile demo

    llmrec-kernels profile cosine_topk B=256 N=100000 d=384 k=100 --grid FRA --usd-per-hour 1.006
    --gpu T4 --gpu H100-SXM --html report.html
    """
    with errors_as_sentences():
        for option, path in (("json", json_file), ("html", html_file), ("csv", csv_file)):
            if path is not None:
                checked_output(f"--{option}", path, (f".{option}",))
        cost = cost_model(grid, pue, usd_per_kwh, usd_per_hour, per_day)
        options: dict[str, Any] = {
            "device": device,
            "min_time": min_time,
            "energy_window": energy_window,
            "cache": cache.value,
            "cost": cost,
            "gpus": _gpus(gpu),
            "prices": _prices(price),
        }
        if what == "demo":
            if sizes or storage or units is not None or unit is not None:
                raise ValueError("demo takes no sizes, --storage, --units or --unit")
            found = _profile_demo(options)
        else:
            found = [_profile_one(what, sizes or [], storage, units, unit, options)]
        from llmrec_kernels.profiler.predict import ranked

        found = [
            each.model_copy(update={"predictions": ranked(each.predictions, by.value)})
            for each in found
        ]
        if what != "demo":
            typer.echo(str(found[0]))
        _write(found, json_file, html_file, csv_file)


@app.command()
def roofs(
    device: Device = None,
    refresh: Annotated[bool, typer.Option(help="Measure again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure what this machine can do at best: bandwidth, and operations by kind and level."""
    with errors_as_sentences():
        from llmrec_kernels.profiler import roofs

        found = roofs(device, refresh=refresh)
        typer.echo(found.model_dump_json(indent=1) if as_json else str(found))


@app.command()
def predict(
    op: Annotated[
        str,
        typer.Argument(help="cosine_topk, candidate_scores, embedding_bag, quantize or pack."),
    ],
    sizes: Sizes = None,
    storage: Storage = None,
    gpu: Gpus = None,
    price: Prices = None,
    by: Annotated[By, typer.Option(help="What is best.")] = By.time,
    grid: Grid = None,
    pue: Pue = None,
    usd_per_kwh: UsdPerKwh = None,
    per_day: PerDay = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Which GPU for this work: the least time, energy and money, modelled from datasheets.

    Example: llmrec-kernels predict cosine_topk B=256 N=1000000 d=384 k=100 --gpu T4 --gpu L4
    --price T4=0.53 --price L4=0.80 --by money
    """
    with errors_as_sentences():
        from llmrec_kernels import profiler
        from llmrec_kernels.profiler.terminal import predictions

        found = profiler.predict(
            op, _sizes(sizes or []), _gpus(gpu) or None,
            storage=storage, cost=cost_model(grid, pue, usd_per_kwh, None, per_day),
            prices=_prices(price), by=by.value,
        )  # fmt: skip
        if as_json:
            typer.echo("[" + ",\n".join(each.model_dump_json(indent=1) for each in found) + "]")
        else:
            typer.echo(predictions(found))


@app.command()
def compare(
    files: Annotated[list[Path], typer.Argument(help="Two reports, of profile or of bench.")],
    margin: Annotated[float, typer.Option(help="Difference that does not matter.")] = 0.05,
) -> None:
    """Say whether the second report's work is faster or slower, and how sure that is.

    Runs at different times may differ by what else the machine did: the answer may be UNDECIDED.
    """
    with errors_as_sentences():
        from llmrec_kernels import profiler

        if len(files) != 2:
            raise ValueError(f"files are {len(files)}; expected two reports")
        first, second = (_by_name(profiler.read(path)) for path in files)
        both = [name for name in first if name in second]
        if not both:
            raise ValueError(f"{files[0]} and {files[1]} have no work in common")
        for name in both:
            typer.echo(f"{name}: {profiler.compare(first[name], second[name], margin=margin)}")


def _by_name(found: Report | Bench) -> dict[str, Report]:
    reports = getattr(found, "reports", [found])
    return {each.name: each for each in reports}


def _profile_demo(options: dict[str, Any]) -> list[Report]:
    from llmrec_kernels.profile_demo import chain, table

    if options["device"] not in (None, "cpu"):
        raise ValueError(f"--device is {options['device']}; demo runs on the CPU")
    steps = chain(options | {"device": "cpu"})
    typer.echo(table(steps))
    return [step.report for step in steps]


def _profile_one(
    what: str,
    sizes: Sequence[str],
    storage: str | None,
    units: float | None,
    unit: str | None,
    options: dict[str, Any],
) -> Report:
    import torch

    from llmrec_kernels import profiler
    from llmrec_kernels.profiler.environment import device_of
    from llmrec_kernels.profiler.shapes import call_of

    if ":" in what:
        if sizes or storage:
            raise ValueError(f"{what} takes no sizes and no storage: its function has no arguments")
        count, named = 1 if units is None else units, unit or "call"
        call = _imported(what)
        return profiler.profile(call, count, named, name=what, **options)
    if units is not None or unit is not None:
        raise ValueError(f"--units and --unit are for module:function; {what} has its own")
    device = device_of(options["device"] or ("cuda" if torch.cuda.is_available() else "cpu"))
    call, count, named = call_of(what, _sizes(sizes), storage, device)
    name = " ".join([what, *sizes, *([storage] if storage else [])])
    return profiler.profile(call, count, named, name=name, **(options | {"device": device}))


def _imported(what: str) -> Callable[[], Any]:
    module, _, name = what.partition(":")
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ValueError(f"{what} is not there: {error}") from error
    if not callable(found):
        raise ValueError(f"{what} is {type(found).__name__}; expected a function")

    def call() -> Any:
        try:
            return found()
        except Exception as error:
            raise RuntimeError(f"{what} raised {type(error).__name__}: {error}") from error

    return call


def _sizes(given: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in given:
        name, _, size = text.partition("=")
        if not size.replace("_", "").isdecimal():
            raise ValueError(f"size is {text!r}; expected NAME=INTEGER, such as B=256")
        if name in found:
            raise ValueError(f"size {name} is given twice: {found[name]} and {size}")
        found[name] = int(size)
    return found


def _prices(given: list[str] | None) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in given or []:
        name, _, price = text.partition("=")
        try:
            found[name] = float(price)
        except ValueError as error:
            raise ValueError(f"--price is {text!r}; expected GPU=USD, such as T4=0.53") from error
    return found


def _gpus(given: list[str] | None) -> list[str]:
    from llmrec_kernels.profiler import hardware

    return list(hardware.gpus()) if given == ["all"] else given or []


def cost_model(
    grid: str | None,
    pue: str | None,
    usd_per_kwh: float | None,
    usd_per_hour: float | None,
    per_day: float | None,
) -> CostModel:
    """What the options of cost say; a number may stand where a name may."""
    from llmrec_kernels.profiler import CostModel

    return CostModel(_number(grid), _number(pue), usd_per_kwh, usd_per_hour, per_day)


def _number(text: str | None) -> str | float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _write(
    found: Sequence[Report], json_file: Path | None, html_file: Path | None, csv_file: Path | None
) -> None:
    from llmrec_kernels.profiler import files
    from llmrec_kernels.profiler.html import write_html

    if json_file is not None:
        files.write_json(found[0] if len(found) == 1 else files.bench_of(found), json_file)
    if csv_file is not None:
        files.write_csv(found, csv_file)
    if html_file is not None:
        write_html(found, html_file)
