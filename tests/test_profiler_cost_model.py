"""Costs are joules and seconds times what the model says that it assumes, and no more."""

import csv
import math
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec_kernels import profiler
from llmrec_kernels.profiler.cost_model import CostModel, grids, pues
from llmrec_kernels.profiler.figures import Figure

TABLES = Path(profiler.__file__).parent
TWO_JOULES = Figure(value=2.0, unit="J", quality="measured", method="a counter", low=1.9, high=2.2)
UNKNOWN = Figure.unavailable("J", "there is no counter")
prices = st.floats(0, 1e3)
amounts = st.floats(1e-6, 1e6)


def written(file: str) -> list[dict[str, str]]:
    with (TABLES / file).open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def test_a_million_units_cost_what_a_hand_finds() -> None:
    # 1,000 queries in half a second and 2 J: a million take 500 s and 2,000 J.
    model = CostModel(grid=100, pue=1.5, usd_per_kwh=0.2, usd_per_hour=3.6)
    _, million = model.costs(0.5, 1000, "query", TWO_JOULES)
    assert (million.amount, million.units) == ("1,000,000 queries", 1e6)
    assert million.seconds == pytest.approx(500)
    kwh = 1.5 * 2000 / 3_600_000  # 0.000833
    assert million.energy.value == pytest.approx(kwh)
    assert million.carbon.value == pytest.approx(100 * kwh)
    assert million.energy_money.value == pytest.approx(0.2 * kwh)
    assert million.instance_money.value == pytest.approx(0.5)  # 500 s at a tenth of a cent
    assert [million.energy.unit, million.carbon.unit] == ["kWh", "g CO2e"]
    assert [million.energy_money.unit, million.instance_money.unit] == ["USD", "USD"]


def test_one_unit_is_a_millionth_of_a_million() -> None:
    one, million = CostModel(usd_per_kwh=0.2, usd_per_hour=3).costs(0.5, 8, "user", TWO_JOULES)
    assert (one.amount, million.amount) == ("1 user", "1,000,000 users")
    assert one.seconds == pytest.approx(0.0625)
    for name in ("energy", "carbon", "energy_money", "instance_money"):
        less, more = getattr(one, name).value, getattr(million, name).value
        assert 1e6 * less == pytest.approx(more)
        assert less > 0


@pytest.mark.parametrize(
    ("unit", "units"),
    [("query", "queries"), ("batch", "batches"), ("box", "boxes"), ("item", "items"),
     ("key", "keys"), ("class", "classes")],
)  # fmt: skip
def test_a_million_units_are_named_in_the_plural(unit: str, units: str) -> None:
    one, million = CostModel().costs(1, 1, unit, TWO_JOULES)
    assert (one.amount, million.amount) == (f"1 {unit}", f"1,000,000 {units}")


def test_a_day_is_there_only_with_a_load_and_may_ask_for_more_than_one_device() -> None:
    day = CostModel(pue=1, usd_per_hour=2, units_per_day=172_800_000).costs(
        1, 1000, "query", TWO_JOULES
    )[2]
    assert (day.amount, day.units) == ("a day", 172_800_000)
    assert day.seconds == pytest.approx(2 * 86_400)  # two devices
    assert day.instance_money.value == pytest.approx(2 * 24 * 2)
    assert day.energy.value == pytest.approx(2 * 172_800 / 3.6e6)
    assert len(CostModel().costs(1, 1000, "query", TWO_JOULES)) == 2


def test_the_interval_and_the_label_of_the_energy_are_carried_through() -> None:
    one, _ = CostModel(grid=50, pue=1.2, usd_per_kwh=0.1).costs(1, 1, "query", TWO_JOULES)
    for figure in (one.energy, one.carbon, one.energy_money):
        assert figure.low == pytest.approx(figure.value * 1.9 / 2.0)
        assert figure.high == pytest.approx(figure.value * 2.2 / 2.0)
        assert (figure.quality, figure.method) == ("measured", "a counter")
    modelled = Figure(value=1.0, unit="J", quality="modelled", method="TDP times time")
    assert CostModel().costs(1, 1, "query", modelled)[0].carbon.quality == "modelled"


def test_the_money_for_time_is_as_good_as_the_time() -> None:
    model = CostModel(usd_per_hour=1.006)
    estimated = Figure(value=1.0, unit="J", quality="estimated", method="TDP")
    measured = model.costs(1, 1, "query", estimated)[0].instance_money
    assert (measured.quality, measured.method) == ("measured", "time at 1.006 USD an hour")
    found = model.costs(1, 1, "query", estimated, time_quality="modelled")[0]
    assert (found.instance_money.quality, found.energy.quality) == ("modelled", "estimated")


def test_a_country_s_grid_and_a_fleet_s_overhead_are_those_of_the_tables() -> None:
    grid, pue = CostModel(grid="fra", pue="AWS").assumptions()
    assert (grid.name, grid.value, grid.year) == ("grid (France)", 56.039, 2023)
    assert grid.source == "codecarbon 3.3.2, global_energy_mix.json (Our World in Data)"
    assert (pue.name, pue.value, pue.year) == ("pue (aws)", 1.14, 2025)
    one, _ = CostModel(grid="FRA", pue="aws").costs(1, 1, "query", TWO_JOULES)
    assert one.carbon.value == pytest.approx(56.039 * 1.14 * 2 / 3.6e6)


def test_the_defaults_are_averages_with_a_year_and_a_page_and_say_that_they_are_defaults() -> None:
    grid, pue = CostModel().assumptions()
    assert (grid.name, grid.value, grid.unit, grid.year) == (
        "grid (World)", 480, "g CO2e/kWh", 2023,
    )  # fmt: skip
    assert (pue.name, pue.value, pue.year) == ("pue (industry)", 1.54, 2025)
    for each in (grid, pue):
        assert each.source.startswith("the default, as none was given; ")
        assert "https://" in each.source
    one, _ = CostModel().costs(1, 1, "query", TWO_JOULES)
    assert one.carbon.value == pytest.approx(480 * 1.54 * 2 / 3.6e6)


def test_every_number_that_costs_rest_on_is_listed() -> None:
    model = CostModel(grid=20, pue=1.1, usd_per_kwh=0.1, usd_per_hour=1.006, units_per_day=1e7)
    assert [(each.name, each.value, each.unit) for each in model.assumptions()] == [
        ("grid", 20, "g CO2e/kWh"),
        ("pue", 1.1, ""),
        ("price of electricity", 0.1, "USD/kWh"),
        ("price of the machine", 1.006, "USD/hour"),
        ("load", 1e7, "units/day"),
    ]
    assert {(each.source, each.year) for each in model.assumptions()} == {("given", None)}


@given(joules=st.floats(0, 1e9), seconds=st.floats(0, 1e6), units=amounts, factor=amounts)
def test_costs_grow_with_the_units(
    joules: float, seconds: float, units: float, factor: float
) -> None:
    energy = Figure(value=joules, unit="J", quality="measured", method="")

    def day(load: float) -> list[float]:
        model = CostModel(usd_per_kwh=0.3, usd_per_hour=2, units_per_day=load)
        found = model.costs(seconds, units, "query", energy)[2]
        figures = (found.energy, found.carbon, found.energy_money, found.instance_money)
        return [found.seconds, *(figure.value for figure in figures if figure.value is not None)]

    assert len(day(factor)) == 5
    assert day(factor) == pytest.approx([factor * each for each in day(1)], rel=1e-9)


@given(per_kwh=st.none() | prices, per_hour=st.none() | prices)
def test_there_is_money_exactly_where_there_is_a_price(
    per_kwh: float | None, per_hour: float | None
) -> None:
    model = CostModel(usd_per_kwh=per_kwh, usd_per_hour=per_hour, units_per_day=10)
    for costs in model.costs(1, 1, "query", TWO_JOULES):
        for figure, price, name in (
            (costs.energy_money, per_kwh, "usd_per_kwh"),
            (costs.instance_money, per_hour, "usd_per_hour"),
        ):
            assert (figure.value is None) == (price is None)
            if price is None:
                assert str(figure) == f"unavailable: no price was given: {name}=..."
                assert figure.unit == "USD"


@given(grid=st.sampled_from([None, *grids()]), per_kwh=st.none() | prices, per_hour=prices)
def test_unknown_energy_is_no_carbon_and_no_money_and_never_zero(
    grid: str | None, per_kwh: float | None, per_hour: float
) -> None:
    model = CostModel(grid=grid, usd_per_kwh=per_kwh, usd_per_hour=per_hour)
    for costs in model.costs(1, 1, "query", UNKNOWN):
        for figure, unit in ((costs.energy, "kWh"), (costs.carbon, "g CO2e")):
            assert (figure.value, figure.unit) == (None, unit)
            assert str(figure) == "unavailable: there is no counter"
        assert costs.energy_money.value is None
        assert costs.instance_money.value is not None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"grid": "FRE"}, "grid is 'FRE'; there is no such row in the table; nearest: FRA, "),
        ({"grid": "Germany"}, "grid is 'Germany'; there is no such row in the table; nearest: DEU"),
        ({"grid": -1}, "grid is -1; expected at least 0"),
        ({"grid": math.nan}, "grid is nan; expected a finite number"),
        ({"pue": "amazon"}, "pue is 'amazon'; there is no such row in the table; nearest: "),
        ({"pue": 0.5}, "pue is 0.5; expected at least 1"),
        ({"pue": math.inf}, "pue is inf; expected a finite number"),
        ({"usd_per_kwh": -0.1}, "usd_per_kwh is -0.1; expected at least 0"),
        ({"usd_per_kwh": math.inf}, "usd_per_kwh is inf; expected a finite number"),
        ({"usd_per_hour": -2}, "usd_per_hour is -2; expected at least 0"),
        ({"units_per_day": 0}, "units_per_day is 0; expected more than 0"),
        ({"units_per_day": math.nan}, "units_per_day is nan; expected a finite number"),
    ],
)
def test_a_model_that_cannot_be_is_refused_with_a_sentence(
    arguments: dict[str, float | str], sentence: str
) -> None:
    with pytest.raises(ValueError, match="is ") as refusal:
        CostModel(**arguments)
    assert str(refusal.value).startswith(sentence)


@pytest.mark.parametrize("value", [True, [1.0], 1j])
@pytest.mark.parametrize(
    "argument", ["grid", "pue", "usd_per_kwh", "usd_per_hour", "units_per_day"]
)
def test_what_is_no_number_is_refused(argument: str, value: object) -> None:
    with pytest.raises(TypeError) as refusal:
        CostModel(**{argument: value})
    assert str(refusal.value) == f"{argument} is {value!r}; expected a number"


@pytest.mark.parametrize(
    ("seconds", "units", "energy", "sentence"),
    [
        (-1, 1, TWO_JOULES, "seconds_per_call is -1; expected at least 0"),
        (math.inf, 1, TWO_JOULES, "seconds_per_call is inf; expected a finite number"),
        (1, 0, TWO_JOULES, "units_per_call is 0; expected more than 0"),
        (1, -3, TWO_JOULES, "units_per_call is -3; expected more than 0"),
        (1, 1, TWO_JOULES.times(1, "kWh"), "energy is in kWh; expected the joules of a call, in J"),
    ],
)
def test_a_call_that_cannot_be_is_refused_with_a_sentence(
    seconds: float, units: float, energy: Figure, sentence: str
) -> None:
    with pytest.raises(ValueError, match="is ") as refusal:
        CostModel().costs(seconds, units, "query", energy)
    assert str(refusal.value) == sentence
    with pytest.raises(TypeError, match="units_per_call is True; expected a number"):
        CostModel().costs(1, True, "query", TWO_JOULES)


def test_every_grid_has_a_code_a_possible_figure_a_recent_year_and_a_source() -> None:
    rows = written("grids.csv")
    assert len({row["code"] for row in rows}) == len(rows) == len(grids()) >= 45
    for code, grid in grids().items():
        assert code == "WORLD" or (len(code) == 3 and set(code) <= set(string.ascii_uppercase))
        assert 20 < grid.value < 900
        assert grid.year is not None
        assert 2022 <= grid.year <= 2025
        assert grid.source
        assert grid.unit == "g CO2e/kWh"


def test_every_overhead_is_a_possible_one_with_a_source_and_its_doubt() -> None:
    rows = written("pue.csv")
    assert len({row["name"] for row in rows}) == len(rows) == len(pues())
    for row in rows:
        found = pues()[row["name"]]
        assert 1 <= found.value < 2
        assert found.source.startswith(row["source"])
        assert row["doubt"] in found.source
        assert "https://" in found.source or row["name"] == "none"
    assert pues()["none"].value == 1
    assert pues()["industry"].value > max(pues()[name].value for name in ("aws", "google"))
