"""An `ItemIndex` takes the memory that it says, also where it is larger than memory."""

from __future__ import annotations

import gc
import json
import math
import os
import subprocess
import sys
import tracemalloc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import index_memory
import numpy as np
import pytest
import torch
from index_memory import PIECES, ROWS, THREADS, gone, known, queries, vectors

from llmrec_kernels import ItemIndex, cosine_topk
from llmrec_kernels.index import segment, store
from llmrec_kernels.ops.pack import room

MB = 1 << 20


def process(act: str, folder: Path, limit: int | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, index_memory.__file__, act, str(folder), str(limit)],
        # Small blocks that are freed go back to the system, whatever came before them.
        env={**os.environ, "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(MB)},
        capture_output=True,
        text=True,
        check=False,
    )


def output(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, (done.returncode, done.stderr)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """An index of 200 MB, made in a process that may have 32 MB, and its stats."""
    if sys.platform != "linux":
        pytest.skip("memory is limited and counted as Linux does it")
    folder = tmp_path_factory.mktemp("memory") / "index"
    return folder, output(process("build", folder, 32 * MB))


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """What the process is to find in it, by brute force here."""
    rows = torch.cat([vectors(number) for number in range(PIECES)])
    options: dict[str, Any] = {"exclude": gone(), "backend": "reference"}
    scores, ids = cosine_topk(queries(), rows, index_memory.K, **options)
    allowed = cosine_topk(queries(), rows, index_memory.K, allow=known(), **options).ids
    found = {
        "scores": scores.tolist(),
        "ids": ids.tolist(),
        "allowed": allowed.tolist(),
        "vectors": rows[known()].double().sum(1).tolist(),
        "count": ROWS - len(gone()),
    }
    rows[1] = queries()[0]
    options["exclude"] = [*gone(), *ids[:, 0].tolist()]
    return {**found, "after": cosine_topk(queries(), rows, 2, **options).ids.tolist()}


def test_an_index_larger_than_memory_is_built_piece_by_piece(built):
    folder, stats = built
    assert stats["items"] == ROWS - len(gone())
    assert stats["mapped_bytes"] > 6 * 32 * MB
    assert sum(path.stat().st_size for path in folder.iterdir()) > 6 * 32 * MB


def test_an_index_larger_than_memory_is_searched_in_the_memory_that_load_promises(built, expected):
    folder, stats = built
    workspace = 16 * MB + THREADS * MB  # as cosine_topk has it
    removals, blocks = ROWS, 13 * stats["mapped_bytes"] // (1 << 16)
    python = MB  # for lists of numbers
    assert output(process("search", folder, workspace + removals + blocks + python)) == expected


def test_what_does_not_fit_into_memory_is_refused_with_a_sentence(built):
    found = output(process("read", built[0], 64 * MB))
    assert found["error"].startswith("there is no memory for ")
    assert found["mapped"] == ROWS - len(gone())


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A memory cgroup of 48 MB, in which the system's cache of files counts too."""
    try:
        group, limit = new_cgroup()
    except (OSError, StopIteration) as error:
        pytest.skip(f"no memory cgroup can be made here: {error!r}")
    try:
        try:
            limit.write_text(str(48 * MB))
        except OSError as error:
            pytest.skip(f"a memory cgroup that cannot be limited: {error!r}")
        yield group
    finally:
        group.rmdir()


def new_cgroup() -> tuple[Path, Path]:
    """A group below our own, of version 1 or 2, and the file that has its limit."""
    ours = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    root = Path("/sys/fs/cgroup")
    older = [path for _, names, path in ours if "memory" in names.split(",")]
    if older:
        group, file = root / "memory" / older[0].lstrip("/"), "memory.limit_in_bytes"
    else:
        path = next(path for number, _, path in ours if number == "0")
        group, file = root / path.lstrip("/"), "memory.max"
    group = group / f"llmrec-{os.getpid()}"
    group.mkdir()
    if not (group / file).exists():
        group.rmdir()
        raise FileNotFoundError(f"{group} has no {file}")
    return group, group / file


def test_an_index_larger_than_memory_is_searched_where_cached_files_count(built, expected, cgroup):
    assert output(process("search", built[0], cgroup)) == expected
    old, new = cgroup / "memory.failcnt", cgroup / "memory.events"
    if old.exists():
        assert int(old.read_text()) > 0  # the limit was met, and pages were let go
    else:
        events = dict(line.split() for line in new.read_text().splitlines())
        assert int(events["max"]) > 0


# The same in small, by what the index says and by counting.


def mapped(folder: Path, pieces: int, rows: int, dim: int = 8) -> ItemIndex:
    """An index in as many files as pieces."""
    ItemIndex(dim).save(folder)
    with ItemIndex.open(folder) as index:
        for number in range(pieces):
            ids = np.arange(rows * number, rows * (number + 1))
            index.add(ids, torch.randn(rows, dim))
            index.save(folder)
    return ItemIndex.load(folder, mmap=True)


def test_a_mapped_index_without_changes_takes_no_memory_for_its_rows(tmp_path):
    stats = mapped(tmp_path, 2, 50_000).stats()
    assert stats.mapped_bytes > 100_000 * 32
    assert stats.memory_bytes < 10_000


def test_a_change_of_a_mapped_index_takes_memory_for_what_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "FAN", 100)  # so that the files stay many
    index = mapped(tmp_path, 8, 5_000)
    monkeypatch.undo()
    before = index.stats()
    index.remove([7])
    index.update([8], torch.ones(1, 8))
    stats = index.stats()
    assert stats.mapped_bytes == before.mapped_bytes
    # What is noted of one segment, and a tail of a row.
    assert stats.memory_bytes - before.memory_bytes < 5_000 * 8


def test_a_search_holds_what_was_removed_of_one_segment_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "FAN", 100)
    index = mapped(tmp_path, 40, 5_000)
    index.remove(np.arange(0, 200_000, 5))
    index.search(torch.ones(1, 8), 3)  # asks for the checksums of all blocks
    tracemalloc.start()
    index.search(torch.ones(1, 8), 3)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Eight bytes for a position, a few times, and what Python itself takes.
    assert most < 4 * 8 * 1_000 + 50_000


def test_space_is_free_after_removals_and_a_compaction(tmp_path):
    index = ItemIndex(64)
    index.add(range(50_000), torch.randn(50_000, 64))
    row = index.stats().bytes_per_item
    index.remove(range(0, 50_000, 5))  # a fifth: too little for the index to do it by itself
    assert index.stats().removed == 10_000
    index.compact()
    stats = index.stats()
    assert (stats.removed, stats.segments) == (0, 1)
    assert stats.memory_bytes < 40_000 * row * 1.01
    index.remove(index.snapshot().search(torch.randn(1, 64), 39_000).ids[0])
    assert index.stats().memory_bytes < 1_000 * row / 0.75 + 400_000
    index.save(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1_000 * row / 0.75 + 400_000


def test_rows_that_nobody_sees_any_more_are_let_go():
    index = ItemIndex(8)
    index.add(range(10_000), torch.randn(10_000, 8))
    index.add(range(20_000, 20_100), torch.randn(100, 8))
    snapshot = index.snapshot()
    rows = [weakref.ref(part.block) for part in snapshot._version.parts]
    index.remove(range(0, 10_000, 2))
    index.compact()
    gc.collect()
    assert all(one() is not None for one in rows)
    assert snapshot.search(torch.ones(1, 8), 10_100).ids.unique().shape[0] == 10_100
    del snapshot
    gc.collect()
    assert all(one() is None for one in rows)


@pytest.fixture
def copied(monkeypatch) -> dict[str, int]:
    """How many rows were copied: together into a segment, or to where there is more room."""
    rows = {"merged": 0, "moved": 0}

    def gathered(pieces, real=segment.gathered):
        rows["merged"] += sum(piece.targets.shape[0] for piece in pieces)
        return real(pieces)

    def resize(self, more, real=room.Room.resize):
        rows["moved"] += min(self.count, more)
        real(self, more)

    monkeypatch.setattr(segment, "gathered", gathered)
    monkeypatch.setattr(room.Room, "resize", resize)
    return rows


def test_few_segments_and_few_copies_come_of_many_small_changes(monkeypatch, copied):
    for name, value in {"TAIL": 64, "MERGED": 1 << 14, "WORTH": 16}.items():
        monkeypatch.setattr(store, name, value)
    index, count = ItemIndex(4), 10_000
    index.add(np.arange(100_000, 150_000), torch.randn(50_000, 4))
    rng, most = np.random.default_rng(0), 0
    copied.update(merged=0, moved=0)
    for one in rng.permutation(count).tolist():
        index.add([one], torch.ones(1, 4))
        most = max(most, index.stats().segments)
    levels = math.log(count / store.TAIL, store.FAN)
    assert most <= 1 + (store.FAN - 1) * (levels + 1)
    assert copied["merged"] <= count * (levels + 2)
    assert copied["moved"] <= 2 * count  # to a tail that doubles
    copied.update(merged=0, moved=0)
    for one in rng.permutation(count).tolist():
        index.remove([one])
        most = max(most, index.stats().segments)
    assert most <= 1 + (store.FAN - 1) * (levels + 1)
    # A quarter goes before the rest is written again, and that may be merged with others.
    assert copied["merged"] <= 4 * count * (levels + 2)
    assert index.stats().segments <= 1 + store.FAN
    assert len(index) == 50_000


def test_removing_all_rows_copies_each_a_few_times(copied):
    index = ItemIndex(4)
    index.add(range(60_000), torch.randn(60_000, 4))
    copied.update(merged=0, moved=0)
    order = np.random.default_rng(0).permutation(60_000)
    for start in range(0, 60_000, 100):
        index.remove(order[start : start + 100])
    assert copied["merged"] + copied["moved"] <= 4 * 60_000  # 3/4 + 3/4 of that + ...
    assert index.stats().memory_bytes < 10_000


def test_a_save_after_a_small_change_writes_little(tmp_path, monkeypatch):
    index = ItemIndex(64)
    index.add(range(20_000), torch.randn(20_000, 64))
    index.save(tmp_path)
    written = []

    def write(handle, data, real=os.write):
        written.append(len(data))
        return real(handle, data)

    monkeypatch.setattr(os, "write", write)
    index.add([-1], torch.ones(1, 64))
    index.remove([7])
    index.save(tmp_path)
    assert sum(written) < 10_000
    written.clear()
    with ItemIndex.open(tmp_path) as opened:
        written.clear()
        opened.add([-2], torch.ones(1, 64))
        opened.remove([8])
        assert sum(written) < 4 * 64 + 200
        assert opened.stats().journal_bytes < 4 * 64 + 300


def test_items_that_were_added_last_take_what_stats_says():
    index = ItemIndex(16)
    index.add(range(4_000), torch.randn(4_000, 16))
    assert index.stats().segments == 0
    row = 4 * 16 + 16 + 16 + 8
    assert index.stats().memory_bytes < 4_096 * (row + 150)
