"""What a sensor of energy is: something that opens, is read, and closes.

There are two kinds. A counter shows the joules since some moment, a meter the watts of this
moment. What makes a figure of their readings is in `sensor_window.py`, so that a replayed sensor
stands in for any of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

Component = Literal["cpu", "dram", "gpu"]
COMPONENTS: tuple[Component, ...] = ("cpu", "dram", "gpu")


class SensorError(Exception):
    """Why a sensor gives nothing, in a sentence for the user."""


class Sensor(ABC):
    """One source of energy or power of one component.

    Attributes
    ----------
    component
        What it measures.
    method
        Its name in a figure.
    unit
        "J": a counter, whose readings never fall. "W": a meter.
    """

    component: Component
    method: str
    unit: Literal["J", "W"]

    @abstractmethod
    def open(self) -> None:
        """Take what reading needs; raises `SensorError`, and then holds nothing."""

    @abstractmethod
    def read(self) -> tuple[float, ...]:
        """A number for each part, such as a socket; raises `SensorError`.

        Parts tick by themselves, so their sum must not be taken here.
        """

    def notes(self) -> list[str]:
        """What makes its figures worth less, in sentences."""
        return []

    @abstractmethod
    def close(self) -> None:
        """Give back what `open` took."""
