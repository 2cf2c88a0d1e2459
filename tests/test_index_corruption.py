"""`ItemIndex` loads right answers or raises `IndexFormatError`, whatever became of its files."""

from __future__ import annotations

import contextlib
import random
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from index_folders import (
    Contents,
    broken_off_save,
    change,
    contents,
    files,
    filled,
    journal_of,
    numbers,
)

from llmrec_kernels import ItemIndex
from llmrec_kernels.index import IndexFormatError, store

HEADER = 64  # bytes of a journal's
KINDS = ["manifest", "removed", "segment", "journal", "follower"]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, dict[int, Contents]]:
    """A folder with all kinds of files, and what each version held: the manifest's, and later.

    A save was broken off, so that there are two journals, with two changes each.
    """
    folder, known = tmp_path_factory.mktemp("whole") / "index", {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "TAIL", 16)
        filled(given=("bias", "scale"), removed=True, storage="int8").save(folder)
        with ItemIndex.open(folder) as index:
            known[index.version] = contents(index)
            for step in range(4):
                change(index)
                known[index.version] = contents(index)
                if step == 1:
                    broken_off_save(index, folder)
    return folder, known


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    shutil.copytree(whole[0], tmp_path / "index")
    return tmp_path / "index"


def of_kind(folder: Path, kind: str) -> list[Path]:
    """The files of a kind: `journal` is the one that the manifest names."""
    first = journal_of(folder)
    if kind in ("journal", "follower"):
        return [path for path in folder.glob("journal-*") if (path == first) == (kind == "journal")]
    return sorted(folder.glob(f"{kind}*"))


def found(folder: Path, known: dict[int, Contents]) -> set[str]:
    """Look at all that is there, mapped and not.

    What came of it: refused, whole, or earlier (a state before the last change), and whether there
    was a warning. All else fails.
    """
    results = set()
    for mmap in (False, True):
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                index = ItemIndex.load(folder, mmap=mmap)
        except IndexFormatError:
            results.add("refused")
            continue
        assert all("was not written whole: it is dropped" in str(each.message) for each in said)
        expected = known[index.version]
        try:
            assert contents(index) == expected
            results.add("whole" if index.version == max(known) else "earlier")
            results |= {"warned"} if said else set()
        except IndexFormatError:
            assert mmap  # what is read at once is compared at once
            results.add("refused")
        check_one_by_one(index, expected)
    return results


def check_one_by_one(index: ItemIndex, expected: Contents) -> None:
    """Ask for some vectors alone: of mapped rows that looks at no more than it has to."""
    vectors = torch.frombuffer(bytearray(expected.vectors), dtype=torch.float32)
    for one, vector in list(zip(expected.ids, vectors.view(-1, index.dim), strict=True))[::9]:
        with contextlib.suppress(IndexFormatError):
            assert index.vectors([one]).tolist() == [vector.tolist()]
            assert one in index


def damaged(path: Path, each: Iterator[bytes]) -> Iterator[None]:
    """Have a file hold each of these in turn."""
    raw = path.read_bytes()
    for content in each:
        path.write_bytes(content)
        yield
    path.write_bytes(raw)


def flips(raw: bytes, positions) -> Iterator[bytes]:
    rng = random.Random(0)
    for at in positions:
        yield raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1 :]


def test_the_folder_is_whole_as_long_as_nothing_happens_to_it(whole, folder):
    assert found(folder, whole[1]) == {"whole"}
    assert [len(of_kind(folder, kind)) for kind in KINDS] == [1, 1, 3, 1, 1]


def test_any_byte_of_the_manifest_counts_but_for_space(whole, folder):
    path = folder / "manifest.json"
    raw = path.read_bytes()
    for at, _ in enumerate(damaged(path, flips(raw, range(len(raw))))):
        result = found(folder, whole[1])
        assert result == {"refused"} or (result == {"whole"} and raw[at : at + 1].isspace())


def test_any_byte_of_what_was_removed_counts(whole, folder):
    (path,) = of_kind(folder, "removed")
    raw = path.read_bytes()
    for _ in damaged(path, flips(raw, range(len(raw)))):
        assert found(folder, whole[1]) == {"refused"}


@pytest.mark.parametrize("number", range(3))
def test_any_byte_of_a_segment_counts(whole, folder, number):
    path = of_kind(folder, "segment")[number]
    raw = path.read_bytes()
    header = 8 + int.from_bytes(raw[:8], "little")
    table = range(len(raw) - 8, len(raw))
    some = random.Random(number).sample(range(header, len(raw)), 150)
    for _ in damaged(path, flips(raw, [*range(0, header, 3), *table, *some])):
        assert found(folder, whole[1]) == {"refused"}


@pytest.mark.parametrize("kind", ["journal", "follower"])
def test_any_byte_of_a_journals_header_counts(whole, folder, kind):
    (path,) = of_kind(folder, kind)
    raw = path.read_bytes()
    for _ in damaged(path, flips(raw, range(HEADER))):
        assert found(folder, whole[1]) == {"refused"}


def test_any_byte_of_a_journals_changes_counts(whole, folder):
    (first,), (follower,) = of_kind(folder, "journal"), of_kind(folder, "follower")
    raw = first.read_bytes()
    for _ in damaged(first, flips(raw, range(HEADER, len(raw)))):
        assert found(folder, whole[1]) == {"refused"}
    raw = follower.read_bytes()
    last = raw.rfind(b"LLMRECR\n")
    for _ in damaged(follower, flips(raw, range(HEADER, last))):
        assert found(folder, whole[1]) == {"refused"}
    for _ in damaged(follower, flips(raw, range(last, len(raw)))):
        assert found(folder, whole[1]) == {"earlier", "warned"}


def test_a_file_that_was_cut_is_refused(whole, folder):
    rng = random.Random(0)
    for kind in ("manifest", "removed", "segment", "journal"):
        for path in of_kind(folder, kind):
            raw = path.read_bytes()
            some = rng.sample(range(len(raw)), 20)
            sizes = sorted({0, 1, 7, 8, HEADER - 1, HEADER, len(raw) // 2, len(raw) - 1, *some})
            for _ in damaged(path, (raw[:size] for size in sizes)):
                assert found(folder, whole[1]) == {"refused"}


def test_a_last_journal_that_was_cut_has_the_changes_before(whole, folder):
    (path,) = of_kind(folder, "follower")
    raw = path.read_bytes()
    last = raw.rfind(b"LLMRECR\n")
    for size, _ in enumerate(damaged(path, (raw[:size] for size in range(len(raw))))):
        # What ends between two changes looks as if no more had come.
        torn = {"warned"} if size > HEADER and size != last else set()
        assert found(folder, whole[1]) == {"earlier"} | torn


@pytest.mark.parametrize("more", [b"\0", b"junk" * 20, b"}", b"\0" * 70_000], ids=len)
def test_a_file_with_something_behind_its_end_is_refused(whole, folder, more):
    for kind in ("manifest", "removed", "segment", "journal"):
        for path in of_kind(folder, kind):
            for _ in damaged(path, [path.read_bytes() + more]):
                assert found(folder, whole[1]) == {"refused"}
    (path,) = of_kind(folder, "follower")
    path.write_bytes(path.read_bytes() + more)
    assert found(folder, whole[1]) == {"whole", "warned"}


def test_files_in_each_others_places_are_refused(whole, folder):
    segments = of_kind(folder, "segment")
    (removed,), (first,) = of_kind(folder, "removed"), of_kind(folder, "journal")
    (follower,) = of_kind(folder, "follower")
    places = [(a, b) for a in segments for b in segments if a < b]
    for one, other in [*places, (segments[0], removed), (first, follower)]:
        swap(one, other)
        assert found(folder, whole[1]) == {"refused"}
        swap(one, other)
    assert found(folder, whole[1]) == {"whole"}


def swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def test_a_segment_of_another_index_is_refused(whole, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "TAIL", 16)
    filled(given=("bias", "scale"), storage="int8", seed=3).save(tmp_path / "other")
    for path in of_kind(folder, "segment"):
        for other in of_kind(tmp_path / "other", "segment"):
            for _ in damaged(path, [other.read_bytes()]):
                assert found(folder, whole[1]) == {"refused"}


@pytest.mark.parametrize("kind", ["removed", "segment", "journal"])
def test_a_file_that_is_missing_is_refused(whole, folder, kind):
    for path in of_kind(folder, kind):
        raw = path.read_bytes()
        path.unlink()
        assert found(folder, whole[1]) == {"refused"}
        path.write_bytes(raw)
    assert found(folder, whole[1]) == {"whole"}


def test_without_its_manifest_there_is_no_index(folder):
    (folder / "manifest.json").unlink()
    for read in (ItemIndex.load, ItemIndex.open):
        with pytest.raises(FileNotFoundError, match="there is no index in"):
            read(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_in_the_place_of_a_file_is_refused(whole, folder, kind):
    path = of_kind(folder, kind)[0]
    path.unlink()
    path.mkdir()
    assert found(folder, whole[1]) == {"refused"}
    for read in (ItemIndex.load, ItemIndex.open):
        with pytest.raises(IndexFormatError, match=path.name):
            read(folder)


def test_an_error_names_the_file_and_the_part_of_it(tmp_path):
    index = ItemIndex(64)
    index.add(range(700), numbers(700, 64, seed=1))
    index.save(tmp_path)
    (path,) = of_kind(tmp_path, "segment")
    raw = bytearray(path.read_bytes())
    raw[100_000] ^= 1
    path.write_bytes(raw)
    text = r"is damaged in bytes 65,536 to 131,071, which hold data"
    with pytest.raises(IndexFormatError, match=path.name + " " + text):
        ItemIndex.load(tmp_path)
    mapped = ItemIndex.load(tmp_path, mmap=True)
    with pytest.raises(IndexFormatError, match=text):
        mapped.search(numbers(1, 64, seed=2), 3)


def test_rows_of_blocks_that_are_not_damaged_are_still_given(tmp_path):
    index = ItemIndex(64)
    index.add(range(700), numbers(700, 64, seed=1))
    index.save(tmp_path)
    before = contents(index)
    (path,) = of_kind(tmp_path, "segment")
    raw = path.read_bytes()
    positions = random.Random(0).sample(range(len(raw)), 40)
    given = 0
    for _ in damaged(path, flips(raw, positions)):
        try:
            mapped = ItemIndex.load(tmp_path, mmap=True)
        except IndexFormatError:
            continue
        for one in (0, 350, 699):
            try:
                vector = mapped.vectors([one])
            except IndexFormatError:
                continue
            assert vector.tolist() == index.vectors([one]).tolist()
            given += 1
        with pytest.raises(IndexFormatError):
            contents(mapped)
    assert given
    assert contents(ItemIndex.load(tmp_path)) == before


def test_a_damaged_index_is_neither_opened_nor_changed(whole, folder):
    for kind in KINDS:
        path = of_kind(folder, kind)[0]
        raw = path.read_bytes()
        at = 30 if kind in ("journal", "follower") else len(raw) // 2
        for _ in damaged(path, flips(raw, [at])):
            before = files(folder)
            with pytest.raises(IndexFormatError):
                ItemIndex.open(folder)
            assert files(folder) == before
