"""What must not happen to an index: forks, signals, other default dtypes, and locks in the way."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest
import torch

from llmrec_kernels import ItemIndex
from llmrec_kernels.index import segment, store


def filled(count: int = 40) -> ItemIndex:
    index = ItemIndex(3)
    index.add(range(count), torch.randn(count, 3, generator=torch.Generator().manual_seed(0)))
    return index


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks on this system")
def test_a_forked_process_changes_nothing_and_takes_no_lock_with_it(tmp_path):
    filled().save(tmp_path)
    index = ItemIndex.open(tmp_path)
    index.remove([1])
    ends, starts = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # without pytest's ways out
        code = 1
        try:
            with pytest.raises(ValueError, match="this one was forked from"):
                index.remove([2])
            with pytest.raises(ValueError, match="this one was forked from"):
                index.save(tmp_path)
            os.write(starts[1], b".")
            os.read(ends[0], 1)  # stays, with what it has of the folder
            code = 0
        finally:
            os._exit(code)
    os.read(starts[0], 1)
    index.remove([3])
    index.close()
    with ItemIndex.open(tmp_path) as again:  # though the child has the folder open
        assert sorted(set(range(40)) - set(again)) == [1, 3]
    os.write(ends[1], b".")
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers on this system")
def test_a_change_within_a_change_is_refused_and_nothing_is_lost():
    index, removed, refused, handling = filled(2_000), [], [], False

    def handler(*_: object) -> None:
        nonlocal handling
        if handling:  # on a busy machine the next signal comes before this one is done
            return
        handling = True
        try:
            index.remove([len(removed)])
            removed.append(len(removed))
        except RuntimeError as error:
            refused.append(str(error))
        finally:
            handling = False

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for one in range(3_000, 6_000):
            index.add([one], torch.ones(1, 3))
            if refused and len(removed) > 5:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert all("by this very thread" in each for each in refused)
    assert list(index) == [*range(len(removed), 2_000), *range(3_000, one + 1)]


def test_the_default_dtype_is_the_callers_own(monkeypatch, tmp_path):
    monkeypatch.setattr(store, "TAIL", 8)
    torch.set_default_dtype(torch.float64)
    try:
        index = ItemIndex(3)
        for start in range(0, 80, 8):
            index.add(range(start, start + 8), torch.ones(8, 3), bias=torch.zeros(8))
        index.compact()
        index.save(tmp_path)
        found = ItemIndex.load(tmp_path).vectors([0])
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32
    assert index.stats().segments == 1


def test_what_cannot_be_tidied_is_a_warning_and_the_change_is_made(monkeypatch):
    index = filled()

    def fail(*_: object) -> None:
        raise MemoryError("there is none")

    monkeypatch.setattr(store.Store, "_tidy", fail)
    with pytest.warns(RuntimeWarning, match="could not be tidied: there is none"):
        index.remove([5])
    assert 5 not in index


def test_a_file_that_is_verified_holds_up_no_other_index(monkeypatch, tmp_path):
    filled().save(tmp_path)
    mapped, other = ItemIndex.load(tmp_path, mmap=True), filled()
    begun, go_on = threading.Event(), threading.Event()
    verify = segment.Segment.all._make

    def slowly(held: segment.Segment) -> segment.Entries:
        if held.mapped:
            begun.set()
            assert go_on.wait(60)
        return verify(held)

    monkeypatch.setattr(segment.Segment.all, "_make", slowly)
    thread = threading.Thread(target=mapped.search, args=(torch.ones(1, 3), 3))
    thread.start()
    assert begun.wait(60)
    other.compact()  # a segment whose attributes nobody asked for yet
    found = other.search(torch.ones(1, 3), 3)  # would wait for ever
    go_on.set()
    thread.join()
    assert torch.equal(found.ids, mapped.search(torch.ones(1, 3), 3).ids)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders here")
@pytest.mark.parametrize("name", ["manifest.json", "segment-*", "journal-*", "removed-*"])
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(tmp_path, name):
    index = filled()
    index.save(tmp_path)
    with ItemIndex.open(tmp_path) as index:
        index.remove([3])
        index.save(tmp_path)
    (path,) = tmp_path.glob(name)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="is no file"):
        ItemIndex.load(tmp_path)


def test_a_journal_that_was_removed_takes_no_change(tmp_path):
    filled().save(tmp_path)
    with ItemIndex.open(tmp_path) as index:
        for path in tmp_path.iterdir():
            path.unlink()
        with pytest.raises(OSError, match="was removed, so no change can be written"):
            index.remove([3])
        assert 3 in index


def test_ids_of_numpy_are_in_the_index():
    index = filled()
    assert np.int64(3) in index
    assert "3" not in index
    assert 3.0 not in index
