"""The figures of a benchmark are its work, time and energy, each where there is one."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from benchmark_runs import (
    BATCH,
    ITEMS,
    JOULES,
    MEMORY_BYTES,
    PEAK,
    PRODUCT,
    PRODUCT_FLOPS,
    SEARCH,
    WIDTH,
    K,
    Run,
    roofs,
)
from hypothesis import given
from hypothesis import strategies as st

from llmrec_kernels.profiler import benchmark_cost
from llmrec_kernels.profiler.benchmark_cost import BenchmarkCost, Row, Spent
from llmrec_kernels.profiler.counter import CostCounter
from llmrec_kernels.profiler.figures import Figure
from llmrec_kernels.profiler.roofs import Roofs

pytest_plugins = ["pytester", "benchmark_runs"]


def near(text: str) -> Any:
    """The number that a cell of three digits begins with."""
    return pytest.approx(float(text.split()[0].strip("%").replace(",", "")), rel=6e-3)


@pytest.mark.usefixtures("replayed_energy")
def test_columns_are_the_work_over_the_median_that_pytest_benchmark_reports(
    run_benchmarks: Run,
) -> None:
    outcome = run_benchmarks(SEARCH, "--benchmark-cost").passed(1)
    median = outcome.benchmarks["test_search"]["stats"]["median"]
    flops = 2 * BATCH * ITEMS * WIDTH
    size = 4 * (BATCH + ITEMS) * WIDTH + BATCH * K * (4 + 8)  # float32 scores, int64 ids
    least = max(flops / PEAK, size / MEMORY_BYTES)

    cost = outcome.cost("test_search")
    assert (cost["flops"], cost["bytes"], cost["device"]) == (flops, size, "cpu")
    assert cost["flops_per_second"] == pytest.approx(flops / median)
    assert cost["bytes_per_second"] == pytest.approx(size / median)
    assert cost["share_of_roof"] == pytest.approx(least / median)
    assert cost["units_per_second"] == pytest.approx(BATCH / median)
    assert cost["energy"]["value"] == pytest.approx(JOULES / BATCH)
    assert (cost["units"], cost["unit"]) == (BATCH, "query")

    row = outcome.row("test_search")
    assert flops / median / 1e9 == near(row["GFLOP/s"])
    assert size / median / 1e9 == near(row["GB/s"])
    assert 100 * least / median == pytest.approx(float(row["% of roof"].strip("%")), rel=0.06)
    assert BATCH / median == near(row["units per second"])
    assert row["units per second"].endswith(" query/s")
    assert row["J per unit"] == "100 mJ/query (measured)"
    assert outcome.notes("test_search") == ["dram: unseen"]


def test_energy_is_found_on_this_machine_with_its_label(run_benchmarks: Run) -> None:
    outcome = run_benchmarks(SEARCH, "--benchmark-cost").passed(1)
    energy = Figure.model_validate(outcome.cost("test_search")["energy"])
    assert energy.value is not None
    assert energy.value > 0
    assert energy.unit == "J/query"
    assert energy.quality in ("measured", "integrated", "estimated")
    assert outcome.row("test_search")["J per unit"].endswith(f"J/query ({energy.quality})")


@pytest.mark.usefixtures("replayed_energy")
def test_units_may_be_said_after_the_rounds_and_are_calls_where_nothing_is_said(
    run_benchmarks: Run,
) -> None:
    outcome = run_benchmarks(
        PRODUCT
        + """
def test_later(benchmark):
    benchmark(torch.mm, LEFT, RIGHT)
    benchmark.extra_info |= {"units": 3, "unit": "row"}

def test_number(benchmark):
    benchmark.extra_info["units"] = 2
    benchmark(torch.mm, LEFT, RIGHT)

def test_nothing(benchmark):
    benchmark(torch.mm, LEFT, RIGHT)
""",
        "--benchmark-cost",
    ).passed(3)
    shown = {name: outcome.cost(name)["energy"] for name in outcome.benchmarks}
    assert {name: (each["value"], each["unit"]) for name, each in shown.items()} == {
        "test_later": (pytest.approx(JOULES / 3), "J/row"),
        "test_number": (pytest.approx(JOULES / 2), "J/unit"),
        "test_nothing": (pytest.approx(JOULES), "J/call"),
    }


@pytest.mark.parametrize(
    ("info", "sentence"),
    [
        ({"units": 0}, 'extra_info["units"] is 0; expected a positive number'),
        ({"units": "many"}, "extra_info[\"units\"] is 'many'; expected a positive number"),
        ({"unit": 7}, 'extra_info["unit"] is 7; expected a name such as "query"'),
    ],
)
@pytest.mark.usefixtures("replayed_energy")
def test_wrong_units_are_a_note_and_cost_the_figures_of_a_unit_alone(
    run_benchmarks: Run, info: dict[str, Any], sentence: str
) -> None:
    benchmark = f"""
def test_product(benchmark):
    benchmark.extra_info |= {info!r}
    benchmark(torch.mm, LEFT, RIGHT)
"""
    outcome = run_benchmarks(PRODUCT + benchmark, "--benchmark-cost").passed(1)
    assert sentence in outcome.notes("test_product")
    row = outcome.row("test_product")
    assert (row["J per unit"], row["units per second"]) == ("-", "-")
    assert outcome.cost("test_product")["flops"] == PRODUCT_FLOPS


@given(units=st.floats(1e-6, 1e9), median=st.floats(1e-9, 1e3))
def test_units_only_divide(units: float, median: float) -> None:
    energy = Figure(value=JOULES, unit="J", quality="measured", method="", low=6.0, high=7.0)
    spent = Spent(median, "cpu", None, energy, [])
    cost = benchmark_cost.cost_of(spent, {"units": units, "unit": "query"})
    assert cost.units_per_second == pytest.approx(units / median)
    found = [cost.energy.low, cost.energy.value, cost.energy.high]
    assert found == pytest.approx([6.0 / units, JOULES / units, 7.0 / units])


@pytest.mark.usefixtures("replayed_energy")
def test_what_could_not_be_counted_is_named_below_the_table(run_benchmarks: Run) -> None:
    source = """
import torch

def test_transform(benchmark):
    benchmark(torch.fft.fft, torch.ones(8))

def test_python(benchmark):
    benchmark(sorted, [2, 1])
"""
    outcome = run_benchmarks(source, "--benchmark-cost").passed(2)
    assert outcome.cost("test_transform")["uncounted"] == {"aten._fft_r2c": 1}
    sentence = "operations without a formula are not counted: aten._fft_r2c"
    assert sentence in outcome.notes("test_transform")
    sentence = "no torch operator ran in this thread: there is no work to count"
    assert sentence in outcome.notes("test_python")
    assert outcome.row("test_python")["GFLOP/s"] == "-"


@pytest.mark.usefixtures("replayed_energy")
def test_a_share_above_the_roof_carries_its_explanation(
    run_benchmarks: Run, keep_roofs: Callable[[Roofs], None]
) -> None:
    keep_roofs(roofs(peak=1.0))
    outcome = run_benchmarks(SEARCH, "--benchmark-cost").passed(1)
    assert outcome.cost("test_search")["share_of_roof"] > 1
    _, note = outcome.notes("test_search")
    assert note.startswith("above 100% of the roof: the roofs")
    assert "GPU" not in note


def test_above_the_roof_of_a_gpu_the_function_may_not_have_waited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = roofs("cuda:0", peak=1.0)
    monkeypatch.setattr(benchmark_cost, "known_roofs", lambda device: (known, []))
    with CostCounter() as counter:
        torch.ones(3, 5) @ torch.ones(5, 7)
    share, notes = benchmark_cost.share_of_roof(counter, 0.5, "cuda:0")
    assert share is not None
    assert share > 1
    assert notes[0].endswith("; or it did not wait for the GPU")


@pytest.mark.usefixtures("replayed_energy")
def test_without_roofs_there_is_all_but_the_share(
    run_benchmarks: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unmeasured(device: str) -> Roofs:
        raise RuntimeError("there is no extension")

    monkeypatch.setattr(sys.modules[benchmark_cost.known_roofs.__module__], "roofs", unmeasured)
    outcome = run_benchmarks(SEARCH, "--benchmark-cost").passed(1)
    assert outcome.row("test_search")["% of roof"] == "-"
    assert outcome.row("test_search")["GB/s"] != "-"
    assert "no roofline: there is no extension" in outcome.notes("test_search")


@pytest.mark.usefixtures("replayed_energy")
def test_a_timer_that_sees_no_time_pass_gives_no_rates(run_benchmarks: Run) -> None:
    source = """
import pytest

@pytest.mark.benchmark(timer=lambda: 1.0)
def test_frozen(benchmark):
    benchmark.pedantic(torch.mm, (LEFT, RIGHT), rounds=2)
"""
    outcome = run_benchmarks(
        PRODUCT + source, "--benchmark-cost", "--benchmark-columns=min"
    ).passed(1)
    assert "its median is 0 s: the timer is too coarse for it" in outcome.notes("test_frozen")
    assert outcome.cost("test_frozen")["flops_per_second"] is None
    assert outcome.cost("test_frozen")["units_per_second"] is None


def test_a_note_is_printed_once_and_names_a_few_of_its_benchmarks() -> None:
    cost = BenchmarkCost(
        device="cpu", units=1, unit="call", units_per_second=2.0, flops=None, bytes=None,
        flops_per_second=None, bytes_per_second=None, share_of_roof=None,
        energy=Figure.unavailable("J", "there is no counter"), uncounted={}, notes=["a note"],
    )  # fmt: skip
    rows = [Row(f"test_{number}", 0.5, cost) for number in range(5)]
    header, *lines = benchmark_cost.table(rows)
    assert tuple(re.split(r"\s{2,}", header)) == benchmark_cost.COLUMNS
    assert lines[0].split() == ["test_0", "500.0", "ms", "-", "-", "-", "-", "2.00", "call/s"]
    assert lines[5:] == ["test_0, test_1, test_2 and 2 more: a note"]
