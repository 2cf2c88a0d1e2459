"""Numbers read as people write them, and a number that is read back is the number shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec_kernels.profiler import human
from llmrec_kernels.profiler.figures import Figure

PREFIXES = {"p": 1e-12, "n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1.0}
PREFIXES |= {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
SPANS = {"s": 1.0, "min": 60.0, "h": 3600.0, "days": 86_400.0}


def read_back(text: str, unit: str) -> float:
    number, name = text.split(" ", 1)
    return float(number.replace(",", "")) * PREFIXES[name.removesuffix(unit)]


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0, "FLOP", "0 FLOP"),
        (1, "B", "1 B"),
        (1000, "B", "1.00 kB"),
        (999.7, "B", "1.00 kB"),
        (999.4, "W", "999 W"),
        (0.0142, "s", "14.2 ms"),
        (1e-15, "s", "0.00100 ps"),
        (98_304_000_000, "FLOP", "98.3 GFLOP"),
        (4.49e-9, "kWh", "4.49 µWh"),
        (2.25, "kWh", "2.25 kWh"),
        (2250.0, "kWh", "2.25 MWh"),
        (2.5e-7, "g CO2e", "250 ng CO2e"),
        (1234.0, "g CO2e", "1.23 kg CO2e"),
        (5.6e7, "g CO2e", "56.0 t CO2e"),
        (2.8e-7, "USD", "2.80e-07 USD"),
        (0.00545, "USD", "0.00545 USD"),
        (1234.5, "USD", "1,234 USD"),
        (-0.002, "J", "-2.00 mJ"),
    ],
)
def test_a_quantity_has_three_digits_in_the_multiple_that_reads_best(value, unit, expected):
    assert human.quantity(value, unit) == expected


@given(st.floats(1e-12, 9e20))
def test_a_quantity_that_is_read_back_is_the_same_to_three_digits(value):
    assert read_back(human.quantity(value, "J"), "J") == pytest.approx(value, rel=5.1e-3)


@given(st.floats(1e-12, 1e7))
def test_a_time_that_is_read_back_is_the_same_to_four_digits(value):
    text = human.seconds(value)
    number, name = text.split(" ")
    if name in SPANS:
        assert float(number.replace(",", "")) * SPANS[name] == pytest.approx(value, rel=5.1e-4)
    else:
        assert read_back(text, "s") == pytest.approx(value, rel=5.1e-4)


def test_long_times_are_in_minutes_hours_and_days():
    assert human.seconds(90) == "90 s"
    assert human.seconds(221.9) == "3.698 min"
    assert human.seconds(8_000) == "2.222 h"
    assert human.seconds(1_000_000) == "11.57 days"


def test_both_ends_of_an_interval_are_in_one_multiple():
    assert human.interval(0.0009, 0.0345, "s") == "0.900 to 34.5 ms"
    figure = Figure(value=0.9, unit="J", quality="estimated", method="", low=0.36, high=1.44)
    assert human.value(figure) == "900 mJ"
    assert human.bounds(figure) == "360 to 1,440 mJ"


def test_a_figure_that_nothing_bounds_has_no_interval():
    for low, high in ((None, None), (None, 3.0), (2.0, 2.0)):
        figure = Figure(value=2.0, unit="J", quality="modelled", method="", low=low, high=high)
        assert human.bounds(figure) == ""


def test_what_is_unavailable_is_never_a_number():
    figure = Figure.unavailable("J", "there is no counter")
    assert human.value(figure) == human.labelled(figure) == "unavailable"
    assert human.bounds(figure) == ""


def test_shares_keep_two_digits_where_they_are_small():
    assert [human.percent(s) for s in (1.31, 0.874, 0.0999, 0.031, 0.00041, 0.0)] == [
        "131%",
        "87%",
        "10%",
        "3.1%",
        "0.041%",
        "0%",
    ]


@given(st.text())
def test_plain_text_has_no_control_characters_and_says_which_there_were(text):
    plain = human.plain(text)
    assert plain.isprintable()
    if text.isprintable():
        assert plain == text
    else:
        assert "\\" in plain
