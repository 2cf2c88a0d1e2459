"""Energy and power of an NVIDIA GPU by NVML (nvidia-ml-py), and the state that it is in.

The GPU is found by its UUID, since CUDA_VISIBLE_DEVICES renumbers what torch sees and not what
NVML sees. Best is the counter of millijoules that GPUs have since Volta. Where it is missing or
stalls, the power is integrated. Both are of the whole board. On A100 and H100 the sensor behind
them looks at a quarter of the time (https://arxiv.org/abs/2312.02741), which long windows of steady
work even out.
"""

from __future__ import annotations

import importlib
import os
from abc import abstractmethod
from types import TracebackType
from typing import Any, TypedDict

import torch
from typing_extensions import Self, override

from llmrec_kernels.profiler.energy.sensor import Sensor, SensorError

_POWER_INSTANT = 186  # NVML_FI_DEV_POWER_INSTANT, for which old nvidia-ml-py has no name
# NVML's reasons for a lower clock. Its lowest bit, an idle GPU, is no throttle.
_THROTTLES = {
    0x002: "clocks set by an application",
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "software thermal slowdown",
    0x040: "hardware thermal slowdown",
    0x080: "power brake",
    0x100: "display clocks",
}


class GpuState(TypedDict):
    """What a GPU says of itself now; None where it does not tell."""

    uuid: str | None
    driver: str | None
    sm_mhz: float | None
    memory_mhz: float | None
    celsius: float | None
    mig: bool | None
    shared: bool | None
    throttles: list[str] | None


_UNKNOWN: GpuState = {
    "uuid": None,
    "driver": None,
    "sm_mhz": None,
    "memory_mhz": None,
    "celsius": None,
    "mig": None,
    "shared": None,
    "throttles": None,
}


def gpu_state(index: int) -> GpuState:
    """Identity, clocks and neighbours of torch's GPU of that number.

    Examples
    --------
    >>> gpu_state(100)["sm_mhz"] is None  # there is no such GPU
    True
    """
    try:
        with _Gpu(torch.device("cuda", index)) as gpu:
            return gpu.state()
    except SensorError:
        return _UNKNOWN.copy()


class NvmlSensor(Sensor):
    """One of NVML's readings of a GPU."""

    component = "gpu"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._gpu: _Gpu | None = None

    @override
    def open(self) -> None:
        gpu = _Gpu(self._device)
        try:
            self._find(gpu)
        except BaseException:
            gpu.close()
            raise
        self._gpu = gpu

    @override
    def read(self) -> tuple[float, ...]:
        assert self._gpu is not None
        return (self._ask(self._gpu),)

    @override
    def notes(self) -> list[str]:
        assert self._gpu is not None
        notes = []
        if self._gpu.mig():
            notes.append("MIG: the energy is that of the whole GPU, and not of the slice")
        if self._gpu.shared():
            notes.append("shared: other processes compute on the GPU, and their energy is in it")
        return notes

    @override
    def close(self) -> None:
        if self._gpu is not None:
            self._gpu.close()
            self._gpu = None

    def _find(self, gpu: _Gpu) -> None:
        """Whether the GPU has the reading: ask for it once."""
        self._ask(gpu)

    @abstractmethod
    def _ask(self, gpu: _Gpu) -> float:
        """The reading."""


class NvmlEnergy(NvmlSensor):
    """The counter of energy."""

    method = "NVML energy counter"
    unit = "J"

    @override
    def _ask(self, gpu: _Gpu) -> float:
        return float(gpu.ask("nvmlDeviceGetTotalEnergyConsumption", gpu.handle)) / 1e3


class NvmlPower(NvmlSensor):
    """The power of the moment, or the average that GPUs since Ampere give for it."""

    method = "NVML power"
    unit = "W"

    @override
    def _find(self, gpu: _Gpu) -> None:
        try:
            self._instant = True
            self._ask(gpu)
            self.method = "NVML instant power"
        except SensorError:
            self._instant = False
            self._ask(gpu)
            self.method = "NVML power, since Ampere the average of a second"

    @override
    def _ask(self, gpu: _Gpu) -> float:
        if self._instant:
            return gpu.instant_milliwatts() / 1e3
        return float(gpu.ask("nvmlDeviceGetPowerUsage", gpu.handle)) / 1e3


class _Gpu:
    """A session with NVML and one GPU in it; every failure is a `SensorError`."""

    def __init__(self, device: torch.device) -> None:
        self.uuid = _uuid(device)
        self._nvml = _started()
        try:
            self.handle, self._slice = self._found()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session."""
        self._nvml.nvmlShutdown()

    def ask(self, name: str, *arguments: Any) -> Any:
        """What a function of NVML returns."""
        try:
            return getattr(self._nvml, name)(*arguments)
        except AttributeError as error:
            raise SensorError(f"this nvidia-ml-py has no {name}") from error
        except self._nvml.NVMLError as error:
            raise SensorError(f"{name}: {error}") from error

    def tell(self, name: str, *arguments: Any) -> Any:
        """The same; None where the GPU does not tell."""
        try:
            return self.ask(name, *arguments)
        except SensorError:
            return None

    def instant_milliwatts(self) -> float:
        """Power of the moment, which has no function of its own."""
        (answer,) = self.ask("nvmlDeviceGetFieldValues", self.handle, [_POWER_INSTANT])
        if answer.nvmlReturn != self._nvml.NVML_SUCCESS:
            raise SensorError(f"instant power: {self._nvml.NVMLError(answer.nvmlReturn)}")
        return float(answer.value.uiVal)

    def mig(self) -> bool | None:
        """Whether the GPU is cut into slices."""
        if self._slice:
            return True
        try:
            mode, _ = self._nvml.nvmlDeviceGetMigMode(self.handle)
        except self._nvml.NVMLError as error:
            # A GPU that cannot be cut.
            return False if error.value == self._nvml.NVML_ERROR_NOT_SUPPORTED else None
        return bool(mode)

    def shared(self) -> bool | None:
        """Whether other processes compute on it."""
        processes = self.tell("nvmlDeviceGetComputeRunningProcesses", self.handle)
        if processes is None:
            return None
        found = {process.pid for process in processes}
        # In a container this process has another number than NVML gives, so that a single
        # stranger may be itself.
        alone = found <= {os.getpid()}
        return None if not alone and len(found) == 1 else not alone

    def state(self) -> GpuState:
        """All that the GPU says of itself."""
        nvml, handle = self._nvml, self.handle
        driver = self.tell("nvmlSystemGetDriverVersion")
        return {
            "uuid": self.uuid,
            "driver": driver.decode() if isinstance(driver, bytes) else driver,
            "sm_mhz": self.tell("nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_SM),
            "memory_mhz": self.tell("nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_MEM),
            "celsius": self.tell("nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU),
            "mig": self.mig(),
            "shared": self.shared(),
            "throttles": self._throttles(),
        }

    def _throttles(self) -> list[str] | None:
        bits = self.tell("nvmlDeviceGetCurrentClocksEventReasons", self.handle)
        if bits is None:  # its name in older drivers
            bits = self.tell("nvmlDeviceGetCurrentClocksThrottleReasons", self.handle)
        if bits is None:
            return None
        return [name for bit, name in _THROTTLES.items() if bits & bit]

    def _found(self) -> tuple[Any, bool]:
        """The GPU's handle, and whether torch has only a slice of it."""
        by_uuid = "nvmlDeviceGetHandleByUUID"
        whole = self.tell(by_uuid, f"GPU-{self.uuid}".encode())
        if whole is not None:
            return whole, False
        part = self.ask(by_uuid, f"MIG-{self.uuid}".encode())
        return self.ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", part), True


def _uuid(device: torch.device) -> str:
    try:
        return str(torch.cuda.get_device_properties(device).uuid)
    except (AssertionError, AttributeError, RuntimeError) as error:
        reason = str(error).strip().splitlines() or ["no reason given"]
        raise SensorError(f"torch does not know {device}: {reason[0]}") from error


def _started() -> Any:
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError as error:
        raise SensorError("NVML needs `pip install nvidia-ml-py`") from error
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise SensorError(f"NVML does not start: {error}") from error
    return nvml
