"""`ItemIndex` in a folder: what is saved comes back, and what is there is replaced or kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from index_folders import contents, files, filled, known_files, numbers, rewrite_manifest

from llmrec_kernels import ItemIndex
from llmrec_kernels.index import STORAGES, IndexFormatError, store

ORPHANS = [
    "segment-0123456789abcdef.safetensors",
    "removed-0123456789abcdef.safetensors",
    "journal-0123456789abcdef.log",
    ".manifest.json.0123456789abcdef",
]


@pytest.fixture(autouse=True)
def _small_tail(monkeypatch):
    monkeypatch.setattr(store, "TAIL", 16)


@pytest.mark.parametrize("removed", [False, True], ids=["whole", "removed"])
@pytest.mark.parametrize("given", [(), ("bias",), ("scale",), ("bias", "scale")], ids="-".join)
@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("storage", STORAGES)
def test_an_index_comes_back_as_it_was(tmp_path, storage, metric, given, removed):
    index = filled(storage=storage, metric=metric, given=given, removed=removed)
    before = contents(index)
    index.save(tmp_path)
    assert contents(index) == before
    for mmap in (False, True):
        loaded = ItemIndex.load(tmp_path, mmap=mmap)
        assert contents(loaded) == before
        assert (loaded.stats().mapped_bytes > 0) is mmap


@pytest.mark.parametrize("mmap", [False, True], ids=["read", "mapped"])
def test_an_index_without_items_comes_back(tmp_path, mmap):
    new, emptied = ItemIndex(3), filled()
    emptied.remove(list(emptied))
    for index in (new, emptied):
        index.save(tmp_path)
        assert contents(ItemIndex.load(tmp_path, mmap=mmap)) == contents(index)


@pytest.mark.parametrize("mmap", [False, True], ids=["read", "mapped"])
@pytest.mark.parametrize("storage", STORAGES)
def test_a_loaded_index_goes_on_as_the_first_would(tmp_path, storage, mmap):
    first = filled(storage=storage, given=("bias",), removed=True)
    first.save(tmp_path / "first")
    second = ItemIndex.load(tmp_path / "first", mmap=mmap)
    for index in (first, second):
        index.update([30, 6, 7], numbers(3, 5, seed=1))
        index.update([34, 8], scale=torch.tensor([2.0, 3.0]))
        index.add(range(100, 120), numbers(20, 5, seed=2))
        index.remove([36, -2, 105])
    second.save(tmp_path / "second")
    assert contents(second) == contents(first)
    assert contents(ItemIndex.load(tmp_path / "second", mmap=mmap)) == contents(first)


@pytest.mark.parametrize("mmap", [False, True], ids=["read", "mapped"])
def test_many_saves_of_one_folder_keep_what_was_changed_between_them(tmp_path, mmap):
    twin = filled(removed=True)
    twin.save(tmp_path)
    for step in range(6):
        index = ItemIndex.load(tmp_path, mmap=mmap)
        for each in (twin, index):
            each.remove(list(each)[step : 3 * step : 2])
            each.add(range(1000 * (step + 1), 1000 * (step + 1) + 9), numbers(9, 5, seed=step))
            each.update(list(each)[5:20], numbers(15, 5, seed=50 + step))
        if step == 4:
            index.compact()
        index.save(tmp_path)
        assert contents(index) == contents(twin)
        assert set(files(tmp_path)) == known_files(tmp_path)
    assert contents(ItemIndex.load(tmp_path)) == contents(twin)


def test_a_relative_path_is_of_the_moment(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    filled().save("here")
    index = ItemIndex.load("here", mmap=True)
    index.remove([30])
    monkeypatch.chdir(tmp_path / "elsewhere")
    index.save("../here")
    index.save("here")
    for folder in (tmp_path / "here", tmp_path / "elsewhere" / "here"):
        assert contents(ItemIndex.load(folder)) == contents(index)


# What is written, and what is not.


def test_a_save_of_what_is_there_writes_a_manifest_alone(tmp_path):
    index = filled(storage="int8", given=("bias",))
    index.save(tmp_path)
    before = stamps(tmp_path)
    for again in (index, ItemIndex.load(tmp_path), ItemIndex.load(tmp_path, mmap=True)):
        again.save(tmp_path)
        assert changed(before, stamps(tmp_path)) == {"manifest.json"}


def test_a_save_writes_only_what_is_new(tmp_path):
    index = filled()
    index.save(tmp_path)
    before = stamps(tmp_path)
    index.remove([30])
    index.add([501], numbers(1, 5, seed=0))
    index.save(tmp_path)
    new = changed(before, stamps(tmp_path))
    assert sorted(name.partition("-")[0] for name in new) == ["manifest.json", "removed", "segment"]


def test_a_save_sweeps_what_it_replaces(tmp_path):
    old, new = filled(removed=True, seed=1), filled(removed=True, seed=2)
    old.save(tmp_path)
    replaced = set(files(tmp_path)) - {"manifest.json"}
    new.save(tmp_path)
    assert contents(ItemIndex.load(tmp_path)) == contents(new)
    assert set(files(tmp_path)) == known_files(tmp_path)
    assert not replaced & set(files(tmp_path))


def test_an_index_is_in_several_folders_at_once(tmp_path):
    index = filled(removed=True)
    index.save(tmp_path / "one")
    index.save(tmp_path / "two")
    first = contents(index)
    index.remove([30])
    one, two = stamps(tmp_path / "one"), stamps(tmp_path / "two")
    index.save(tmp_path / "two")
    assert contents(ItemIndex.load(tmp_path / "one")) == first
    assert contents(ItemIndex.load(tmp_path / "two")) == contents(index)
    assert stamps(tmp_path / "one") == one
    assert {name.partition("-")[0] for name in changed(two, stamps(tmp_path / "two"))} == {
        "manifest.json",
        "removed",
    }


@pytest.mark.parametrize("mmap", [False, True], ids=["read", "mapped"])
def test_an_index_outlives_the_files_that_it_was_loaded_from(tmp_path, mmap):
    filled(removed=True).save(tmp_path)
    index = ItemIndex.load(tmp_path, mmap=mmap)
    filled(seed=7).save(tmp_path)
    assert contents(index) == contents(filled(removed=True))
    index.save(tmp_path)
    assert contents(ItemIndex.load(tmp_path)) == contents(index)


@pytest.mark.parametrize("there", [False, True], ids=["new", "saved before"])
def test_what_an_unfinished_save_left_is_swept(tmp_path, there):
    index = filled()
    if there:
        index.save(tmp_path)
    for name in ORPHANS:
        (tmp_path / name).write_bytes(b"half of")
    index.save(tmp_path)
    assert set(files(tmp_path)) == known_files(tmp_path)
    assert contents(ItemIndex.load(tmp_path)) == contents(index)


MINE = b"mine" * 100
# Names that only begin like ours: a model, and what an editor keeps.
STRANGERS = [
    "notes.txt",
    "segment-anything.safetensors",
    "removed-users.safetensors",
    "journal-2024.log",
    ".manifest.json.swp",
    "journal-0123456789ABCDEF.log",
    "journal-2024-01-01T00-00.log",
    "segment-0123456789abcdef.safetensors.bak",
]


@pytest.mark.parametrize("name", STRANGERS)
def test_files_of_others_beside_an_index_stay(tmp_path, name):
    index = filled()
    index.save(tmp_path)
    (tmp_path / name).write_bytes(MINE)
    index.remove([30])
    index.save(tmp_path)
    assert (tmp_path / name).read_bytes() == MINE
    assert contents(ItemIndex.load(tmp_path)) == contents(index)


@pytest.mark.parametrize("name", STRANGERS)
def test_a_folder_of_something_else_is_refused_and_not_touched(tmp_path, name):
    (tmp_path / name).write_bytes(MINE)
    (tmp_path / ORPHANS[0]).write_bytes(b"")
    before = stamps(tmp_path)
    with pytest.raises(ValueError, match=rf"which holds {name} and no index; expected a folder"):
        filled().save(tmp_path)
    assert stamps(tmp_path) == before


def test_a_damaged_index_is_not_overwritten(tmp_path):
    index = filled()
    index.save(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    before = stamps(tmp_path)
    with pytest.raises(IndexFormatError, match=r"it is not overwritten, so remove .* first"):
        index.save(tmp_path)
    assert stamps(tmp_path) == before


def test_an_index_of_a_newer_version_is_not_overwritten(tmp_path):
    index = filled()
    index.save(tmp_path)
    rewrite_manifest(tmp_path, lambda content: content.update(version=2))
    before = stamps(tmp_path)
    with pytest.raises(IndexFormatError, match=r"is of version 2; this llmrec_kernels reads 1"):
        index.save(tmp_path)
    assert stamps(tmp_path) == before


# Paths.


def test_a_path_below_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*missing to make index in"):
        filled().save(tmp_path / "missing" / "index")
    assert files(tmp_path) == {}


def test_a_path_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"file is a file; expected a folder"):
        filled().save(path)
    with pytest.raises(OSError, match=r"cannot be written to \(Not a directory\)"):
        filled().save(path / "index")
    for read in (ItemIndex.load, ItemIndex.open):
        for below in (path, path / "index"):
            with pytest.raises(FileNotFoundError, match=r"is no folder of an index"):
                read(below)
    assert files(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize("read", [ItemIndex.load, ItemIndex.open], ids=["load", "open"])
def test_where_no_index_is_there_is_none_to_load(tmp_path, read):
    (tmp_path / "empty").mkdir()
    for folder in ("missing", "empty"):
        with pytest.raises(FileNotFoundError, match=rf"there is no index in .*{folder}: it has no"):
            read(tmp_path / folder)
    assert list((tmp_path / "empty").iterdir()) == []
    assert not (tmp_path / "missing").exists()


def test_an_index_open_in_a_folder_saves_there_by_another_of_its_names(tmp_path):
    filled().save(tmp_path / "index")
    (tmp_path / "link").symlink_to(tmp_path / "index")
    with ItemIndex.open(tmp_path / "index") as index:
        for name in ("link", "link/../index"):
            index.remove([next(iter(index))])
            index.save(tmp_path / name)
            assert contents(ItemIndex.load(tmp_path / "index")) == contents(index)
            assert set(files(tmp_path / "index")) >= known_files(tmp_path / "index")


def stamps(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Each file: which it is, when it was written, and what it holds."""
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.iterdir()
    }


def changed(before: dict, after: dict) -> set[str]:
    """The names of files that are new or another."""
    return {name for name, stamp in after.items() if before.get(name) != stamp}
