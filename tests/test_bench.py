"""The comparison that ratios are quoted from runs, and finds what the peers are known to find."""

import importlib
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from llmrec_kernels import _library

ROOT = Path(__file__).parent.parent
EXACT = {"llmrec", "llmrec-reference", "faiss-flat", "torch-float32", "usearch-exact", "numpy"}
APPROXIMATE = {"llmrec-fast", "torch-bfloat16", "usearch-int8", "hnswlib"}


def compare(*arguments):
    return subprocess.run(
        [sys.executable, "bench/compare.py", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "report.json"
    result = compare("tiny", "--seconds", 0, "--json", path)
    assert result.returncode == 0, result.stderr
    return json.loads(path.read_text()), result.stdout


def test_every_peer_takes_part_or_is_left_out_by_name(run):
    report, printed = run
    (cell,) = report["cells"]
    assert set(cell["peers"]) | set(cell["left_out"]) == EXACT | APPROXIMATE
    for name, why in cell["left_out"].items():
        assert "not installed" in why
        assert f"not {name}: {why}" in printed


def test_exact_peers_find_the_same_items(run):
    report, _ = run
    for name, row in report["cells"][0]["peers"].items():
        assert row["exact"] == (name in EXACT)
        assert row["recall"] == 1 if row["exact"] else 0.5 < row["recall"] <= 1, name


def test_a_ratio_is_the_median_over_rounds_of_their_time_to_ours(run):
    report, _ = run
    peers = report["cells"][0]["peers"]
    ours = peers["llmrec"]["turns"]
    for name, row in peers.items():
        assert len(row["turns"]) >= 3, name
        assert row["seconds"]["median"] == pytest.approx(statistics.median(row["turns"].values()))
        ratios = [seconds / ours[number] for number, seconds in row["turns"].items()]
        assert row["ratio"]["median"] == pytest.approx(statistics.median(ratios)), name
        for spread in (row["seconds"], row["ratio"]):
            assert 0 < spread["low"] <= spread["median"] <= spread["high"], name


def test_our_time_is_a_share_of_a_measured_roof(run):
    report, printed = run
    roof = report["cells"][0]["roof"]
    if _library.load_error is not None:
        assert _library.load_error in roof
        return
    # A machine reads more than 100 MB, and multiplies more than 100 M times, in a second.
    assert roof["bytes_per_second"] > 1e8
    assert roof["products_per_second"] > 1e8
    assert 0 < roof["share"] == max(roof["bytes_share"], roof["products_share"]) < 1.5
    assert "roof: codes at" in printed


def test_a_name_that_is_no_cell_or_peer_is_refused_with_the_names():
    assert "there is no cell 'huge'; there are headline-1," in compare("huge").stderr
    assert "no peer 'annoy'; there are llmrec," in compare("tiny", "--peers", "annoy").stderr


def test_the_peak_of_avx2_is_that_of_the_better_instructions_there(monkeypatch):
    roofs = importlib.import_module("llmrec_kernels.profiler.roofs")
    rates = {("avx2", True): 3e9, ("avx2_vnni", True): 5e9, ("avx512", True): 9e9}

    def operations(level, kind, everyone):
        assert roofs.KINDS[kind] == "int8"
        if (roofs.LEVELS[level], everyone) not in rates:
            raise ValueError("there is no such level here")
        return rates[roofs.LEVELS[level], everyone]

    monkeypatch.setattr(roofs, "_operations", operations)
    assert roofs.int8_peak("avx2") == 5e9
    assert roofs.int8_peak("avx512") == 9e9
    del rates["avx2_vnni", True]
    assert roofs.int8_peak("avx2") == 3e9


def test_lookups_are_compared_with_peers_that_find_nearly_the_same(tmp_path):
    path = tmp_path / "report.json"
    result = compare("tiny-*", "--seconds", 0, "--json", path)
    assert result.returncode == 0, result.stderr
    cells = {cell["cell"]["name"]: cell for cell in json.loads(path.read_text())["cells"]}
    for job in ("float32", "int8", "int4"):
        bags = cells[f"tiny-bags, {job}"]
        assert set(bags["peers"]) | set(bags["left_out"]) >= {"llmrec", "torch"}
        assert all(row["difference"] < 0.02 for row in bags["peers"].values())
        assert f"tiny-bags, {job}" in result.stdout
    for job in ("float32", "int8", "float32, the 10 best", "int8, the 10 best"):
        peers = cells[f"tiny-candidates, {job}"]["peers"]
        assert peers["torch"]["difference"] < (0.02 if "int8" in job else 1e-6)
    for job in ("int8", "int4", "fp8_e4m3", "float16", "bfloat16"):
        assert cells[f"tiny-quantize, {job}"]["peers"]["copy"]["ratio"]["median"] > 0
