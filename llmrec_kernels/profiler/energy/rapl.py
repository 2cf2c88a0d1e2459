"""Energy of the CPU and its memory by RAPL, as Linux shows it in powercap.

Each zone is a folder with a name and a counter of microjoules that starts again at 0 after
`max_energy_range_uj`. AMD's processors are under `intel-rapl` too. The zones nest:

    intel-rapl:0     package-0   a socket; several are added
    intel-rapl:0:0   core        part of the package, so not added
    intel-rapl:0:1   uncore      likewise
    intel-rapl:0:2   dram        nested, but not part of the package: a component of its own
    intel-rapl:1     psys        all of the board, packages included, so not added

`intel-rapl-mmio` shows the same packages a second time, and is left out.
(https://docs.kernel.org/power/powercap/powercap.html)
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from typing_extensions import override

from llmrec_kernels.profiler.energy.sensor import Sensor, SensorError

POWERCAP = Path("/sys/class/powercap")
_PREFIX = {"cpu": "package", "dram": "dram"}


class Rapl(Sensor):
    """The counters of one kind of zone, one part for each socket."""

    unit = "J"

    def __init__(self, component: Literal["cpu", "dram"], root: Path = POWERCAP) -> None:
        self.component = component
        self.method = f"RAPL {_PREFIX[component]}"
        self._root = root
        self._zones: list[_Zone] = []

    @override
    def open(self) -> None:
        prefix = _PREFIX[self.component]
        folders = sorted(self._root.glob("intel-rapl:*"))
        self._zones = [_Zone(f) for f in folders if _text(f / "name").startswith(prefix)]
        if not self._zones:
            raise SensorError(
                f"{self._root} has no {prefix} zone: the processor has no such counter, or a "
                "virtual machine or container hides it"
            )

    @override
    def read(self) -> tuple[float, ...]:
        return tuple(zone.joules() for zone in self._zones)

    @override
    def close(self) -> None:
        self._zones = []


class _Zone:
    """One counter, unrolled: it never falls."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "energy_uj"
        self._range = _microjoules(folder / "max_energy_range_uj")
        self._rolled = 0
        self._last = _microjoules(self._file)

    def joules(self) -> float:
        """Energy since some moment; read it at least once in each turn of the counter."""
        now = _microjoules(self._file)
        if now < self._last:
            self._rolled += self._range
        self._last = now
        return (self._rolled + now) / 1e6


def _microjoules(file: Path) -> int:
    text = _text(file)
    if not text.isdecimal():
        raise SensorError(f"{file} holds {text!r}; expected microjoules")
    return int(text)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except PermissionError as error:
        raise SensorError(
            f"no permission to read {file}: since Linux 5.10 only root may (CVE-2020-8694); "
            f"until the next boot `sudo chmod a+r {file.parent.parent}/intel-rapl:*/*energy*_uj` "
            "lets everyone"
        ) from error
    except OSError as error:
        raise SensorError(f"{file} cannot be read: {error.strerror}") from error
