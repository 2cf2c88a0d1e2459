"""The same work on a GPU that is not here: modelled from its datasheet, and labelled so.

A modelled time is the least that bytes and operations take (`roofline`): no launch, no cache, no
imperfect kernel is in it. It ranks GPUs for a kind of work; it promises no speed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from torch._subclasses.fake_tensor import FakeTensorMode

from llmrec_kernels.profiler import hardware, roofline
from llmrec_kernels.profiler.cost_model import CostModel
from llmrec_kernels.profiler.counter import CostCounter
from llmrec_kernels.profiler.figures import Figure
from llmrec_kernels.profiler.report import Prediction
from llmrec_kernels.profiler.shapes import call_of

By = Literal["time", "energy", "money"]


def predict(
    op: str,
    shape: Mapping[str, int],
    gpu: str | Sequence[str] | None = None,
    *,
    storage: str | None = None,
    cost: CostModel | None = None,
    prices: Mapping[str, float] | None = None,
    by: By = "time",
) -> list[Prediction]:
    """The least time, energy and money of an operator on GPUs of the table, best first.

    Parameters
    ----------
    op
        "cosine_topk", "candidate_scores", "embedding_bag", "quantize" or "pack".
    shape
        Sizes by name: B queries or bags, N items, d dimensions, k; L ids in each list or bag,
        V rows of D elements.
    gpu
        A name in `hardware.csv`, or several; all by default.
    storage
        How the items are stored: "packed" for `cosine_topk` by default, else "float32"; the result
        of `quantize`.
    cost
        Grid, overhead and prices; its `usd_per_hour` is of GPUs that `prices` does not have.
    prices
        USD an hour by GPU.
    by
        What is best.

    Raises
    ------
    ValueError
        The operator, a size, a storage or a GPU is unknown, or a price is negative; or GPUs are to
        be ranked by money and one has no price.

    Examples
    --------
    >>> from llmrec_kernels import profiler
    >>> shape = {"B": 256, "N": 1_000_000, "d": 384, "k": 100}
    >>> best = profiler.predict("cosine_topk", shape, ["T4", "H100-SXM"])[0]
    >>> best.gpu, best.bound, best.energy.quality
    ('H100-SXM', 'memory', 'modelled')
    >>> round(best.seconds * 1e6)
    129
    """
    with FakeTensorMode():  # sizes and types alone: nothing is allocated
        call, units, unit = call_of(op, shape, storage)
        with CostCounter() as counter:
            call()
    names = list(hardware.gpus()) if gpu is None else [gpu] if isinstance(gpu, str) else list(gpu)
    check_prices(names, prices or {})
    return ranked(predictions(counter, units, unit, names, cost or CostModel(), prices or {}), by)


def predictions(
    counter: CostCounter,
    units: float,
    unit: str,
    gpus: Sequence[str],
    cost: CostModel,
    prices: Mapping[str, float],
) -> list[Prediction]:
    """What was counted, on each of these GPUs."""
    rows = {name: hardware.gpu(name) for name in gpus}
    priced = {hardware.gpu(name).name: price for name, price in prices.items()}
    return [
        _prediction(counter, units, unit, row, _at_price(cost, priced.get(row.name)))
        for row in rows.values()
    ]


def check_prices(gpus: Sequence[str], prices: Mapping[str, float]) -> None:
    """Refuse GPUs that are in no table, and prices that are below 0 or of none of these GPUs."""
    asked = {hardware.gpu(name).name for name in gpus}
    for name, price in prices.items():
        if hardware.gpu(name).name not in asked:
            raise ValueError(f"prices has {name}, which is none of the GPUs asked for")
        if isinstance(price, bool) or not isinstance(price, int | float) or not price >= 0:
            raise ValueError(f"prices has {price!r} for {name}; expected USD an hour, at least 0")


def ranked(found: Sequence[Prediction], by: By) -> list[Prediction]:
    """Best first; what a GPU cannot do comes last."""
    if by not in ("time", "energy", "money"):
        raise ValueError(f"by is {by!r}; expected 'time', 'energy' or 'money'")
    unpriced = [each.gpu for each in found if each.costs[1].instance_money.value is None]
    if by == "money" and unpriced:
        raise ValueError(f"by is 'money', but prices has no USD an hour for {unpriced[0]}")

    def key(each: Prediction) -> tuple[bool, float]:
        figures = {
            "time": each.seconds,
            "energy": each.energy.value or 0.0,
            "money": each.costs[1].instance_money.value or 0.0,
        }
        return each.unsupported is not None, figures[by]

    return sorted(found, key=key)


def _at_price(cost: CostModel, price: float | None) -> CostModel:
    return cost if price is None else replace(cost, usd_per_hour=price)


def _prediction(
    counter: CostCounter, units: float, unit: str, row: hardware.Hardware, cost: CostModel
) -> Prediction:
    sheet = roofline.Sheet(row)
    leasts = [roofline.least(entry, sheet) for entry in counter.by_op.values()]
    largest = max(leasts, key=lambda each: each.seconds, default=roofline.Least(0.0, 0.0))
    seconds = sum(each.seconds for each in leasts)
    lacking = roofline.lacking(counter, sheet)
    energy = Figure(
        value=row.watts * seconds,
        unit="J",
        quality="modelled",
        method=f"TDP of {row.watts:.0f} W for the least time",
    )
    return Prediction(
        gpu=row.name,
        seconds=seconds,
        bound=largest.bound,
        kind=roofline.main_kind(counter),
        unsupported=f"the table has no peak of {', '.join(lacking)}" if lacking else None,
        doubt=row.doubt,
        energy=energy,
        costs=cost.costs(seconds, units, unit, energy, "modelled"),
    )
