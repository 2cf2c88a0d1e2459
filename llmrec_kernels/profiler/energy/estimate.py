"""What a device takes by what is known of it, where no sensor tells: the last resort.

The interval is all that the device can take, from idle to full: the watts of both times the
seconds. The value lies between them by utilisation, in a straight line, as the Cloud Carbon
Footprint methodology has it (https://www.cloudcarbonfootprint.org/docs/methodology/).
"""

from __future__ import annotations

import math
import os
from abc import abstractmethod
from dataclasses import dataclass

from typing_extensions import override

from llmrec_kernels.profiler.energy.clock import Clock
from llmrec_kernels.profiler.energy.sensor import Component
from llmrec_kernels.profiler.energy.window import Joules, Window
from llmrec_kernels.profiler.figures import Figure

# Watts of a virtual CPU, idle and full: the methodology's averages over the processors of AWS,
# 2021. Servers of that time went from 0.5 to 3 W idle and from 1.7 to 8.6 W full.
IDLE_WATTS, FULL_WATTS = 0.74, 3.5
LEAST_WATTS, MOST_WATTS = 0.5, 8.6
SOURCE = "Cloud Carbon Footprint's average of AWS, 2021"


@dataclass(frozen=True)
class Watts:
    """The power of a device, idle and with all its parts at work, and who says so.

    `least` and `most` are what the idle and the full one can be where these are averages.
    """

    idle: float
    full: float
    source: str
    least: float
    most: float

    @classmethod
    def given(cls, name: str, watts: tuple[float, float]) -> Watts:
        """By the user, in the argument of that name."""
        if len(watts) != 2 or not (0 <= watts[0] <= watts[1] < math.inf and watts[1] > 0):
            raise ValueError(
                f"{name} is {watts}; expected (idle, full) in watts, finite, "
                "with 0 <= idle <= full and full above 0"
            )
        return cls(*watts, name, *watts)

    @classmethod
    def of_cpus(cls, count: int) -> Watts:
        """Of so many logical CPUs of a server."""
        each = (LEAST_WATTS * count, MOST_WATTS * count)
        return cls(IDLE_WATTS * count, FULL_WATTS * count, SOURCE, *each)

    def __str__(self) -> str:
        return f"{self.idle:.3g} W idle to {self.full:.3g} W full ({self.source})"


def usable_cpus() -> int:
    """How many logical CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Estimate(Window):
    """Watts times seconds."""

    method = "estimate"

    def __init__(self, component: Component, watts: Watts, clock: Clock) -> None:
        self.component = component
        self._watts, self._clock = watts, clock
        self._began: float | None = None

    @override
    def sample(self) -> None:
        now = self._clock.now()
        if self._began is None:
            self._began = now
        self.seconds = now - self._began

    @override
    def gross(self) -> Figure:
        idle, full = self._watts.idle, self._watts.full
        watts = Joules(idle + self._load() * (full - idle), self._watts.least, self._watts.most)
        return watts.times(self.seconds).figure("estimated", self._how())

    @override
    def net(self, idle: Window | None) -> Figure:
        """The part that comes with load; what is known of the device tells it, no idle window."""
        span = self._watts.full - self._watts.idle
        watts = Joules(self._load() * span, 0.0, self._watts.most - self._watts.least)
        return watts.times(self.seconds).figure("estimated", f"{self._how()}, without idle")

    @abstractmethod
    def _load(self) -> float:
        """Utilisation, from 0 to 1."""

    @abstractmethod
    def _how(self) -> str:
        """The method of the figures."""


class CpuEstimate(Estimate):
    """Of the CPUs that this process may use, by the time that it has used of them.

    Other processes, its own children among them, are not seen.
    """

    def __init__(self, watts: Watts | None, clock: Clock) -> None:
        self._cpus = usable_cpus()
        super().__init__("cpu", watts or Watts.of_cpus(self._cpus), clock)
        self._used_before: float | None = None
        self._used = 0.0

    @override
    def sample(self) -> None:
        super().sample()
        used = self._clock.cpu_seconds()
        if self._used_before is None:
            self._used_before = used
        self._used = used - self._used_before

    @override
    def _load(self) -> float:
        return min(1.0, self._used / (self.seconds * self._cpus))

    @override
    def _how(self) -> str:
        return f"{self._watts}, {self._load():.0%} utilisation of {self._cpus} CPUs"


class GpuEstimate(Estimate):
    """Of a GPU whose sensors say nothing, so that its utilisation is not known either."""

    def __init__(self, watts: Watts, clock: Clock) -> None:
        super().__init__("gpu", watts, clock)

    @override
    def _load(self) -> float:
        return 0.5

    @override
    def _how(self) -> str:
        return f"the middle of {self._watts}"
