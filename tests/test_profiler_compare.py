"""A verdict says as much as its interval does, and no more."""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports import cpu_report
from scipy import stats

from llmrec_kernels.profiler import compare
from llmrec_kernels.profiler.compare import (
    BETWEEN_RUNS,
    CONFIDENCE,
    Comparison,
    decide,
    median_interval,
)

module = importlib.import_module("llmrec_kernels.profiler.compare")  # and not its function


@given(st.integers(1, 400))
def test_the_interval_of_a_median_is_the_narrowest_that_is_sure_enough(n: int) -> None:
    values = [float(value) for value in range(n)]
    low, high = median_interval(values)
    heads = stats.binom(n, 0.5)
    if low == 0 and high == float("inf"):
        assert 2 * heads.cdf(0) > 1 - CONFIDENCE
        return
    place = values.index(low)
    assert high == values[n - 1 - place]
    assert 2 * heads.cdf(place) <= 1 - CONFIDENCE < 2 * heads.cdf(place + 1)


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    draws = generator.exponential(size=(2000, 41))  # far from a normal distribution
    intervals = [median_interval(list(draw)) for draw in draws]
    held = np.mean([low <= np.log(2) <= high for low, high in intervals])
    assert CONFIDENCE - 0.01 < held <= 1


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([1.1] * 20, "SLOWER"),
        ([1 / 1.1] * 20, "FASTER"),
        ([1.0] * 20, "SAME"),
        ([1.02] * 20, "SAME"),  # slower surely, and by less than matters
        ([1.049, 1.051] * 20, "UNDECIDED"),  # at the margin
        ([0.5, 2.0] * 20, "UNDECIDED"),
        ([1.5] * 7, "UNDECIDED"),  # 7 rounds cannot be sure to 99%
        ([1.5] * 8, "SLOWER"),
    ],
)
def test_ratios_give_a_verdict(ratios: list[float], verdict: str) -> None:
    found = decide(ratios, 0.05)
    assert found.verdict == verdict
    assert found.rounds == len(ratios)
    assert found.low <= found.ratio <= found.high
    assert str(found).startswith(verdict)


@given(st.lists(st.floats(0.2, 5), min_size=8, max_size=60), st.floats(0.01, 0.5))
def test_a_comparison_the_other_way_round_is_the_opposite(
    ratios: list[float], margin: float
) -> None:
    opposite = {"SLOWER": "FASTER", "FASTER": "SLOWER"}
    found, other = decide(ratios, margin), decide([1 / ratio for ratio in ratios], margin)
    near = [abs(value - edge) < 1e-9 for value in found[1:4] for edge in (1, 1 + margin)]
    if not any(near) and len(ratios) % 2:  # of an even number the median is between two
        assert other.verdict == opposite.get(found.verdict, found.verdict)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Callable[[], None]]:
    """Calls that take as long as they say, in a time that does not pass otherwise."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr(module, "waiting_seconds", lambda: 0.0)

    def call(*seconds: float) -> Callable[[], None]:
        each: Iterator[float] = itertools.cycle(seconds)

        def run() -> None:
            now[0] += next(each)

        return run

    return call


def test_calls_are_told_apart(clock: Any) -> None:
    assert compare(clock(0.01), clock(0.011), device="cpu").verdict == "SLOWER"
    assert compare(clock(0.011), clock(0.01), device="cpu").verdict == "FASTER"
    assert compare(clock(0.01), clock(0.0101), device="cpu").verdict == "SAME"
    found = compare(clock(0.01), clock(0.0102), margin=0.01, device="cpu")
    assert (found.verdict, round(found.ratio, 3)) == ("SLOWER", 1.02)


def test_short_calls_are_repeated_in_a_turn(clock: Any) -> None:
    calls = 0

    def short() -> None:
        nonlocal calls
        calls += 1
        tick()

    tick = clock(1e-4)
    found = compare(short, clock(1e-4), device="cpu")
    assert found.verdict == "SAME"
    assert calls >= found.rounds * 100 > 0  # 10 ms a turn


def test_what_stays_unclear_is_given_up_in_time(clock: Any) -> None:
    noisy = clock(0.5, 2.0, 0.4, 3.0, 1.0)
    found = compare(clock(1.0), noisy, max_seconds=60, device="cpu")
    assert found.verdict == "UNDECIDED"
    assert "too wide" in found.reason


def test_a_machine_that_is_busy_hides_small_differences(
    clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_of_the_time() -> float:
        return 0.5 * time.perf_counter()

    monkeypatch.setattr(module, "waiting_seconds", half_of_the_time)
    found = compare(clock(0.01), clock(0.01), device="cpu")
    assert found.verdict == "UNDECIDED"
    assert "other work had the processor for 50% of the time" in found.reason
    assert compare(clock(0.01), clock(0.02), device="cpu").verdict == "SLOWER"  # that shows


def test_the_scheduler_tells_how_long_a_thread_waited(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert module.waiting_seconds() >= 0
    (tmp_path / "schedstat").write_text("5000000000 1500000000 77\n")
    monkeypatch.setattr(module, "SCHEDULER", tmp_path / "schedstat")
    assert module.waiting_seconds() == 1.5
    monkeypatch.setattr(module, "SCHEDULER", tmp_path / "absent")
    assert module.waiting_seconds() == 0


def test_the_order_within_a_round_changes(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    first, second = clock(0.01), clock(0.01)
    compare(
        lambda: (order.append("a"), first()), lambda: (order.append("b"), second()), device="cpu"
    )
    rounds = ["".join(pair) for pair in zip(order[6::2], order[7::2], strict=True)]
    assert {"ab", "ba"} == set(rounds)


def test_what_a_callable_raises_comes_out() -> None:
    def broken() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        compare(broken, lambda: None)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"margin": 0}, "margin is 0; expected a number between 0 and 1"),
        ({"margin": -0.1}, "margin is -0.1"),
        ({"margin": 1.0}, "margin is 1.0"),
        ({"max_seconds": 0}, "max_seconds is 0; expected a positive number of seconds"),
        ({"device": "tpu"}, "device is 'tpu'; expected 'cpu' or 'cuda:<index>'"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        compare(lambda: None, lambda: None, **options)


# ---- reports of different runs ----


def timed(median: float, **changes: Any) -> Any:
    made = cpu_report(**changes)
    time = made.time.model_copy(
        update={"median": median, "low": 0.99 * median, "high": 1.01 * median}
    )
    return made.model_copy(update={"time": time})


def test_reports_far_apart_are_told_apart_and_others_are_not() -> None:
    far = (1 + BETWEEN_RUNS) * 1.1
    assert compare(timed(1.0), timed(far)).verdict == "SLOWER"
    assert compare(timed(far), timed(1.0)).verdict == "FASTER"
    near = compare(timed(1.0), timed(1.1))
    assert near.verdict == "UNDECIDED"
    assert "of different runs" in near.reason
    assert "in turns" in near.reason
    assert compare(timed(1.0), timed(1.0)).verdict == "UNDECIDED"


def test_reports_of_different_machines_say_so() -> None:
    other = timed(1.0)
    moved = other.environment.model_copy(update={"fingerprint": "another"})
    found = compare(timed(1.0), other.model_copy(update={"environment": moved}))
    assert "of different machines" in found.reason


def test_reports_are_compared_by_unit_of_work() -> None:
    twice = timed(2.0)
    found = compare(timed(1.0), twice.model_copy(update={"units": 2 * twice.units}))
    assert found.ratio == pytest.approx(1.0)


def test_reports_of_a_busy_hour_are_undecided() -> None:
    slow = timed(9.0)
    busy = slow.environment.model_copy(update={"load_average": 99.0})
    found = compare(timed(1.0), slow.model_copy(update={"environment": busy}))
    assert found.verdict == "UNDECIDED"
    assert "other work was running" in found.reason


def test_a_first_call_that_takes_long_is_not_what_turns_are_made_for(clock: Any) -> None:
    tick, slow = clock(1e-4), clock(5.0)
    calls = []

    def lazy() -> None:
        calls.append(1)
        (slow if len(calls) == 1 else tick)()

    assert compare(lazy, clock(1e-4), device="cpu").verdict == "SAME"
    assert len(calls) > 20 * 50


def test_reports_of_other_work_are_refused() -> None:
    cold = timed(1.0).model_copy(update={"cache": "cold"})
    with pytest.raises(ValueError, match="cache of the reports is"):
        compare(timed(1.0).model_copy(update={"cache": "hot"}), cold)
    other = timed(1.0).model_copy(update={"name": "something else"})
    with pytest.raises(ValueError, match="expected the same work"):
        compare(timed(1.0), other)
    with pytest.raises(TypeError, match="one is a report and the other is not"):
        compare(timed(1.0), lambda: None)


def test_a_comparison_prints_as_a_sentence() -> None:
    found = Comparison("SLOWER", 1.1, 1.05, 1.15, 40, "99% interval of 40 rounds in turns")
    assert str(found) == (
        "SLOWER: the second takes 1.100 times the first (1.050 to 1.150): "
        "99% interval of 40 rounds in turns"
    )
