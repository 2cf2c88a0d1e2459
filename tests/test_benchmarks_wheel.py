"""An installed wheel has what `llmrec-kernels bench` needs: no checkout is around it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BENCH = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")]
import llmrec_kernels
from llmrec_kernels.cli import main
print(llmrec_kernels.__file__)
main()
"""


def python(*arguments: str | Path, **options: str | Path) -> str:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    cwd = options.pop("cwd")
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True,
        env=variables | {name: str(value) for name, value in options.items()}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a wheel without extension, built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source, target = folder / "source", folder / "installed"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    compiled = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    shutil.copytree(ROOT / "llmrec_kernels", source / "llmrec_kernels", ignore=compiled)
    pip = ("-m", "pip", "--disable-pip-version-check", "-q")
    python(
        *pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source,
        cwd=folder, LLMREC_EXTENSION="0",
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    python(*pip, "install", "--no-deps", "--target", target, wheel, cwd=folder)
    return target


def test_a_wheel_runs_a_cell_outside_of_the_checkout(installed: Path, tmp_path: Path) -> None:
    printed = python(
        "-c", BENCH, "bench", "--quick", "--out", "run.json", "--html", "page.html",
        "--device", "cpu", "--grid", "FRA", "topk-1-d128-k10",
        cwd=tmp_path, PYTHONPATH=installed, LLMREC_CACHE=tmp_path / "cache", LLMREC_EXTENSION="0",
    )  # fmt: skip
    assert Path(printed.splitlines()[0]).is_relative_to(installed)
    found = json.loads((tmp_path / "run.json").read_text())
    assert found["complete"]
    assert [report["name"] for report in found["reports"]] == [
        "tiny topk-1-d128-k10: llmrec", "tiny topk-1-d128-k10: torch",
    ]  # fmt: skip
    assert found["environment"]["commit"] is None
    assert "tiny topk-1-d128-k10: torch" in (tmp_path / "page.html").read_text()
