"""The benchmark of a GPU runs to its end without one, so that nothing but a GPU is missing."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from llmrec_kernels import _library, backends
from llmrec_kernels.benchmarks.cells import tiny

ROOT = Path(__file__).parent.parent
BENCH = ROOT / "bench"
PEERS = {
    "topk": {"torch float32", "torch float16", "torch.compile float32", "torch.compile float16",
             "faiss", "cuvs"},
    "bags float32": {"torch", "torch.compile"},
    "bags": {"torch quantized", "fbgemm"},
    "candidates": {"torch gather and einsum", "torch.compile gather and einsum"},
    "pack": {"torch clone and norm"},
}  # fmt: skip
COLUMNS = {"turns", "seconds", "ratio", "call_seconds", "kind", "exact", "agreement"}


def gpu(*arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "bench/gpu.py", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of bench/."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """What a dry run of every cell writes: the JSON and the Markdown."""
    folder = tmp_path_factory.mktemp("gpu")
    done = gpu("--dry-run", "--rounds", 2, "--out", folder)
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
    (data,), (text,) = folder.glob("*.json"), folder.glob("*.md")
    assert str(data) in done.stdout
    return json.loads(data.read_text()), text.read_text()


def test_every_cell_runs_with_every_peer_or_names_the_reason(report: Any, room: Any) -> None:
    found, text = report
    assert found["schema_version"] == 1
    assert found["dry_run"]
    assert found["complete"]
    assert [c["name"] for c in found["cells"]] == [
        cell.name for cell in room("gpu_cells").CELLS for _ in room("gpu").jobs(cell)
    ]
    for cell in found["cells"]:
        kind = "topk" if cell["name"].startswith("filter") else cell["name"].partition("-")[0]
        peers = PEERS.get(f"{kind} {cell['job']}", PEERS.get(kind, set()))
        there = set(cell["contestants"]) | set(cell["left_out"])
        assert there >= peers | {"cpu", "reference"}, cell["name"]
        for name, why in cell["left_out"].items():
            named = ("needs a GPU", "not installed", "extension is not loaded")
            assert any(reason in why for reason in named), (cell["name"], name, why)
        assert not cell["wrong"]
        assert f"{cell['name']}, {cell['job']}" in text


def test_a_ratio_is_that_of_turns_and_a_share_that_of_a_measured_roof(report: Any) -> None:
    found, _ = report
    roofs = found["roofs"]
    bandwidth = max(roofs["read_bytes_per_second"], roofs["copy_bytes_per_second"])
    for cell in found["cells"]:
        assert cell["ours"] == ("cpu" if _library.load_error is None else "reference")
        ours = cell["contestants"][cell["ours"]]
        assert ours["agreement"] == 1
        assert ours["ratio"]["median"] == 1
        for name, row in cell["contestants"].items():
            assert set(row) >= COLUMNS
            assert len(row["turns"]) == 2
            ratios = [row["turns"][turn] / ours["turns"][turn] for turn in row["turns"]]
            assert row["ratio"]["median"] == pytest.approx(sum(ratios) / 2), name
            if row["kind"] == "peer" and row["exact"]:
                assert row["agreement"] > 0.99, (cell["name"], name)
        roof, seconds = ours["roof"], ours["seconds"]["median"]
        assert roof["bytes_share"] == pytest.approx(roof["bytes"] / bandwidth / seconds)
        assert roof["share"] == max(roof["bytes_share"], roof.get("operations_share", 0))


def test_the_markdown_is_made_of_the_json_alone(report: Any, room: Any) -> None:
    found, text = report
    summarise = room("gpu_summary").summarise
    assert summarise(json.loads(json.dumps(found))) == text
    assert "No figure means anything" in text
    assert "- faiss: it needs a GPU, and this is a dry run" in text


def test_what_was_missed_is_named(report: Any, room: Any) -> None:
    found = json.loads(json.dumps(report[0]))
    misses = room("gpu_summary").misses
    (cell,) = (c for c in found["cells"] if c["name"] == "topk-1-d384-k10")
    mine = cell["contestants"][cell["ours"]]
    found["cells"] = [cell]
    mine["roof"]["bytes_share"] = 0.87
    cell["contestants"]["torch float32"]["ratio"] = {"low": 0.4, "median": 0.5, "high": 0.6}
    cell["contestants"]["torch.compile float32"]["ratio"]["median"] = 2.0
    for name in ("torch float16", "torch.compile float16"):
        cell["contestants"][name]["ratio"]["median"] = 2.0
    assert misses(found) == [
        "topk-1-d384-k10, float32: 87% of memory bandwidth, of 88%",
        "topk-1-d384-k10, float32: torch float32 0.50 (0.40 to 0.60) of our time",
    ]
    mine["roof"]["bytes_share"] = 0.88
    cell["contestants"]["torch float32"]["ratio"]["median"] = 1.0
    assert misses(found) == []
    cell |= {"wrong": ["cuda"], "ours": None}
    assert misses(found) == [
        "topk-1-d384-k10, float32: cuda is wrong or failed",
        "topk-1-d384-k10, float32: none of our backends ran",
    ]


def test_a_target_is_judged_by_the_lower_of_a_roof_and_its_datasheet(room: Any) -> None:
    misses = room("gpu_summary").misses
    roof = {"operations_share": 0.9, "sheet_operations_share": 0.3, "bytes_share": 0.1}
    mine = {"kind": "ours", "roof": roof}
    cell = {"name": "topk-4096-d384-k10", "job": "float32", "wrong": [], "ours": "cuda",
            "contestants": {"cuda": mine}}  # fmt: skip
    title = "topk-4096-d384-k10, float32"
    assert misses({"cells": [cell]}) == [
        f"{title}: 30% of the peak of products by the datasheet, of 55%"
    ]
    roof |= {"operations_share": 0.5, "sheet_operations_share": 0.6}
    assert misses({"cells": [cell]}) == [f"{title}: 50% of the peak of products, of 55%"]
    roof["operations_share"] = 0.55
    assert misses({"cells": [cell]}) == []
    cell["name"] = "topk-1-d384-k10"
    roof |= {"bytes_share": 0.95, "sheet_bytes_share": 0.8}
    (told,) = misses({"cells": [cell]})
    assert told.endswith(": 80% of memory bandwidth by the datasheet, of 88%")


def test_a_measured_roof_below_half_of_the_datasheets_is_flagged(report: Any, room: Any) -> None:
    found = json.loads(json.dumps(report[0]))
    summarise = room("gpu_summary").summarise
    found["roofs"] = {"read_bytes_per_second": 60.0, "copy_bytes_per_second": 49.0,
                      "int8_operations_per_second": 9.0, "float16_operations_per_second": 5.0,
                      "float32_operations_per_second": "not known: why"}  # fmt: skip
    found["sheet"] = {"name": "H100-SXM", "bytes_per_second": 100.0,
                      "float16_operations_per_second": 10.0,
                      "int8_operations_per_second": 20.0}  # fmt: skip
    assert [
        line for line in summarise(found).splitlines() if "of the datasheet's were" in line
    ] == [
        "- **copy bytes per second: 49% of the datasheet's were measured.**",
        "- **int8 operations per second: 45% of the datasheet's were measured.**",
    ]
    found["sheet"] = "bench/gpu_model.py has no datasheet of it"
    assert "of the datasheet's were" not in summarise(found)


def test_who_is_wrong_or_fails_is_not_timed(room: Any) -> None:
    bench, contests = room("gpu"), room("gpu_contests")

    def fails() -> Any:
        raise RuntimeError("no such kernel\nand more")

    def left_out() -> Any:
        raise contests.LeftOut("it is not here")

    held = contests.Contest(
        ours={"cuda": lambda: lambda: 2, "triton": lambda: lambda: 1, "nvrtc": fails},
        peers={"one": lambda: lambda: 3, "two": fails, "three": left_out},
        agreement=lambda answer: 1 / answer,
        right=lambda answer: answer == 1,
    )
    report: dict[str, Any] = {"contestants": {}, "left_out": {}, "wrong": []}
    assert set(bench.admit(held, room("gpu_machine").DryRun(), report)) == {"triton", "one"}
    assert report["wrong"] == ["cuda", "nvrtc"]
    assert report["left_out"] == {
        "cuda": "it is wrong: 50.00% as the reference",
        "nvrtc": "it failed: RuntimeError: no such kernel",
        "two": "it failed: RuntimeError: no such kernel",
        "three": "it is not here",
    }


class Fails:
    """A call that works so many times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self) -> int:
        self.left -= 1
        if self.left < 0:
            raise torch.OutOfMemoryError("no room\nand more")
        return 1


@pytest.mark.parametrize("times", [1, 2, 3, 5])  # as it warms up, in a turn, or after it
@pytest.mark.parametrize("who", [{"one"}, {"cuda"}, {"cuda", "triton"}])
def test_who_fails_in_a_turn_is_left_out_and_the_others_stay(
    room: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, who: set[str], times: int
) -> None:
    bench, contests = room("gpu"), room("gpu_contests")

    def prepares(*names: str) -> dict[str, Any]:
        calls = {name: Fails(times if name in who else 99) for name in names}
        return {name: lambda call=call: call for name, call in calls.items()}

    held = contests.Contest(
        prepares("cuda", "triton"), prepares("one", "two"), lambda _: 1.0, lambda _: True
    )
    monkeypatch.setattr(bench, "contest", lambda *_: held)
    machine = room("gpu_machine").DryRun()
    monkeypatch.setattr(machine, "calls_in_turn", lambda call, cold: call())
    found = bench.run(bench.chosen(["pack"]), machine, 2, tmp_path)
    (cell,) = found["cells"]
    stay = {"cuda", "triton", "one", "two"} - who
    assert set(cell["contestants"]) == stay
    assert all(len(cell["contestants"][name]["turns"]) == 2 for name in stay)
    assert cell["left_out"] == dict.fromkeys(who, "it failed: OutOfMemoryError: no room")
    assert set(cell["wrong"]) == who - {"one"}
    ours = min(stay & {"cuda", "triton"}, default=None)
    assert cell["ours"] == ours
    if ours is not None:
        assert cell["contestants"][ours]["ratio"]["median"] == 1
    (text,) = tmp_path.glob("*.md")
    for name in who:
        assert f"- {name}: it failed: OutOfMemoryError: no room (pack, float32)" in text.read_text()
        assert (f"pack, float32: {name} is wrong or failed" in text.read_text()) == (name != "one")


def test_each_prepares_with_no_memory_in_the_cache_of_torch(
    room: Any, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: happened.append("empty"))

    def prepares(name: str) -> Any:
        return lambda: happened.append(name) or (lambda: 1)

    held = room("gpu_contests").Contest(
        {"cuda": prepares("cuda")}, {"one": prepares("one")}, lambda _: 1.0, lambda _: True
    )
    report: dict[str, Any] = {"contestants": {}, "left_out": {}, "wrong": []}
    assert len(room("gpu").admit(held, machine, report)) == 2
    assert happened == ["empty", "cuda", "empty", "one"]


def test_a_cell_that_fails_does_not_stop_the_others(
    room: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = room("gpu")

    def fails(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(bench, "packing", fails)
    cells = bench.chosen(["pack", "bags-cold-64"])
    report = bench.run(cells, room("gpu_machine").DryRun(), 1, tmp_path)
    assert [cell["ours"] is None for cell in report["cells"]] == [True, False, False, False]
    why = "- everybody: the cell failed: OutOfMemoryError: no room (pack, float32)"
    (text,) = tmp_path.glob("*.md")
    assert why in text.read_text()


def test_a_cell_shrinks_to_the_memory_that_there_is(room: Any) -> None:
    cells = room("gpu_cells")
    cell = next(cell for cell in cells.CELLS if cell.name == "topk-1-d1536-k10")
    assert cells.fitting(cell, 80 * 10**9) == (cell, None)
    smaller, why = cells.fitting(cell, 24 * 10**9)
    assert (smaller.items, smaller.dim) == (500_000, 1536)
    assert why == "500,000 items for 1,000,000: there were 24 GB"


def test_a_wrong_name_and_a_missing_gpu_are_told_in_a_sentence(room: Any) -> None:
    main = room("gpu").main
    with pytest.raises(SystemExit, match="there is no cell 'huge'; there are topk-1-d128-k10,"):
        main(["--dry-run", "huge"])
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit, match="torch finds no CUDA device, and this measures one"):
            main([])


# ---- what only a GPU would run, with a stand-in for each library ----


class Event:
    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        """Nothing to note."""

    def elapsed_time(self, end: Event) -> float:
        return 2.0


class NVMLError(Exception):
    """As pynvml's."""


@pytest.fixture
def machine(room: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class for GPUs, over a CPU that says it is one."""
    properties = SimpleNamespace(
        L2_cache_size=1_000, major=9, minor=0, multi_processor_count=132, total_memory=10**11,
        uuid="1234",
    )  # fmt: skip
    stand_ins = {
        "is_available": lambda: True,
        "get_device_name": lambda: "NVIDIA H100 80GB HBM3",
        "current_device": lambda: 0,
        "get_device_properties": lambda index: properties,
        "_sleep": lambda cycles: None,
        "Event": Event,
        "synchronize": lambda: None,
        "empty_cache": lambda: None,
        "mem_get_info": lambda: (10**11, 10**11),
        "current_stream": lambda: SimpleNamespace(cuda_stream=7),
    }
    for name, stand_in in stand_ins.items():
        assert hasattr(torch.cuda, name), name
        monkeypatch.setattr(torch.cuda, name, stand_in)
    kind = room("gpu_machine").Gpu
    small = {"device": "cpu", "roof_bytes": 4_096, "roof_edge": 32}
    return type("StandIn", (kind,), small)()


def test_a_gpu_is_timed_by_events_and_says_what_it_is(
    machine: Any, room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = SimpleNamespace(
        NVML_CLOCK_SM=1, NVML_CLOCK_MEM=2, NVML_TEMPERATURE_GPU=0, NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlSystemGetDriverVersion=lambda: b"570.1",
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetClockInfo=lambda gpu, kind: 1000 + kind,
        nvmlDeviceGetTemperature=lambda gpu, kind: 40,
        nvmlDeviceGetPowerUsage=lambda gpu: 90_000,
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda gpu: 0,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert machine.times(lambda: None, 3, True) == [0.002] * 3
    assert machine.calls_in_turn(lambda: None, False) == 10
    assert machine.environment()["driver"] == "570.1"
    assert machine.clocks() == {
        "sm_mhz": 1001, "memory_mhz": 1002, "celsius": 40, "watts": 90.0, "throttle_reasons": 0
    }  # fmt: skip
    assert machine.sheet()["name"] == "H100-SXM"
    machine.name = "NVIDIA A100-PCIE-40GB"  # no A10
    assert machine.sheet() == "bench/gpu_model.py has no datasheet of NVIDIA A100-PCIE-40GB"
    assert set(room("gpu_machine").SHEETS) == set(room("gpu_model").GPUS)
    assert machine.roofs()["read_bytes_per_second"] == pytest.approx(4_096 / 0.002)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "pip install nvidia-ml-py" in machine.clocks()


def test_a_library_that_nvml_does_not_find_is_told_and_stops_nothing(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise NVMLError("NVML Shared Library Not Found\nand more")

    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(nvmlInit=fails, NVMLError=NVMLError))
    why = "not known: NVMLError: NVML Shared Library Not Found"
    assert machine.environment()["driver"] == why
    assert machine.clocks() == why


def test_the_int8_roof_has_its_right_operand_by_columns(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    strides = []

    def multiply(left: torch.Tensor, right: torch.Tensor) -> None:
        strides.append((left.stride(), right.stride()))

    monkeypatch.setattr(torch, "_int_mm", multiply)
    assert machine.roofs()["int8_operations_per_second"] == pytest.approx(2 * 32**3 / 0.002)
    assert set(strides) == {((32, 1), (1, 32))}


def test_a_whole_run_of_the_class_for_gpus(
    machine: Any, room: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a tensor of the CPU none of our GPU backends can run, and each says so."""
    cells = [tiny(cell) for cell in room("gpu").chosen(["bags-cold-64"])]
    found = room("gpu").run(cells, machine, 1, tmp_path)
    for cell in found["cells"]:
        assert cell["ours"] is None
        assert set(cell["left_out"]) >= {"cuda", "triton", "nvrtc"}
    assert (tmp_path / "nvidia-h100-80gb-hbm3.md").exists()


def module(name: str, **contents: Any) -> ModuleType:
    made = ModuleType(name)
    made.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(made).update(contents)
    return made


def test_faiss_and_cuvs_are_called_as_they_are_documented(
    room: Any, monkeypatch: pytest.MonkeyPatch, machine: Any
) -> None:
    queries, items = torch.randn(3, 8), torch.randn(70, 8)
    on_gpu = SimpleNamespace(device="cuda")
    want = (queries @ items.T).topk(5).indices

    class Index:
        def __init__(self, resources: Any, dim: int) -> None:
            assert (resources, dim) == ("resources", 8)

        def add(self, rows: torch.Tensor) -> None:
            self.rows = rows

        def search(self, asked: torch.Tensor, k: int) -> Any:
            return (asked @ self.rows.T).topk(k)

    faiss = module("faiss", GpuIndexFlatIP=Index, StandardGpuResources=lambda: "resources")
    faiss.contrib = module("faiss.contrib")  # type: ignore[attr-defined]
    in_and_out = module("faiss.contrib.torch_utils")
    for fake in (faiss, faiss.contrib, in_and_out):
        monkeypatch.setitem(sys.modules, fake.__name__, fake)
    topk, cells = room("gpu_topk"), room("gpu_cells")
    cell = cells.TopkCell("", 3, 70, 8, 5)
    assert torch.equal(topk.faiss_flat(queries, items, 5, cell, on_gpu)(), want)

    def search(index: Any, asked: Any, k: int, **options: Any) -> None:
        scores = asked @ index.T
        if options["prefilter"] is not None:
            words = options["prefilter"].view(torch.int32)
            scores[:, (words[torch.arange(70) // 32] >> torch.arange(70) % 32) & 1 == 0] = -9e9
        options["neighbors"].copy_(scores.topk(k).indices)

    brute_force = module("brute_force", build=lambda rows, metric, resources: rows, search=search)
    filters = module("filters", from_bitset=lambda words: words, from_bitmap=None)
    resources = lambda stream: SimpleNamespace(sync=lambda: None)  # noqa: E731
    for name, fake in (
        ("cuvs", module("cuvs")),
        ("cuvs.common", module("cuvs.common", Resources=resources)),
        ("cuvs.neighbors", module("", brute_force=brute_force, filters=filters)),
    ):
        monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.setattr(on_gpu, "device", "cpu")
    monkeypatch.setattr(topk, "no_gpu", lambda machine: None)
    assert torch.equal(topk.cuvs_brute_force(queries, items, 5, {}, on_gpu)(), want)
    mask = torch.arange(70) % 3 == 1
    found = topk.cuvs_brute_force(queries, items, 5, {"allow": mask}, on_gpu)()
    kept = (queries @ items.T).masked_fill(~mask, -torch.inf).topk(5).indices
    assert torch.equal(found, kept)


def test_the_backends_of_a_gpu_are_those_of_the_package(room: Any) -> None:
    names = [backend.name for backend in backends.BACKENDS]
    machines = room("gpu_machine")
    assert [*machines.Gpu.backends, *machines.DryRun.backends] == names
