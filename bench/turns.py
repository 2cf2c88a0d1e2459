"""Calls that take turns: what disturbs the machine disturbs all, and ratios are of one round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

SECONDS = 3.0  # of a call in a cell, where that leaves it enough rounds
ROUNDS = (3, 40)
TURN = 0.05  # seconds: a shorter call is repeated, and the median counts
# Idle threads of OpenMP and OpenBLAS spin for some tens of milliseconds after a call, which on few
# cores would be taken from the next peer.
PAUSE = 0.06

Call = Callable[[], Any]
Turns = dict[str, dict[int, float]]


def take_turns(calls: Mapping[str, Call], ours: str, seconds: float) -> Turns:
    """Seconds of a call, by name and round. We take part in every round, slow peers in some."""
    rounds = {name: rounds_for(call, seconds) for name, call in calls.items()}
    count = rounds[ours] = max(rounds.values())
    turns: Turns = {name: {} for name in calls}
    for number in range(count):
        for name, call in calls.items():
            # As many rounds as it has, evenly among all.
            if number * rounds[name] // count > (number - 1) * rounds[name] // count:
                time.sleep(PAUSE)
                turns[name][number] = turn(call)
    return turns


def rounds_for(call: Call, seconds: float) -> int:
    """How many turns fill the time that a peer has, measured by a call that is not counted."""
    least, most = ROUNDS
    return min(most, max(least, int(seconds / max(seconds_of(call), TURN))))


def turn(call: Call) -> float:
    """Seconds of a call: the median of as many as fill a turn."""
    calls: list[float] = []
    while sum(calls) < TURN:
        calls.append(seconds_of(call))
    return statistics.median(calls)


def seconds_of(run: Call) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def summary(turns: Turns, ours: str | None) -> dict[str, dict[str, Any]]:
    """By name: the turns, the quartiles of a call's seconds, and of its time over ours, if any."""
    found: dict[str, dict[str, Any]] = {}
    for name, mine in turns.items():
        found[name] = {"turns": mine, "seconds": quartiles(mine.values())}
        if ours is not None:
            ratios = (taken / turns[ours][number] for number, taken in mine.items())
            found[name]["ratio"] = quartiles(ratios)
    return found


def quartiles(values: Iterable[float]) -> dict[str, float]:
    low, median, high = np.quantile(list(values), (0.25, 0.5, 0.75)).tolist()
    return {"median": median, "low": low, "high": high}
