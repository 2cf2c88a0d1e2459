"""Joules and seconds as kilowatt-hours, grams of CO2e and money.

Energy and time are measured; what turns them into carbon and money is assumed, and listed as
such: how clean the grid is, how much a data centre takes besides its computers, and prices. The
first two have defaults, and where nothing is said of the place these are averages over all places:
the world's grid (`grids.csv`) and the industry's overhead (`pue.csv`). Prices have none. Money for
energy and money for a machine are never added up: the rent of a machine pays its electricity.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Literal

from llmrec_kernels.profiler.figures import Figure
from llmrec_kernels.profiler.hardware import find, read_table
from llmrec_kernels.profiler.report import Assumption, Costs

JOULES_PER_KWH = 3.6e6
DEFAULT_GRID, DEFAULT_PUE = "WORLD", "industry"
TimeQuality = Literal["measured", "modelled"]


@functools.cache
def grids() -> Mapping[str, Assumption]:
    """Grams of CO2e per kWh of the grids in `grids.csv`, by code (ISO 3166, three letters).

    Examples
    --------
    >>> grids()["FRA"].value, grids()["FRA"].year
    (56.039, 2023)
    """
    return {
        row["code"]: Assumption(
            name=f"grid ({row['country']})",
            value=float(row["grams_co2e_per_kwh"]),
            unit="g CO2e/kWh",
            source=row["source"],
            year=int(row["year"]),
        )
        for row in read_table("grids.csv")
    }


@functools.cache
def pues() -> Mapping[str, Assumption]:
    """Power usage effectiveness of the fleets in `pue.csv`: all power over that of computers.

    Examples
    --------
    >>> pues()["none"].value
    1.0
    """
    return {
        row["name"]: Assumption(
            name=f"pue ({row['name']})",
            value=float(row["pue"]),
            unit="",
            source="; ".join(filter(None, (row["source"], row["doubt"]))),
            year=int(row["year"]) if row["year"] else None,
        )
        for row in read_table("pue.csv")
    }


@dataclass(frozen=True)
class CostModel:
    """What energy and time cost at a place and at given prices.

    Parameters
    ----------
    grid
        Code of a country in `grids.csv` such as "FRA", or grams of CO2e per kWh; None: the world.
    pue
        Power usage effectiveness, at least 1, or a name in `pue.csv` such as "aws" or, for a
        machine that stands in no data centre, "none"; None: the industry's average.
    usd_per_kwh
        Price of electricity; None: no figure of money for energy.
    usd_per_hour
        Price of the whole machine for an hour; None: no figure of money for its time.
    units_per_day
        Load for which a day is reckoned too; None: no such day.

    Raises
    ------
    TypeError
        What should be a number is none.
    ValueError
        A number is not finite or too small, or a name is in no table.

    Examples
    --------
    >>> model = CostModel(grid="FRA", pue=1.15, usd_per_hour=1.006)
    >>> joules = Figure(value=2.0, unit="J", quality="measured", method="a counter")
    >>> one, million = model.costs(0.5, 1000, "query", joules)
    >>> million.amount, million.seconds
    ('1,000,000 queries', 500.0)
    >>> print(million.carbon)
    0.0358 g CO2e (measured)
    >>> print(million.instance_money)
    0.1397 USD (measured)
    >>> print(million.energy_money)
    unavailable: no price was given: usd_per_kwh=...
    """

    grid: str | float | None = None
    pue: str | float | None = None
    usd_per_kwh: float | None = None
    usd_per_hour: float | None = None
    units_per_day: float | None = None

    def __post_init__(self) -> None:
        self.assumptions()  # refuses what it cannot resolve

    def assumptions(self) -> list[Assumption]:
        """All that the costs rest on and that was not measured."""
        found = [self._grid(), self._pue()]
        if self.usd_per_kwh is not None:
            price = _at_least("usd_per_kwh", self.usd_per_kwh, 0)
            found.append(_given("price of electricity", price, "USD/kWh"))
        if self.usd_per_hour is not None:
            price = _at_least("usd_per_hour", self.usd_per_hour, 0)
            found.append(_given("price of the machine", price, "USD/hour"))
        if self.units_per_day is not None:
            load = _above_zero("units_per_day", self.units_per_day)
            found.append(_given("load", load, "units/day"))
        return found

    def costs(
        self,
        seconds_per_call: float,
        units_per_call: float,
        unit: str,
        energy: Figure,
        time_quality: TimeQuality = "measured",
    ) -> list[Costs]:
        """Costs of one unit, of a million, and of a day where there is a load.

        A day has the seconds that its units take: above 86,400 it takes more than one such
        device, and its money is that of as many machine hours. Hours in which a machine stands
        idle are not in it.

        Parameters
        ----------
        seconds_per_call, units_per_call
            Time of a call in seconds, and the units of work that are done in it.
        unit
            What a unit is, such as "query".
        energy
            Joules of a call: gross, with what the machine takes when idle.
        time_quality
            Where `seconds_per_call` comes from.

        Raises
        ------
        TypeError
            What should be a number is none.
        ValueError
            A number is not finite or too small, or the energy is not in joules.
        """
        seconds = _at_least("seconds_per_call", seconds_per_call, 0)
        per_call = _above_zero("units_per_call", units_per_call)
        if energy.unit != "J":
            raise ValueError(f"energy is in {energy.unit}; expected the joules of a call, in J")
        amounts = {f"1 {unit}": 1.0, f"1,000,000 {_plural(unit)}": 1e6}
        if self.units_per_day is not None:
            amounts["a day"] = float(self.units_per_day)
        found = []
        for amount, units in amounts.items():
            calls = units / per_call
            joules = energy.times(calls, "J")
            found.append(self._costs(amount, units, seconds * calls, joules, time_quality))
        return found

    def _costs(
        self, amount: str, units: float, seconds: float, joules: Figure, time_quality: TimeQuality
    ) -> Costs:
        kwh = joules.times(self._pue().value / JOULES_PER_KWH, "kWh")
        return Costs(
            amount=amount,
            units=units,
            seconds=seconds,
            energy=kwh,
            carbon=kwh.times(self._grid().value, "g CO2e"),
            energy_money=self._energy_money(kwh),
            instance_money=self._instance_money(seconds, time_quality),
        )

    def _energy_money(self, kwh: Figure) -> Figure:
        if self.usd_per_kwh is None:
            return Figure.unavailable("USD", "no price was given: usd_per_kwh=...")
        return kwh.times(self.usd_per_kwh, "USD")

    def _instance_money(self, seconds: float, time_quality: TimeQuality) -> Figure:
        if self.usd_per_hour is None:
            return Figure.unavailable("USD", "no price was given: usd_per_hour=...")
        return Figure(
            value=seconds / 3600 * self.usd_per_hour,
            unit="USD",
            quality=time_quality,
            method=f"time at {self.usd_per_hour} USD an hour",
        )

    def _grid(self) -> Assumption:
        if isinstance(self.grid, str):
            return find("grid", self.grid, grids())
        if self.grid is None:
            return _by_default(grids()[DEFAULT_GRID])
        return _given("grid", _at_least("grid", self.grid, 0), "g CO2e/kWh")

    def _pue(self) -> Assumption:
        if isinstance(self.pue, str):
            return find("pue", self.pue, pues())
        if self.pue is None:
            return _by_default(pues()[DEFAULT_PUE])
        return _given("pue", _at_least("pue", self.pue, 1), "")


def _by_default(row: Assumption) -> Assumption:
    return row.model_copy(update={"source": f"the default, as none was given; {row.source}"})


def _given(name: str, value: float, unit: str) -> Assumption:
    return Assumption(name=name, value=value, unit=unit, source="given", year=None)


def _finite(argument: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{argument} is {value!r}; expected a number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{argument} is {number}; expected a finite number")
    return number


def _at_least(argument: str, value: object, least: float) -> float:
    number = _finite(argument, value)
    if number < least:
        raise ValueError(f"{argument} is {value}; expected at least {least}")
    return number


def _above_zero(argument: str, value: object) -> float:
    number = _finite(argument, value)
    if number <= 0:
        raise ValueError(f"{argument} is {value}; expected more than 0")
    return number


def _plural(unit: str) -> str:
    """A unit's English plural: queries, days, batches, users."""
    if unit.endswith("y") and unit[-2:-1] not in tuple("aeiou"):
        return unit[:-1] + "ies"
    return unit + ("es" if unit.endswith(("s", "x", "ch", "sh")) else "s")
