"""From replayed traces to joules: the interval holds the truth, and a failure gives none."""

import threading

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from replayed_energy import (
    Power,
    ReplayedClock,
    ReplayedSensor,
    sampling_threads,
    stalling,
    ticking,
)

from llmrec_kernels.profiler.energy.clock import Clock
from llmrec_kernels.profiler.energy.sensor_window import CounterWindow, PowerWindow
from llmrec_kernels.profiler.energy.window import opened

STEADY = Power([(1.0, 100.0)])
# 100 W, from the second second on 300 W for a second, then 100 W again.
PEAK = Power([(1.0, 100.0), (1.0, 300.0), (1.0, 100.0)])


def over(window_type, sensor, clock, seconds):
    """A window of the replayed sensor, so many seconds long."""
    sensor.open()
    window = window_type(sensor, clock)
    with opened([window], clock):
        clock.sleep(seconds)
    return window


powers = st.lists(
    st.tuples(st.floats(0.01, 3.0), st.one_of(st.just(0.0), st.floats(1.0, 1000.0))),
    min_size=1,
    max_size=6,
).map(Power)


@given(
    parts=st.lists(powers, min_size=1, max_size=3),
    every=st.floats(0.001, 0.5),
    phase=st.floats(0.0, 0.5),
    pause=st.floats(0.01, 0.3),
    cost=st.floats(0.0, 0.02),
    wait=st.floats(0.0, 1.0),
    seconds=st.floats(0.001, 5.0),
)
@example(  # a tick while the last reading is under way
    parts=[Power([(1.0, 0.0), (1.0, 1.0)])],
    every=0.15892035909479293,
    phase=0.05078125,
    pause=0.25,
    cost=0.002,
    wait=0.5546875,
    seconds=0.763671875,
)
def test_the_interval_of_a_counter_holds_the_true_energy_whatever_the_power_and_the_ticks(
    parts, every, phase, pause, cost, wait, seconds
):
    clock = ReplayedClock(pause)
    clock.sleep(wait)
    sensor = ReplayedSensor(clock, ticking(*parts, every=every, phase=phase), cost=cost)
    sensor.open()
    window = CounterWindow(sensor, clock)
    with opened([window], clock):
        start = clock.time
        clock.sleep(seconds)
    figure = window.gross()
    assume(figure.value is not None)
    end = start + window.seconds
    true = sum(power.joules(end) - power.joules(start) for power in parts)
    rounding = 1e-9 * sum(power.joules(end + 2) for power in parts)
    assert figure.low - rounding <= true <= figure.high + rounding
    assert figure.low <= figure.value <= figure.high


@given(every=st.floats(0.01, 0.1), phase=st.floats(0.0, 0.1), seconds=st.floats(1.0, 8.0))
def test_the_error_of_a_counter_is_one_tick_or_two_where_they_come_at_the_very_ends(
    every, phase, seconds
):
    clock = ReplayedClock(pause=0.001)
    clock.sleep(0.2)
    window = over(
        CounterWindow,
        ReplayedSensor(clock, ticking(STEADY, every=every, phase=phase)),
        clock,
        seconds,
    )
    figure, tick = window.gross(), 100 * every
    assert 0.99 * tick <= figure.high - figure.value <= 2.01 * tick
    assert figure.value == pytest.approx(100 * seconds, abs=1.01 * tick)


def test_a_window_of_fifty_ticks_is_good_to_two_percent_and_a_shorter_one_says_what_would_be():
    notes = {}
    for seconds in (1.02, 5.02, 10.02):
        clock = ReplayedClock()
        sensor = ReplayedSensor(clock, ticking(STEADY, every=0.1))
        window = over(CounterWindow, sensor, clock, seconds)
        assert window.gross().value == pytest.approx(100 * seconds, rel=0.1 / seconds)
        notes[seconds] = window.notes()
    assert notes[1.02] == ["replayed counter: 1.02 s are too short for ±2%; 5.1 s would do"]
    assert notes[10.02] == []


def test_a_tick_in_the_middle_of_a_window_bounds_it_by_the_spans_around_and_within():
    clock = ReplayedClock()
    sensor = ReplayedSensor(clock, ticking(STEADY, every=0.1, phase=0.04))
    clock.sleep(0.2)
    figure = over(CounterWindow, sensor, clock, 0.08).gross()  # 0.2 to 0.28 s; a tick at 0.24
    assert (figure.low, figure.value, figure.high) == pytest.approx((0.0, 10.0, 20.0))
    assert figure.quality == "measured"


def test_a_peak_within_the_window_is_in_the_counter():
    clock = ReplayedClock()
    sensor = ReplayedSensor(clock, ticking(PEAK, every=0.001))
    figure = over(CounterWindow, sensor, clock, 3.0).gross()
    assert figure.value == pytest.approx(500.0, rel=0.02)
    assert figure.low <= 500.0 <= figure.high


def test_a_window_without_a_tick_has_no_energy_and_not_0():
    clock = ReplayedClock()
    clock.sleep(0.01)
    sensor = ReplayedSensor(clock, ticking(STEADY, every=0.1))
    figure = over(CounterWindow, sensor, clock, 0.03).gross()
    assert figure.value is None
    assert figure.method == "no tick of the counter in the 0.03 s of the window"


@pytest.mark.parametrize("since", [0.0, 2.0])
def test_a_counter_that_stalls_gives_no_energy(since):
    clock = ReplayedClock()
    sensor = ReplayedSensor(clock, stalling(ticking(STEADY, every=0.1), since))
    figure = over(CounterWindow, sensor, clock, 5.0).gross()
    assert figure.value is None
    assert figure.method == "the counter stalls: no tick in 1 s"
    assert clock.time == pytest.approx(6.0, abs=0.01)


def test_one_part_that_stalls_spoils_the_sum():
    clock = ReplayedClock()
    moving = ticking(STEADY, every=0.1)
    sensor = ReplayedSensor(clock, lambda moment: [*moving(moment), 7.0])
    assert over(CounterWindow, sensor, clock, 5.0).gross().value is None


def test_each_part_has_the_first_tick_behind_the_window_and_no_later_one():
    clock = ReplayedClock()
    fast, slow = ticking(STEADY, every=0.01), ticking(STEADY, every=0.5)
    clock.sleep(0.6)
    sensor = ReplayedSensor(clock, lambda moment: [*fast(moment), *slow(moment)])
    figure = over(CounterWindow, sensor, clock, 1.0).gross()  # the slow one ticks again at 2 s
    assert figure.high == pytest.approx(101.0 + 150.0, abs=0.2)


def test_waiting_for_one_counter_does_not_lengthen_the_window_of_another():
    clock = ReplayedClock()
    stuck = ReplayedSensor(clock, lambda moment: [7.0])
    good = ReplayedSensor(clock, ticking(STEADY, every=0.01))
    windows = [CounterWindow(sensor, clock) for sensor in (stuck, good)]
    for sensor in (stuck, good):
        sensor.open()
    with opened(windows, clock):
        clock.sleep(2.0)
    assert windows[1].gross().high <= 203.0  # two ticks more, and a sample, but not a second


def test_a_counter_that_falls_gives_no_energy():
    clock = ReplayedClock()
    sensor = ReplayedSensor(clock, lambda moment: [50.0 + moment if moment < 1 else moment])
    figure = over(CounterWindow, sensor, clock, 2.0).gross()
    assert figure.value is None
    assert figure.method.startswith("the counter fell from 50.")


def test_a_sensor_that_fails_midway_gives_its_reason_though_it_began_well():
    for window_type in (CounterWindow, PowerWindow):
        clock = ReplayedClock()
        sensor = ReplayedSensor(clock, ticking(STEADY, every=0.01), fails=(1.0, "unplugged"))
        assert over(window_type, sensor, clock, 2.0).gross().method == "unplugged"


def test_samples_of_power_are_integrated_by_trapezoids():
    clock = ReplayedClock(pause=0.25)
    ramp = ReplayedSensor(clock, lambda moment: [100 + 40 * moment], unit="W", method="meter")
    figure = over(PowerWindow, ramp, clock, 2.0).gross()
    assert figure.value == pytest.approx(100 * 2 + 40 * 2**2 / 2)
    assert figure.quality == "integrated"
    assert figure.method == "meter, 16 samples"  # after 0, 1, 3, 7 ... 127, 255, 505 ms, and at 2 s
    # At most a quarter of a second at the power of its start, and of its end.
    assert 5 < figure.high - figure.value <= 10
    assert figure.value - figure.low == pytest.approx(figure.high - figure.value)


@given(
    pieces=st.lists(st.tuples(st.floats(0.01, 2.0), st.integers(0, 500)), min_size=2),
    falls=st.booleans(),
    seconds=st.floats(0.2, 6.0),
)
def test_the_interval_of_a_meter_holds_the_truth_where_the_power_stays_between_the_samples(
    pieces, falls, seconds
):
    watts = sorted((watts for _, watts in pieces), reverse=falls)
    power = Power([(piece, each) for (piece, _), each in zip(pieces, watts, strict=True)])
    clock = ReplayedClock(pause=0.1)
    sensor = ReplayedSensor(clock, lambda moment: [power.watts(moment)], unit="W")
    figure = over(PowerWindow, sensor, clock, seconds).gross()
    assume(figure.value is not None)
    assert figure.low * (1 - 1e-9) <= power.joules(seconds) <= figure.high * (1 + 1e-9)


def test_a_meter_that_never_moves_gives_no_energy():
    clock = ReplayedClock()
    figure = over(PowerWindow, ReplayedSensor(clock, lambda moment: [80.0], unit="W"), clock, 0.02)
    assert figure.gross().method.startswith("the meter showed one power all the 0.02 s")


def test_a_window_of_no_length_is_refused():
    clock = ReplayedClock()
    with pytest.raises(ValueError, match="the window is 0 s long; expected more than 0"):
        over(CounterWindow, ReplayedSensor(clock, ticking(STEADY, every=0.1)), clock, 0.0)


def test_a_thread_samples_within_the_window_and_ends_with_it():
    enough, count = threading.Event(), 0

    def sample():
        nonlocal count
        count += 1
        if count == 3:
            enough.set()

    with Clock().sampling(sample):
        assert enough.wait(30)
        assert len(sampling_threads()) == 1
    ended = count
    assert sampling_threads() == []
    assert not threading.Event().wait(0.1)
    assert count == ended


def test_the_thread_ends_when_the_work_raises():
    with pytest.raises(KeyError), Clock().sampling(lambda: None):
        raise KeyError
    assert sampling_threads() == []


def test_an_error_in_the_thread_comes_out():
    failed = threading.Event()

    def sample():
        failed.set()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Clock().sampling(sample):
        assert failed.wait(30)
    assert sampling_threads() == []
