"""`llmrec-kernels bench --compare` shows runs of many machines in one table, each by its name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarks_roofs import keep_high_roofs
from click.testing import Result
from typer.testing import CliRunner

from llmrec_kernels.benchmarks.cells import CELLS, tiny
from llmrec_kernels.benchmarks.merge import merge
from llmrec_kernels.benchmarks.run import Run
from llmrec_kernels.cli import app
from llmrec_kernels.profiler import summary

Write = Callable[..., Path]
GPU = {
    "name": "NVIDIA Some GPU", "uuid": None, "compute_capability": "9.0", "memory_bytes": 8 << 30,
    "driver": None, "sm_mhz": None, "memory_mhz": None, "celsius": None, "mig": None,
    "shared": None,
}  # fmt: skip


def compare(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["bench", "--compare", *map(str, arguments)])


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A real run of two cells."""
    path = tmp_path_factory.mktemp("run") / "run.json"
    with pytest.MonkeyPatch.context() as patch:
        keep_high_roofs(tmp_path_factory.mktemp("cache"), patch)
        run = Run(path, "cpu", {"min_time": 0.01, "energy_window": 0.01})
        run.over([tiny(CELLS["k-10"]), tiny(CELLS["pack"])])
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.fixture
def written(measured: dict[str, Any], tmp_path: Path) -> Write:
    """The run as another machine, or another day, would have written it."""

    def write(
        name: str, created: str = "", gpu: Any = None, environment: Any = (), **changes: Any
    ) -> Path:
        run = json.loads(json.dumps(measured)) | changes
        for each in (run, *run["reports"]):
            each["environment"] |= dict(environment)
            if gpu is not None:
                each["environment"]["gpu"] = gpu
                each["device"] = "cuda:0"
        run.pop("device", None)
        if created:
            run["environment"]["created"] = created
        path = tmp_path / name
        path.write_text(json.dumps(run))
        return path

    return write


def machines(table: str) -> dict[str, list[str]]:
    """The machines of each cell: lines of a cell are further in."""
    found: dict[str, list[str]] = {}
    for line in table.splitlines()[1:]:
        if re.match(r"\S.*, hot caches$", line):
            found[line.removesuffix(", hot caches")] = []
        elif found and line.startswith("  "):
            found[list(found)[-1]].append(re.split(r"\s{2,}", line.strip())[0])
    return found


def test_each_machine_has_a_line_in_each_cell(written: Write) -> None:
    first = written("a.json", environment={"cpu": "Small CPU", "fingerprint": "a"})
    second = written("b.json", environment={"cpu": "Large CPU", "fingerprint": "b"})
    third = written("c.json", gpu=GPU, environment={"fingerprint": "c"})
    result = compare(first, second)
    assert result.exit_code == 0, result.output
    found = machines(result.stdout)
    assert list(found) == ["k-10: llmrec", "k-10: torch", "pack: llmrec", "pack: torch"]
    assert list(found.values()) == 4 * [["Small CPU, cpu", "Large CPU, cpu"]]
    names = ["Large CPU, cpu", "NVIDIA Some GPU, cuda:0", "Small CPU, cpu"]
    assert list(machines(compare(second, third, first).stdout).values()) == 4 * [names]


def test_two_runs_of_a_machine_are_told_apart_by_their_dates(written: Write) -> None:
    days = ("2026-11-23T04:00:23+00:00", "2026-11-24T05:01:00+00:00")
    old = written("old.json", days[0], environment={"cpu": "Small CPU"})
    new = written("new.json", days[1], environment={"cpu": "Small CPU"})
    other = written("other.json", days[1], environment={"cpu": "Large CPU", "fingerprint": "b"})
    names = [
        "Small CPU (2026-11-23 04:00:23), cpu", "Small CPU (2026-11-24 05:01:00), cpu",
        "Large CPU, cpu",
    ]  # fmt: skip
    assert list(machines(compare(old, new, other).stdout).values()) == 4 * [names]


def test_two_runs_of_a_gpu_are_told_apart_by_their_dates(written: Write) -> None:
    old = written("old.json", "2026-11-23T04:00:23+00:00", gpu=GPU)
    new = written("new.json", "2026-11-24T05:01:00+00:00", gpu=GPU)
    names = [
        "NVIDIA Some GPU (2026-11-23 04:00:23), cuda:0",
        "NVIDIA Some GPU (2026-11-24 05:01:00), cuda:0",
    ]
    found = merge([old, new]).reports
    assert summary.machines(found) == [name for name in names for _ in range(4)]


def test_the_page_has_all_machines(written: Write, tmp_path: Path) -> None:
    first = written("a.json", environment={"cpu": "Small CPU", "fingerprint": "a"})
    second = written("b.json", environment={"cpu": "Large CPU", "fingerprint": "b"})
    page = tmp_path / "page.html"
    assert compare(first, second, "--html", page).exit_code == 0
    for name in ("Small CPU", "Large CPU", "k-10: llmrec", "pack: torch"):
        assert name in page.read_text()


def test_what_is_missing_from_a_run_is_told(written: Write) -> None:
    why = {"dim-64: torch": "it takes 9 GB of memory"}
    whole, broken = written("a.json"), written("b.json", complete=False, left_out=why)
    told = [line for line in compare(whole, broken).stdout.splitlines() if ".json" in line]
    assert told == [
        f"{broken} broke off: not all of its cells were run",
        f"{broken}: not dim-64: torch: it takes 9 GB of memory",
    ]


def test_a_single_report_is_a_run_of_one(
    written: Write, measured: dict[str, Any], tmp_path: Path
) -> None:
    report = measured["reports"][0]
    report = report | {"environment": report["environment"] | {"cpu": "Small CPU"}}
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    found = machines(compare(path, written("a.json", environment={"cpu": "Large CPU"})).stdout)
    assert found["k-10: llmrec"] == ["Small CPU, cpu", "Large CPU, cpu"]
    assert found["pack: llmrec"] == ["Large CPU, cpu"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "there is no file"),
        ("not JSON", "is not JSON"),
        ('{"a": 1}', "is no report of llmrec_kernels"),
        ('{"schema_version": 99, "reports": []}', "has schema_version 99"),
        ('{"schema_version": 1, "reports": []}', "is no whole report"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_sentence(
    content: str | None, why: str, written: Write, tmp_path: Path
) -> None:
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_text(content)
    result = compare(written("a.json"), path)
    assert result.exit_code == 1
    assert why in result.stderr
    assert str(path) in result.stderr
    assert "Traceback" not in result.output


def test_what_belongs_to_a_run_is_refused(written: Write) -> None:
    for option in ("--quick", "--list", "--device=cpu", "--out=b.json", "--grid=FRA"):
        result = compare(written("a.json"), option)
        assert result.exit_code == 1
        assert "--compare takes files of runs and --html, and nothing else" in result.stderr
    result = compare()
    assert result.exit_code == 1
    assert "--compare has no files; expected runs, such as a.json b.json" in result.stderr
