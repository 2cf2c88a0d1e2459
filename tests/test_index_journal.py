"""The journal of an `ItemIndex`: a change is in it before it shows, and is made again from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import index_processes
import pytest
import torch
from index_folders import (
    broken_off_save,
    change,
    contents,
    every_change,
    files,
    filled,
    journal_of,
    known_files,
    numbers,
    opened,
)

import llmrec_kernels
from llmrec_kernels import ItemIndex
from llmrec_kernels.index import (
    STORAGES,
    removals,
    store,
    tail,
)

EMPTY = 64  # bytes of a journal without changes
RECORD = b"LLMRECR\n"


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(store, "TAIL", 16)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_changes_survive_a_kill_of_their_process(tmp_path):
    twins = {}
    for storage in STORAGES:
        twins[storage] = filled(storage=storage, given=("scale",))
        twins[storage].save(tmp_path / storage)
    with subprocess.Popen(
        [sys.executable, index_processes.__file__, "changes", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(llmrec_kernels.__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        while json.loads(process.stdout.readline())["version"]:
            pass
        process.kill()
    for storage, twin in twins.items():
        for _ in every_change(twin):
            pass
        for mmap in (False, True):
            assert contents(ItemIndex.load(tmp_path / storage, mmap=mmap)) == contents(twin)


@pytest.mark.parametrize("mmap", [False, True], ids=["read", "mapped"])
@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("storage", STORAGES)
def test_each_kind_of_change_is_made_again_bit_for_bit(tmp_path, storage, metric, mmap):
    twin = filled(storage=storage, metric=metric, given=("bias",))
    twin.save(tmp_path)
    with ItemIndex.open(tmp_path, mmap=mmap) as index:
        for _ in zip(every_change(index), every_change(twin), strict=True):
            # Beside the open index, and twice with the same result.
            assert contents(ItemIndex.load(tmp_path, mmap=mmap)) == contents(twin)
        assert contents(index) == contents(twin)
        assert index.stats().journal_bytes == journal_of(tmp_path).stat().st_size
    assert contents(ItemIndex.load(tmp_path, mmap=not mmap)) == contents(twin)


def test_an_index_is_opened_and_closed_any_number_of_times(tmp_path):
    twin = filled()
    twin.save(tmp_path)
    for step in range(6):
        with ItemIndex.open(tmp_path, mmap=step % 2 == 1) as index:
            change(index)
        change(twin)
        assert contents(ItemIndex.load(tmp_path)) == contents(twin)


def test_loading_writes_nothing(tmp_path):
    with opened(tmp_path) as index:
        change(index)
    before = files(tmp_path)
    loaded = [ItemIndex.load(tmp_path), ItemIndex.open(tmp_path, journal=False)]
    for each in loaded:
        change(each)
        each.sync()
        assert each.stats().journal_bytes == 0
        each.close()
    assert files(tmp_path) == before


def test_without_a_journal_a_folder_is_open_to_all(tmp_path):
    with opened(tmp_path) as index:
        change(index)
    first, second = (ItemIndex.open(tmp_path, journal=False) for _ in range(2))
    assert contents(first) == contents(second) == contents(index)
    change(first)
    first.save(tmp_path)
    assert contents(ItemIndex.load(tmp_path)) == contents(first)


def test_a_system_that_takes_some_bytes_at_a_time_gets_them_all(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:7]))
    with opened(tmp_path) as index:
        for _ in every_change(index):
            pass
    assert contents(ItemIndex.load(tmp_path)) == contents(index)


# Saves.


def test_a_save_empties_the_journal(tmp_path):
    with opened(tmp_path) as index:
        assert index.stats().journal_bytes == EMPTY
        change(index)
        assert index.stats().journal_bytes == journal_of(tmp_path).stat().st_size > EMPTY
        index.save(tmp_path)
        assert index.stats().journal_bytes == EMPTY
        assert set(files(tmp_path)) == known_files(tmp_path) | {journal_of(tmp_path).name}
        change(index)
        assert contents(ItemIndex.load(tmp_path)) == contents(index)


def test_a_save_elsewhere_leaves_the_journal(tmp_path):
    with opened(tmp_path / "here") as index:
        change(index)
        index.save(tmp_path / "there")
        change(index)
        assert journal_of(tmp_path / "here").stat().st_size > EMPTY
    assert contents(ItemIndex.load(tmp_path / "here")) == contents(index)
    assert ItemIndex.load(tmp_path / "there").version == index.version - 1


def test_a_save_of_another_index_takes_the_place_of_the_journal_too(tmp_path):
    with opened(tmp_path) as index:
        change(index)
    other = filled(seed=5)
    other.save(tmp_path)
    assert contents(ItemIndex.load(tmp_path)) == contents(other)
    assert set(files(tmp_path)) == known_files(tmp_path)


@pytest.mark.parametrize("reopened", [False, True], ids=["at once", "opened again"])
def test_journals_are_read_one_after_the_other_when_saves_were_broken_off(tmp_path, reopened):
    index = opened(tmp_path)
    for step in range(3):
        change(index)
        change(index)
        broken_off_save(index, tmp_path)
        change(index)
        assert len(list(tmp_path.glob("journal-*"))) == step + 2
        for mmap in (False, True):
            assert contents(ItemIndex.load(tmp_path, mmap=mmap)) == contents(index)
        if reopened:
            index.close()
            index = ItemIndex.open(tmp_path)
    index.save(tmp_path)
    change(index)
    assert contents(ItemIndex.load(tmp_path)) == contents(index)
    assert set(files(tmp_path)) == known_files(tmp_path) | {journal_of(tmp_path).name}
    index.close()


# Changes that fail.


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("where", ["append", "note", "write"])
def test_a_change_that_fails_after_it_was_written_is_taken_back(tmp_path, monkeypatch, where, kind):
    owner = {"append": tail.Tail, "note": removals.Removals, "write": os}[where]
    with opened(tmp_path) as index:
        change(index)
        before, size = contents(index), index.stats().journal_bytes
        for act in (
            lambda: index.update([30, 36], numbers(2, 5, seed=1)),
            lambda: index.update([38], bias=numbers(1, seed=1)),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(owner, where, failing(kind))
                with pytest.raises(kind):
                    act()
            assert contents(index) == before
            assert index.stats().journal_bytes == journal_of(tmp_path).stat().st_size == size
            assert contents(ItemIndex.load(tmp_path)) == before
        for _ in every_change(index):
            pass
    assert contents(ItemIndex.load(tmp_path)) == contents(index)


def test_a_change_that_could_not_be_taken_back_is_when_the_next_one_comes(tmp_path, monkeypatch):
    with opened(tmp_path) as index:
        before = contents(index)
        with monkeypatch.context() as patch:
            patch.setattr(tail.Tail, "append", failing(RuntimeError))
            patch.setattr(os, "ftruncate", failing(OSError))
            with pytest.raises(RuntimeError):
                index.update([30], numbers(1, 5, seed=1))
        assert contents(index) == before
        index.remove([30])
        assert contents(ItemIndex.load(tmp_path)) == contents(index)


def test_a_refused_change_is_not_written(tmp_path):
    with opened(tmp_path) as index:
        before = contents(index), index.stats().journal_bytes
        for act in (
            lambda: index.add([30], numbers(1, 5, seed=0)),
            lambda: index.update([31], numbers(1, 5, seed=0)),
            lambda: index.remove([30, 31]),
            lambda: index.add([500], torch.full((1, 5), torch.nan)),
        ):
            with pytest.raises((ValueError, IndexError)):
                act()
            assert (contents(index), index.stats().journal_bytes) == before
    assert contents(ItemIndex.load(tmp_path)) == before[0]


# The end.


@pytest.mark.parametrize("journal", [False, True], ids=["load", "open"])
def test_a_closed_index_is_searched_and_not_changed(tmp_path, journal):
    filled().save(tmp_path)
    index = ItemIndex.open(tmp_path, journal=journal, mmap=True)
    change(index)
    before, there = contents(index), files(tmp_path)
    index.close()
    index.close()
    for act in (
        lambda: change(index),
        lambda: index.add([501], numbers(1, 5, seed=0)),
        lambda: index.update([36], numbers(1, 5, seed=0)),
        lambda: index.remove([36]),
        lambda: index.save(tmp_path),
        lambda: index.save(tmp_path / "elsewhere"),
        lambda: index.compact(),
    ):
        with pytest.raises(ValueError, match="the index is closed; open it again to change it"):
            act()
    index.sync()
    assert contents(index) == before
    assert index.stats().journal_bytes == 0
    assert files(tmp_path) == there


def test_an_index_that_is_let_go_of_lets_its_folder_go(tmp_path):
    index = opened(tmp_path)
    change(index)
    before = contents(index)
    del index
    with ItemIndex.open(tmp_path) as index:
        assert contents(index) == before


def failing(kind):
    def fail(*_, **__):
        raise kind("in a test")

    return fail
