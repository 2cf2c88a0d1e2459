"""Our operators and their peers, interleaved: where a quoted ratio comes from.

    python bench/compare.py                          # every cell of CPUs
    python bench/compare.py 'headline-*' 'bags-*'    # some
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
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lookups import LookupCell, contest, jobs
from peers import PEERS, Llmrec, Peer, Size
from threadpoolctl import threadpool_limits
from torch import Tensor
from turns import SECONDS, summary, take_turns

from llmrec_kernels import _library, explain, info
from llmrec_kernels.benchmarks.cells import (
    LOOKUPS,
    TOPK,
    BagCell,
    CandidateCell,
    QuantizeCell,
    TopkCell,
)
from llmrec_kernels.profiler.roofs import int8_peak, read_bandwidth

OURS = Llmrec.name
# For the test that the comparison runs.
TINY = (
    TopkCell("tiny", 4, 3_000, 32, 5),
    BagCell("tiny-bags", 50, 6, 300, 32),
    CandidateCell("tiny-candidates", 6, 20, 200, 24),
    QuantizeCell("tiny-quantize", 300, 32),
)
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
        calls = {peer.name: partial(peer.search, queries, cell.k) for peer in peers}
        measured = summary(take_turns(calls, OURS, seconds), OURS)
    report["peers"] = {
        peer.name: {
            "configuration": peer.configuration,
            "exact": peer.exact,
            "recall": recall(ids[peer.name], ids[OURS]),
            **measured[peer.name],
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


def as_ids(found: Any) -> np.ndarray:
    """[B, k] int64."""
    return np.asarray(found, dtype=np.int64)


def recall(ids: np.ndarray, truth: np.ndarray) -> float:
    """The share of the true ids that were found."""
    hits = [len(np.intersect1d(row, true)) for row, true in zip(ids, truth, strict=True)]
    return sum(hits) / truth.size


def roof(size: Size, seconds: float) -> Report | str:
    """The least time that this machine could take, measured now; or why that is not known.

    An item's codes and what belongs to them must be read once, and each query needs an int8
    multiply-add for each of its codes. The slower of the two is the roof.
    """
    if _library.load_error is not None:
        return f"not known: {_library.load_error}"
    level = explain("cosine_topk").level or "scalar"
    width = (size.dim + 3) // 4 * 4 + 8  # bytes of an item
    read = read_bandwidth(size.items * width)
    multiply = int8_peak(level) / 2  # a multiply-add is two operations there
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


def compare_lookup(cell: LookupCell, job: str, seconds: float = SECONDS) -> Report:
    """Run one contest of a cell; the report is like the other."""
    held = contest(cell, job)
    report = {
        "cell": {**asdict(cell), "name": f"{cell.name}, {job}"},
        "load_average": os.getloadavg()[0],
        "left_out": held.left_out,
    }
    answers = {name: call() for name, call in held.calls.items()}
    measured = summary(take_turns(held.calls, OURS, seconds), OURS)
    for name, answer in answers.items():
        measured[name]["difference"] = difference(answer, answers[OURS])
    return {**report, "peers": measured}


def difference(answer: Any, ours: Any) -> float | None:
    """The largest difference between two answers, as a share of the largest number in ours.

    None where they are no tensors: quantized tables.
    """
    if not isinstance(answer, Tensor) or not isinstance(ours, Tensor):
        return None
    return float((answer - ours).abs().max() / ours.abs().max())


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
            for name in ("torch", "numpy", "faiss-cpu", "usearch", "hnswlib", "fbgemm-gpu-cpu")
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
        recalled = f"{row['recall']:>8.4f}  {row['configuration']}".rstrip()
        lines.append(timed(name, row) + recalled)
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


def render_lookup(report: Report) -> str:
    lines = [
        f"{report['cell']['name']}; load average {report['load_average']:.1f}",
        f"  {'peer':17}{'ms':>11}{'quartiles':>24}{'ratio':>8}{'quartiles':>16}{'difference':>12}",
    ]
    for name, row in report["peers"].items():
        off = "" if row["difference"] is None else f"{row['difference']:>12.1e}"
        lines.append(timed(name, row) + off)
    return "\n".join([*lines, *(f"  not {n}: {why}" for n, why in report["left_out"].items())])


def timed(name: str, row: Report) -> str:
    took, ratio = row["seconds"], row["ratio"]
    spread = f"{1e3 * took['low']:,.2f} to {1e3 * took['high']:,.2f}"
    return (
        f"  {name:17}{1e3 * took['median']:>11,.2f}{spread:>24}{ratio['median']:>8.2f}"
        f"{ratio['low']:>8.2f} to {ratio['high']:<5.2f}"
    )


def chosen(patterns: Sequence[str]) -> list[Any]:
    """The cells of these names; a star stands for anything."""
    cells: dict[str, Any] = {cell.name: cell for cell in (*TOPK, *LOOKUPS, *TINY)}
    found = []
    for pattern in patterns or [cell.name for cell in (*TOPK, *LOOKUPS)]:
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
    parser.add_argument(
        "--peers", type=peers_of, default=list(PEERS), help="of top-K: a,b; all by default"
    )
    parser.add_argument("--json", type=Path, help="where the report goes, after each cell")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a peer in a cell")
    arguments = parser.parse_args()
    cells = chosen(arguments.cells)
    report: Report = {"schema_version": 1, "environment": environment(), "cells": []}
    print(json.dumps(report["environment"], indent=1))
    for each in reports(cells, arguments.peers, arguments.seconds):
        report["cells"].append(each)
        print("\n" + (render(each) if "roof" in each else render_lookup(each)), flush=True)
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def reports(cells: Sequence[Any], peers: Sequence[str], seconds: float) -> Iterator[Report]:
    for cell in cells:
        if isinstance(cell, TopkCell):
            yield compare(cell, peers, seconds)
            continue
        for job in jobs(cell):
            yield compare_lookup(cell, job, seconds)


def let_openblas_choose() -> None:
    """Start again without a processor type that the environment forces on numpy's OpenBLAS."""
    forced = {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"} & set(os.environ)
    if forced:
        free = {name: value for name, value in os.environ.items() if name not in forced}
        os.execve(sys.executable, [sys.executable, *sys.argv], free)


if __name__ == "__main__":
    let_openblas_choose()
    main()
