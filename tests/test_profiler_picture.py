"""The roofline picture puts everything where its numbers say, and no label on another."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llmrec_kernels.profiler.marks import Mark, Roofs
from llmrec_kernels.profiler.picture import NARROW, WIDE, Picture, picture, power
from llmrec_kernels.profiler.placing import HEIGHT, Box, Segment, place, shortened, width
from llmrec_kernels.profiler.report import Kind

SIZES = (WIDE, NARROW)
ROOFS = Roofs(bandwidth=1e11, cached=None, peaks={"float32": 1e12}, used={"float32"})
rates = st.floats(1e3, 1e18)
marks = st.builds(
    Mark,
    label=st.text(max_size=40),
    name=st.just("name"),
    intensity=st.floats(1e-6, 1e9),
    rate=rates,
    whole=st.booleans(),
    hollow=st.booleans(),
)
roofs = st.builds(
    Roofs,
    bandwidth=rates,
    cached=st.none() | rates,
    peaks=st.dictionaries(st.sampled_from(get_args(Kind)), rates),
    used=st.sets(st.sampled_from(get_args(Kind))),
)


def boxes(drawn: Picture) -> list[Box]:
    """Of all labels, as high as a line of text."""
    return [Box(each.x, each.y - HEIGHT + 3, each.width, HEIGHT) for each in drawn.labels]


def dot(intensity: float, rate: float, label: str = "op") -> Mark:
    return Mark(label, label, intensity, rate, whole=False, hollow=False)


@pytest.mark.parametrize("size", SIZES)
@given(roofs=roofs, drawn=st.lists(marks, max_size=30))
def test_labels_lie_inside_the_picture_and_on_no_other_label(size, roofs, drawn):
    found = boxes(picture(roofs, drawn, size))
    frame = Box(0, 0, size.width, size.height)
    for box in found:
        assert frame.holds(box), box
    for one, other in itertools.combinations(found, 2):
        apart = Box(one.x, one.y + 0.01, one.width, one.height - 0.02)  # of sums of heights
        assert not apart.meets(other), (one, other)


@pytest.mark.parametrize("size", SIZES)
@given(roofs=roofs, drawn=st.lists(marks, max_size=30))
def test_marks_and_roofs_lie_inside_the_plot(size, roofs, drawn):
    found = picture(roofs, drawn, size)
    plot = Box(
        found.plot.x - 1e-6,
        found.plot.y - 1e-6,
        found.plot.width + 2e-6,
        found.plot.height + 2e-6,
    )
    for each in found.dots:
        assert plot.holds(Box(each.x, each.y, 0, 0))
    for line in found.lines:
        assert plot.holds(Box(line.at.x1, line.at.y1, 0, 0)), line
        assert plot.holds(Box(line.at.x2, line.at.y2, 0, 0)), line
    assert len(found.dots) == len(drawn)
    named = sum(label.style.startswith("mark") for label in found.labels)
    assert named + found.unnamed == len(drawn)


@pytest.mark.parametrize("size", SIZES)
def test_a_factor_of_ten_is_as_long_everywhere(size):
    found = picture(ROOFS, [dot(1, 1e9), dot(10, 1e10), dot(100, 1e11)], size)
    first, second, third = found.dots
    assert second.x - first.x == pytest.approx(third.x - second.x)
    assert first.y - second.y == pytest.approx(second.y - third.y)
    assert second.x > first.x
    assert second.y < first.y  # up is less


def test_work_that_reaches_a_roof_lies_on_it():
    found = picture(ROOFS, [dot(2, 2e11), dot(40, 1e12)], WIDE)
    on_slope, on_level = found.dots
    level, slope = found.lines
    assert on_level.y == pytest.approx(level.at.y1)
    share = (on_slope.x - slope.at.x1) / (slope.at.x2 - slope.at.x1)
    assert on_slope.y == pytest.approx(slope.at.y1 + share * (slope.at.y2 - slope.at.y1))
    assert slope.at[2:] == pytest.approx(level.at[:2])  # the ridge


def test_a_level_begins_at_the_steepest_slope():
    cached = ROOFS._replace(cached=4e11)
    level, _, steep = picture(cached, [], WIDE).lines
    assert steep.style == "slope cache"
    assert steep.at[2:] == pytest.approx(level.at[:2])


def test_names_of_levels_at_the_bottom_move_up():
    crowd = {kind: 1e6 * 1.01**i for i, kind in enumerate(get_args(Kind))}
    found = picture(ROOFS._replace(peaks=crowd), [dot(1, 1e18)], WIDE)
    bottom = found.plot.y + found.plot.height
    names = [box for box, label in zip(boxes(found), found.labels, strict=True) if label.x > 600]
    assert len(names) == len(crowd)
    assert all(box.y + box.height / 2 <= bottom + 1 for box in names)


def test_ticks_of_many_decades_stay_apart():
    found = picture(ROOFS, [dot(1e-9, 1), dot(1e9, 1e18)], NARROW)
    places = [x for x, _ in found.across]
    assert min(right - left for left, right in itertools.pairwise(places)) >= 44
    assert "1" in [text for _, text in found.across]
    heights = [y for y, _ in found.up]
    assert min(low - high for low, high in itertools.pairwise(heights)) >= 26


def test_ticks_are_powers_of_ten_at_their_places():
    found = picture(ROOFS, [dot(1, 1e9), dot(100, 1e10)], WIDE)
    places = {text: x for x, text in found.across}
    assert places["1"] == pytest.approx(found.dots[0].x)
    assert places["100"] == pytest.approx(found.dots[1].x)
    heights = {text: y for y, text in found.up}
    assert heights["1 G"] == pytest.approx(found.dots[0].y)
    assert [power(n) for n in (-16, -4, -3, -1, 0, 2, 3, 20, 21)] == [
        "1e-16",
        "100 µ",
        "0.001",
        "0.1",
        "1",
        "100",
        "1 k",
        "100 E",
        "1e21",
    ]


def test_where_it_is_crowded_the_first_marks_have_the_labels():
    crowd = [dot(1 + i / 1000, 1e10, f"operator {i}") for i in range(60)]
    found = picture(ROOFS, crowd, WIDE)
    named = [label.text for label in found.labels if label.style == "mark"]
    assert found.unnamed == 60 - len(named) > 0
    assert named[0] == "operator 0"


def test_a_label_that_is_not_beside_its_mark_has_a_line_to_it():
    crowd = [dot(1 + i / 50, 1e10, f"operator {i}") for i in range(6)]
    found = picture(ROOFS, crowd, WIDE)
    lines = {leader[:2]: leader[2:] for leader in found.leaders[len(ROOFS.peaks) :]}
    labels = dict(zip([each.text for each in found.labels], boxes(found), strict=True))
    assert 0 < len(lines) < 6
    for each in found.dots:
        box = labels[each.mark.label]
        end = lines.get((each.x, each.y))
        if end is None:
            end = (each.x, each.y)
            box = Box(box.x - 12, box.y - 12, box.width + 24, box.height + 24)
        assert box.holds(Box(*end, 0, 0)), each


def test_a_label_takes_the_free_side_of_its_point():
    frame, right = Box(0, 0, 200, 100), Box(105, 40, 95, 20)
    free = place("text", [(100, 50)], frame=frame, taken=[], lines=[])
    assert free is not None
    assert free.x > 100
    beside = place("text", [(100, 50)], frame=frame, taken=[right], lines=[])
    assert beside is not None
    assert beside.x + beside.width < 100
    assert place("text", [(100, 50)], frame=frame, taken=[frame], lines=[]) is None


def test_a_label_avoids_a_line_where_it_can():
    frame, line = Box(0, 0, 200, 100), Segment(105, 50, 200, 50)
    found = place("text", [(100, 50)], frame=frame, taken=[], lines=[line])
    assert found is not None
    assert not line.crosses(found)


@given(*(st.floats(0, 100) for _ in range(4)))
def test_a_line_crosses_a_box_where_one_of_its_points_lies_in_it(x1, y1, x2, y2):
    assume(math.hypot(x2 - x1, y2 - y1) > 1)
    points = [(x1 + i / 400 * (x2 - x1), y1 + i / 400 * (y2 - y1)) for i in range(401)]
    outside = [math.hypot(max(30 - x, 0, x - 55), max(40 - y, 0, y - 55)) for x, y in points]
    crosses = Segment(x1, y1, x2, y2).crosses(Box(30, 40, 25, 15))
    if min(outside) == 0:
        assert crosses
    if crosses:
        assert min(outside) < 0.5  # of a pixel; the points are nearer to each other


@given(st.text(), st.integers(4, 50))
def test_a_shortened_text_keeps_both_ends(text, most):
    found = shortened(text, most)
    assert len(found) == min(len(text), most)
    if len(text) > most:
        begin, end = found.split("…", 1) if "…" not in text else ("", "")
        assert text.startswith(begin)
        assert text.endswith(end)


def test_wide_characters_take_two_places():
    assert width("推薦") == pytest.approx(2 * width("ab"))
    assert math.isclose(width(""), 0)
