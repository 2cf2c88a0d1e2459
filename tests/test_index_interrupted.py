"""What is broken off, by Ctrl-C anywhere or by the system, was done or it was not."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from index_faults import Killed, bury, faults, interrupted
from index_model import Contents, Model, State, state_of

from llmrec_kernels import ItemIndex
from llmrec_kernels.index import intake, store

SMALL = {"TAIL": 20, "FAN": 2, "MERGED": 60, "LARGEST": 40, "WORTH": 2}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    for name, value in SMALL.items():
        monkeypatch.setattr(store, name, value)
    monkeypatch.setattr(intake, "LARGEST", store.LARGEST)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # no power is cut here
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rows_of(ids: Any, seed: int = 0) -> Contents:
    """Rows that differ, with biases and scales."""
    return {one: ([float(one + seed), 1.0 - one % 3], float(one % 5), 1.0 + one % 2) for one in ids}


def put(index: ItemIndex, rows: Contents) -> None:
    """Add rows, or update those that are there."""
    vectors, bias, scale = (torch.tensor([row[n] for row in rows.values()]) for n in range(3))
    change = index.update if next(iter(rows)) in index else index.add
    change(list(rows), vectors, bias=bias, scale=scale)


# Rows 0 to 23 come to be in a segment, and 16 in the tail, which has room for no more.
FIRST = [rows_of(range(24)), rows_of(range(30, 42)), rows_of([47, 44]), rows_of([12, 3], seed=1)]
GONE = [[1], [47]]


def begun(index: ItemIndex) -> Contents:
    """Fill an empty index; what it then holds."""
    rows: Contents = {}
    for some in FIRST:
        put(index, some)
        rows |= some
    for ids in GONE:
        index.remove(ids)
        rows = {one: row for one, row in rows.items() if one not in ids}
    return rows


def changed(rows: Contents, new: Contents, gone: Any = ()) -> Contents:
    return {one: row for one, row in {**rows, **new}.items() if one not in gone}


CHANGES: dict[str, tuple[Contents, tuple[int, ...]]] = {
    "one row more": (rows_of([60]), ()),
    "rows that fill the tail": (rows_of(range(60, 66)), ()),
    "rows that are segments": (rows_of(range(60, 105)), ()),
    "an update here and there": (rows_of([2, 12, 44], seed=2), ()),
    "a removal here and there": ({}, (0, 12, 44)),
    "a removal of most": ({}, tuple(range(2, 40))),
    "nothing": ({}, ()),
}


def make(index: ItemIndex, name: str) -> None:
    new, gone = CHANGES[name]
    if new:
        put(index, new)
    elif gone:
        index.remove([one for one in gone if one in index])
    else:
        index.compact()


def go_on(index: ItemIndex, rows: Contents) -> Contents:
    """Change what the broken change was about, and more; what there is then."""
    for ids, seed in (([12, 44, 2], 3), ([12, 9, 61], 4)):
        for there in (True, False):
            new = rows_of([one for one in ids if (one in rows) == there], seed)
            if new:
                put(index, new)
                rows = changed(rows, new)
                assert list(index) == sorted(rows)
                assert all(one in index for one in rows)
        gone = [one for one in (12, 9, 60) if one in rows]
        index.remove(gone)
        rows = changed(rows, {}, gone)
        assert list(index) == sorted(rows)
        assert all(one in index for one in rows)
    return rows


def state(rows: Contents, version: int) -> State:
    return Model("dot", "float32", rows).state(version)


def check_half_made(index: ItemIndex, rows: Contents, name: str, version: int) -> Contents:
    """The change was made or it was not; what there is."""
    if index.version > version:
        rows = changed(rows, *CHANGES[name])
    assert state_of(index) == state(rows, index.version)
    return rows


@pytest.mark.parametrize(
    ("name", "fan", "error"),
    [
        *((name, 2, KeyboardInterrupt) for name in CHANGES),
        # With a fan of 2 what is noted of a segment is gone with it at the next change.
        ("a removal here and there", 4, KeyboardInterrupt),
        # A lack of memory is the change's own only until it is made.
        ("an update here and there", 2, MemoryError),
        ("a removal of most", 2, MemoryError),
    ],
)
@pytest.mark.filterwarnings("ignore:the change was made, but the index could not be tidied")
def test_a_change_that_is_interrupted_anywhere_is_made_or_not(monkeypatch, name, fan, error):
    monkeypatch.setattr(store, "FAN", fan)
    for at in itertools.count(1):
        index = ItemIndex(2, metric="dot")
        rows = begun(index)
        before, then = index.snapshot(), state(rows, index.version)
        with interrupted(at, error) as came, contextlib.suppress(error):
            make(index, name)
        if not came:
            break
        assert state_of(before) == then
        rows = check_half_made(index, rows, name, before.version)
        rows = go_on(index, rows)
        assert state_of(index) == state(rows, index.version)
        assert state_of(before) == then
    assert at > 20


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[Path, Contents]:
    """A folder with a save and a journal behind it, and what is there."""
    folder = tmp_path_factory.mktemp("interrupted") / "index"
    ItemIndex(2, metric="dot").save(folder)
    with ItemIndex.open(folder) as index:
        rows = begun(index)
        index.save(folder)
        put(index, more := rows_of([50, 51]))
    return folder, changed(rows, more)


def reopened(folder: Path) -> ItemIndex:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*not written whole: it is dropped")
        return ItemIndex.open(folder)


def check_all_is_there(index: ItemIndex, folder: Path, rows: Contents) -> None:
    """All changes come back when the process is killed, also when that is in a save."""
    version = index.version
    with faults(Killed, first=6), contextlib.suppress(Killed):
        index.save(folder)
    bury(index)
    index = reopened(folder)
    assert state_of(index) == state(rows, version)
    index.remove([5])
    index.save(folder)
    bury(index)
    assert state_of(ItemIndex.load(folder)) == state(changed(rows, {}, [5]), version + 1)


@pytest.mark.parametrize("name", ["one row more", "a removal here and there"])
def test_a_change_in_a_journal_that_is_interrupted_anywhere_is_made_or_not(saved, tmp_path, name):
    source, rows = saved
    check_acts(source, tmp_path, rows, name, lambda index, folder: make(index, name), interrupted)


def test_a_save_that_is_interrupted_anywhere_loses_nothing(saved, tmp_path):
    source, rows = saved
    check_acts(source, tmp_path, rows, "nothing", lambda i, folder: i.save(folder), interrupted)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", ["one row more", "a removal here and there"])
def test_a_change_that_the_system_refuses_loses_nothing(saved, tmp_path, name, count):
    source, rows = saved

    def refused(at):
        return faults(full, first=at, last=at + count - 1)

    check_acts(source, tmp_path, rows, name, lambda index, folder: make(index, name), refused)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_save_that_the_system_refuses_loses_nothing(saved, tmp_path, count):
    source, rows = saved

    def refused(at):
        return faults(full, first=at, last=at + count - 1)

    check_acts(source, tmp_path, rows, "nothing", lambda i, folder: i.save(folder), refused)


def full() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def check_acts(
    source: Path,
    tmp_path: Path,
    rows: Contents,
    name: str,
    act: Callable[[ItemIndex, Path], None],
    broken: Callable[[int], Any],
) -> None:
    """Break an act off at each of its steps; after each, go on and be killed."""
    for at in itertools.count(1):
        folder = tmp_path / str(at)
        shutil.copytree(source, folder)
        index = ItemIndex.open(folder)
        version = index.version
        with broken(at) as steps, contextlib.suppress(KeyboardInterrupt, OSError):
            act(index, folder)
        kept = check_half_made(index, rows, name, version)
        if at % 3:
            kept = go_on(index, kept)
        check_all_is_there(index, folder, kept)
        shutil.rmtree(folder)
        if len(steps) < (1 if broken is interrupted else at):
            break
