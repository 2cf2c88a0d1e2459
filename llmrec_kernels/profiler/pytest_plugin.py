"""Columns of cost for any benchmark of pytest-benchmark: work, share of the roof and energy.

    pytest -p llmrec_kernels.profiler.pytest_plugin --benchmark-cost

Right after its rounds the benchmarked function is called again: once under `CostCounter`, and then
for as long as energy asks for. What was found is `benchmark.extra_info["cost"]`, and so is in the
JSON that pytest-benchmark saves; a second table has it as columns. A benchmark says what a call
does in `extra_info`, before or after its rounds:

    def test_search(benchmark):
        benchmark.extra_info |= {"units": 64, "unit": "query"}
        benchmark(cosine_topk, queries, items, 10)

On a GPU the function has to wait for its result, or its time is that of launching it. The first run
on a machine measures its roofs, for some ten seconds.

pytest loads the plugin only where it is named, so also by `pytest_plugins` in a `conftest.py`: it
needs torch, and no other project should wait for torch because this package is installed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch.utils._pytree import tree_leaves

from llmrec_kernels.profiler import human
from llmrec_kernels.profiler.benchmark_cost import Row, Spent, cost_of, table
from llmrec_kernels.profiler.counter import CostCounter
from llmrec_kernels.profiler.environment import device_of
from llmrec_kernels.profiler.figures import Figure
from llmrec_kernels.profiler.profile import energy_of_call

OPTION = "--benchmark-cost"
ENERGY_WINDOW = 2.0  # seconds, where there is a counter: 5% of a GPU's, which ticks every 0.1
FAILURES = (Exception, pytest.fail.Exception, pytest.skip.Exception)
NOTHING = (
    f"{OPTION}: no benchmark was measured, so that there is no cost; --benchmark-disable, "
    "--benchmark-skip and xdist turn measuring off"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option, beside those of pytest-benchmark."""
    parser.getgroup("benchmark").addoption(
        OPTION,
        action="store_true",
        help="Count the work of each benchmark and take its energy; "
        "show GB/s, GFLOP/s, the share of the roof and joules per unit.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Without the option nothing else of this is there."""
    if not config.getoption("benchmark_cost"):
        return
    if not hasattr(config.option, "benchmark_disable"):
        raise pytest.UsageError(f"{OPTION} needs pytest-benchmark, which is turned off")
    config.pluginmanager.register(CostColumns(), "llmrec-benchmark-cost")


class CostColumns:
    """The plugin of a run that asks for costs."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    @pytest.fixture
    def benchmark(self, benchmark: BenchmarkFixture) -> Iterator[CostedBenchmark]:
        """pytest-benchmark's fixture of this name, with costs."""
        costed = CostedBenchmark(benchmark)
        yield costed
        if costed.spent is not None:
            cost = cost_of(costed.spent, costed.extra_info)
            costed.extra_info["cost"] = cost.model_dump(mode="json")
            self.rows.append(Row(costed.name, costed.spent.median, cost))

    @pytest.hookimpl(wrapper=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
        """After pytest-benchmark's own table, also where that ends with a regression."""
        try:
            return (yield)
        finally:
            if not terminalreporter.config.getoption("benchmark_quiet"):
                terminalreporter.section("cost of the benchmarks", sep="-")
                for line in table(self.rows) if self.rows else [NOTHING]:
                    terminalreporter.write_line(human.plain(line))


class CostedBenchmark(BenchmarkFixture):
    """The `benchmark` fixture, whose function is called again when its rounds are over."""

    def __init__(self, benchmark: BenchmarkFixture) -> None:
        # One state for both: pytest-benchmark looks at the fixture that it made itself.
        self.__dict__ = benchmark.__dict__
        self.spent: Spent | None = None

    def __call__(self, function_to_benchmark: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Benchmark a function, and then call it again."""
        result = super().__call__(function_to_benchmark, *args, **kwargs)
        self._call_again(Call(function_to_benchmark, args, kwargs))
        return result

    def pedantic(self, *args: Any, **kwargs: Any) -> Any:
        """The same for a benchmark that says how often."""
        result = super().pedantic(*args, **kwargs)
        given = inspect.signature(super().pedantic).bind(*args, **kwargs).arguments
        self._call_again(Call(**{name: given[name] for name in Call._fields if name in given}))
        return result

    def _call_again(self, call: Call) -> None:
        if self.stats is not None:  # else pytest-benchmark measures nothing in this run
            self.spent = call.again(self.stats.stats.median)


class Call(NamedTuple):
    """A call as `benchmark.pedantic` takes it."""

    target: Callable[..., Any]
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] | None = None
    setup: Callable[[], Any] | None = None
    teardown: Callable[..., Any] | None = None

    def again(self, seconds: float) -> Spent:
        """Find out what a call of so many seconds takes; a failure is a note, and goes no further.

        The benchmark is over by then, and was good.
        """
        device, counter = "cpu", None
        try:
            counter = self._counted()
            device = counter.device
            energy, notes = self._energy(seconds, device)
        except FAILURES as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            notes = [f"it could not be called again ({reason})"]
            energy = Figure.unavailable("J", notes[0])
        return Spent(seconds, device, counter, energy, notes)

    def _counted(self) -> PlacedCounter:
        """The work of one call, without its setup and its teardown."""
        given = self.setup() if self.setup is not None else None
        args, kwargs = given or (self.args, self.kwargs or {})
        counter = PlacedCounter()
        with counter:
            self.target(*args, **kwargs)
        if self.teardown is not None:
            self.teardown(*args, **kwargs)
        return counter

    def _energy(self, seconds: float, device: str) -> tuple[Figure, list[str]]:
        if self.setup is not None or self.teardown is not None:
            why = "it has no joules: those of its setup and its teardown would be among them"
            return Figure.unavailable("J", why), [why]
        call = partial(self.target, *self.args, **(self.kwargs or {}))
        found, notes = energy_of_call(call, seconds, ENERGY_WINDOW, device)
        return found[-1].gross, notes


class PlacedCounter(CostCounter):
    """Counts, and sees where: a run may have benchmarks of the CPU beside those of a GPU."""

    def __init__(self) -> None:
        super().__init__(details=True)
        self._gpus: set[str] = set()

    @property
    def device(self) -> str:
        """The GPU that took part, or else the CPU; without operators the one in use."""
        if self.by_op:
            return min(self._gpus, default="cpu")
        return device_of(None)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        for leaf in tree_leaves((args, kwargs, out)):
            if isinstance(leaf, torch.Tensor) and leaf.is_cuda:
                self._gpus.add(str(leaf.device))
        return out
