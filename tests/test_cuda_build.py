"""setup.py builds CUDA kernels where it can, for the GPUs that were asked for, or says why not.

The whole extension is built in `check_cuda_build.py`, which takes minutes.
"""

from __future__ import annotations

import os
import runpy
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

SETUP = Path(__file__).parents[1] / "setup.py"

# An nvcc that knows three architectures and compiles a file by copying it.
NVCC = """#!{python}
import pathlib, shutil, sys

here, words = pathlib.Path(__file__).parent, sys.argv[1:]
if words == ["--list-gpu-arch"]:
    print("compute_80\\ncompute_90\\ncompute_103")
elif words == ["--version"]:
    print("release 1.0")
elif words[0] == "--dryrun":
    print('#$ LIBRARIES=  "-L/nowhere" "-L' + str(here) + '"', file=sys.stderr)
else:
    source = words[words.index("-c") + 1]
    if "error" in pathlib.Path(source).read_text():
        sys.exit(source + ": no kernel")
    shutil.copy(source, words[words.index("-o") + 1])
    with open(here / "calls", "a") as calls:
        print(*words, file=calls)
"""


class Tree:
    """A source tree with two CUDA files, an nvcc for it, and setup.py."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.environment = root, monkeypatch
        self.tools = root / "tools"
        for path, text in {
            "setup.py": SETUP.read_text(),
            "csrc/one/a.cu": "a",
            "csrc/two/b.cu": "b",
            "csrc/one/bind_cuda.cpp": "",
            "csrc/common/c.cuh": "c",
            "tools/libcudart_static.a": "",
            "tools/nvcc": NVCC.format(python=sys.executable),
        }.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        (self.tools / "nvcc").chmod(0o755)
        for name in ("EXTENSION", "CUDA", "CUDA_ARCHS", "WERROR"):
            monkeypatch.delenv(f"LLMREC_{name}", raising=False)
        for name in ("CUDA_HOME", "CUDA_PATH", "MAX_JOBS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PATH", str(self.tools))
        monkeypatch.chdir(root)

    def setup(self, **variables: str) -> dict[str, Any]:
        """The names in setup.py, with these variables set."""
        for name, value in variables.items():
            self.environment.setenv(name, value)
        return runpy.run_path(str(self.root / "setup.py"))

    def add_cuda(self, **variables: str) -> SimpleNamespace:
        """An extension's sources and link arguments, with CUDA if it can be had."""
        module = SimpleNamespace(sources=[], extra_link_args=[])
        self.setup(**variables)["add_cuda"](module)
        return module

    def compiled(self) -> list[str]:
        """What nvcc was called with to compile since the last time."""
        calls = self.tools / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return lines


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    if not sys.platform.startswith("linux"):
        pytest.skip("CUDA kernels are built on Linux")
    return Tree(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("", []),
        ("90", [90]),
        ("90;80", [80, 90]),
        ("8.0 9.0", [80, 90]),
        (" 12.0, 7.5;", [75, 120]),
    ],
)
def test_architectures_are_listed_in_either_spelling(
    tree: Tree, value: str, found: list[int]
) -> None:
    assert tree.setup(LLMREC_CUDA_ARCHS=value)["CHOSEN"] == found


@pytest.mark.parametrize("value", ["sm_90", "90a", "9", "native", "8.0.1", "80;;x"])
def test_a_bad_list_of_architectures_is_refused(tree: Tree, value: str) -> None:
    with pytest.raises(SystemExit, match=f"LLMREC_CUDA_ARCHS lists .*; got '{value}'"):
        tree.setup(LLMREC_CUDA_ARCHS=value)


def test_an_architecture_that_nvcc_does_not_know_is_refused(tree: Tree) -> None:
    message = "LLMREC_CUDA_ARCHS has 75, which .*nvcc does not know; it knows 80, 90, 103"
    with pytest.raises(SystemExit, match=message):
        tree.add_cuda(LLMREC_CUDA_ARCHS="75 90")


def test_without_a_choice_all_that_nvcc_knows_are_built_and_newer_ones_as_ptx(tree: Tree) -> None:
    tree.add_cuda()
    for line in tree.compiled():
        codes = [word.partition(",code=")[2] for word in line.split() if "gencode" in word]
        assert codes == ["sm_80", "sm_90", "compute_90"]


def test_a_build_links_its_objects_the_bindings_and_the_runtime(tree: Tree) -> None:
    module = tree.add_cuda(LLMREC_CUDA_ARCHS="80")
    assert module.sources == ["csrc/one/bind_cuda.cpp"]
    objects = [tree.root / "build/cuda/80" / name for name in ("one/a.o", "two/b.o")]
    assert [path.read_text() for path in objects] == ["a", "b"]
    assert module.extra_link_args[:2] == [str(path) for path in objects]
    assert str(tree.tools / "libcudart_static.a") in module.extra_link_args


def test_only_what_changed_is_compiled_again(tree: Tree) -> None:
    def touch(name: str) -> None:
        time.sleep(0.02)
        (tree.root / name).touch()

    tree.add_cuda()
    assert len(tree.compiled()) == 2
    time.sleep(0.02)
    tree.add_cuda()
    assert tree.compiled() == []
    touch("csrc/two/b.cu")
    tree.add_cuda()
    (line,) = tree.compiled()
    assert "csrc/two/b.cu" in line
    touch("csrc/common/c.cuh")
    tree.add_cuda()
    assert len(tree.compiled()) == 2
    tree.add_cuda(LLMREC_WERROR="1")
    assert len(tree.compiled()) == 2


def test_what_did_not_compile_is_compiled_again(tree: Tree) -> None:
    source = tree.root / "csrc/two/b.cu"
    tree.add_cuda()
    source.write_text("error")
    assert tree.add_cuda().extra_link_args == []
    source.write_text("b")
    tree.add_cuda()
    assert "csrc/two/b.cu" in tree.compiled()[-1]


def test_nvcc_under_cuda_home_is_found(tree: Tree) -> None:
    (tree.root / "bin").mkdir()
    shutil.copy(tree.tools / "nvcc", tree.root / "bin" / "nvcc")
    shutil.copy(tree.tools / "libcudart_static.a", tree.root / "bin")
    module = tree.add_cuda(PATH="", CUDA_HOME=str(tree.root))
    assert str(tree.root / "bin" / "libcudart_static.a") in module.extra_link_args


@pytest.mark.parametrize("why", ["no nvcc", "no runtime", "no architecture", "no kernel"])
def test_what_cannot_be_built_is_said_and_an_error_where_it_was_asked_for(
    tree: Tree, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = {
        "no nvcc": "there is no nvcc on PATH or under CUDA_HOME",
        "no runtime": "has no libcudart_static.a in",
        "no architecture": "knows none of 75, 80,",
        "no kernel": "nvcc failed with csrc/one/a.cu, see above",
    }[why]
    nvcc = tree.tools / "nvcc"
    if why == "no nvcc":
        nvcc.unlink()
    if why == "no runtime":
        (tree.tools / "libcudart_static.a").unlink()
    if why == "no architecture":
        nvcc.write_text(nvcc.read_text().replace("compute_", "gpu_"))
    if why == "no kernel":
        (tree.root / "csrc/one/a.cu").write_text("error")
    module = tree.add_cuda(LLMREC_CUDA="auto")
    assert (module.sources, module.extra_link_args) == ([], [])
    told = capsys.readouterr().err
    assert "llmrec_kernels: building without CUDA kernels: " in told
    assert sentence in told
    with pytest.raises(SystemExit, match=f"^LLMREC_CUDA=1, but .*{sentence}"):
        tree.add_cuda(LLMREC_CUDA="1")


def test_cuda_that_is_asked_for_needs_an_extension(tree: Tree) -> None:
    with pytest.raises(SystemExit, match="LLMREC_CUDA=1, but LLMREC_EXTENSION=0"):
        tree.setup(LLMREC_CUDA="1", LLMREC_EXTENSION="0")["extension"]()


def test_a_choice_that_is_none_is_refused(tree: Tree) -> None:
    with pytest.raises(SystemExit, match="LLMREC_CUDA is one of auto, 0, 1; got 'yes'"):
        tree.setup(LLMREC_CUDA="yes")


@pytest.mark.parametrize("value", ["x", "0", "-1", "1.5", " "])
def test_a_number_of_compilers_that_is_none_is_refused(tree: Tree, value: str) -> None:
    with pytest.raises(SystemExit, match=f"MAX_JOBS is .* 1 or more; got '{value}'"):
        tree.setup(MAX_JOBS=value)


@pytest.mark.parametrize("value", ["", "1", "3"])
def test_as_many_compilers_run_as_was_asked_for(tree: Tree, value: str) -> None:
    assert tree.setup(MAX_JOBS=value)["JOBS"] == int(value or os.cpu_count() or 1)
