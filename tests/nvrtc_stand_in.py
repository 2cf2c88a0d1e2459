"""The kernels of csrc/*/*.cu on the CPU, standing in for the GPU that is not there.

`installed` puts them where `nvrtc_common.kernels` compiles kernels, loads them and launches them on
a stream: nothing else of the NVRTC rooms is replaced, so that `torch.ops.llmrec.<op>_nvrtc` runs on
CPU tensors. The same library tells what the C++ launchers would launch for a call, without running
it, and how C++ lays the kernels' structs out.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import importlib
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from llmrec_kernels.ops import nvrtc_common
from llmrec_kernels.ops.cosine_topk.nvrtc_plan import SCANS

ROOT = Path(__file__).parent.parent
FLAGS = (
    "-x", "c++", "-std=c++20", "-O1", "-fPIC", "-ffp-contract=off", "-Wno-unknown-pragmas",
    "-DLLMREC_EMULATE_CUDA",
)  # fmt: skip
STORAGES = nvrtc_common.STORAGES

emulates = pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which("g++") is None,
    reason="the emulator needs g++ on x86-64",
)


def _each(kernel: str, *more: Any, storages: Sequence[str] = STORAGES) -> list[str]:
    return [nvrtc_common.expression(kernel, storage, *more) for storage in storages]


def _plain(*kernels: str) -> list[str]:
    return [nvrtc_common.expression(kernel) for kernel in kernels]


def _room(op: str) -> Any:
    return importlib.import_module(f"llmrec_kernels.ops.{op}.nvrtc")


TOPK, BAG, QUANTIZE = map(_room, ("cosine_topk", "embedding_bag", "quantize"))
# Of each source, all kernels that a launcher may ask for, by their struct.
KERNELS: dict[str, dict[str, list[str]]] = {
    "cosine_topk/topk.cu": {
        "TopkCall": [
            *_plain(*TOPK._FIXED),
            *(scan.kernel for scan in SCANS),
            *_each("score_groups"),
            *_each("rescore"),
        ]
    },
    "candidate_scores/candidates.cu": {
        "CandidateCall": [*_plain("measure_queries", "best_of_lists"), *_each("score_pairs")]
    },
    "embedding_bag/bag.cu": {
        "PoolCall": [*_each("pool", True), *_each("pool", False)],
        "NormalizeCall": _plain("normalize"),
    },
    "quantize/quantize.cu": {"QuantizeCall": _each("quantize", storages=STORAGES[1:])},
    "pack/pack.cu": {"PackCall": _each("pack")},
}
LAYOUTS: dict[str, np.dtype[Any]] = {
    "TopkCall": TOPK.CALL,
    "CandidateCall": _room("candidate_scores").CALL,
    "PoolCall": BAG.POOL_CALL,
    "NormalizeCall": BAG.NORMALIZE_CALL,
    "QuantizeCall": QUANTIZE.CALL,
    "PackCall": _room("pack").CALL,
}


class Launched(NamedTuple):
    """A launch: everything that decides what it does."""

    kernel: str
    grid: tuple[int, int, int]
    threads: int
    shared: int
    call: bytes


def fields(layout: np.dtype[Any], prefix: str = "") -> Iterator[tuple[str, int]]:
    """The fields of a layout and of those within it, as C++ writes them, with their offsets."""
    assert layout.fields is not None
    for name, (kind, offset, *_) in layout.fields.items():
        yield prefix + name, offset
        if kind.fields:
            inner = fields(kind, f"{prefix}{name}.")
            yield from ((below, offset + more) for below, more in inner)


def _unit(source: str) -> str:
    """A source with its launches told, and what enters its kernels and layouts in the tables."""
    lines = ['#include "nvrtc_stand_in.h"', f'#include "{source}"', "using namespace llmrec::cuda;"]
    for struct, kernels in KERNELS[source].items():
        told = [f'stand_in::enter<{struct}, &{kernel}>("{kernel}")' for kernel in kernels]
        told.append(f'stand_in::enter_layout("{struct}", sizeof({struct}))')
        told += [
            f'stand_in::enter_layout("{struct}.{field}", offsetof({struct}, {field}))'
            for field, _ in fields(LAYOUTS[struct])
        ]
        lines += ["static const bool entered_" + struct + " =", " &\n".join(told) + ";"]
    return "\n".join(lines) + "\n"


@functools.cache
def library() -> ctypes.CDLL:
    """All kernels and launchers; what did not change is not built again."""
    headers = [path for pattern in ("*.cuh", "*.h") for path in (ROOT / "csrc").rglob(pattern)]
    headers += (ROOT / "tests" / "emulation").glob("*.h")
    shared = "".join(path.read_text() for path in sorted(headers)) + " ".join(FLAGS)
    folder = ROOT / "build" / "nvrtc_stand_in"
    folder.mkdir(parents=True, exist_ok=True)
    units = {source: _unit(source) for source in KERNELS}
    units["launchers"] = (ROOT / "tests" / "emulation" / "nvrtc_launchers.cpp").read_text()
    objects = []
    with (folder / "lock").open("w") as lock, ThreadPoolExecutor(2) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test processes share what one of them builds
        for name, unit in units.items():
            code = (ROOT / "csrc" / name).read_text() if name in KERNELS else ""
            digest = hashlib.sha256((shared + unit + code).encode()).hexdigest()[:24]
            objects.append(folder / f"{Path(name).stem}-{digest}.o")
            objects[-1].with_suffix(".cpp").write_text(unit)
        jobs = [pool.submit(_compile, path) for path in objects if not path.exists()]
        for job in jobs:
            job.result()
        digest = hashlib.sha256("".join(map(str, objects)).encode()).hexdigest()[:24]
        path = folder / f"kernels-{digest}.so"
        if not path.exists():
            subprocess.run(["g++", "-shared", *map(str, objects), "-o", str(path)], check=True)
        current = {path.stem, *(each.stem for each in objects), "lock"}
        for old in folder.iterdir():
            if old.stem not in current:
                old.unlink()
    loaded = ctypes.CDLL(str(path))
    loaded.layout_of.restype = loaded.tell_launches.restype = ctypes.c_int64
    return loaded


def _compile(path: Path) -> None:
    folders = [f"-I{ROOT / folder}" for folder in ("tests/emulation", "csrc")]
    part = path.with_suffix(".part")
    source = str(path.with_suffix(".cpp"))
    subprocess.run(["g++", *FLAGS, *folders, "-c", source, "-o", str(part)], check=True)
    part.replace(path)


def _run(launched: Launched) -> None:
    status = library().run_kernel(
        launched.kernel.encode(), *launched.grid, ctypes.c_uint(launched.threads),
        ctypes.c_size_t(launched.shared), launched.call,
    )  # fmt: skip
    assert status == 0, f"{launched.kernel} is not in the tables"


@contextmanager
def installed(*, runs: bool = True) -> Iterator[list[Launched]]:
    """Launch kernels in the emulator, or only note them; gives what was launched."""
    record: list[Launched] = []

    @contextmanager
    def kernels(
        device: torch.device, needed: Mapping[str, Sequence[str]]
    ) -> Iterator[Callable[..., None]]:
        known = {name for names in needed.values() for name in names}

        def launch(
            name: str, grid: tuple[int, ...], threads: int, shared: int, call: np.ndarray[Any, Any]
        ) -> None:
            assert call.shape == ()
            three = (*grid, 1, 1)[:3]
            assert min(three) > 0, "a GPU refuses a grid without blocks"
            record.append(Launched(name, three, threads, shared, call.tobytes()))
            assert name in known, "a kernel that was not asked for"
            if runs:
                _run(record[-1])

        yield launch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvrtc_common, "kernels", kernels)
        patch.setattr(TOPK, "MOST_DECIDERS", 64)  # as decide.cuh has it in the emulator
        yield record


class _Told(ctypes.Structure):
    _fields_ = (
        ("kernel", ctypes.c_char_p),
        ("grid", ctypes.c_uint * 3),
        ("threads", ctypes.c_uint),
        ("shared", ctypes.c_int64),
        ("bytes", ctypes.c_int64),
        ("call", ctypes.c_ubyte * 512),
    )


def launched_in_cpp(op: str, numbers: Sequence[float]) -> tuple[int, list[Launched]]:
    """Workspace bytes, and what the C++ launcher launches for a call that is told in numbers."""
    workspace, told = ctypes.c_int64(), (_Told * 256)()
    words = [np.float64(n).view(np.int64) if isinstance(n, float) else n for n in numbers]
    count = library().tell_launches(
        op.encode(), np.array(words, np.int64).ctypes.data_as(ctypes.c_void_p),
        ctypes.byref(workspace), told, ctypes.c_int64(len(told)),
    )  # fmt: skip
    assert count <= len(told)
    return workspace.value, [
        Launched(
            one.kernel.decode(), (one.grid[0], one.grid[1], one.grid[2]), one.threads, one.shared,
            bytes(one.call)[: one.bytes],
        )
        for one in told[:count]
    ]  # fmt: skip
