"""A window in time, over which every source of energy runs side by side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from llmrec_kernels.profiler.energy.clock import Clock
from llmrec_kernels.profiler.energy.sensor import Component
from llmrec_kernels.profiler.figures import Figure, Quality

# After the window the counters have so long for a tick, and are read so often. NVML's ticks every
# 0.1 s or sooner, RAPL's every millisecond.
TICK_SECONDS, POLL_SECONDS = 1.0, 0.001


class Joules(NamedTuple):
    """An energy and its interval."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Joules:
        """As much of it."""
        return Joules(self.value * factor, self.low * factor, self.high * factor)

    def minus(self, other: Joules) -> Joules:
        """What is left without another; below 0 where the two are equal but for their error."""
        return Joules(self.value - other.value, self.low - other.high, self.high - other.low)

    def figure(self, quality: Quality, method: str) -> Figure:
        """As a figure."""
        return Figure(
            value=self.value,
            unit="J",
            quality=quality,
            method=method,
            low=self.low,
            high=self.high,
        )


class Window(ABC):
    """One source over one window: sampled at its start, within it and at its end, then settled."""

    component: Component
    method: str
    seconds: float = 0.0  # from the first sample to the last

    @abstractmethod
    def sample(self) -> None:
        """Take one sample."""

    def settle(self) -> bool:
        """After the window: look once more, and tell whether nothing is left to wait for."""
        return True

    @abstractmethod
    def gross(self) -> Figure:
        """The joules of the window, or why they are not known."""

    @abstractmethod
    def net(self, idle: Window | None) -> Figure:
        """The joules without those that the idle machine takes, by this source's idle window."""

    def notes(self) -> list[str]:
        """What makes the figures worth less."""
        return []


@contextmanager
def opened(windows: Sequence[Window], clock: Clock) -> Iterator[None]:
    """The context is the window. Nothing is waited for where it raises."""

    def sample() -> None:
        for window in windows:
            window.sample()

    sample()
    began = clock.now()
    with clock.sampling(sample):
        yield
    if (seconds := clock.now() - began) <= 0:
        raise ValueError(
            f"the window is {seconds:g} s long; expected more than 0: repeat the work in it"
        )
    sample()
    limit, waiting = clock.now() + TICK_SECONDS, [*windows]
    while waiting := [window for window in waiting if not window.settle()]:
        if clock.now() >= limit:
            return
        clock.sleep(POLL_SECONDS)
