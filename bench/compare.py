"""Top-K and its peers, interleaved: where a quoted ratio comes from.

    python bench/compare.py                          # every cell of bench/shapes.py
    python bench/compare.py 'headline-*' real-256    # some
    python bench/compare.py headline-256 --peers faiss-flat,torch-bfloat16 --json out.json

The peers of a cell take turns, round after round, so that what disturbs the machine disturbs all
of them; a ratio is that of two turns of one round. bench/README.md has the method.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import roofs
import torch
from peers import PEERS, Llmrec, Peer, Size, seconds_of
from shapes import TINY, TOPK, TopkCell
from threadpoolctl import threadpool_limits
from torch import Tensor

from llmrec_kernels import _library, explain, info

OURS = Llmrec.name
SECONDS = 3.0  # of a peer in a cell, where that leaves it enough rounds
ROUNDS = (3, 40)
TURN = 0.05  # seconds: a shorter call is repeated, and the median counts
# Idle threads of OpenMP and OpenBLAS spin for some tens of milliseconds after a call, which on few
# cores would be taken from the next peer.
PAUSE = 0.06

Report = dict[str, Any]


def compare(cell: TopkCell, names: Sequence[str], seconds: float = SECONDS) -> Report:
    """Run one cell with these peers and ourselves; the report is ready for JSON."""
    queries, items = cell.load()
    size = Size(len(queries), len(items), items.shape[1], cell.k)
    peers, left_out = admit([OURS, *(name for name in names if name != OURS)], size, items)
    report = {
        "cell": {"name": cell.name, **asdict(size)},
        "load_average": os.getloadavg()[0],
        "left_out": left_out,
    }
    with threadpool_limits(torch.get_num_threads()):
        for peer in peers:
            peer.tune(queries, cell.k)
        ids = {peer.name: as_ids(peer.search(queries, cell.k)) for peer in peers}
        turns = take_turns(peers, queries, cell.k, seconds)
    report["peers"] = {
        peer.name: {
            "configuration": peer.configuration,
            "exact": peer.exact,
            "recall": recall(ids[peer.name], ids[OURS]),
            "turns": turns[peer.name],
            "seconds": quartiles(turns[peer.name].values()),
            "ratio": quartiles(t / turns[OURS][r] for r, t in turns[peer.name].items()),
        }
        for peer in peers
    }
    return {**report, "roof": roof(size, report["peers"][OURS]["seconds"]["median"])}


def admit(names: Sequence[str], size: Size, items: Tensor) -> tuple[list[Peer], dict[str, str]]:
    """The peers that can take part, prepared; and why the others do not."""
    admitted: list[Peer] = []
    left_out: dict[str, str] = {}
    for name in names:
        peer = PEERS[name]()
        why = peer.refusal(size)
        if why is None:
            peer.prepare(items)
            admitted.append(peer)
        else:
            left_out[name] = why
    if OURS in left_out:
        raise RuntimeError(f"{OURS} cannot run the cell: {left_out[OURS]}")
    return admitted, left_out


def take_turns(
    peers: Sequence[Peer], queries: Tensor, k: int, seconds: float
) -> dict[str, dict[int, float]]:
    """Seconds of a call, by peer and round. We take part in every round, slow peers in some."""
    rounds = {peer.name: rounds_for(peer, queries, k, seconds) for peer in peers}
    count = rounds[OURS] = max(rounds.values())
    turns: dict[str, dict[int, float]] = {peer.name: {} for peer in peers}
    for number in range(count):
        for peer in peers:
            # As many rounds as it has, evenly among all.
            if number * rounds[peer.name] // count > (number - 1) * rounds[peer.name] // count:
                time.sleep(PAUSE)
                turns[peer.name][number] = turn(peer, queries, k)
    return turns


def rounds_for(peer: Peer, queries: Tensor, k: int, seconds: float) -> int:
    """How many turns fill the time that a peer has, measured by a call that is not counted."""
    least, most = ROUNDS
    call = seconds_of(lambda: peer.search(queries, k))
    return min(most, max(least, int(seconds / max(call, TURN))))


def turn(peer: Peer, queries: Tensor, k: int) -> float:
    """Seconds of a call: the median of as many as fill a turn."""
    calls: list[float] = []
    while sum(calls) < TURN:
        calls.append(seconds_of(lambda: peer.search(queries, k)))
    return statistics.median(calls)


def as_ids(found: Any) -> np.ndarray:
    """[B, k] int64."""
    return np.asarray(found, dtype=np.int64)


def recall(ids: np.ndarray, truth: np.ndarray) -> float:
    """The share of the true ids that were found."""
    hits = [len(np.intersect1d(row, true)) for row, true in zip(ids, truth, strict=True)]
    return sum(hits) / truth.size


def quartiles(values: Iterable[float]) -> dict[str, float]:
    low, median, high = np.quantile(list(values), (0.25, 0.5, 0.75)).tolist()
    return {"median": median, "low": low, "high": high}


def roof(size: Size, seconds: float) -> Report | str:
    """The least time that this machine could take, measured now; or why that is not known.

    An item's codes and what belongs to them must be read once, and each query needs an int8
    multiply-add for each of its codes. The slower of the two is the roof.
    """
    if _library.load_error is not None:
        return f"not known: {_library.load_error}"
    level = explain("cosine_topk").level or "scalar"
    width = (size.dim + 3) // 4 * 4 + 8  # bytes of an item
    read, multiply = roofs.read_bandwidth(size.items * width), roofs.int8_peak(level)
    bytes_seconds = size.items * width / read
    products_seconds = size.scores * size.dim / multiply
    return {
        "level": level,
        "bytes_per_second": read,
        "bytes_seconds": bytes_seconds,
        "bytes_share": bytes_seconds / seconds,
        "products_per_second": multiply,
        "products_seconds": products_seconds,
        "products_share": products_seconds / seconds,
        "share": max(bytes_seconds, products_seconds) / seconds,
    }


def environment() -> Report:
    """What a ratio depends on besides the code."""
    cpu = info.collect()["devices"]["cpu"]
    built = _library.build_info()
    return {
        "cpu": cpu["model"],
        "cores": cpu["cores"],
        "threads": torch.get_num_threads(),
        "level": built["levels"]["cosine_topk"] if built else None,
        "compiler": built.get("compiler"),
        "python": platform.python_version(),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("torch", "numpy", "faiss-cpu", "usearch", "hnswlib")
            if any(importlib.metadata.distributions(name=name))
        },
    }


def render(report: Report) -> str:
    """A cell's report for a person to read."""
    cell, found = report["cell"], report["roof"]
    lines = [
        f"{cell['name']}: {cell['queries']:,} queries, {cell['items']:,} items of {cell['dim']} "
        f"dimensions, k = {cell['k']:,}; load average {report['load_average']:.1f}",
        f"  {'peer':17}{'ms':>11}{'quartiles':>24}{'ratio':>8}{'quartiles':>16}{'recall':>9}",
    ]
    for name, row in report["peers"].items():
        took, ratio = row["seconds"], row["ratio"]
        spread = f"{1e3 * took['low']:,.2f} to {1e3 * took['high']:,.2f}"
        lines.append(
            f"  {name:17}{1e3 * took['median']:>11,.2f}{spread:>24}{ratio['median']:>8.2f}"
            f"{ratio['low']:>8.2f} to {ratio['high']:<5.2f}{row['recall']:>8.4f}"
            f"  {row['configuration']}".rstrip()
        )
    lines += [f"  not {name}: {why}" for name, why in report["left_out"].items()]
    if isinstance(found, str):
        return "\n".join([*lines, f"  roof {found}"])
    return "\n".join(
        [
            *lines,
            f"  roof: codes at {found['bytes_per_second'] / 1e9:,.1f} GB/s take "
            f"{1e3 * found['bytes_seconds']:,.2f} ms ({found['bytes_share']:.0%} of our time), "
            f"int8 at {found['products_per_second'] / 1e9:,.0f} G/s ({found['level']}) "
            f"{1e3 * found['products_seconds']:,.2f} ms ({found['products_share']:.0%})",
        ]
    )


def chosen(patterns: Sequence[str]) -> list[TopkCell]:
    """The cells of these names; a star stands for anything."""
    cells = {cell.name: cell for cell in (*TOPK, TINY)}
    found = []
    for pattern in patterns or [cell.name for cell in TOPK]:
        names = fnmatch.filter(cells, pattern)
        if not names:
            raise SystemExit(f"there is no cell {pattern!r}; there are {', '.join(cells)}")
        found += [cells[name] for name in names]
    return found


def peers_of(names: str) -> list[str]:
    listed = names.split(",")
    for name in listed:
        if name not in PEERS:
            raise argparse.ArgumentTypeError(f"no peer {name!r}; there are {', '.join(PEERS)}")
    return listed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", nargs="*", metavar="cell", help="all by default")
    parser.add_argument("--peers", type=peers_of, default=list(PEERS), help="a,b; all by default")
    parser.add_argument("--json", type=Path, help="where the report goes, after each cell")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a peer in a cell")
    arguments = parser.parse_args()
    cells = chosen(arguments.cells)
    report: Report = {"schema_version": 1, "environment": environment(), "cells": []}
    print(json.dumps(report["environment"], indent=1))
    for cell in cells:
        report["cells"].append(compare(cell, arguments.peers, arguments.seconds))
        print("\n" + render(report["cells"][-1]), flush=True)
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def let_openblas_choose() -> None:
    """Start again without a processor type that the environment forces on numpy's OpenBLAS."""
    forced = {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"} & set(os.environ)
    if forced:
        free = {name: value for name, value in os.environ.items() if name not in forced}
        os.execve(sys.executable, [sys.executable, *sys.argv], free)


if __name__ == "__main__":
    let_openblas_choose()
    main()
