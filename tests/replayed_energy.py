"""Sensors and a clock that replay synthetic traces, for the hardware that is not there."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from llmrec_kernels.profiler.energy.clock import FIRST_PAUSE, THREAD, Clock
from llmrec_kernels.profiler.energy.sensor import Component, Sensor, SensorError


class ReplayedClock(Clock):
    """Time passes when it is told to; samples come first soon, then every `pause` seconds."""

    def __init__(self, pause: float = 0.05) -> None:
        self.time = 0.0
        self.cpu_time = 0.0
        self._pause, self._next = pause, pause
        self._sample: Callable[[], None] | None = None

    def now(self) -> float:
        return self.time

    def cpu_seconds(self) -> float:
        return self.cpu_time

    def sleep(self, seconds: float) -> None:
        end = self.time + seconds
        while self._sample is not None and self.time + self._next < end:
            self.time += self._next
            self._next = min(2 * self._next, self._pause)
            self._sample()
        self.time = max(self.time, end)

    @contextmanager
    def sampling(self, sample: Callable[[], None]) -> Iterator[None]:
        assert self._sample is None, "one window at a time"
        self._sample, self._next = sample, FIRST_PAUSE
        try:
            yield
        finally:
            self._sample = None


@dataclass(frozen=True)
class Power:
    """A trace of power: pieces of (seconds, watts), the last of which lasts on."""

    pieces: Sequence[tuple[float, float]]

    def joules(self, moment: float) -> float:
        """What was taken up to a moment."""
        total = 0.0
        for index, (seconds, watts) in enumerate(self.pieces):
            last = index == len(self.pieces) - 1
            part = moment if last else min(moment, seconds)
            total += watts * max(0.0, part)
            moment -= seconds
        return total

    def watts(self, moment: float) -> float:
        """What is taken at a moment."""
        for seconds, watts in self.pieces[:-1]:
            if moment < seconds:
                return watts
            moment -= seconds
        return self.pieces[-1][1]


class ReplayedSensor(Sensor):
    """Answers by the clock.

    `fails` is the moment from which it raises, and the reason; `cost` the seconds of a reading.
    """

    def __init__(
        self,
        clock: ReplayedClock,
        reading: Callable[[float], Sequence[float]],
        *,
        component: Component = "cpu",
        unit: Literal["J", "W"] = "J",
        method: str = "replayed counter",
        fails: tuple[float, str] = (math.inf, ""),
        note: str | None = None,
        cost: float = 0.0,
    ) -> None:
        self.component, self.unit, self.method = component, unit, method
        self.is_open = False
        self.opened = 0
        self._clock, self._reading, self._fails, self._note = clock, reading, fails, note
        self._cost = cost

    def open(self) -> None:
        assert not self.is_open
        self.is_open = True
        self.opened += 1

    def read(self) -> tuple[float, ...]:
        assert self.is_open
        since, error = self._fails
        if self._clock.time >= since:
            raise SensorError(error)
        self._clock.time += self._cost / 2
        answer = tuple(self._reading(self._clock.time))
        self._clock.time += self._cost / 2
        return answer

    def notes(self) -> list[str]:
        assert self.is_open
        return [] if self._note is None else [self._note]

    def close(self) -> None:
        assert self.is_open
        self.is_open = False


def ticking(*parts: Power, every: float, phase: float = 0.0) -> Callable[[float], list[float]]:
    """Counters of these powers that show the energy up to their last tick."""

    def reading(moment: float) -> list[float]:
        tick = max(0.0, math.floor((moment - phase) / every) * every + phase)
        return [power.joules(tick) for power in parts]

    return reading


def stalling(
    reading: Callable[[float], list[float]], since: float
) -> Callable[[float], list[float]]:
    """The same counters, stuck from a moment on."""
    return lambda moment: reading(min(moment, since))


def write_zone(
    root: Path, zone: str, name: str, *, microjoules: int = 0, wraps_at: int = 10**9
) -> Path:
    """A zone of powercap as a folder: the counter's file."""
    folder = root / zone
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{wraps_at}\n")
    counter = folder / "energy_uj"
    counter.write_text(f"{microjoules}\n")
    return counter


def sampling_threads() -> list[threading.Thread]:
    """Those of the real clock that are alive."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(THREAD)]


class ReplayedNvmlError(Exception):
    """As pynvml's: an error has a number."""

    def __init__(self, value: int) -> None:
        super().__init__(f"error {value}")
        self.value = value


@dataclass
class ReplayedNvml:
    """Stands in for the module pynvml: one GPU, whose answers are these fields.

    An exception among them is raised instead of returned.
    """

    energy: Any = 0  # millijoules, or a function that gives them
    power: Any = 100_000  # milliwatts
    instant_power: Any = 120_000
    mig_mode: Any = (0, 0)
    processes: Any = ()
    slices: bool = False  # torch's UUID is that of a slice
    clocks: Any = (1980, 2619)
    celsius: Any = 41
    throttles: Any = 0
    driver: Any = b"580.65.06"
    uuid: str = "replayed"
    starts: Any = None
    sessions: int = 0
    started: int = 0

    NVMLError = ReplayedNvmlError
    NVML_SUCCESS, NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_NOT_FOUND = 0, 3, 6
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    NVML_FI_DEV_POWER_INSTANT = 186

    def nvmlInit(self) -> None:  # noqa: N802
        self._answer(self.starts)
        self.sessions += 1
        self.started += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        assert self.sessions > 0
        self.sessions -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes) -> str:  # noqa: N802
        expected = f"{'MIG' if self.slices else 'GPU'}-{self.uuid}".encode()
        return self._answer("slice" if self.slices else "gpu", uuid == expected)

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: str) -> str:  # noqa: N802
        return self._answer("gpu", handle == "slice")

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        return self._answer(self.energy, handle == "gpu")

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        return self._answer(self.power, handle == "gpu")

    def nvmlDeviceGetFieldValues(self, handle: str, fields: list[int]) -> list[Any]:  # noqa: N802
        assert fields == [self.NVML_FI_DEV_POWER_INSTANT]
        if isinstance(self.instant_power, ReplayedNvmlError):  # told in the answer, not raised
            return [SimpleNamespace(nvmlReturn=self.instant_power.value)]
        value = SimpleNamespace(uiVal=self._answer(self.instant_power, handle == "gpu"))
        return [SimpleNamespace(nvmlReturn=self.NVML_SUCCESS, value=value)]

    def nvmlDeviceGetMigMode(self, handle: str) -> tuple[int, int]:  # noqa: N802
        return self._answer(self.mig_mode, handle == "gpu")

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:  # noqa: N802
        pids = self._answer(self.processes, handle == "gpu")
        return [SimpleNamespace(pid=pid) for pid in pids]

    def nvmlDeviceGetClockInfo(self, handle: str, which: int) -> int:  # noqa: N802
        return self._answer(self.clocks, handle == "gpu")[which - 1]

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:  # noqa: N802
        return self._answer(self.celsius, handle == "gpu" and sensor == 0)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:  # noqa: N802
        return self._answer(self.throttles, handle == "gpu")

    def nvmlSystemGetDriverVersion(self) -> Any:  # noqa: N802
        return self._answer(self.driver)

    def _answer(self, answer: Any, found: bool = True) -> Any:
        if self.sessions == 0 and answer is not self.starts:
            raise ReplayedNvmlError(1)  # not initialized
        if not found:
            raise ReplayedNvmlError(self.NVML_ERROR_NOT_FOUND)
        if isinstance(answer, BaseException):
            raise answer
        return answer() if callable(answer) else answer
