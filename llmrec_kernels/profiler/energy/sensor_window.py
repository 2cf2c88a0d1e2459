"""From readings to joules: the part of a sensor's record that belongs to a window.

A counter ticks: between two ticks it shows the energy up to the first of them, so it is exact only
from tick to tick. The window lies between two such spans: around it, from the last tick before it
to the first one after it; and within it, from the first tick in it to the last. Its energy is
therefore at most that of the outer span and at least that of the inner one, whatever the power did.
The middle of the two is the value. The bound is about one tick at each end, so a window of fifty
ticks gives 2%.

A meter knows the power at moments. The energy is the area under it, by trapezoids; its interval
takes for granted that between two samples the power stays between them.

The bounds are those of the window. How true a sensor itself is, no window can tell.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

from typing_extensions import override

from llmrec_kernels.profiler.energy.clock import Clock
from llmrec_kernels.profiler.energy.sensor import Sensor, SensorError
from llmrec_kernels.profiler.energy.window import TICK_SECONDS, Joules, Window
from llmrec_kernels.profiler.figures import Figure, Quality

# A counter's window is long enough for this: its error falls as its length grows.
GOOD_ERROR = 0.02


class SensorWindow(Window):
    """What counters and meters have in common."""

    quality: Quality

    def __init__(self, sensor: Sensor, clock: Clock) -> None:
        self.component, self.method = sensor.component, sensor.method
        self._sensor, self._clock = sensor, clock
        self._began: float | None = None
        self._failure: str | None = None

    @override
    def sample(self) -> None:
        readings = self._read()
        if readings is None:
            return
        # After the reading, so that what it shows has happened by then.
        now = self._clock.now()
        if self._began is None:
            self._began = now
        self.seconds = now - self._began
        self._add(readings, now)

    @override
    def gross(self) -> Figure:
        if problem := self._problem():
            return Figure.unavailable("J", problem)
        return self._joules().figure(self.quality, self._how())

    @override
    def net(self, idle: Window | None) -> Figure:
        if problem := self._problem():
            return Figure.unavailable("J", problem)
        if not isinstance(idle, SensorWindow):
            return Figure.unavailable("J", "no idle window was measured")
        if problem := idle._problem():
            return Figure.unavailable("J", f"in the idle window: {problem}")
        rest = idle._joules().times(self.seconds / idle.seconds)
        how = f"{self._how()}, without {rest.value / self.seconds:.3g} W of the idle machine"
        return self._joules().minus(rest).figure(self.quality, how)

    @override
    def notes(self) -> list[str]:
        return self._sensor.notes()

    def _read(self) -> tuple[float, ...] | None:
        """None from the first failure on: what came before does not make a window."""
        if self._failure is not None:
            return None
        try:
            return self._sensor.read()
        except SensorError as error:
            self._failure = str(error)
            return None

    def _how(self) -> str:
        return self.method

    @abstractmethod
    def _add(self, readings: tuple[float, ...], now: float) -> None:
        """Take in the readings of a moment."""

    @abstractmethod
    def _problem(self) -> str | None:
        """Why the window has no energy; None where it has."""

    @abstractmethod
    def _joules(self) -> Joules:
        """The energy where there is no problem."""


@dataclass
class _NextTick:
    """The first tick that surely came after a moment, from the readings after it.

    A reading takes time. The tick that the first of them shows may have come while the reading
    that marks the moment was under way, so it only tells where the counter stood.
    """

    stood: float | None = None
    joules: float | None = None

    def add(self, joules: float) -> None:
        if self.stood is None:
            self.stood = joules
        elif self.joules is None and joules > self.stood:
            self.joules = joules


@dataclass
class _Part:
    """What one part of a counter showed."""

    before: float  # at the start of the window, as of the last tick before it
    last: float  # at its end, as of the last tick in it
    first: _NextTick = field(default_factory=_NextTick)  # in the window
    after: _NextTick = field(default_factory=_NextTick)  # behind it


class CounterWindow(SensorWindow):
    """The energy between two readings of a counter."""

    quality = "measured"

    def __init__(self, sensor: Sensor, clock: Clock) -> None:
        super().__init__(sensor, clock)
        self._parts: list[_Part] = []

    @override
    def _add(self, readings: tuple[float, ...], now: float) -> None:
        if not self._parts:
            self._parts = [_Part(before=joules, last=joules) for joules in readings]
            return
        for part, joules in zip(self._parts, readings, strict=True):
            if joules < part.last:
                self._failure = f"the counter fell from {part.last:g} J to {joules:g} J"
            part.first.add(joules)
            part.last = joules

    @override
    def settle(self) -> bool:
        for part, joules in zip(self._parts, self._read() or (), strict=False):
            part.after.add(joules)
        ticked = all(part.after.joules is not None for part in self._parts)
        return ticked or self._failure is not None

    @override
    def notes(self) -> list[str]:
        notes, error = super().notes(), self.gross().error
        if error is not None and error > GOOD_ERROR:
            notes.append(
                f"{self.method}: {self.seconds:.3g} s are too short for ±{GOOD_ERROR:.0%}; "
                f"{self.seconds * error / GOOD_ERROR:.3g} s would do"
            )
        return notes

    @override
    def _problem(self) -> str | None:
        if self._failure is not None:
            return self._failure
        if any(part.after.joules is None for part in self._parts):
            return f"the counter stalls: no tick in {TICK_SECONDS:g} s"
        if any(part.first.joules is None for part in self._parts):
            return f"no tick of the counter in the {self.seconds:.3g} s of the window"
        return None

    @override
    def _joules(self) -> Joules:
        low = high = 0.0
        for part in self._parts:
            assert part.first.joules is not None
            assert part.after.joules is not None
            low += part.last - part.first.joules
            high += part.after.joules - part.before
        return Joules((low + high) / 2, low, high)


class PowerWindow(SensorWindow):
    """The area under the samples of a meter."""

    quality = "integrated"

    def __init__(self, sensor: Sensor, clock: Clock) -> None:
        super().__init__(sensor, clock)
        self._samples = 0
        self._last = (0.0, 0.0)  # moment, watts
        self._changed = False
        self._area = Joules(0.0, 0.0, 0.0)

    @override
    def _add(self, readings: tuple[float, ...], now: float) -> None:
        watts = sum(readings)
        if self._samples:
            then, before = self._last
            seconds, area = now - then, self._area
            self._area = Joules(
                area.value + seconds * (before + watts) / 2,
                area.low + seconds * min(before, watts),
                area.high + seconds * max(before, watts),
            )
            self._changed |= watts != before
        self._samples += 1
        self._last = (now, watts)

    @override
    def _how(self) -> str:
        return f"{self.method}, {self._samples} samples"

    @override
    def _problem(self) -> str | None:
        if self._failure is not None:
            return self._failure
        if not self._changed:
            return (
                f"the meter showed one power all the {self.seconds:.3g} s of the window: "
                "it stalls, or they are too short"
            )
        return None

    @override
    def _joules(self) -> Joules:
        return self._area
