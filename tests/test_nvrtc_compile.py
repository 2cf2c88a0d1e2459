"""NVRTC compiles the kernels with no GPU: the library is a wheel of the extra `dev`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvrtc_stand_in import KERNELS

from llmrec_kernels.ops import nvrtc_common, nvrtc_compile

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
RELEASE = 13  # of CUDA

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the library is looked for as it is called on Linux"
)


def kernels_of(source: str) -> list[str]:
    return [kernel for kernels in KERNELS[source].values() for kernel in kernels]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path))
    return tmp_path / "nvrtc"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", KERNELS)
def test_each_source_compiles_for_each_architecture(
    source: str, architecture: int, cache: Path
) -> None:
    """A share of the kernels for each, in all all of them; tests/check_nvrtc.py has the rest."""
    share = kernels_of(source)[ARCHITECTURES.index(architecture) :: len(ARCHITECTURES)]
    if not share:
        share = kernels_of(source)[:1]
    binary = nvrtc_compile.compiled(source, share, architecture, RELEASE)
    content = binary.path.read_bytes()
    assert content.startswith(b"\x7fELF")
    assert list(binary.names) == share
    assert all(name.encode() in content for name in binary.names.values())


def test_a_binary_is_compiled_once_for_what_it_is_made_of(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled, compile_now = [], nvrtc_compile.Nvrtc.compile
    monkeypatch.setattr(
        nvrtc_compile.Nvrtc,
        "compile",
        lambda self, *rest: compiled.append(rest) or compile_now(self, *rest),
    )
    wanted = ("candidate_scores/candidates.cu", kernels_of("candidate_scores/candidates.cu")[:1])
    first = nvrtc_compile.compiled(*wanted, 90, RELEASE)
    assert nvrtc_compile.compiled(*wanted, 90, RELEASE) == first
    assert len(compiled) == 1
    assert nvrtc_compile.compiled(*wanted, 80, RELEASE).path != first.path
    edited = tmp_path / "csrc"
    shutil.copytree(nvrtc_compile.sources(), edited)
    header = edited / "common" / "score.cuh"
    header.write_text(header.read_text() + "// changed\n")
    monkeypatch.setattr(nvrtc_compile, "sources", lambda: edited)
    assert nvrtc_compile.compiled(*wanted, 90, RELEASE).path != first.path
    assert len(compiled) == 3


def test_no_subnormal_number_is_taken_for_zero(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CuPy's own compilation would: its results are not the reference's."""
    nvrtc, source = nvrtc_compile.library(RELEASE), "candidate_scores/candidates.cu"
    text, headers = nvrtc_compile.read(source)
    bytes_of = nvrtc._bytes
    monkeypatch.setattr(
        nvrtc, "_bytes", lambda f, program: bytes_of(f.replace("CUBIN", "PTX"), program)
    )
    for more, flushes in (((), False), (("-ftz=true",), True)):
        options = (*nvrtc_compile.OPTIONS, "--gpu-architecture=compute_80", *more)
        ptx, _ = nvrtc.compile(source, text, headers, kernels_of(source), options)
        assert (b".ftz" in ptx) == flushes


def test_what_is_wrong_is_said_in_words(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvrtc = nvrtc_compile.library(RELEASE)
    with pytest.raises(RuntimeError, match=r"capability 5.2, and NVRTC .* compiles for 7.5 to"):
        nvrtc.architecture_for(52)
    with pytest.raises(RuntimeError, match=r"(?s)cannot compile a.cu with .*sm_90.*nonsense"):
        nvrtc.compile("a.cu", "nonsense", {}, [], ("--gpu-architecture=sm_90",))
    with pytest.raises(RuntimeError, match="there is no NVRTC for CUDA 11: pip install"):
        nvrtc_compile.library(11)
    monkeypatch.setattr(nvrtc_compile, "__file__", str(cache / "a" / "b" / "c.py"))
    with pytest.raises(RuntimeError, match="the CUDA sources are neither in"):
        nvrtc_compile.sources()


def test_a_binary_runs_on_later_gpus_of_its_major_version() -> None:
    nvrtc = nvrtc_compile.library(RELEASE)
    assert [nvrtc.architecture_for(c) for c in (75, 86, 89, 90, 105, 123)] == [
        75, 86, 89, 90, 103, 121,
    ]  # fmt: skip


def test_a_cache_that_cannot_be_written_is_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("LLMREC_CACHE", str(blocked))
    assert nvrtc_compile.binaries_folder().is_dir()


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660)])
def test_what_is_kept_is_for_all_whom_the_umask_allows(cache: Path, umask: int, mode: int) -> None:
    cache.mkdir()
    before = os.umask(umask)
    try:
        nvrtc_compile._keep(cache, "a", b"binary", {})
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in cache.iterdir()} == {
        "a.cubin": mode, "a.json": mode,
    }  # fmt: skip


@pytest.mark.parametrize("blocked", [".cubin", ".json"])
def test_what_is_kept_and_cannot_be_read_or_replaced_is_compiled_again(
    cache: Path, blocked: str
) -> None:
    """A folder in a file's place stands for another user's file: root may read any file."""
    source = "embedding_bag/bag.cu"
    wanted = (source, KERNELS[source]["NormalizeCall"], 90, RELEASE)
    first = nvrtc_compile.compiled(*wanted)
    content = first.path.read_bytes()
    place = first.path.with_suffix(blocked)
    place.unlink()
    place.mkdir()
    again = nvrtc_compile.compiled(*wanted)
    assert again.path.parent != cache
    assert (again.path.read_bytes(), again.names) == (content, first.names)
    assert not list(cache.glob("*.part"))
    place.rmdir()
    first.path.with_suffix(".json").write_text("{")  # and one that was cut short is made anew
    assert nvrtc_compile.compiled(*wanted) == first
    assert nvrtc_compile._kept(cache, first.path.stem) == first


def test_an_installed_package_has_the_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = {source: nvrtc_compile.read(source) for source in KERNELS}
    root, library = Path(nvrtc_compile.__file__).parents[2], tmp_path / "lib"
    subprocess.run(
        [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", tmp_path, "build_py",
         "--build-lib", library],
        cwd=root, env=os.environ | {"LLMREC_EXTENSION": "0"}, check=True,
    )  # fmt: skip
    installed = library / "llmrec_kernels" / "ops" / "nvrtc_compile.py"
    assert installed.exists()
    monkeypatch.setattr(nvrtc_compile, "__file__", str(installed))
    assert nvrtc_compile.sources().is_relative_to(library)
    assert {source: nvrtc_compile.read(source) for source in KERNELS} == checkout


class CuPyStandIn(types.SimpleNamespace):
    """In the place of CuPy, which needs a driver: it notes what is loaded and launched."""

    def __init__(self, version: int) -> None:
        self.loaded: list[Path] = []
        self.launched: list[tuple[Any, ...]] = []
        self.inside: list[str] = []
        runtime = types.SimpleNamespace(driverGetVersion=lambda: 13000)
        self.cuda = types.SimpleNamespace(
            runtime=runtime,
            Device=lambda index: self.within(f"device {index}"),
            Stream=types.SimpleNamespace(),
            ExternalStream=lambda pointer, index: self.within(f"stream {pointer} {index}"),
        )
        if version >= 14:
            self.cuda.Stream.from_external = lambda s: self.within(f"stream {s.cuda_stream} {s.on}")
            del self.cuda.ExternalStream  # deprecated there

    @contextlib.contextmanager
    def within(self, name: str) -> Any:
        self.inside.append(name)
        yield
        self.inside.remove(name)

    def RawModule(self, *, path: str) -> Any:  # noqa: N802
        self.loaded.append(Path(path))

        def get_function(name: str) -> Any:
            assert name.encode() in Path(path).read_bytes()
            return lambda *arguments, shared_mem: self.launched.append(
                (name, *arguments, shared_mem, list(self.inside))
            )

        return types.SimpleNamespace(get_function=get_function)


@pytest.mark.parametrize("version", [13, 14])
def test_kernels_are_loaded_once_a_device_and_launched_on_torchs_stream(
    version: int, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cupy = CuPyStandIn(version)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(
        torch.cuda, "current_stream", lambda index: types.SimpleNamespace(cuda_stream=7, on=index)
    )
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(nvrtc_common, "_kernels", {})
    source, call = "embedding_bag/bag.cu", np.zeros((), nvrtc_common.struct("a"))
    kernel = nvrtc_common.expression("normalize")
    for device in ("cuda", "cuda:1", "cuda:0"):
        with nvrtc_common.kernels(torch.device(device), {source: [kernel]}) as launch:
            launch(kernel, (5, 2), 128, 64, call)
    assert cupy.inside == []
    assert len(cupy.loaded) == 2
    assert [each[-1] for each in cupy.launched] == [
        [f"device {index}", f"stream 7 {index}"] for index in (1, 1, 0)
    ]
    name, grid, block, arguments, shared, _ = cupy.launched[0]
    assert (grid, block, shared) == ((5, 2), (128,), 64)
    assert "normalize" in name
    assert arguments == (call,)


def test_a_library_that_is_not_there_is_looked_for_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []

    def refuse(path: str) -> Any:
        tried.append(path)
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    with pytest.raises(RuntimeError, match="cuda-nvrtc"):
        nvrtc_compile.library.__wrapped__(12)
    assert all("so.12" in path for path in tried)
    assert "libnvrtc.so.12" in tried


def test_the_builtins_beside_a_library_are_opened_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks the loader for them by name, and not every release's wheel tells where they are."""
    for name in ("libnvrtc.so.13", "libnvrtc-builtins.so.13.0", "libnvrtc-builtins.alt.so.13.0"):
        (tmp_path / name).touch()
    opened: list[str] = []
    monkeypatch.setattr(ctypes, "CDLL", opened.append)
    monkeypatch.chdir(tmp_path)
    nvrtc_compile._opened("libnvrtc.so.13")  # wherever the loader has it, it has them
    assert opened == ["libnvrtc.so.13"]
    nvrtc_compile._opened(str(tmp_path / "libnvrtc.so.13"))
    assert [Path(each).name for each in opened[1:]] == [
        "libnvrtc.so.13", "libnvrtc-builtins.so.13.0",
    ]  # fmt: skip
