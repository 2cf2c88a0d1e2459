"""The GPU that is measured: its clock, its roofs, and what it says of itself.

`DryRun` stands in for hardware that is not there: the same questions, answered by the CPU.
"""

from __future__ import annotations

import importlib.metadata
import platform
import statistics
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from gpu_model import GPUS

from llmrec_kernels import __version__, _library

Call = Callable[[], Any]
Facts = dict[str, Any]
ROOT = Path(__file__).parent.parent
PACKAGES = (
    "torch", "triton", "cupy-cuda12x", "faiss-gpu-cu12", "faiss-cpu", "cuvs-cu13", "cuvs-cu12",
    "fbgemm-gpu", "fbgemm-gpu-cpu", "nvidia-ml-py",
)  # fmt: skip
# How torch's names of the GPUs of gpu_model.GPUS end.
SHEETS = {
    "T4": "Tesla T4",
    "A100-80-SXM": "A100-SXM4-80GB",
    "H100-SXM": "H100 80GB HBM3",
    "A10": "NVIDIA A10",
    "RTX-4090": "RTX 4090",
    "B200": "NVIDIA B200",
    "RTX-5090": "RTX 5090",
}
# The GPU sleeps while the host queues behind that what is timed: so many cycles for each second
# that the host takes, and at most for so long.
COVER_CYCLES, COVER_SECONDS = 3e9, 0.005
NO_NVML = "not known: pip install nvidia-ml-py"
TURN = 0.02  # seconds: a shorter call is repeated, and the median counts
MOST_CALLS = 50  # in a turn


class Machine(ABC):
    """What the benchmark asks of the hardware."""

    device: ClassVar[str]
    backends: ClassVar[tuple[str, ...]]
    roof_bytes: ClassVar[int]
    roof_edge: ClassVar[int]  # of a square matrix
    name: str

    @abstractmethod
    def times(self, call: Call, count: int, cold: bool) -> list[float]:
        """Seconds of the device for each of some calls; cold ones find nothing in its cache."""

    @abstractmethod
    def wait(self) -> None:
        """Until the device is done."""

    @abstractmethod
    def release(self) -> None:
        """Give back the memory that torch keeps for later, which other libraries cannot use."""

    @abstractmethod
    def free(self) -> int:
        """Bytes that can be allocated."""

    @abstractmethod
    def clocks(self) -> Facts | str:
        """Clocks, temperature and power at this moment, or why they are not known."""

    @abstractmethod
    def hardware(self) -> Facts:
        """What the device is."""

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """What torch.compile makes of it."""
        torch._dynamo.reset()
        return torch.compile(function)

    def turn(self, call: Call, count: int, cold: bool) -> float:
        """Seconds of a call: the median of as many as fill a turn."""
        return statistics.median(self.times(call, count, cold))

    def calls_in_turn(self, call: Call, cold: bool) -> int:
        """How many, measured by calls that are not counted and warm everything up."""
        self.times(call, 2, cold)
        (seconds,) = self.times(call, 1, cold)
        return max(1, min(MOST_CALLS, int(TURN / max(seconds, 1e-9))))

    def latency(self, call: Call) -> float:
        """Seconds from a call to its result, with all that Python and the driver add."""
        self.wait()
        start = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - start

    def roofs(self) -> Facts:
        """Measured now: bytes read, and read and written, and operations of a product, a second.

        A multiplication and its addition are two operations.
        """
        found = self._bandwidths(torch.ones(self.roof_bytes // 4, device=self.device))
        edge = self.roof_edge
        for kind in ("int8", "float16", "bfloat16", "float32"):
            found[f"{kind}_operations_per_second"] = self._product(getattr(torch, kind), edge)
        return found

    def _bandwidths(self, source: torch.Tensor) -> Facts:
        target = torch.empty_like(source)
        copy = partial(target.copy_, source)
        return {
            "read_bytes_per_second": source.nbytes / self._best(source.sum),
            "copy_bytes_per_second": 2 * source.nbytes / self._best(copy),
        }

    def _product(self, dtype: torch.dtype, edge: int) -> float | str:
        matrix = torch.ones(edge, edge, device=self.device).to(dtype)
        multiply, right = torch.matmul, matrix
        if dtype == torch.int8:  # cuBLASLt's fast kernels take the right operand by columns
            multiply, right = torch._int_mm, matrix.t()
        try:
            return 2 * edge**3 / self._best(partial(multiply, matrix, right))
        except RuntimeError as error:
            return f"not known: {first_line(error)}"

    def _best(self, call: Call) -> float:
        self.times(call, 3, False)
        return min(self.times(call, 10, False))

    def environment(self) -> Facts:
        """What a figure depends on besides the code."""
        built = _library.build_info()
        return {
            "gpu": self.name,
            **self.hardware(),
            "package": __version__,
            **commit(),
            "extension": built.get("compiler", _library.load_error),
            "extension_ops": {op: list(devices) for op, devices in built.get("ops", {}).items()},
            "cuda": torch.version.cuda,
            "torch_build": torch.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "versions": {
                name: importlib.metadata.version(name)
                for name in PACKAGES
                if any(importlib.metadata.distributions(name=name))
            },
        }

    def sheet(self) -> Facts | str:
        """The datasheet's numbers, where gpu_model.py has this GPU."""
        for name, end in SHEETS.items():
            if self.name.endswith(end):
                gpu = GPUS[name]
                return {
                    "name": name,
                    "bytes_per_second": gpu.bandwidth,
                    "float16_operations_per_second": gpu.float16,
                    "int8_operations_per_second": gpu.int8,
                }
        return f"bench/gpu_model.py has no datasheet of {self.name}"


class Gpu(Machine):
    """The current CUDA device."""

    device = "cuda"
    backends = ("cuda", "triton", "nvrtc")
    roof_bytes = 2**30
    roof_edge = 8192

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise SystemExit(
                "torch finds no CUDA device, and this measures one; "
                "--dry-run runs every cell, tiny, on the CPU"
            )
        self.name = torch.cuda.get_device_name()
        self._properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        self._cache = int(getattr(self._properties, "L2_cache_size", 2**27))
        # Written whole before a cold call, it leaves nothing else in the second-level cache.
        self._dirt = torch.empty(4 * self._cache, dtype=torch.int8, device=self.device)

    def times(self, call: Call, count: int, cold: bool) -> list[float]:
        self.wait()
        begin = time.perf_counter()
        call()
        queued = min(time.perf_counter() - begin, COVER_SECONDS)
        marks = []
        for _ in range(count):
            if cold:
                self._dirt.zero_()
            torch.cuda._sleep(int(COVER_CYCLES * queued))
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            marks.append((start, end))
        self.wait()
        return [start.elapsed_time(end) / 1e3 for start, end in marks]

    def wait(self) -> None:
        torch.cuda.synchronize()

    def release(self) -> None:
        torch.cuda.empty_cache()

    def free(self) -> int:
        self.release()
        return int(torch.cuda.mem_get_info()[0])

    def hardware(self) -> Facts:
        return {
            "compute_capability": f"{self._properties.major}.{self._properties.minor}",
            "multiprocessors": self._properties.multi_processor_count,
            "memory_bytes": self._properties.total_memory,
            "cache_bytes": self._cache,
            "driver": self._driver(),
        }

    def _driver(self) -> str:
        nvml, why = nvml_or_none()
        if nvml is None:
            return why
        version = nvml.nvmlSystemGetDriverVersion()
        return version.decode() if isinstance(version, bytes) else str(version)

    def clocks(self) -> Facts | str:
        nvml, why = nvml_or_none()
        if nvml is None:
            return why
        try:
            gpu = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{self._properties.uuid}".encode())
            return {
                "sm_mhz": nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
                "memory_mhz": nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM),
                "celsius": nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
                "watts": nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
                "throttle_reasons": nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu),
            }
        except (nvml.NVMLError, AttributeError) as error:
            return f"not known: {first_line(error)}"


class DryRun(Machine):
    """No GPU: every step is taken on the CPU, and no figure means anything."""

    device = "cpu"
    backends = ("cpu", "reference")
    roof_bytes = 2**22
    roof_edge = 64
    name = "dry run without a GPU"

    def __init__(self) -> None:
        self._traced: set[str] = set()

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Traced once, however often it comes: that takes longer than all else."""
        code = str(getattr(function, "__code__", function))
        if code in self._traced:
            return function
        self._traced.add(code)
        return torch.compile(function, backend="eager")

    def times(self, call: Call, count: int, cold: bool) -> list[float]:
        return [self.latency(call) for _ in range(count)]

    def calls_in_turn(self, call: Call, cold: bool) -> int:
        return 1

    def wait(self) -> None:
        """A call is done when it returns."""

    def release(self) -> None:
        """Nothing is kept."""

    def free(self) -> int:
        return 2**34

    def hardware(self) -> Facts:
        return {"driver": "not known: there is no GPU"}

    def clocks(self) -> Facts | str:
        return "not known: there is no GPU"


def nvml_or_none() -> tuple[Any, str]:
    """NVIDIA's management library, ready; or None, and why."""
    try:
        import pynvml
    except ImportError:
        return None, NO_NVML
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:  # in a container without libnvidia-ml.so.1, say
        return None, f"not known: {first_line(error)}"
    return pynvml, ""


def commit() -> Facts:
    """The commit of the source, and whether it was changed since; None outside of a clone."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    status = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "changed": None if status is None else bool(status)}


def first_line(error: BaseException) -> str:
    """The kind of an error, and its first line."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
