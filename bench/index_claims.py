"""What is claimed of `ItemIndex`, tried on this machine: one command, one file of results.

    python bench/index_claims.py                  # all, some ten minutes, 8 GB of memory, 2 of disk
    python bench/index_claims.py changes writer   # some

- changes: seconds of a row for add, update and remove, one and a hundred at a time, in indexes of
  10^3 to 10^6 items; the same of FAISS's IndexIDMap2 over a flat index, which has no update;
- bulk: items a second for 10,000 more in an index of a million, once and thirty times in a row;
- search: of the index over the bare kernel, in turns: in one segment, mapped, loaded, after 30,000
  additions, and with 1% removed;
- writer: how much slower searches are while a thread adds 1,000 items a second;
- files: seconds of save, load, opening mapped files, and a first search of them.

Writes `bench/results/index_claims.json`, with the machine and how busy it was.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import faiss
import numpy as np
from claims import Facts, try_all
from torch import Tensor
from turns import quartiles, seconds_of, summary, take_turns

from llmrec_kernels import ItemIndex, cosine_topk
from llmrec_kernels.benchmarks.vectors import clustered, queries_near

ITEMS, DIM, K = 1_000_000, 384, 10
SECONDS = 10.0  # of a call that takes turns


@cache
def vectors() -> Tensor:
    return clustered(ITEMS, DIM)


@cache
def filled() -> ItemIndex:
    """A million items, added at once."""
    index = ItemIndex(DIM)
    index.add(np.arange(ITEMS), vectors())
    return index


def per_row(change: Callable[[np.ndarray], Any], start: int, rows: int, times: int) -> float:
    """Seconds of a row, the median over calls with `rows` ids each from `start` on."""
    calls = [
        seconds_of(lambda: change(np.arange(start + i * rows, start + (i + 1) * rows)))  # noqa: B023
        for i in range(times)
    ]
    return statistics.median(calls) / rows


def changes() -> Facts:
    found: Facts = {}
    for items in (1_000, 10_000, 100_000, 1_000_000):
        of_size = changes_of(items)
        for name, calls in of_size.items():
            told = {each: f"{1e6 * value:.1f} us" for each, value in calls.items()}
            print(f"{items:,} items, {name}: {told}", flush=True)
        found[f"{items:,} items"] = of_size
    return found


def changes_of(items: int) -> Facts:
    """Seconds of a row."""
    found: Facts = {}
    ours, peer = ItemIndex(DIM), faiss.IndexIDMap2(faiss.IndexFlatIP(DIM))
    ours.add(np.arange(items), vectors()[:items])
    peer.add_with_ids(vectors()[:items].numpy(), np.arange(items))
    for rows, times in ((1, 300), (100, 30)):
        new, first = vectors()[:rows], items + 1_000_000 * rows
        calls = {
            "add": partial(ours.add, vectors=new),
            "update": partial(ours.update, vectors=new),
            "remove": ours.remove,
            "FAISS add": partial(peer.add_with_ids, new.numpy()),
            "FAISS remove": peer.remove_ids,
        }
        found[f"{rows} at a time"] = {
            name: per_row(call, first, rows, 10 if name == "FAISS remove" else times)
            for name, call in calls.items()
        }
    # As many as there were, with all that is put off until there is enough of it.
    parts = np.array_split(np.arange(items, 2 * items), max(1, items // 1_000))
    start = time.perf_counter()
    for part in parts:
        ours.add(part, vectors()[: part.shape[0]])
    for part in parts:
        ours.update(part, vectors()[: part.shape[0]])
    for part in parts:
        ours.remove(part)
    spent = (time.perf_counter() - start) / (3 * items)
    found["a thousand at a time"] = {"as many added, then updated, then removed": spent}
    return found


def bulk() -> Facts:
    ours, peer = ItemIndex(DIM), faiss.IndexIDMap2(faiss.IndexFlatIP(DIM))
    ours.add(np.arange(ITEMS), vectors())
    peer.add_with_ids(vectors().numpy(), np.arange(ITEMS))
    shuffled = np.random.default_rng(0).permutation(np.arange(ITEMS, 2 * ITEMS))
    found: Facts = {}
    for name, ids in (
        ("ascending ids", np.arange(2 * ITEMS, 3 * ITEMS)),
        ("shuffled ids", shuffled),
    ):
        calls = []
        for number in range(30):
            part = slice(10_000 * number, 10_000 * (number + 1))
            calls.append(seconds_of(lambda: ours.add(ids[part], vectors()[part])))  # noqa: B023
        found[name] = {
            "items a second, median of calls": 10_000 / statistics.median(calls),
            "items a second, over all": 300_000 / sum(calls),
            "slowest call, seconds": max(calls),
        }
    calls = [
        seconds_of(lambda: peer.add_with_ids(vectors()[:10_000].numpy(), ids[:10_000]))
        for _ in range(30)
    ]
    found["FAISS"] = {
        "items a second, median of calls": 10_000 / statistics.median(calls),
        "items a second, over all": 300_000 / sum(calls),
    }
    found["segments after"] = ours.stats().segments
    print(found, flush=True)
    return found


def search() -> Facts:
    index = filled()
    (only, _) = index._store.version.parts
    kernel = only.block.items
    changed = ItemIndex(DIM)
    changed.add(np.arange(ITEMS), vectors())
    for number in range(30):
        changed.add(np.arange(1_000) + ITEMS + 1_000 * number, vectors()[:1_000])
    thinned = ItemIndex(DIM)
    thinned.add(np.arange(ITEMS), vectors())
    thinned.remove(np.arange(0, ITEMS, 100))
    found: Facts = {}
    with tempfile.TemporaryDirectory() as folder:
        index.save(folder)
        mapped, loaded = ItemIndex.load(folder, mmap=True), ItemIndex.load(folder)
        indexes = {
            "one segment": index,
            "mapped": mapped,
            "loaded": loaded,
            f"{changed.stats().segments} segments and a tail": changed,
            "1% removed": thinned,
        }
        for count in (1, 32):
            queries = queries_near(vectors(), count)
            calls = {"kernel": lambda q=queries: cosine_topk(q, kernel, K)}
            for name, each in indexes.items():
                calls[name] = lambda q=queries, each=each: each.search(q, K)
            told = summary(take_turns(calls, "kernel", SECONDS), "kernel")
            found[f"B = {count}"] = {
                name: {"seconds": each["seconds"], "ratio": each["ratio"]}
                for name, each in told.items()
            }
            for name, each in told.items():
                print(
                    f"B = {count}, {name}: {1e3 * each['seconds']['median']:.2f} ms, "
                    f"{each['ratio']['median']:.3f} of the kernel "
                    f"({each['ratio']['low']:.3f} to {each['ratio']['high']:.3f})",
                    flush=True,
                )
    return found


@contextmanager
def writing(index: ItemIndex, start: int, rows: int) -> Iterator[list[float]]:
    """A thread that adds 1,000 items a second, `rows` at a time; the list gets its true rate."""
    done, rate, new = threading.Event(), [], vectors()[:rows]

    def write() -> None:
        began, count = time.perf_counter(), 0
        while not done.is_set():
            index.add(np.arange(start + count, start + count + rows), new)
            count += rows
            done.wait(max(0.0, began + count / 1_000 - time.perf_counter()))
        rate.append(count / (time.perf_counter() - began))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield rate
    finally:
        done.set()
        thread.join()


def writer() -> Facts:
    found: Facts = {}
    query = queries_near(vectors(), 1)
    for rows in (1, 10, 100):
        index, start, ratios, rates = ItemIndex(DIM), ITEMS, [], []
        index.add(np.arange(ITEMS), vectors())
        for _ in range(15):  # turns of a second, so that what disturbs the machine disturbs both
            quiet = timed(index, query)
            with writing(index, start, rows) as rate:
                busy = timed(index, query)
            rates += rate
            start += 1_000_000
            ratios.append(busy / quiet)
        found[f"{rows} at a time"] = {
            "time over that without": quartiles(ratios),
            "items added a second": statistics.median(rates),
            "segments after": index.stats().segments,
        }
        print(f"{rows} at a time: {found[f'{rows} at a time']}", flush=True)
    return found


def timed(index: ItemIndex, query: Tensor) -> float:
    """Seconds of a search, the mean over a second."""
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < 1.0:
        index.search(query, K)
        count += 1
    return spent / count


def files() -> Facts:
    index, query = filled(), queries_near(vectors(), 1)
    found: Facts = {}
    with tempfile.TemporaryDirectory() as folder:
        found["save"] = seconds_of(lambda: index.save(folder))
        index.add([-1], vectors()[:1])
        found["save with one item more"] = seconds_of(lambda: index.save(folder))
        index.remove([-1])
        found["load"] = seconds_of(lambda: ItemIndex.load(folder))
        opened: list[ItemIndex] = []
        found["load with mmap"] = seconds_of(
            lambda: opened.append(ItemIndex.load(folder, mmap=True))
        )
        found["first search of mapped files"] = seconds_of(lambda: opened[0].search(query, K))
        found["second search of mapped files"] = seconds_of(lambda: opened[0].search(query, K))
    print(found, flush=True)
    return found


CLAIMS = {"changes": changes, "bulk": bulk, "search": search, "writer": writer, "files": files}


if __name__ == "__main__":
    try_all(CLAIMS, sys.argv[1:], "index_claims")
