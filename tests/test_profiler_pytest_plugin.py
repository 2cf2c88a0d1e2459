"""`--benchmark-cost` adds columns to any benchmark, and takes nothing from it."""

from __future__ import annotations

import json

import pytest
import torch
from benchmark_runs import PRODUCT, PRODUCT_BYTES, PRODUCT_FLOPS, SEARCH, Run
from torch._subclasses.fake_tensor import FakeTensorMode

from llmrec_kernels.profiler import pytest_plugin

pytest_plugins = ["pytester", "benchmark_runs"]


def test_without_the_option_nothing_is_there(run_benchmarks: Run) -> None:
    source = """
from pytest_benchmark.fixture import BenchmarkFixture

def test_nothing(benchmark):
    assert type(benchmark) is BenchmarkFixture
    benchmark(int)
"""
    outcome = run_benchmarks(source).passed(1)
    assert outcome.benchmarks["test_nothing"]["extra_info"] == {}
    assert "cost" not in outcome.text


def test_pytest_loads_nothing_of_the_package_that_nobody_named(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
import sys

def test_modules(pytestconfig):
    assert "torch" not in sys.modules
    assert "llmrec_kernels" not in sys.modules
"""
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


@pytest.mark.usefixtures("replayed_energy")
def test_pedantic_counts_its_target_and_neither_setup_nor_teardown(run_benchmarks: Run) -> None:
    outcome = run_benchmarks(
        PRODUCT
        + """
def test_plain(benchmark):
    product = benchmark.pedantic(torch.mm, (LEFT,), {"mat2": RIGHT}, rounds=2)
    assert product.shape == (3, 7)

def test_prepared(benchmark):
    ended = []
    def prepare():
        return (LEFT @ RIGHT @ RIGHT.T, RIGHT), {}
    def end(left, right):
        ended.append(left @ right)
    benchmark.pedantic(torch.mm, setup=prepare, teardown=end, rounds=2)
    assert len(ended) == 3
""",
        "--benchmark-cost",
    ).passed(2)
    for name in ("test_plain", "test_prepared"):
        assert outcome.cost(name)["flops"] == PRODUCT_FLOPS
        assert outcome.cost(name)["bytes"] == PRODUCT_BYTES
    assert outcome.row("test_plain")["J per unit"] == "6.40 J/call (measured)"
    assert outcome.row("test_prepared")["J per unit"] == "-"
    (note,) = outcome.notes("test_prepared")
    assert note.startswith("it has no joules: those of its setup and its teardown")


@pytest.mark.parametrize(
    ("raised", "named"),
    [
        ("RuntimeError('one call is all\\nand more')", "RuntimeError: one call is all"),
        ("pytest.fail.Exception('no more')", "Failed: no more"),
        ("pytest.skip.Exception('no more')", "Skipped: no more"),
    ],
)
def test_a_function_that_fails_when_it_is_called_again_is_a_note(
    run_benchmarks: Run, raised: str, named: str
) -> None:
    source = f"""
import pytest
CALLS = []

def once():
    CALLS.append(1)
    if len(CALLS) > 1:
        raise {raised}

def test_once(benchmark):
    benchmark.pedantic(once, rounds=1)
"""
    outcome = run_benchmarks(source, "--benchmark-cost").passed(1)
    assert outcome.notes("test_once") == [f"it could not be called again ({named})"]
    row = outcome.row("test_once")
    assert [row[column] for column in ("GB/s", "GFLOP/s", "% of roof", "J per unit")] == ["-"] * 4
    assert row["units per second"].endswith(" call/s")


def test_a_setup_that_runs_out_is_a_note(run_benchmarks: Run) -> None:
    source = """
def test_queue(benchmark):
    left = [1, 2]
    benchmark.pedantic(abs, setup=lambda: ((left.pop(),), {}), rounds=2)
"""
    outcome = run_benchmarks(source, "--benchmark-cost").passed(1)
    assert outcome.notes("test_queue") == [
        "it could not be called again (IndexError: pop from empty list)"
    ]


def test_a_function_that_fails_later_still_is_counted(run_benchmarks: Run) -> None:
    source = """
CALLS = []

def twice():
    CALLS.append(1)
    assert len(CALLS) < 3
    return torch.mm(LEFT, RIGHT)

def test_twice(benchmark):
    benchmark.pedantic(twice, rounds=1)
"""
    outcome = run_benchmarks(PRODUCT + source, "--benchmark-cost").passed(1)
    assert outcome.cost("test_twice")["flops"] == PRODUCT_FLOPS
    assert outcome.row("test_twice")["J per unit"] == "-"
    (note,) = outcome.notes("test_twice")
    assert note.startswith("it could not be called again (AssertionError")


def test_a_benchmark_that_fails_in_its_rounds_fails_as_ever(run_benchmarks: Run) -> None:
    source = """
def test_division(benchmark):
    benchmark(lambda: 1 / 0)
"""
    outcome = run_benchmarks(source, "--benchmark-cost")
    outcome.result.assert_outcomes(failed=1)
    outcome.result.stdout.fnmatch_lines(["*ZeroDivisionError*"])
    assert pytest_plugin.NOTHING in outcome.text


def test_the_device_is_where_the_operators_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeTensorMode(), pytest_plugin.PlacedCounter() as counter:
        torch.ones(2, device="cuda:0") + 1
    assert counter.device == "cuda:0"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)  # by another benchmark
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    with pytest_plugin.PlacedCounter() as counter:
        torch.ones(2) + 1
    assert counter.device == "cpu"


@pytest.mark.parametrize("option", ["--benchmark-disable", "--benchmark-skip", "-n1"])
def test_where_nothing_is_measured_a_sentence_says_so(run_benchmarks: Run, option: str) -> None:
    outcome = run_benchmarks(SEARCH, "--benchmark-cost", option)
    assert outcome.result.ret == 0
    assert pytest_plugin.NOTHING in outcome.text
    assert outcome.benchmarks == {}


def test_without_pytest_benchmark_the_option_is_refused(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest(
        "-p", pytest_plugin.__name__, "-p", "no:benchmark", "--benchmark-cost"
    )  # fmt: skip
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--benchmark-cost needs pytest-benchmark, which is turned off"])


@pytest.mark.usefixtures("replayed_energy")
def test_pytest_benchmark_sees_that_its_fixture_was_used(run_benchmarks: Run) -> None:
    assert "was not used" in run_benchmarks("def test_idle(benchmark): pass").text
    assert "was not used" not in run_benchmarks(SEARCH, "--benchmark-cost").passed(1).text


@pytest.mark.usefixtures("replayed_energy")
def test_costs_stand_between_the_times_and_the_summary(run_benchmarks: Run) -> None:
    outcome = run_benchmarks(SEARCH, "--benchmark-cost", "-rA").passed(1)
    titles = ["Name (time in", "cost of the benchmarks", "short test summary info"]
    places = [outcome.text.index(title) for title in titles]
    assert places == sorted(places)


@pytest.mark.usefixtures("replayed_energy")
def test_quiet_keeps_the_figures_in_the_json_alone(run_benchmarks: Run) -> None:
    outcome = run_benchmarks(SEARCH, "--benchmark-cost", "--benchmark-quiet").passed(1)
    assert outcome.cost("test_search")["unit"] == "query"
    assert "cost of the benchmarks" not in outcome.text


@pytest.mark.usefixtures("replayed_energy")
def test_saved_runs_with_costs_can_be_compared(run_benchmarks: Run) -> None:
    run_benchmarks(SEARCH, "--benchmark-cost", "--benchmark-save=before").passed(1)
    outcome = run_benchmarks(SEARCH, "--benchmark-cost", "--benchmark-compare").passed(1)
    outcome.result.stdout.fnmatch_lines_random(["test_search (0001_before)*", "test_search (NOW)*"])
    assert outcome.row("test_search")["J per unit"] == "100 mJ/query (measured)"


@pytest.mark.usefixtures("replayed_energy")
def test_costs_are_shown_where_the_comparison_finds_a_regression(
    run_benchmarks: Run, pytester: pytest.Pytester
) -> None:
    run_benchmarks(SEARCH, "--benchmark-cost", "--benchmark-save=before").passed(1)
    (path,) = pytester.path.glob(".benchmarks/*/0001_before.json")
    saved = json.loads(path.read_text())
    saved["benchmarks"][0]["stats"]["min"] = 1e-12
    path.write_text(json.dumps(saved))
    outcome = run_benchmarks(
        SEARCH, "--benchmark-cost", "--benchmark-compare", "--benchmark-compare-fail=min:5%"
    )
    assert outcome.result.ret != 0
    assert outcome.row("test_search")["J per unit"] == "100 mJ/query (measured)"
