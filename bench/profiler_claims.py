"""What is claimed of the profiler, tried on this machine: one command, one file of results.

    python bench/profiler_claims.py                  # all three, some ten minutes
    python bench/profiler_claims.py overhead shares  # some

- verdicts: `compare` of a callable with itself, and with one made 10% slower, 20 times each, for
  three kinds of work: at least 19 SAME, and at least 19 SLOWER;
- overhead: of `CostCounter` on operators of some 10 ms: under 2%;
- shares: of the roof, in three runs of each top-K shape: never above 1 without an explanation.

Writes `bench/results/profiler_claims.json`, with the machine and how busy it was.
"""

from __future__ import annotations

import statistics
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from claims import Facts, try_all
from torch.utils._python_dispatch import TorchDispatchMode

from llmrec_kernels import cosine_topk, pack
from llmrec_kernels.profiler import CostCounter, compare, profile
from llmrec_kernels.profiler.compare import median_interval
from llmrec_kernels.profiler.timing import seconds_of, waiter

TRIES, ROUNDS = 20, 400
Call = Callable[[], Any]


def repeated(step: Call, times: int) -> Call:
    def run() -> None:
        for _ in range(times):
            step()

    return run


def steps() -> dict[str, Call]:
    """A tenth of a millisecond or so each: ten or eleven of ten make a call, and one 10% slower."""
    matrix, vector = torch.randn(192, 192), torch.randn(100_000)
    items, queries = pack(torch.randn(2_000, 128)), torch.randn(4, 128)
    return {
        "products": lambda: matrix @ matrix,
        "search": lambda: cosine_topk(queries, items, 10),
        "python": lambda: sum(range(3_000)),
        "memory": lambda: vector.add_(1.0),
    }


def verdicts() -> Facts:
    found: Facts = {}
    for name, step in steps().items():
        call, same, slower = (repeated(step, times) for times in (100, 100, 110))
        tried = {
            "same code": [compare(call, same, device="cpu") for _ in range(TRIES)],
            "10% slower": [compare(call, slower, device="cpu") for _ in range(TRIES)],
        }
        found[name] = {
            what: {
                "verdicts": Counter(each.verdict for each in comparisons),
                "ratios": [round(each.ratio, 4) for each in comparisons],
                "rounds": [each.rounds for each in comparisons],
                "undecided": [e.reason for e in comparisons if e.verdict == "UNDECIDED"],
            }
            for what, comparisons in tried.items()
        }
        for what, each in found[name].items():
            print(f"{name}, {what}: {dict(each['verdicts'])}", flush=True)
    return found


class Bare(TorchDispatchMode):
    """Does nothing: what torch itself takes for any counter."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def ratio(call: Call, mode: Callable[[], Any], opened: bool) -> Facts:
    """Of the times with and without a mode, in turns; `opened`: opening it is not timed."""

    def watched() -> float:
        if opened:
            with mode():
                return seconds_of(call, 1, waiter("cpu"))
        return seconds_of(both, 1, waiter("cpu"))

    def both() -> None:
        with mode():
            call()

    def plain() -> float:
        return seconds_of(call, 1, waiter("cpu"))

    ratios = []
    for number in range(ROUNDS):
        if number % 2:
            before, after = plain(), watched()
        else:
            after, before = watched(), plain()
        ratios.append(after / before)
    low, high = median_interval(ratios)
    return {"ratio": statistics.median(ratios), "low": low, "high": high}


def overhead() -> Facts:
    """Single operators of about 10 ms."""
    matrix = torch.randn(900, 900)
    items, queries = pack(torch.randn(200_000, 384)), torch.randn(32, 384)
    calls: dict[str, Call] = {
        "product": lambda: matrix @ matrix,
        "search": lambda: cosine_topk(queries, items, 100),
    }
    found: Facts = {}
    for name, call in calls.items():
        found[name] = {
            "milliseconds": 1e3 * profile(call, min_time=0.3, device="cpu").time.median,
            "CostCounter": ratio(call, CostCounter, opened=True),
            "CostCounter, with its opening": ratio(call, CostCounter, opened=False),
            "a mode that does nothing, with its opening": ratio(call, Bare, opened=False),
        }
        print(f"{name}: {found[name]}", flush=True)
    return found


def shares() -> Facts:
    found: Facts = {}
    for queries in (1, 8, 32, 256, 1024):
        items = pack(torch.randn(100_000, 384))
        batch = torch.randn(queries, 384)
        runs = []
        for _ in range(3):
            report = profile(
                lambda: cosine_topk(batch, items, 100),  # noqa: B023 - called in this turn
                units=queries, unit="query", device="cpu",
            )  # fmt: skip
            assert report.roofline is not None
            line = report.roofline
            runs.append({"share": line.share, "bound": line.bound, "why": line.explanation})
        found[f"B = {queries}"] = runs
        print(f"B = {queries}: " + ", ".join(f"{run['share']:.0%}" for run in runs), flush=True)
    return found


CLAIMS = {"verdicts": verdicts, "overhead": overhead, "shares": shares}


if __name__ == "__main__":
    try_all(CLAIMS, sys.argv[1:], "profiler_claims")
