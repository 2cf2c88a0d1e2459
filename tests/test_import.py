"""Importing the package costs little and touches nothing; a missing extension is told once.

Each test runs in a process of its own, as a user's does.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import llmrec_kernels
from llmrec_kernels import _library

PACKAGE = Path(llmrec_kernels.__file__).parent
ALL_OPS = """
import torch
from llmrec_kernels import candidate_scores, cosine_topk, embedding_bag, pack, quantize

q, x = torch.ones(1, 2), torch.eye(2)
def everything():
    for _ in range(2):
        assert cosine_topk(q, x, 1).ids.tolist() == [[0]]
        assert candidate_scores(q, x, [[1]]).shape == (1,)
        assert embedding_bag(x, torch.tensor([[0, 1]])).tolist() == [[1.0, 1.0]]
        pack(x), quantize(x)
"""


# An editable install looks in the source tree for each module that a copy lacks.
NO_EDITABLE_INSTALL = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")]
"""


def python(
    code: str, *, path: Path = PACKAGE.parent, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter that finds the package under `path`."""
    ours = ("LLMREC_EXTENSION", "LLMREC_STRICT", "LLMREC_ISA", "LLMREC_CHECK", "PYTHONWARNINGS")
    variables = {name: value for name, value in os.environ.items() if name not in ours}
    variables |= {name: value for name, value in environment.items() if value is not None}
    variables["PYTHONPATH"] = str(path)
    return subprocess.run(
        [sys.executable, "-c", NO_EDITABLE_INSTALL + code],
        env=variables, cwd=path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def output(run: subprocess.CompletedProcess[str]) -> str:
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package without its extension."""
    root = tmp_path_factory.mktemp("bare")
    ignored = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    shutil.copytree(PACKAGE, root / PACKAGE.name, ignore=ignored)
    return root


@pytest.fixture(scope="module")
def broken(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package whose extension is no library."""
    root = tmp_path_factory.mktemp("broken")
    shutil.copytree(bare / PACKAGE.name, root / PACKAGE.name)
    (root / PACKAGE.name / "_C.abi3.so").write_bytes(b"this is no shared library")
    return root


FACTS = """
import json, os, sys, threading, time, torch

def threads():
    task = "/proc/self/task"
    return [threading.active_count(), len(os.listdir(task)) if os.path.isdir(task) else 0]

asked = []
for name in ("is_available", "device_count", "init", "_lazy_init"):
    def spy(*args, name=name, original=getattr(torch.cuda, name), **kwargs):
        asked.append(name)
        return original(*args, **kwargs)
    setattr(torch.cuda, name, spy)
modules, before, start = set(sys.modules), threads(), time.process_time()
import llmrec_kernels
seconds = time.process_time() - start
print(json.dumps({
    "seconds": seconds, "modules": sorted(set(sys.modules) - modules), "asked": asked,
    "threads": [before, threads()], "initialized": torch.cuda.is_initialized(),
}))
"""


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    """What an import of the package changed, after torch was imported."""
    found: dict[str, Any] = json.loads(output(python(FACTS)))
    return found


def test_import_starts_no_thread(facts: dict[str, Any]) -> None:
    before, after = facts["threads"]
    assert before == after


def test_import_touches_no_device(facts: dict[str, Any]) -> None:
    assert facts["asked"] == []
    assert facts["initialized"] is False


def test_import_brings_in_nothing_heavy(facts: dict[str, Any]) -> None:
    heavy = {"triton", "cupy", "transformers", "pandas", "scipy", "sklearn", "matplotlib", "typer"}
    heavy |= {"rich", "tqdm", "tokenizers", "safetensors", "torch._inductor", "torch._dynamo"}
    assert heavy.isdisjoint(facts["modules"])
    assert "llmrec_kernels.ops.cosine_topk" in facts["modules"]


def test_import_takes_under_two_seconds_on_top_of_torch(facts: dict[str, Any]) -> None:
    assert facts["seconds"] < 2.0


def test_every_public_name_can_be_imported() -> None:
    code = """
import llmrec_kernels
for name in llmrec_kernels.__all__:
    assert getattr(llmrec_kernels, name) is not None, name
try:
    llmrec_kernels.nothing_of_that_name
except AttributeError as error:
    print(error)
"""
    assert "has no attribute 'nothing_of_that_name'" in output(python(code))


def test_the_extension_can_be_switched_off_without_a_warning() -> None:
    code = f"""
import warnings
warnings.simplefilter("error")
{ALL_OPS}
everything()
from llmrec_kernels import _library, explain
assert _library.extension is None and _library.build_info() == {{}}
print(explain("cosine_topk"))
"""
    text = output(python(code, LLMREC_EXTENSION="0"))
    assert text.startswith("cosine_topk on cpu runs on backend 'reference'")
    assert "LLMREC_EXTENSION=0 switches it off" in text


def test_a_required_extension_that_is_missing_is_an_import_error(bare: Path, broken: Path) -> None:
    for path, why in ((bare, "it was not built"), (broken, "it failed to load: ")):
        run = python("import llmrec_kernels", path=path, LLMREC_EXTENSION="require")
        assert run.returncode != 0
        last = run.stderr.strip().splitlines()[-1]
        assert last.startswith(
            "ImportError: LLMREC_EXTENSION=require, but the extension is missing"
        )
        assert why in last


@pytest.mark.skipif(_library.extension is None, reason=f"extension: {_library.load_error}")
def test_a_required_extension_that_is_there_loads() -> None:
    code = f"{ALL_OPS}\neverything()\nfrom llmrec_kernels import explain\n"
    text = output(python(code + "print(explain('cosine_topk').chosen)", LLMREC_EXTENSION="require"))
    assert text == "cpu"


def test_a_choice_of_extension_that_is_none_is_refused() -> None:
    run = python("import llmrec_kernels", LLMREC_EXTENSION="yes")
    assert run.returncode != 0
    message = "ValueError: LLMREC_EXTENSION is one of auto, 0, require; got 'yes'"
    assert run.stderr.strip().endswith(message)


@pytest.mark.parametrize("kind", ["bare", "broken"])
def test_a_missing_extension_is_told_once_and_the_results_are_right(
    request: pytest.FixtureRequest, kind: str
) -> None:
    path = request.getfixturevalue(kind)
    code = f"""
import warnings
warnings.simplefilter("always")
{ALL_OPS}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    everything()
import llmrec_kernels
assert llmrec_kernels.__file__.startswith({str(path)!r}), llmrec_kernels.__file__
print(len(caught), caught[0].category.__name__, caught[0].filename)
print(caught[0].message)
"""
    run = python(code, path=path)
    first, message = output(run).splitlines()
    assert first == "1 RuntimeWarning <string>"
    why = {"bare": "it was not built when", "broken": "it failed to load: "}[kind]
    assert why in message
    assert "runs as plain torch on cpu, with the same results but slower" in message
    if kind == "broken":
        assert "_C.abi3.so" in message
    assert "Traceback" not in run.stderr


def test_strict_turns_a_missing_extension_into_an_error(broken: Path) -> None:
    run = python(f"{ALL_OPS}\neverything()", path=broken, LLMREC_STRICT="1")
    assert run.returncode != 0
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: LLMREC_STRICT=1: cosine_topk runs as plain torch on cpu")


def test_an_older_torch_gets_a_sentence_and_not_a_symbol_error() -> None:
    code = """
import torch
torch.__version__ = "2.10.1+cpu"
from llmrec_kernels import _library
print(_library.load_error)
"""
    assert output(python(code)) == (
        "torch 2.10.1+cpu is older than 2.11, the oldest that the extension loads in"
    )


@pytest.mark.parametrize("version", ["2.11.0", "2.13.0a0+git1", "3.0.0.dev20260101", "2.11.0rc1"])
def test_newer_and_development_versions_of_torch_are_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    assert _library._too_old() is None
