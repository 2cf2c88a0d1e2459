"""`llmrec-kernels bench` runs the cells that are named, and keeps whatever it measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from benchmarks_roofs import keep_high_roofs
from click.testing import Result
from typer.testing import CliRunner

from llmrec_kernels import QuantizedTable, info
from llmrec_kernels.benchmarks import contests, memory
from llmrec_kernels.benchmarks.cells import ALL, CELLS, DEFAULT, TopkCell, chosen, tiny
from llmrec_kernels.benchmarks.contests import contest
from llmrec_kernels.benchmarks.run import SPARE, Run
from llmrec_kernels.cli import app
from llmrec_kernels.cli.bench import QUICK
from llmrec_kernels.profiler import Bench, files

ONE_OF_EACH = ("headline-256", "candidates", "pack", "bags-hot-64", "quantize")
NAMES = [
    "headline-256: llmrec", "headline-256: torch",
    "candidates: llmrec float32", "candidates: llmrec int8", "candidates: torch",
    "pack: llmrec", "pack: torch",
    "bags-hot-64: llmrec float32", "bags-hot-64: llmrec int8", "bags-hot-64: llmrec int4",
    "bags-hot-64: torch",
    "quantize: llmrec int8", "quantize: llmrec int4", "quantize: llmrec fp8_e4m3",
    "quantize: llmrec float16", "quantize: llmrec bfloat16", "quantize: torch",
]  # fmt: skip
OPTIONS = {"min_time": 0.01, "energy_window": 0.01}


def bench(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["bench", *(str(argument) for argument in arguments)])


@pytest.fixture(autouse=True, scope="module")
def roofs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        keep_high_roofs(tmp_path_factory.mktemp("cache"), patch)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A whole run of one cell of each kind."""
    path = tmp_path_factory.mktemp("run") / "run.json"
    result = bench(
        "--quick", "--device", "cpu", "--out", path, "--usd-per-hour", 2, *ONE_OF_EACH,
        "--html", path.with_suffix(".html"),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return path, result


def reports(path: Path) -> Bench:
    found = files.read(path)
    assert isinstance(found, Bench)
    return found


# ---- a run ----


def test_each_kind_of_cell_has_our_operator_in_each_storage_and_torch(
    run: tuple[Path, Result],
) -> None:
    found = reports(run[0])
    assert [report.name for report in found.reports] == [f"tiny {name}" for name in NAMES]
    assert found.complete
    assert found.left_out == {}


def test_a_run_is_valid_by_the_published_schema(run: tuple[Path, Result]) -> None:
    found = json.loads(run[0].read_text())
    jsonschema.Draft202012Validator(files.schema()).validate(found)
    assert found["environment"] == found["reports"][0]["environment"]


def test_work_is_that_of_the_tiny_sizes(run: tuple[Path, Result]) -> None:
    found = {report.name.removeprefix("tiny "): report for report in reports(run[0]).reports}
    for who in ("llmrec", "torch"):
        report = found[f"headline-256: {who}"]
        assert report.work.flops == 2 * 4 * 500 * 48
        assert (report.units, report.unit) == (4, "query")
    assert found["candidates: torch"].work.flops == 2 * 5 * 20 * 48
    assert (found["pack: torch"].units, found["pack: torch"].unit) == (500, "item")
    for storage, row in (("float32", 4 * 8), ("int8", 8 + 4)):
        report = found[f"bags-hot-64: llmrec {storage}"]
        assert [op.rows for op in report.ops if op.name == "llmrec.embedding_bag"] == [20 * 4]
        assert report.work.bytes_read >= 80 * row
        assert (report.units, report.unit) == (20, "bag")
    read = {name: report.work.bytes_read for name, report in found.items()}
    for cell in ("bags-hot-64", "candidates"):  # rows of a quarter of the bytes, and their ids
        assert read[f"{cell}: llmrec int8"] < 0.7 * read[f"{cell}: llmrec float32"]
    assert (found["quantize: torch"].units, found["quantize: torch"].unit) == (300, "row")


def test_each_report_says_its_share_of_the_roof(run: tuple[Path, Result]) -> None:
    for report in reports(run[0]).reports:
        assert report.roofline is not None
        assert 0 < report.roofline.share < 1
        assert f"{report.name}: " in run[1].stderr
    assert run[1].stderr.count("% of the roof") == len(NAMES)


def test_the_end_is_one_table_and_a_page(run: tuple[Path, Result]) -> None:
    path, result = run
    page = path.with_suffix(".html").read_text()
    for name in NAMES:
        assert f"tiny {name}" in result.stdout
        assert f"tiny {name}" in page
    assert f"written: {path}" in result.stdout


def test_prices_reach_the_costs(run: tuple[Path, Result]) -> None:
    report = reports(run[0]).reports[0]
    seconds = report.time.median / report.units
    assert report.costs[0].instance_money.value == pytest.approx(seconds / 3600 * 2)


def test_a_quick_run_says_that_its_figures_mean_nothing(run: tuple[Path, Result]) -> None:
    assert QUICK in run[1].stderr
    assert all(report.warnings[0] == QUICK for report in reports(run[0]).reports)


def test_without_a_name_the_file_has_that_of_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bench("--quick", "--device", "cpu", "pack").exit_code == 0
    words = "".join(c if c.isalnum() else " " for c in info.cpu_model().lower()).split()
    assert [path.name for path in tmp_path.iterdir()] == [f"bench-{'-'.join(words)}.json"]


# ---- what cannot run ----


def test_who_does_not_fit_in_memory_is_left_out_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    # The inputs are 97 kB, the scores for torch 11 kB, and a pack 139 kB.
    monkeypatch.setattr(memory, "free", lambda device: SPARE + 100_000)
    assert bench("--quick", "--device", "cpu", "--out", path, "k-10").exit_code == 0
    found = reports(path)
    assert [report.name for report in found.reports] == ["tiny k-10: torch"]
    why = "it takes 139 kB of memory beside 1.07 GB that stay free, and cpu has 1.07 GB"
    assert found.left_out == {"tiny k-10: llmrec": why}
    assert found.complete


def test_where_nothing_fits_there_is_no_file_and_the_reasons_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    monkeypatch.setattr(memory, "free", lambda device: 1000)
    result = bench("--quick", "--device", "cpu", "--out", path, "pack", "quantize")
    assert result.exit_code == 1
    assert "nothing was measured" in result.stderr
    assert "not tiny pack: it takes 96.0 kB of memory" in result.stderr
    assert "not tiny quantize: " in result.stderr
    assert not path.exists()


def test_where_the_system_does_not_tell_its_memory_everything_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free", lambda device: None)
    found = Run(tmp_path / "run.json", "cpu", OPTIONS).over([tiny(CELLS["pack"])])
    assert len(found.reports) == 2


def test_who_fails_is_left_out_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no such kernel\nand a long trace")

    path = tmp_path / "run.json"
    monkeypatch.setattr(contests, "cosine_topk", broken)
    result = bench("--quick", "--device", "cpu", "--out", path, "k-10", "pack")
    assert result.exit_code == 0
    found = reports(path)
    assert [report.name for report in found.reports] == [
        "tiny k-10: torch", "tiny pack: llmrec", "tiny pack: torch",
    ]  # fmt: skip
    why = "it failed with RuntimeError: no such kernel"
    assert found.left_out == {"tiny k-10: llmrec": why}
    assert f"not tiny k-10: llmrec: {why}" in result.stdout
    assert found.complete


class Unloadable(TopkCell):
    def load(self) -> Any:
        raise FileNotFoundError("there are no texts")


def test_a_cell_that_cannot_be_loaded_is_left_out(tmp_path: Path) -> None:
    cells = [Unloadable("lost", 1, 10, 4, 2), tiny(CELLS["pack"])]
    found = Run(tmp_path / "run.json", "cpu", OPTIONS).over(cells)
    assert found.left_out == {"lost": "it failed with FileNotFoundError: there are no texts"}
    assert [report.name for report in found.reports] == ["pack: llmrec", "pack: torch"]


def interrupted(*arguments: Any) -> Any:
    raise KeyboardInterrupt


def test_a_run_that_is_stopped_leaves_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    monkeypatch.setattr(contests, "quantize", interrupted)
    result = bench("--quick", "--device", "cpu", "--out", path, "pack", "quantize")
    assert result.exit_code == 130
    assert f"stopped: 2 reports are in {path}" in result.stderr
    found = reports(path)
    assert not found.complete
    assert [report.name for report in found.reports] == ["tiny pack: llmrec", "tiny pack: torch"]


def test_a_run_that_is_stopped_at_once_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contests, "quantize", interrupted)
    result = bench("--quick", "--device", "cpu", "--out", tmp_path / "run.json", "quantize")
    assert result.exit_code == 130
    assert "stopped: nothing was kept" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["huge"], "CELL is 'huge'; no cell has such a name"),
        (["pack", "--out", "run.txt"], "--out is run.txt; expected a name that ends in .json"),
        (["pack", "--out", "no/folder.json"], "but there is no folder no"),
        (
            ["pack", "--html", "page.json"],
            "--html is page.json; expected a name that ends in .html",
        ),
        (["pack", "--device", "tpu"], "device is 'tpu'; expected 'cpu' or 'cuda:<index>'"),
        (["pack", "--grid", "FRE"], "FRE"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(
    arguments: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = bench("--quick", *arguments)
    assert result.exit_code == 1
    assert why in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="reports is empty; expected at least one report"):
        files.bench_of([])


# ---- the cells ----


def test_names_are_told_apart_and_a_star_stands_for_anything() -> None:
    assert len(CELLS) == len(ALL)
    assert [cell.name for cell in chosen(["bags-hot-*", "headline-?"])] == [
        "headline-1", "headline-8", "bags-hot-64", "bags-hot-128", "bags-hot-384",
    ]  # fmt: skip
    assert {cell.name for cell in chosen([])} == set(DEFAULT)
    assert [cell.name for cell in chosen(["pack", "pa*"])] == ["pack"]
    with pytest.raises(ValueError, match="CELL is 'huge'; no cell has such a name"):
        chosen(["pack", "huge"])


def test_the_default_choice_has_each_operator() -> None:
    assert {type(CELLS[name]) for name in DEFAULT} == {type(CELLS[name]) for name in ONE_OF_EACH}


def test_the_list_has_names_and_sizes_and_marks_the_default_choice() -> None:
    lines = bench("--list").stdout.splitlines()
    assert [line[2:].split()[0] for line in lines] == list(CELLS)
    assert "+ headline-256          B=256 N=400,000 d=384 k=100" in lines
    assert "  bags-zipf-128         B=4,096 L=32 V=2,000,000 D=128 zipf" in lines
    assert len([line for line in lines if line.startswith("+")]) == len(DEFAULT)
    assert bench("--list", "pa*").stdout == "+ pack                  N=400,000 d=384\n"


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_all_entrants_of_a_cell_do_the_same(name: str) -> None:
    cell = tiny(CELLS[name])
    inputs = cell.load()
    answers = {each.name: each.prepare(*inputs)() for each in contest(cell).entrants}
    theirs = answers.pop("torch")
    for who, ours in answers.items():
        if name == "headline-256":
            assert torch.equal(ours.ids, theirs.indices)
        elif name == "pack":
            assert torch.equal(ours.rows().data, theirs[0])
        elif isinstance(ours, QuantizedTable):
            assert torch.allclose(ours.dequantize(), theirs, atol=0.4), who
        else:
            exact = who.endswith("float32")
            error = (ours.flatten() - theirs.flatten()).abs().max()
            assert error < (1e-5 if exact else 0.1 * theirs.abs().max()), who


@pytest.mark.parametrize("name", [*ONE_OF_EACH, "bags-zipf-128", "bags-sequential-128"])
def test_a_cell_says_how_many_bytes_its_inputs_are(name: str) -> None:
    cell = tiny(CELLS[name])
    size = sum(tensor.nbytes for tensor in cell.load())
    assert size <= cell.bytes <= 2 * size
