"""The machine and the software that a figure depends on, and what disturbed them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from llmrec_kernels import __version__, _library, info
from llmrec_kernels.profiler.energy.estimate import usable_cpus
from llmrec_kernels.profiler.energy.nvml import gpu_state
from llmrec_kernels.profiler.report import Environment, Gpu

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
BOOT = Path("/proc/sys/kernel/random/boot_id")
MOVED_CLOCK = 0.1  # of a clock between two looks: above that the run is marked
UNKNOWN_CACHE = 32 << 20  # bytes, where the machine does not tell


def collect(device: str) -> Environment:
    """Look at the machine; `device` is "cpu" or "cuda:<index>"."""
    return Environment(
        fingerprint=fingerprint(device),
        cpu=info.cpu_model(),
        machine=platform.machine(),
        logical_cpus=usable_cpus(),
        threads=torch.get_num_threads(),
        level=None if _library.load_error else _library.build_info()["level"],
        memory_bytes=_memory_bytes(),
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        cpu_mhz=_cpu_mhz(),
        gpu=_gpu(device),
        package=__version__,
        commit=_commit(),
        python=platform.python_version(),
        torch=str(torch.__version__),
        cuda=torch.version.cuda,
        triton=_version("triton"),
        platform=platform.platform(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def disturbances(before: Environment, after: Environment) -> list[str]:
    """What makes the figures of a run worth less, in sentences."""
    found = []
    if is_busy(before):
        found.append(
            f"the load average was {before.load_average:.1f} with {before.logical_cpus} CPUs: "
            "other work was running"
        )
    pairs = [("the CPU's clock", before.cpu_mhz, after.cpu_mhz)]
    if before.gpu is not None and after.gpu is not None:
        pairs.append(("the GPU's clock", before.gpu.sm_mhz, after.gpu.sm_mhz))
        if after.gpu.mig:
            found.append("the GPU is in MIG mode: its energy is that of all slices")
        if after.gpu.shared:
            found.append("other processes compute on the GPU: time and energy are theirs too")
        found += [f"the GPU was throttled: {reason}" for reason in after.gpu.throttles or []]
    for name, first, last in pairs:
        if first and last and abs(last - first) > MOVED_CLOCK * first:
            found.append(f"{name} moved from {first:.0f} to {last:.0f} MHz")
    return found


def is_busy(seen: Environment) -> bool:
    """Whether more wanted to run than there were processors."""
    return seen.load_average is not None and seen.load_average > 1.25 * seen.logical_cpus


def fingerprint(device: str) -> str:
    """What roofs are kept under: the hardware, its limits and the boot; not the software's names.

    A virtual machine may wake up on another host under the same name, so that the boot counts.
    """
    facts: list[Any] = [
        info.cpu_model(), platform.machine(), usable_cpus(), torch.get_num_threads(),
        [path.read_text() for path in sorted(CACHES.glob("index*/size"))],
        BOOT.read_text() if BOOT.exists() else "",
        "" if _library.load_error else sorted(_library.build_info()["refused_levels"]),
    ]  # fmt: skip
    if device != "cpu":
        facts += [torch.cuda.get_device_name(device), torch.version.cuda]
        facts.append(str(getattr(torch.cuda.get_device_properties(device), "uuid", "")))
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


@contextlib.contextmanager
def current(device: str) -> Iterator[None]:
    """Make a GPU torch's current one: events, waits and sleeps are of that, wherever work is."""
    if device == "cpu":
        yield
    else:
        with torch.cuda.device(device):
            yield


def last_level_cache(device: str = "cpu") -> int:
    """Bytes of the largest cache that a device reports; 32 MB where it reports none.

    Examples
    --------
    >>> last_level_cache() > 0
    True
    """
    if device != "cpu":
        properties = torch.cuda.get_device_properties(device)
        return int(getattr(properties, "L2_cache_size", UNKNOWN_CACHE))
    kilobytes = [int(path.read_text().strip().removesuffix("K")) for path in CACHES.glob("*/size")]
    return max(kilobytes) << 10 if kilobytes else UNKNOWN_CACHE


def device_of(device: str | torch.device | None) -> str:
    """The device asked for, as "cpu" or "cuda:<index>"; else a GPU in use, else the CPU."""
    if device is None:
        device = "cuda" if torch.cuda.is_initialized() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device is {device!r}; expected 'cpu' or 'cuda:<index>'") from error
    if found.type == "cpu":
        return "cpu"
    if found.type != "cuda":
        raise ValueError(f"device is {device!r}; expected 'cpu' or 'cuda:<index>'")
    if not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but torch finds no CUDA device")
    index = torch.cuda.current_device() if found.index is None else found.index
    if index >= torch.cuda.device_count():
        raise ValueError(f"device is {device!r}; there are {torch.cuda.device_count()} GPUs")
    return f"cuda:{index}"


def _gpu(device: str) -> Gpu | None:
    if device == "cpu":
        return None
    properties = torch.cuda.get_device_properties(device)
    state = gpu_state(torch.device(device).index)
    return Gpu(
        name=properties.name,
        compute_capability=f"{properties.major}.{properties.minor}",
        memory_bytes=properties.total_memory,
        **state,
    )


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _cpu_mhz() -> float | None:
    """The fastest core's clock at this moment, where the system tells."""
    told = Path("/proc/cpuinfo")
    if not told.exists():
        return None
    clocks = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", told.read_text(), re.MULTILINE)
    return max(map(float, clocks), default=None)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _commit() -> str | None:
    """The commit of the checkout that the package is imported from; None where it is installed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
