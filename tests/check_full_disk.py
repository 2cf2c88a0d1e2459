"""`ItemIndex` on a full disk; run by tests/test_index_system.py where one may mount a small one."""

from __future__ import annotations

import errno
import functools
import itertools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from index_folders import contents, files, filled, known_files, numbers

from llmrec_kernels import ItemIndex
from llmrec_kernels.index import store


@pytest.fixture(autouse=True)
def _small_tail(monkeypatch):
    monkeypatch.setattr(store, "TAIL", 16)


@pytest.fixture
def disk(tmp_path):
    """A disk of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path, left: int = 0) -> Path:
    """Take the space of a disk, but for so many pages."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        there = os.statvfs(disk)
        file.write(bytes((there.f_bavail - left) * there.f_bsize))
    return path


@pytest.mark.parametrize("mmap", [False, True], ids=["read", "mapped"])
def test_a_save_that_does_not_fit_leaves_what_is_there(disk, mmap):
    filled(removed=True).save(disk / "index")
    before = files(disk / "index")
    index = ItemIndex.load(disk / "index", mmap=mmap)
    index.add(range(1000, 6000), numbers(5000, 5, seed=1))
    index.add(range(7000, 27000), numbers(20000, 5, seed=2))
    changed = contents(index)
    with pytest.raises(OSError, match=r"cannot be written to \(No space left on device\)") as said:
        index.save(disk / "index")
    assert said.value.errno == errno.ENOSPC
    assert files(disk / "index") == before
    assert contents(ItemIndex.load(disk / "index")) == contents(filled(removed=True))
    assert contents(index) == changed
    index.remove(range(7000, 27000))
    index.save(disk / "index")
    assert contents(ItemIndex.load(disk / "index")) == contents(index)
    assert set(files(disk / "index")) == known_files(disk / "index")


@pytest.mark.parametrize("kind", ["new", "saved before", "open"])
def test_a_save_on_a_disk_with_so_many_pages_left_is_whole_or_nothing(disk, kind):
    old = filled(removed=True)
    if kind != "new":
        old.save(disk / "index")
    index = ItemIndex.open(disk / "index") if kind == "open" else old
    index.add(range(200, 220), numbers(20, 5, seed=1))
    index.remove([34])
    here = contents(index)
    for left in itertools.count():
        before = files(disk / "index") if (disk / "index").exists() else {}
        filler = fill(disk, left)
        if (error := refusal(lambda: index.save(disk / "index"))) is None:
            break
        assert error.errno == errno.ENOSPC
        assert "cannot be written to (No space left on device)" in str(error)
        assert contents(index) == here
        if (disk / "index").exists():
            after = files(disk / "index")
            # A journal that was begun stays: changes after this one are in it.
            new = {name for name in after if after[name] != before.get(name)}
            assert all(name.startswith("journal-") for name in new)
            assert kind == "open" or not new
        if kind == "open":
            assert contents(ItemIndex.load(disk / "index")) == here
        filler.unlink()
    assert left > 1
    assert contents(ItemIndex.load(disk / "index")) == here
    assert known_files(disk / "index") <= set(files(disk / "index"))
    index.close()


def test_a_change_that_does_not_fit_the_journal_is_not_made(disk):
    filled().save(disk / "index")
    with ItemIndex.open(disk / "index") as index:
        index.remove([30])
        filler = fill(disk)
        for step in range(3000):
            before = contents(index), index.stats().journal_bytes
            change = functools.partial(index.add, [500 + step], numbers(1, 5, seed=step))
            if (error := refusal(change)) is not None:
                break
        assert error.errno == errno.ENOSPC
        assert "No space left on device" in str(error)
        for act in (
            lambda: index.add([5000], numbers(1, 5, seed=0)),
            lambda: index.update([34, 36], numbers(2, 5, seed=0)),
            lambda: index.update([34, 36], bias=numbers(2, seed=0)),
            lambda: index.add(range(5000, 5020), numbers(20, 5, seed=0)),
        ):
            with pytest.raises(OSError, match="No space left on device"):
                act()
            assert (contents(index), index.stats().journal_bytes) == before
            assert contents(ItemIndex.load(disk / "index")) == before[0]
        filler.unlink()
        index.add(range(5000, 5020), numbers(20, 5, seed=0))
        index.remove([36])
        index.sync()
        assert contents(ItemIndex.load(disk / "index")) == contents(index)
        index.save(disk / "index")
    assert contents(ItemIndex.load(disk / "index")) == contents(index)


@pytest.mark.parametrize("mmap", [False, True], ids=["read", "mapped"])
def test_an_index_on_a_full_disk_is_loaded_and_not_opened(disk, mmap):
    filled().save(disk / "index")
    before = files(disk / "index")
    for left in itertools.count():
        filler = fill(disk, left)
        error = refusal(lambda: ItemIndex.open(disk / "index", mmap=mmap).close())
        assert contents(ItemIndex.load(disk / "index", mmap=mmap)) == contents(filled())
        if error is None:
            break
        assert error.errno == errno.ENOSPC
        assert "cannot be written to (No space left on device)" in str(error)
        assert files(disk / "index") == before
        filler.unlink()
    assert left > 0


def refusal(act: Callable[[], object]) -> OSError | None:
    """The error of the system that an act raises."""
    try:
        act()
    except OSError as error:
        return error
    return None
