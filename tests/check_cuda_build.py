"""The extension with its CUDA kernels, built here and used where there is no GPU.

`make cuda` runs this for LLMREC_CUDA_ARCHS, or for 9.0 alone. What it builds stays in
build/check_cuda, so that a second run compiles what changed.
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
from test_import import ALL_OPS, PACKAGE, output, python

from llmrec_kernels import backends

ROOT = PACKAGE.parent
BUILT = ROOT / "build" / "check_cuda"
# A driver of CUDA 12.4, as far as it is asked.
OLD_DRIVER = "int cuDriverGetVersion(int* version) { return *version = 12040, 0; }"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the extension that was built."""
    if shutil.which("nvcc") is None:
        pytest.skip("there is no nvcc on PATH")
    variables = {"LLMREC_CUDA_ARCHS": "90", "LLMREC_WERROR": "1"} | os.environ
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--build-temp", BUILT / "temp",
         "--build-lib", BUILT / "lib"],
        cwd=ROOT, env=variables | {"LLMREC_CUDA": "1", "LLMREC_EXTENSION": "require"}, check=True,
    )  # fmt: skip
    root = tmp_path_factory.mktemp("package")
    ignored = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    shutil.copytree(PACKAGE, root / PACKAGE.name, ignore=ignored)
    (extension,) = (BUILT / "lib" / PACKAGE.name).glob("_C.*")
    shutil.copy(extension, root / PACKAGE.name)
    return root


def told(package: Path, code: str, **environment: str) -> Any:
    """What code prints as JSON, in a process that sees no GPU."""
    code = f"import json\nfrom llmrec_kernels import _library, backends\n{code}"
    environment = {"LLMREC_EXTENSION": "require", "CUDA_VISIBLE_DEVICES": "", **environment}
    return json.loads(output(python(code, path=package, **environment)))


def test_it_imports_and_runs_on_the_cpu(package: Path) -> None:
    code = f"{ALL_OPS}\neverything()\n"
    code += "print(json.dumps([backends.explain(op).chosen for op in backends.OPS]))"
    assert told(package, code) == ["cpu"] * len(backends.OPS)


def test_it_has_a_cuda_kernel_of_every_operator(package: Path) -> None:
    built = told(package, "print(json.dumps(_library.build_info()))")
    assert all(built["ops"][op] == ["cpu", "cuda"] for op in backends.OPS)
    assert set(built["cuda"]) == {"version", "architectures"}
    code = """
import torch
key = torch._C._dispatch_has_kernel_for_dispatch_key
names = [*backends.OPS, "candidate_scores.topk"]
print(json.dumps([name for name in names if not key("llmrec::" + name, "CUDA")]))"""
    assert told(package, code) == []


def test_the_bindings_refuse_what_their_kernels_cannot_read(package: Path) -> None:
    """The CUDA kernels are called with tensors of the CPU, which torch's dispatcher never does."""
    code = """
import torch
q, x, ids, bounds = torch.ones(1, 2), torch.eye(2), torch.tensor([0]), torch.tensor([0, 1])
many, none = torch.ones(1, 2).expand(2**31, 2), None
calls = [
    (torch.ops.llmrec.pack.default, (x, none, none, 0, 2)),
    (torch.ops.llmrec.quantize.default, (x, 0, False)),
    (torch.ops.llmrec.embedding_bag.default,
     (x, none, none, 0, 2, ids, bounds, 0, none, -1, False, 0)),
    (torch.ops.llmrec.candidate_scores.default,
     (q, x, none, none, none, 0, ids, bounds, 0, none, none, 0.0, none, none)),
    (torch.ops.llmrec.candidate_scores.topk,
     (q, x, none, none, none, 0, ids, bounds, 0, none, none, 0.0, none, none, 1)),
    (torch.ops.llmrec.candidate_scores.topk,
     (q, many, none, none, none, 0, ids, bounds, 0, none, none, 0.0, none, none, 1)),
    *((torch.ops.llmrec.cosine_topk.default,
       (q, items, *[none] * 6, 0, 1, 0, *[none] * 7, True)) for items in (x, many)),
]
cuda = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
said = []
for op, arguments in calls:
    try:
        op.redispatch(cuda, *arguments)
    except ValueError as error:
        said.append(str(error))
print(json.dumps(said))"""
    where = " is not on a GPU; expected all tensors on the same one"
    too_many = (
        "items has 2147483648 rows, and backend 'cuda' ranks 2147483647; "
        "backend='reference' ranks any number"
    )
    first = ("data", "weight", "data", "queries", "queries", "queries")
    assert told(package, code) == [
        *(name + where for name in first[:-1]),
        too_many,
        first[-1] + where,
        too_many,
    ]


def test_it_says_why_no_gpu_runs_them(package: Path) -> None:
    code = "print(json.dumps(_library.cuda_problem(0)))"
    assert told(package, code) in ("there is no NVIDIA driver", "the NVIDIA driver finds no GPU")
    code = """
import torch
(cuda,) = (each for each in backends.BACKENDS if each.name == "cuda")
print(json.dumps(cuda.reasons("pack", torch.device("cuda", 0)) == [_library.cuda_problem(0)]))"""
    assert told(package, code) is True


def test_an_old_driver_is_told_from_none(package: Path, tmp_path: Path) -> None:
    (tmp_path / "driver.c").write_text(OLD_DRIVER)
    command = ["gcc", "-shared", "-fPIC", "-o", "libcuda.so.1", "driver.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    code = "print(json.dumps(_library.cuda_problem(0)))"
    problem = told(package, code, LD_LIBRARY_PATH=str(tmp_path))
    assert problem.startswith("the NVIDIA driver is for CUDA 12.4 and the kernels were built with")


def test_its_cuda_runtime_stays_inside(package: Path) -> None:
    (extension,) = (package / PACKAGE.name).glob("_C.*")
    needed = subprocess.run(
        ["objdump", "-p", extension], capture_output=True, text=True, check=True
    )
    assert "libcuda" not in needed.stdout
    names = subprocess.run(["objdump", "-T", extension], capture_output=True, text=True, check=True)
    symbols = {line.split()[-1] for line in names.stdout.splitlines() if " .text" in line}
    assert "PyInit__C" in symbols
    assert not [name for name in symbols if name.startswith(("cuda", "__cuda", "cudart"))]
