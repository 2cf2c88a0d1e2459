"""Seconds of a call: sampled, with the quantiles and the interval of the median."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from llmrec_kernels.profiler.environment import last_level_cache
from llmrec_kernels.profiler.report import Timing

Call = Callable[[], Any]
Cache = Literal["cold", "hot"]
LEAST_SAMPLES, MOST_SAMPLES = 10, 1000
LEAST_SAMPLE = 2e-4  # seconds: a shorter call is repeated, so that the clock's own time is nothing
RESAMPLES = 2000
# The GPU sleeps while the host queues what is timed: cycles for each second, and at most so long.
COVER_CYCLES, COVER_SECONDS = 2e9, 0.005


@dataclass
class Samples:
    """Seconds of a call, sample by sample; `kernel` are those of the GPU alone."""

    calls_per_sample: int
    wall: list[float] = field(default_factory=list)
    kernel: list[float] = field(default_factory=list)


def sample(call: Call, min_time: float, device: str, cache: Cache) -> Samples:
    """At least ten samples, for `min_time` seconds at least; the first calls are not counted."""
    wait = waiter(device)
    flush = _flusher(device) if cache == "cold" else None
    call()
    wait()
    first = seconds_of(call, 1, wait)
    calls = 1
    if flush is None:
        least = max(LEAST_SAMPLE, min_time / MOST_SAMPLES)
        calls = max(1, round(least / max(first, 1e-9)))
    samples = Samples(calls)
    began = time.perf_counter()
    while len(samples.wall) < MOST_SAMPLES and (
        len(samples.wall) < LEAST_SAMPLES or time.perf_counter() - began < min_time
    ):
        if flush is not None:
            flush()
            wait()
        samples.wall.append(seconds_of(call, calls, wait))
        if device != "cpu":
            samples.kernel.append(_kernel_seconds(call, calls, flush, samples.wall[-1]))
    return samples


def timing(
    seconds: Sequence[float], calls_per_sample: int, clock: Literal["wall", "cuda events"] = "wall"
) -> Timing:
    """Quantiles of seconds of a call, and a bootstrap 95% interval of their median.

    Examples
    --------
    >>> timing([3.0, 1.0, 2.0], 1).median
    2.0
    """
    values = np.asarray(seconds)
    draws = np.random.default_rng(0).choice(values, (RESAMPLES, len(values)))
    low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975)).tolist()
    p5, q1, median, q3, p95 = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95)).tolist()
    return Timing(
        clock=clock, n=len(values), calls_per_sample=calls_per_sample, median=median,
        low=low, high=high, p5=p5, q1=q1, q3=q3, p95=p95, minimum=float(values.min()),
    )  # fmt: skip


def seconds_of(call: Call, calls: int, wait: Call) -> float:
    """Seconds of each of some calls, until the device is done."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    wait()
    return (time.perf_counter() - start) / calls


def _kernel_seconds(call: Call, calls: int, flush: Call | None, queueing: float) -> float:
    if flush is not None:
        flush()
    torch.cuda._sleep(int(COVER_CYCLES * min(queueing * calls, COVER_SECONDS)))
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / calls


def waiter(device: str) -> Call:
    """Waits until the device is done."""
    return (lambda: None) if device == "cpu" else lambda: torch.cuda.synchronize(device)


def _flusher(device: str) -> Call:
    """Writes a buffer that no cache holds, so that nothing else is left there."""
    return torch.empty(2 * last_level_cache(device), dtype=torch.int8, device=device).zero_
