"""The energy of a window, from the best source that each component has.

All sources run side by side over the window, and only at its end the best one that worked gives
the figure, alone: no figure mixes two. What kept the better ones from it is in the notes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType

import torch
from typing_extensions import Self

from llmrec_kernels.profiler.energy.clock import Clock
from llmrec_kernels.profiler.energy.estimate import CpuEstimate, GpuEstimate, Watts
from llmrec_kernels.profiler.energy.nvml import NvmlEnergy, NvmlPower
from llmrec_kernels.profiler.energy.rapl import Rapl
from llmrec_kernels.profiler.energy.reading import Reading, table, total
from llmrec_kernels.profiler.energy.sensor import COMPONENTS, Component, Sensor, SensorError
from llmrec_kernels.profiler.energy.sensor_window import CounterWindow, PowerWindow
from llmrec_kernels.profiler.energy.window import Window, opened
from llmrec_kernels.profiler.figures import Figure


class EnergyMonitor:
    """Measures the joules of what runs inside it, or estimates them.

    In order of trust: the energy counter of the GPU (NVML) or of CPU and memory (RAPL through
    powercap), NVML's power integrated, and an estimate from watts and utilisation. Counters see the
    whole device, whoever uses it. A window as long as some fifty ticks, which is 5 s for a GPU,
    bounds the energy to 2%; a note says where it was too short.

    Parameters
    ----------
    device : str or torch.device, optional
        Where the work runs: a CUDA device is measured too, and its work is waited for at both ends
        of the window. None: the GPU that torch computes on already, or else the CPU alone.
    cpu_watts : tuple of float, optional
        Watts that the CPUs of this process take, idle and full, for the estimate. None: the
        averages of cloud servers, 0.74 W and 3.5 W for each logical CPU.
    gpu_watts : tuple of float, optional
        Watts of the GPU, idle and TDP, for the estimate. None: without sensors it has no figure.
    idle_seconds : float
        How long the idle machine is measured before each window, so that counters can give `net`,
        the energy without what the machine takes anyway. 0: they give none.
    sensors : sequence of Sensor, optional
        Sensors in order of trust. None: those of this machine.
    clock : Clock, optional
        The time that replayed sensors live in. None: this machine's.

    Attributes
    ----------
    readings : list of Reading
        After the window: cpu, dram, gpu where `device` is one, and the total of those that are
        known. Empty where the work raised.

    Raises
    ------
    ValueError
        An argument is out of its range, or the clock did not advance within the window.

    Examples
    --------
    >>> with EnergyMonitor("cpu") as energy:
    ...     _ = sum(range(10**6))
    >>> [reading.component for reading in energy.readings]
    ['cpu', 'dram', 'total']
    >>> energy.readings[-1].gross.value > 0
    True
    """

    def __init__(
        self,
        device: str | torch.device | None = None,
        *,
        cpu_watts: tuple[float, float] | None = None,
        gpu_watts: tuple[float, float] | None = None,
        idle_seconds: float = 0.0,
        sensors: Sequence[Sensor] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not 0 <= idle_seconds < math.inf:
            raise ValueError(f"idle_seconds is {idle_seconds}; expected 0 or more, and finite")
        self._gpu = _gpu(device)
        self._cpu_watts = None if cpu_watts is None else Watts.given("cpu_watts", cpu_watts)
        self._gpu_watts = None if gpu_watts is None else Watts.given("gpu_watts", gpu_watts)
        self._idle_seconds = idle_seconds
        self._sensors = _sensors(self._gpu) if sensors is None else sensors
        self._clock = clock or Clock()
        self._components = COMPONENTS if self._gpu is not None else COMPONENTS[:-1]
        self._held: ExitStack | None = None  # while a window is open
        self._windows: list[Window] = []
        self._idle: list[Window | None] = []  # beside each of them, the idle one of its source
        self._missing: dict[Component, list[str]] = {}
        self.readings: list[Reading] = []

    def __enter__(self) -> Self:
        if self._held is not None:
            raise RuntimeError("this EnergyMonitor is open; expected another one inside it")
        self.readings = []
        with ExitStack() as stack:  # left from the last to the first
            sources = self._sources(stack)
            self._idle = self._idle_windows(sources)
            self._windows = [source() for source in sources]
            stack.push(self._conclude)
            self._synchronize()
            stack.enter_context(opened(self._windows, self._clock))
            stack.push(self._finish)
            self._held = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._held is not None
        held, self._held = self._held, None
        held.__exit__(kind, error, trace)

    def __str__(self) -> str:
        return table(self.readings)

    def _sources(self, stack: ExitStack) -> list[Callable[[], Window]]:
        """What opens a window on each source that there is, in order of trust."""
        self._missing = {component: [] for component in self._components}
        sources: list[Callable[[], Window]] = []
        for sensor in self._sensors:
            if sensor.component in self._components and self._opens(sensor, stack):
                window = CounterWindow if sensor.unit == "J" else PowerWindow
                sources.append(partial(window, sensor, self._clock))
        sources.append(partial(CpuEstimate, self._cpu_watts, self._clock))
        if self._gpu is not None and self._gpu_watts is not None:
            sources.append(partial(GpuEstimate, self._gpu_watts, self._clock))
        elif self._gpu is not None:
            self._missing["gpu"].append("estimate: gpu_watts is not given")
        return sources

    def _opens(self, sensor: Sensor, stack: ExitStack) -> bool:
        try:
            sensor.open()
        except SensorError as error:
            self._missing[sensor.component].append(f"{sensor.method}: {error}")
            return False
        stack.callback(sensor.close)
        return True

    def _idle_windows(self, sources: Sequence[Callable[[], Window]]) -> list[Window | None]:
        if self._idle_seconds == 0:
            return [None for _ in sources]
        windows = [source() for source in sources]
        self._synchronize()
        with opened(windows, self._clock):
            self._clock.sleep(self._idle_seconds)
        return [*windows]

    def _synchronize(self) -> None:
        """Let the GPU finish what it was given."""
        if self._gpu is not None and torch.cuda.is_initialized():
            torch.cuda.synchronize(self._gpu)

    def _finish(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self._synchronize()

    def _conclude(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Between the end of the window and the closing of the sensors."""
        if kind is None:
            readings = [self._reading(component) for component in self._components]
            self.readings = [*readings, total(readings, self._seconds())]

    def _reading(self, component: Component) -> Reading:
        """By the first source that has a figure."""
        notes = [*self._missing[component]]
        for window, idle in zip(self._windows, self._idle, strict=True):
            if window.component == component:
                gross, net = window.gross(), window.net(idle)
                if gross.value is not None:
                    return Reading(component, gross, net, window.seconds, notes + window.notes())
                notes.append(f"{window.method}: {gross.method}")
        nothing = Figure.unavailable("J", "; ".join(notes) or "no sensor was given")
        return Reading(component, nothing, nothing, self._seconds(), notes)

    def _seconds(self) -> float:
        return max(window.seconds for window in self._windows)


def _gpu(device: str | torch.device | None) -> torch.device | None:
    """The GPU to be measured."""
    if device is None:
        busy = torch.cuda.is_initialized()
        return torch.device("cuda", torch.cuda.current_device()) if busy else None
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {str(device)!r}; expected 'cpu', 'cuda' or 'cuda:<index>'")
    return found if found.type == "cuda" else None


def _sensors(gpu: torch.device | None) -> list[Sensor]:
    """Those of this machine, in order of trust."""
    found: list[Sensor] = [Rapl("cpu"), Rapl("dram")]
    return found if gpu is None else [*found, NvmlEnergy(gpu), NvmlPower(gpu)]
