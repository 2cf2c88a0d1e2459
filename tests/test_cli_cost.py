"""The verbs that tell costs, as their users meet them: real work, real files, sentences."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmrec_kernels import _library, profiler
from llmrec_kernels.cli import app
from llmrec_kernels.datasets import DatasetNotFoundError, movielens_100k

QUICK = ["--min-time", "0.01", "--energy-window", "0.05"]
SEARCH = ["cosine_topk", "B=8", "N=2000", "d=32", "k=5"]


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_profile_measures_an_operator_and_writes_three_files(tmp_path: Path) -> None:
    files = {kind: tmp_path / f"report.{kind}" for kind in ("json", "html", "csv")}
    found = run(
        "profile", *SEARCH, *QUICK, "--grid", "FRA", "--pue", "1.15", "--usd-per-hour", "1.006",
        "--usd-per-kwh", "0.1", "--per-day", "1000000", "--gpu", "T4", "--gpu", "H100-SXM",
        "--price", "T4=0.53", "--price", "H100-SXM=3", "--by", "money",
        *(word for kind, path in files.items() for word in (f"--{kind}", path)),
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    report = profiler.read(files["json"])
    assert isinstance(report, profiler.Report)
    assert report.name == "cosine_topk B=8 N=2000 d=32 k=5"
    assert (report.units, report.unit, report.work.flops) == (8, "query", 2 * 8 * 2000 * 32)
    prices = [each.costs[1].instance_money.value or 0 for each in report.predictions]
    assert prices == sorted(prices)
    assert "H100-SXM" in found.output
    assert "<svg" in files["html"].read_text() or _library.load_error is not None
    assert "median_seconds" in files["csv"].read_text()


def test_profile_takes_a_function_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_to_profile.py").write_text(
        "import torch\ndef work():\n    torch.ones(8, 8) @ torch.ones(8, 8)\nnothing = 3\n"
        "def fails():\n    raise KeyError('boom')\n"
    )
    (tmp_path / "broken_to_profile.py").write_text("def work(:\n")
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "report.json"
    found = run(
        "profile", "mine_to_profile:work", "--units", 4, "--unit", "row", *QUICK, "--json", out
    )
    assert found.exit_code == 0, found.output
    report = profiler.read(out)
    assert isinstance(report, profiler.Report)
    assert (report.name, report.units, report.unit) == ("mine_to_profile:work", 4, "row")
    assert report.work.flops == 2 * 8**3
    for what, why in (
        ("mine_to_profile:absent", "mine_to_profile:absent is not there"),
        ("mine_to_profile:nothing", "is int; expected a function"),
        ("no_such_module:work", "no_such_module:work is not there"),
        ("broken_to_profile:work", "broken_to_profile:work is not there"),
        ("mine_to_profile:fails", "mine_to_profile:fails raised KeyError: 'boom'"),
    ):
        found = run("profile", what)
        assert (found.exit_code, why in found.output) == (1, True), found.output


def test_profile_demo_says_where_time_joules_and_money_go(tmp_path: Path) -> None:
    try:
        movielens_100k(download=False)
    except DatasetNotFoundError as error:
        pytest.skip(str(error))
    out = tmp_path / "demo.json"
    found = run("profile", "demo", *QUICK, "--usd-per-hour", "1", "--json", out)
    assert found.exit_code == 0, found.output
    bench = profiler.read(out)
    assert isinstance(bench, profiler.Bench)
    names = ["encode", "pack", "profile", "search", "explain"]
    assert [report.name for report in bench.reports] == names
    assert all(name in found.output for name in names)
    encode = bench.reports[0]
    assert encode.work.flops > 1e9
    assert encode.uncounted == {}
    shares = [
        float(word[:-1])
        for line in found.output.splitlines()
        if line.split()[:1] and line.split()[0] in names
        for word in line.split()
        if word.endswith("%")
    ]
    assert sum(shares) == pytest.approx(100, abs=0.5)


def test_predict_ranks_gpus_and_labels_what_is_modelled() -> None:
    found = run(
        "predict", *SEARCH, "--gpu", "T4", "--gpu", "L4", "--price", "T4=0.53",
        "--price", "L4=0.80", "--by", "money",
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "modelled" in found.output
    assert found.output.index("T4") < found.output.index("L4")  # cheaper by the hour and as fast
    printed = json.loads(run("predict", *SEARCH, "--json").output)
    assert len(printed) == 16
    assert {each["energy"]["quality"] for each in printed} == {"modelled"}


def test_roofs_prints_a_table_or_says_what_is_missing() -> None:
    found = run("roofs")
    if _library.load_error is not None:
        assert (found.exit_code, "measures roofs, but" in found.output) == (1, True)
        return
    assert "GB/s" in found.output
    assert json.loads(run("roofs", "--json").output)["device"] == "cpu"


def test_compare_tells_two_files_apart_or_says_why_not(tmp_path: Path) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in paths:
        assert run("profile", *SEARCH, *QUICK, "--json", path).exit_code == 0
    found = run("compare", *paths)
    assert found.exit_code == 0, found.output
    assert found.output.startswith("cosine_topk B=8 N=2000 d=32 k=5: ")
    first = json.loads(paths[0].read_text())
    for path, median in zip(paths, (0.001, 0.002), strict=True):
        times = first["time"] | dict.fromkeys(("median", "low", "high"), median)
        quiet = first["environment"] | {"load_average": 0.0}
        path.write_text(json.dumps(first | {"time": times, "environment": quiet}))
    assert "SLOWER" in run("compare", *paths).output


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["profile", "cosine_tpk"], "op is 'cosine_tpk'; expected one of cosine_topk"),
        (["profile", "cosine_topk"], "shape has no 'N'; cosine_topk takes B, N, d, k"),
        (["profile", "cosine_topk", "B=x"], "size is 'B=x'; expected NAME=INTEGER"),
        (["profile", *SEARCH, "--gpu", "H10"], "nearest: H100-PCIe, H100-SXM"),
        (["profile", *SEARCH, "--usd-per-hour", "-1"], "usd_per_hour is -1.0"),
        (["profile", *SEARCH, "--pue", "0.5"], "pue is 0.5; expected at least 1"),
        (["profile", *SEARCH, "--grid", "FRX"], "grid is 'FRX'; there is no such row"),
        (["profile", *SEARCH, "--price", "T4"], "--price is 'T4'; expected GPU=USD"),
        (["profile", *SEARCH, "--gpu", "T4", "--price", "T4=-1"], "prices has -1.0 for T4"),
        (["profile", *SEARCH, "--price", "T4=1"], "prices has T4, which is none of the GPUs asked"),
        (["profile", *SEARCH, "B=9"], "size B is given twice: 8 and 9"),
        (["profile", "cosine_topk", "B=\u00b2"], "expected NAME=INTEGER"),
        (["profile", "demo", "B=3"], "demo takes no sizes"),
        (["profile", "demo", "--device", "cuda:0"], "demo runs on the CPU"),
        (["profile", "os:getcwd", "--units", "0"], "units is 0.0; expected a positive number"),
        (["profile", *SEARCH, "--energy-window", "0"], "energy_window is 0.0"),
        (["profile", *SEARCH, "--json", "report.txt"], "--json is report.txt; expected a name"),
        (["profile", *SEARCH, "--json", "nowhere/a.json"], "but there is no folder nowhere"),
        (["profile", *SEARCH, "--units", "3"], "--units and --unit are for module:function"),
        (["predict", *SEARCH, "--by", "money", "--gpu", "T4"], "no USD an hour for T4"),
        (["compare", "a.json"], "files are 1; expected two reports"),
        (["compare", "a.json", "b.json"], "there is no file"),
        (["roofs", "--device", "tpu"], "device is 'tpu'; expected 'cpu'"),
    ],
)
def test_what_cannot_be_is_one_sentence(arguments: list[str], why: str) -> None:
    found = run(*arguments)
    assert found.exit_code == 1, found.output
    assert why in found.output
    assert found.output.count("\n") == 1


def test_files_without_work_in_common_are_refused(tmp_path: Path) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, k in zip(paths, (5, 6), strict=True):
        run("profile", *SEARCH[:-1], f"k={k}", *QUICK, "--json", path)
    assert "have no work in common" in run("compare", *paths).output


def test_the_command_needs_no_torch_to_say_what_it_can() -> None:
    code = "import sys; from llmrec_kernels.cli import main; sys.argv = ['x', '--help']; main()"
    environment = os.environ | {"COLUMNS": "200"}
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    for verb in ("demo", "info", "recommend", "profile", "roofs", "predict", "compare"):
        assert verb in found.stdout, found.stderr
