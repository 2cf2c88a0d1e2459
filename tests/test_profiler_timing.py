"""Times are of calls alone: warmed up, enough of them, with quantiles as NumPy has them."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

timing = importlib.import_module("llmrec_kernels.profiler.timing")


class Call:
    """Takes the next of some times, in a time that passes for nothing else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
        self.seconds, self.calls, self.now = seconds, 0, 0.0
        monkeypatch.setattr("time.perf_counter", lambda: self.now)

    def __call__(self) -> None:
        self.now += self.seconds[min(self.calls, len(self.seconds) - 1)]
        self.calls += 1


def test_there_are_ten_samples_however_long_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    found = timing.sample(Call(monkeypatch, 60.0), 0.5, "cpu", "hot")
    assert (len(found.wall), found.calls_per_sample) == (10, 1)


def test_the_first_calls_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = timing.sample(Call(monkeypatch, 100.0, 50.0, 2.0), 0.5, "cpu", "hot")
    assert found.wall == [2.0] * 10


def test_sampling_goes_on_for_the_time_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = timing.sample(Call(monkeypatch, 0.01), 0.5, "cpu", "hot")
    assert len(found.wall) == 50


def test_a_short_call_is_repeated_within_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Call(monkeypatch, 1e-6)
    found = timing.sample(call, 0.01, "cpu", "hot")
    assert found.calls_per_sample == 200
    assert found.wall == pytest.approx([1e-6] * len(found.wall))
    assert call.calls == 2 + 200 * len(found.wall)


def test_there_are_never_more_than_a_thousand_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    found = timing.sample(Call(monkeypatch, 1e-3, 1e-3, 1e-5), 5.0, "cpu", "hot")
    assert len(found.wall) == 1000


def test_cold_calls_are_single_and_each_has_its_caches_emptied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call, flushed = Call(monkeypatch, 1e-6), []

    def flush() -> None:
        call.now += 10.0  # outside of the time of a call
        flushed.append(call.calls)

    monkeypatch.setattr(timing, "_flusher", lambda device: flush)
    found = timing.sample(call, 1e-5, "cpu", "cold")
    assert found.calls_per_sample == 1
    assert found.wall == pytest.approx([1e-6] * 10)
    assert flushed == list(range(2, 12))


def test_the_flush_writes_twice_what_the_caches_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "last_level_cache", lambda device: 1000)
    buffer = timing._flusher("cpu")()
    assert buffer.nbytes == 2000


@given(st.lists(st.floats(1e-6, 10), min_size=1, max_size=50))
def test_quantiles_are_those_of_numpy(seconds: list[float]) -> None:
    found = timing.timing(seconds, 3)
    parts = (found.p5, found.q1, found.median, found.q3, found.p95)
    assert parts == tuple(np.quantile(seconds, (0.05, 0.25, 0.5, 0.75, 0.95)))
    assert (found.n, found.calls_per_sample) == (len(seconds), 3)
    assert found.minimum == min(seconds) <= found.low <= found.high <= max(seconds)


def test_the_interval_is_that_of_scipys_bootstrap() -> None:
    seconds = np.random.default_rng(1).lognormal(size=60)
    found = timing.timing(seconds, 1)
    theirs = stats.bootstrap((seconds,), np.median, method="percentile", rng=0).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), rel=0.05)


def test_the_same_samples_have_the_same_interval() -> None:
    seconds: Any = np.random.default_rng(1).lognormal(size=60)
    assert timing.timing(seconds, 1) == timing.timing(seconds, 1)


class ReplayedGpu:
    """Stands in for torch.cuda: each call takes half as long on the GPU as on the wall's clock."""

    def __init__(self, call: Call) -> None:
        self.call, self.slept, self.waits = call, [], 0

    def _sleep(self, cycles: int) -> None:
        self.slept.append(cycles)

    def synchronize(self, device: str) -> None:
        self.waits += 1

    def Event(self, enable_timing: bool) -> Any:  # noqa: N802 - as torch.cuda spells it
        gpu = self

        class Event:
            def record(self) -> None:
                self.now = gpu.call.now

            def synchronize(self) -> None:
                pass

            def elapsed_time(self, end: Any) -> float:
                return float(1e3 * (end.now - self.now) / 2)

        return Event()


def test_a_gpus_own_time_is_that_between_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Call(monkeypatch, 1e-3)
    gpu = ReplayedGpu(call)
    monkeypatch.setattr(timing.torch, "cuda", gpu)
    found = timing.sample(call, 0.01, "cuda:0", "hot")
    assert found.wall == pytest.approx([1e-3] * 10)
    assert found.kernel == pytest.approx([5e-4] * 10)
    # The GPU sleeps for as long as the host queued the call in the sample before.
    assert gpu.slept == [pytest.approx(timing.COVER_CYCLES * 1e-3)] * 10
    assert gpu.waits >= 12  # after each call that the wall's clock times
