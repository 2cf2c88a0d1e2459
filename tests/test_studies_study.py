"""Numbers of the studies, as the field prints them."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec_kernels.studies import Study, Table
from llmrec_kernels.studies.study import NOTHING, interval, short, signed


def test_where_there_is_no_number_there_is_a_dash():
    assert NOTHING == "\N{EN DASH}"


@pytest.mark.parametrize(
    ("value", "plain", "difference"),
    [
        (10.25, "10.250", "+10.250"),
        (1.0, "1.000", "+1.000"),
        (0.9999, "1.000", "+1.000"),
        (0.5, ".500", "+.500"),
        (0.0, ".000", "+.000"),
        (-0.5, "-.500", "-.500"),
        (-10.25, "-10.250", "-10.250"),
        (100.0, "100.000", "+100.000"),
        (math.nan, NOTHING, NOTHING),
    ],
)
def test_only_a_zero_that_stands_alone_before_the_point_is_left_out(value, plain, difference):
    assert short(value, 3) == plain
    assert signed(value, 3) == difference
    cells = Study("", "", [Table("", pd.DataFrame({"x": [value]}))]).markdown()
    assert cells.endswith(f"| 0 | {plain} |")


@given(st.floats(-1000, 1000), st.integers(1, 6))
def test_what_is_printed_is_the_number_rounded(value, decimals):
    for text in (short(value, decimals), signed(value, decimals)):
        assert float(text) == round(value, decimals)
        assert len(text.split(".")[1]) == decimals
        assert not text.lstrip("+-").startswith("0.")


def test_an_interval_has_both_ends_alike():
    assert interval(-0.05, 1.0, 3) == "[-.050, 1.000]"
    assert interval(math.nan, math.nan, 2) == f"[{NOTHING}, {NOTHING}]"
