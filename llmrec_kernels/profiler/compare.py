"""Whether one thing is faster than another, and how sure that is.

Callables are run in turns, so that what disturbs the machine disturbs both, and a ratio divides two
turns of one round. The interval of the median ratio needs no distribution: it lies between two of
the sorted ratios, which ones a binomial tells (order statistics; David and Nagaraja, 2003, 7.1).
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from llmrec_kernels.profiler.environment import current, device_of, is_busy
from llmrec_kernels.profiler.report import Report
from llmrec_kernels.profiler.timing import Call, seconds_of, waiter

Verdict = Literal["SAME", "FASTER", "SLOWER", "UNDECIDED"]
CONFIDENCE = 0.99  # of the interval: it is looked at more than once
TURN = 0.01  # seconds: a shorter call is repeated
LOOKS = (20, 40, 80, 160, 320, 640)  # rounds after which the interval is looked at
WAITING = 0.1  # share of the time without a processor, above which SAME is not to be trusted
SCHEDULER = Path("/proc/thread-self/schedstat")  # nanoseconds that ran, waited; slices
BETWEEN_RUNS = 0.25  # how far the same code can be from itself in another run on a shared machine


class Comparison(NamedTuple):
    """What a comparison found: the second in relation to the first.

    Parameters
    ----------
    verdict
        SLOWER or FASTER: by more than the margin is likely, and the interval has no 1; SAME: the
        interval lies within the margin; UNDECIDED: none of these.
    ratio, low, high
        Time of the second over that of the first, and the interval of its median.
    rounds
        How many ratios there are; 0 of files.
    reason
        Why.
    """

    verdict: Verdict
    ratio: float
    low: float
    high: float
    rounds: int
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.verdict}: the second takes {self.ratio:.3f} times the first "
            f"({self.low:.3f} to {self.high:.3f}): {self.reason}"
        )


def compare(
    first: Call | Report,
    second: Call | Report,
    *,
    margin: float = 0.05,
    max_seconds: float = 30.0,
    device: str | torch.device | None = None,
) -> Comparison:
    """Whether the second is faster or slower than the first.

    Parameters
    ----------
    first, second
        Callables without arguments, which are run in turns; or reports of `profile`, of other runs.
    margin
        Relative difference of time that does not matter, between 0 and 1.
    max_seconds
        When to give up, in seconds.
    device
        Whose work the callables wait for; a GPU that is in use by default, else the CPU.

    Raises
    ------
    TypeError
        One is a report and the other is not.
    ValueError
        The margin is not between 0 and 1, `max_seconds` not positive, or the reports are of
        different work.

    Examples
    --------
    >>> from llmrec_kernels import profiler
    >>> quick, slow = (lambda: sum(range(10_000))), (lambda: sum(range(40_000)))
    >>> profiler.compare(quick, slow).verdict
    'SLOWER'
    """
    if not 0 < margin < 1:
        raise ValueError(f"margin is {margin}; expected a number between 0 and 1")
    if not 0 < max_seconds < math.inf:
        raise ValueError(f"max_seconds is {max_seconds}; expected a positive number of seconds")
    if isinstance(first, Report) and isinstance(second, Report):
        return _of_reports(first, second, margin)
    if isinstance(first, Report) or isinstance(second, Report):
        raise TypeError("one is a report and the other is not; expected two of a kind")
    where = device_of(device)
    with current(where):
        return _of_calls(first, second, margin, max_seconds, waiter(where))


def _of_calls(
    first: Call, second: Call, margin: float, max_seconds: float, wait: Call
) -> Comparison:
    calls = (first, second)
    began, waited = time.perf_counter(), waiting_seconds()
    for call in calls:  # the first is the one that compiles and fills caches
        call()
    # As often both ways, so that a turn of each has as many calls to be disturbed in.
    each = max(seconds_of(call, 1, wait) for call in calls for _ in range(2))
    count = max(1, round(TURN / each))
    order = random.Random(0)
    ratios: list[float] = []
    while True:
        pair = list(enumerate(calls))
        order.shuffle(pair)
        taken = {which: seconds_of(call, count, wait) for which, call in pair}
        ratios.append(taken[1] / taken[0])
        spent = time.perf_counter() - began
        late = spent > max_seconds
        if len(ratios) not in LOOKS and not late:
            continue
        found = _doubted(decide(ratios, margin), (waiting_seconds() - waited) / spent)
        if found.verdict != "UNDECIDED" or late or len(ratios) >= LOOKS[-1]:
            return found


def waiting_seconds() -> float:
    """Seconds that this thread was ready and had no processor; 0 where the system does not tell."""
    if not SCHEDULER.exists():
        return 0.0
    return int(SCHEDULER.read_text().split()[1]) / 1e9


def _doubted(found: Comparison, waiting: float) -> Comparison:
    """Who gets the processor in slices takes whole slices: a small difference does not show."""
    if found.verdict != "SAME" or waiting <= WAITING:
        return found
    reason = f"other work had the processor for {waiting:.0%} of the time, which hides differences"
    return found._replace(verdict="UNDECIDED", reason=reason)


def decide(ratios: Sequence[float], margin: float) -> Comparison:
    """What ratios of rounds say.

    Examples
    --------
    >>> decide([1.1, 1.12, 1.09] * 10, 0.05).verdict
    'SLOWER'
    >>> decide([1.0, 1.01, 0.99] * 10, 0.05).verdict
    'SAME'
    >>> decide([1.1], 0.05).verdict
    'UNDECIDED'
    """
    low, high = median_interval(ratios)
    ratio = float(np.median(ratios))
    sure = f"{CONFIDENCE:.0%} interval of {len(ratios)} rounds in turns"
    verdict: Verdict = "UNDECIDED"
    if low > 1 and ratio > 1 + margin:
        verdict, reason = "SLOWER", sure
    elif high < 1 and ratio < 1 / (1 + margin):
        verdict, reason = "FASTER", sure
    elif low > 1 / (1 + margin) and high < 1 + margin:
        verdict, reason = "SAME", f"within {margin:.0%}, {sure}"
    else:
        reason = f"{sure}: too wide, or at the margin of {margin:.0%}"
    return Comparison(verdict, ratio, low, high, len(ratios), reason)


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Between which of the values their true median lies; 0 and infinity where they are too few.

    Examples
    --------
    >>> median_interval(range(1, 101))
    (37, 64)
    """
    ordered, n = sorted(values), len(values)
    outside, place = 0.0, -1
    while True:  # the median is below the place-th value with the probability of so few heads
        outside += math.comb(n, place + 1) / 2**n
        if 2 * outside > 1 - CONFIDENCE:
            break
        place += 1
    if place < 0:
        return 0.0, math.inf
    return ordered[place], ordered[n - 1 - place]


def _of_reports(first: Report, second: Report, margin: float) -> Comparison:
    for part in ("name", "unit", "cache"):
        mine, theirs = getattr(first, part), getattr(second, part)
        if mine != theirs:
            raise ValueError(
                f"{part} of the reports is {mine!r} and {theirs!r}; expected the same work"
            )
    share = first.units / second.units  # time of a unit, where a call of theirs does more
    ratio = second.time.median / first.time.median * share
    low = second.time.low / first.time.high * share
    high = second.time.high / first.time.low * share
    elsewhere = first.environment.fingerprint != second.environment.fingerprint
    why = "they are of different machines" if elsewhere else "they are of different runs"
    apart = max(margin, BETWEEN_RUNS)
    verdict: Verdict = "UNDECIDED"
    reason = (
        f"{why}, between which the same code can differ by {apart:.0%}: run both in turns, with "
        "profiler.compare of two callables"
    )
    busy = any(is_busy(each.environment) for each in (first, second))
    if busy:
        reason = "other work was running beside one of them, as its load average says"
    elif low > 1 + apart:
        verdict, reason = "SLOWER", f"{why}, and the intervals are more than {apart:.0%} apart"
    elif high < 1 / (1 + apart):
        verdict, reason = "FASTER", f"{why}, and the intervals are more than {apart:.0%} apart"
    return Comparison(verdict, ratio, low, high, 0, reason)
