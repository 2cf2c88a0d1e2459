"""A profile is right about its work, labels what it did not measure, and cleans up after itself."""

from __future__ import annotations

import csv
import importlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from llmrec_kernels import _library, cosine_topk, embedding_bag, pack, profiler
from llmrec_kernels.profiler import CostModel, Report, environment, files
from llmrec_kernels.profiler.energy import EnergyMonitor
from llmrec_kernels.profiler.report import SCHEMA_VERSION

module = importlib.import_module("llmrec_kernels.profiler.profile")
QUICK = {"min_time": 0.01, "energy_window": 0.05}
ITEMS, QUERIES = pack(torch.randn(4000, 64)), torch.randn(16, 64)


def search() -> Any:
    return cosine_topk(QUERIES, ITEMS, 10)


@pytest.fixture(scope="module")
def report() -> Report:
    cost = CostModel(grid="FRA", pue=1.15, usd_per_kwh=0.1, usd_per_hour=1.0, units_per_day=10**9)
    return profiler.profile(
        search, units=16, unit="query", cost=cost, gpus=["T4", "H100-SXM"], prices={"T4": 0.5},
        device="cpu", **QUICK,
    )  # fmt: skip


def test_the_work_is_that_of_one_call(report: Report) -> None:
    assert report.work.flops == 2 * 16 * 4000 * 64
    assert report.ops[0].name == "llmrec.cosine_topk"
    assert (report.ops[0].calls, report.ops[0].kind, report.ops[0].counted) == (1, "int8", True)
    assert report.uncounted == {}
    assert report.name == "search"
    assert (report.device, report.cache, report.kernel_time) == ("cpu", "hot", None)
    assert report.work.measured_bytes is None


def test_the_least_time_is_that_of_the_roofs(report: Report) -> None:
    if _library.load_error is not None:
        assert report.roofline is None
        assert any("no roofline" in warning for warning in report.warnings)
        return
    line = report.roofline
    assert line is not None
    size = report.work.bytes_read + report.work.bytes_written
    assert line.cached_bandwidth is not None
    memory = size / line.cached_bandwidth.per_second
    compute = report.work.flops / line.peaks["int8"].per_second
    assert line.least_seconds == pytest.approx(max(memory, compute), rel=0.05)
    assert line.share == pytest.approx(line.least_seconds / report.time.median)
    assert (line.share > 1) == (line.explanation is not None)
    assert line.attained == pytest.approx(report.work.flops / report.time.median)


def test_energy_that_nothing_counts_is_estimated_and_never_nothing(report: Report) -> None:
    by_component = {each.component: each for each in report.energy}
    assert list(by_component) == ["cpu", "dram", "total"]
    for each in report.energy:
        assert each.gross.value is None or each.gross.value > 0
        assert (each.gross.quality == "unavailable") == (each.gross.value is None)
    assert by_component["total"].gross.value is not None


def test_costs_are_of_a_unit_a_million_and_a_day(report: Report) -> None:
    one, million, day = report.costs
    assert [one.units, million.units, day.units] == [1, 1e6, 1e9]
    assert million.seconds == pytest.approx(report.time.median / 16 * 1e6)
    assert million.instance_money.value == pytest.approx(million.seconds / 3600)
    total = report.energy[-1].gross.value
    assert total is not None
    assert million.energy.value == pytest.approx(total / 16 * 1e6 / 3.6e6 * 1.15)
    names = {each.name for each in report.assumptions}
    assert {"grid (France)", "pue", "price of electricity", "price of the machine"} <= names


def test_the_same_work_is_modelled_on_other_gpus(report: Report) -> None:
    assert [each.gpu for each in report.predictions] == ["T4", "H100-SXM"]
    assert report.predictions[0].costs[1].instance_money.quality == "modelled"
    assert report.predictions[0].seconds > report.predictions[1].seconds > 0


def test_a_report_prints_with_its_labels(report: Report) -> None:
    text = str(report)
    assert "search" in text
    assert "estimated" in text
    assert "modelled" in text
    assert "llmrec.cosine_topk" in text


# ---- files ----


def test_a_report_is_the_same_after_a_round_trip(report: Report, tmp_path: Path) -> None:
    report.to_json(tmp_path / "report.json")
    assert profiler.read(tmp_path / "report.json") == report


def test_the_json_follows_the_published_schema(report: Report, tmp_path: Path) -> None:
    published = json.loads(files.SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(published)
    assert published == files.schema(), "write files.schema() to files.SCHEMA as JSON"
    report.to_json(tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text())
    validator = jsonschema.Draft202012Validator(published)
    validator.validate(found)
    for field in ("schema_version", "time", "energy"):
        broken = {name: value for name, value in found.items() if name != field}
        assert not validator.is_valid(broken), field
    assert not validator.is_valid(found | {"schema_version": 2})


def test_every_field_of_the_schema_that_needs_a_unit_has_a_description() -> None:
    published = files.schema()["$defs"]
    for name in ("Timing", "Op", "Costs", "Roofline", "Report"):
        fields = published[name]["properties"]
        silent = [
            field
            for field, what in fields.items()
            if what.get("type") in ("number", "integer") and "description" not in what
        ]
        assert set(silent) <= {"calls", "high", "p5", "q3", "p95", "minimum", "low"}, (name, silent)


def test_the_csv_has_a_line_with_the_label_of_each_figure(report: Report, tmp_path: Path) -> None:
    report.to_csv(tmp_path / "report.csv")
    with (tmp_path / "report.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert float(line["median_seconds"]) == report.time.median
    assert int(line["flops"]) == report.work.flops
    assert line["dram_joules: quality"] == report.energy[1].gross.quality
    if report.energy[1].gross.value is None:
        assert line["dram_joules"] == ""
    assert line["instance_money (USD) of 1,000,000 queries: quality"] == "measured"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is not JSON"),
        ("[]", "is no report of llmrec_kernels: it has no schema_version"),
        ('{"schema_version": "1"}', "has no schema_version"),
        (f'{{"schema_version": {SCHEMA_VERSION + 1}}}', "reads up to 1: upgrade it"),
        (f'{{"schema_version": {SCHEMA_VERSION}}}', "is no whole report: name: Field required"),
        ('{"schema_version": 1, "reports": []}', "is no whole report: complete"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "it.json").write_text(text)
    with pytest.raises(ValueError, match=why):
        profiler.read(tmp_path / "it.json")


def test_a_report_with_a_field_of_the_wrong_kind_is_refused(report: Report, tmp_path: Path) -> None:
    found = json.loads(report.model_dump_json())
    found["time"]["median"] = -1
    (tmp_path / "it.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match=r"time\.median: Input should be greater than 0"):
        profiler.read(tmp_path / "it.json")


def test_a_folder_that_is_not_there_is_a_sentence(report: Report, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no folder"):
        report.to_json(tmp_path / "nowhere" / "report.json")


# ---- what is measured ----


def test_the_callable_runs_to_warm_up_and_to_count_before_it_is_timed() -> None:
    shapes: list[int] = []

    def first_is_larger() -> None:
        size = 64 if len(shapes) < 1 else 8
        shapes.append(size)
        torch.ones(size, size) @ torch.ones(size, size)

    report = profiler.profile(first_is_larger, device="cpu", **QUICK)
    assert report.work.flops == 2 * 8**3


def test_a_lookup_reports_its_rows_and_how_many_differ() -> None:
    table, ids = torch.randn(100, 16), torch.tensor([[1, 1, 2], [3, 1, 1]])
    report = profiler.profile(lambda: embedding_bag(table, ids), device="cpu", **QUICK)
    bag = next(op for op in report.ops if op.name == "llmrec.embedding_bag")
    assert (bag.rows, bag.unique_rows) == (6, 3)


def test_work_without_a_formula_is_a_warning() -> None:
    report = profiler.profile(lambda: torch.linalg.eigh(torch.eye(8)), device="cpu", **QUICK)
    assert set(report.uncounted) == {"aten._linalg_eigh"}
    assert any("aten._linalg_eigh" in warning for warning in report.warnings)
    assert not next(op for op in report.ops if op.name == "aten._linalg_eigh").counted


def test_a_callable_without_torch_has_no_work_and_says_so() -> None:
    report = profiler.profile(lambda: sum(range(100)), device="cpu", **QUICK)
    assert report.ops == []
    assert report.roofline is None
    assert any("no torch operator ran" in warning for warning in report.warnings)


def test_work_under_no_roof_is_under_a_faster_one_and_says_so() -> None:
    if _library.load_error is not None:
        pytest.skip("no extension, no roofs")
    matrix = torch.ones(256, 256, dtype=torch.float64)
    report = profiler.profile(lambda: matrix @ matrix, device="cpu", **QUICK)
    assert report.roofline is not None
    assert report.roofline.kind == "float64"
    least = 2 * 256**3 / report.roofline.peaks["float32"].per_second
    assert report.roofline.least_seconds >= least
    assert any("no roof of float64" in warning for warning in report.warnings)


def test_operators_that_are_all_of_a_call_are_no_warning() -> None:
    """In a process of its own, whose first counter makes torch import its compiler."""
    code = (
        "import torch; from llmrec_kernels import profiler\n"
        "m = torch.randn(600, 600)\n"
        "r = profiler.profile(lambda: m @ m, device='cpu', min_time=0.05, energy_window=0.05)\n"
        "print([w for w in r.warnings if 'outside' in w])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_time_outside_of_what_is_counted_is_a_warning() -> None:
    def elsewhere() -> None:
        torch.ones(2) + 1
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: torch.ones(400, 400) @ torch.ones(400, 400)).result()

    report = profiler.profile(elsewhere, device="cpu", **QUICK)
    assert report.work.flops == 0
    assert any("in other threads" in warning for warning in report.warnings)


def test_a_figure_outside_of_its_interval_is_no_report(report: Report, tmp_path: Path) -> None:
    found = json.loads(report.model_dump_json())
    found["energy"][0]["gross"]["value"] = 0
    (tmp_path / "it.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match=r"energy\.0\.gross: Value error, value is 0"):
        profiler.read(tmp_path / "it.json")


def test_cold_calls_are_marked() -> None:
    report = profiler.profile(search, device="cpu", cache="cold", **QUICK)
    assert (report.cache, report.time.calls_per_sample) == ("cold", 1)
    assert any("hot caches" in warning for warning in report.warnings)


def test_a_share_above_one_is_measured_again_and_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if _library.load_error is not None:
        pytest.skip("no extension, no roofs")
    true = profiler.roofs("cpu")
    slow = true.model_copy(
        update={
            "rates": {
                name: rate.model_copy(update={"per_second": rate.per_second / 1e6})
                for name, rate in true.rates.items()
            }
        }
    )
    asked: list[bool] = []

    def roofs(device: str, *, refresh: bool = False) -> Any:
        asked.append(refresh)
        return slow

    monkeypatch.setattr(module, "roofs", roofs)
    report = profiler.profile(search, device="cpu", **QUICK)
    assert asked == [False, True]
    assert report.roofline is not None
    assert report.roofline.share > 1
    assert "measured when the machine was slower" in str(report.roofline.explanation)


def test_another_load_and_a_clock_that_moved_are_marked() -> None:
    now = environment.collect("cpu")
    quiet = now.model_copy(update={"load_average": 0.1, "cpu_mhz": 2000.0})
    busy = quiet.model_copy(update={"load_average": 9.0 * now.logical_cpus})
    assert environment.disturbances(quiet, quiet) == []
    (found,) = environment.disturbances(busy, quiet)
    assert "other work was running" in found
    (found,) = environment.disturbances(quiet, quiet.model_copy(update={"cpu_mhz": 1500.0}))
    assert found == "the CPU's clock moved from 2000 to 1500 MHz"


def test_a_shared_sliced_or_throttled_gpu_is_marked() -> None:
    from reports import H100

    now = environment.collect("cpu").model_copy(update={"load_average": 0.1, "gpu": H100})
    marked = H100.model_copy(update={"mig": True, "shared": True, "throttles": ["power cap"]})
    found = environment.disturbances(now, now.model_copy(update={"gpu": marked}))
    assert [" ".join(each.split()[:4]) for each in found] == [
        "the GPU is in", "other processes compute on", "the GPU was throttled:",
    ]  # fmt: skip


# ---- bad input ----


def test_what_a_callable_raises_comes_out_and_the_sensors_are_released(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monitors: list[EnergyMonitor] = []

    class Kept(EnergyMonitor):
        def __enter__(self) -> Any:
            monitors.append(self)
            return super().__enter__()

    monkeypatch.setattr(module, "EnergyMonitor", Kept)

    def breaks_midway() -> None:
        if monitors:
            raise KeyError("midway")

    with pytest.raises(KeyError, match="midway"):
        profiler.profile(breaks_midway, device="cpu", **QUICK)
    (monitor,) = monitors
    assert monitor.readings == []
    with monitor:  # closed: it can be opened again
        pass


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"fn": 3}, TypeError, "fn is int; expected a callable without arguments"),
        ({"units": 0}, ValueError, "units is 0; expected a positive number"),
        ({"min_time": -1}, ValueError, "min_time is -1; expected a positive number"),
        ({"energy_window": 0}, ValueError, "energy_window is 0; .* no length has no energy"),
        ({"cache": "warm"}, ValueError, "cache is 'warm'; expected 'cold' or 'hot'"),
        ({"device": "tpu"}, ValueError, "device is 'tpu'; expected 'cpu' or 'cuda:<index>'"),
        ({"gpus": ["H10"]}, ValueError, "gpu is 'H10'; .* nearest: H100-PCIe, H100-SXM"),
        ({"prices": {"H10": 1}}, ValueError, "gpu is 'H10'"),
        ({"gpus": "T4", "prices": {"T4": -1}}, ValueError, "prices has -1 for T4; expected USD"),
        ({"prices": {"T4": 1}}, ValueError, "prices has T4, which is none of the GPUs asked for"),
        ({"unit": 3}, TypeError, "unit is 3; expected the name of a unit of work"),
        ({"units": True}, TypeError, "units is True; expected a positive number"),
        ({"units": "8"}, TypeError, "units is '8'; expected a positive number"),
        ({"cost": "FRA"}, TypeError, "cost is 'FRA'; expected a CostModel"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    options: dict[str, Any], error: type[Exception], why: str
) -> None:
    def never() -> None:
        pytest.fail("it ran")

    with pytest.raises(error, match=why):
        profiler.profile(**({"fn": never} | options | QUICK | options))
