"""The journal of an `ItemIndex` that is torn, as by a kill, or damaged."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash
from index_folders import broken_off_save, change, contents, journal_of, numbers, opened

from llmrec_kernels import ItemIndex
from llmrec_kernels.index import IndexFormatError, store

EMPTY = 64  # bytes of a journal without changes
RECORD = b"LLMRECR\n"


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(store, "TAIL", 16)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def torn_at(folder: Path, last) -> tuple[list, int, bytes]:
    """Contents before and after a last change, where its record begins, and the journal."""
    with opened(folder) as index:
        change(index)
        known, start = [contents(index)], index.stats().journal_bytes
        last(index)
        known.append(contents(index))
    return known, start, journal_of(folder).read_bytes()


@pytest.mark.parametrize("what", ["put", "remove", "empty"])
def test_a_last_change_that_is_torn_anywhere_is_dropped_and_followed_by_others(tmp_path, what):
    acts = {
        "put": lambda index: index.add([500], numbers(1, 5, seed=0), bias=numbers(1, seed=1)),
        "remove": lambda index: index.remove([30, 32]),
        "empty": lambda index: index.remove([]),
    }
    known, start, raw = torn_at(tmp_path / "whole", acts[what])
    for size in range(start, len(raw)):
        folder = tmp_path / str(size)
        shutil.copytree(tmp_path / "whole", folder)
        os.truncate(journal_of(folder), size)
        text = rf"ends with {size - start} bytes of a change that was not written whole: it is drop"
        if size == start:
            assert contents(ItemIndex.load(folder)) == known[0]
            index = ItemIndex.open(folder)
        else:
            for mmap in (False, True):
                with pytest.warns(RuntimeWarning, match=text):
                    assert contents(ItemIndex.load(folder, mmap=mmap)) == known[0]
            assert journal_of(folder).stat().st_size == size
            with pytest.warns(RuntimeWarning, match=text):
                index = ItemIndex.open(folder)
        with index:
            assert contents(index) == known[0]
            acts[what](index)
            assert contents(index) == known[1]
            change(index)
        assert contents(ItemIndex.load(folder)) == contents(index)
        shutil.rmtree(folder)


def test_a_last_change_with_any_byte_changed_is_dropped(tmp_path):
    known, start, raw = torn_at(tmp_path, lambda index: index.remove([30]))
    for at in range(start, len(raw)):
        journal_of(tmp_path).write_bytes(flipped(raw, at))
        with pytest.warns(RuntimeWarning, match="was not written whole: it is dropped"):
            assert contents(ItemIndex.load(tmp_path)) == known[0]


@pytest.mark.parametrize("more", [b"\0", b"\0" * 1000, RECORD, b"junk" * 50, RECORD * 20])
def test_what_is_no_change_behind_the_last_one_is_dropped(tmp_path, more):
    known, _, raw = torn_at(tmp_path, lambda index: index.remove([30]))
    journal_of(tmp_path).write_bytes(raw + more)
    with pytest.warns(RuntimeWarning, match=rf"ends with {len(more)} bytes of a change"):
        assert contents(ItemIndex.load(tmp_path)) == known[1]
    with pytest.warns(RuntimeWarning), ItemIndex.open(tmp_path) as index:
        assert index.stats().journal_bytes == len(raw)


@pytest.mark.parametrize("size", [0, 1, EMPTY - 1])
def test_a_journal_that_was_cut_in_its_beginning_is_refused(tmp_path, size):
    opened(tmp_path).close()
    os.truncate(journal_of(tmp_path), size)
    for read in (ItemIndex.load, ItemIndex.open):
        with pytest.raises(IndexFormatError, match="is cut within its first 64 bytes"):
            read(tmp_path)


# Damage.


def test_damage_before_whole_changes_is_refused_and_located(tmp_path):
    with opened(tmp_path) as index:
        change(index)
        before, start = contents(index), index.stats().journal_bytes
        change(index)
        end = index.stats().journal_bytes
        change(index)
    path = journal_of(tmp_path)
    raw = path.read_bytes()
    text = rf"is damaged at byte {start:,}, and whole changes follow; to go on without them, cut it"
    zeros = raw[:start] + bytes(end - start) + raw[end:]
    for damaged in (zeros, *(flipped(raw, at) for at in range(start, end))):
        path.write_bytes(damaged)
        with pytest.raises(IndexFormatError, match=text):
            ItemIndex.load(tmp_path)
    for read in (ItemIndex.load, ItemIndex.open):
        with pytest.raises(IndexFormatError, match=rf"cut it to {start} bytes"):
            read(tmp_path)
    os.truncate(path, start)
    assert contents(ItemIndex.load(tmp_path)) == before


def test_damage_at_the_end_of_a_journal_that_another_follows_is_refused(tmp_path):
    with opened(tmp_path) as index:
        change(index)
        size = index.stats().journal_bytes
        broken_off_save(index, tmp_path)
        change(index)
    path = journal_of(tmp_path)
    raw = path.read_bytes()
    for damaged in (flipped(raw, size - 1), raw[:-1], raw + b"\0"):
        path.write_bytes(damaged)
        with pytest.raises(IndexFormatError, match=r"is damaged at byte \d+, and whole changes"):
            ItemIndex.load(tmp_path)
    path.write_bytes(raw[:EMPTY])
    with pytest.raises(IndexFormatError, match=r"begins with change 5; expected 4"):
        ItemIndex.load(tmp_path)


@pytest.mark.parametrize("ids", [[31], [30, 31], [2**63 - 2]])
def test_a_change_that_cannot_be_made_is_refused(tmp_path, ids):
    opened(tmp_path).close()
    head = struct.pack("<8sIIQQQ", RECORD, 2, 0, 4, len(ids), 8 * len(ids))
    body = np.array(ids, "<i8").tobytes()
    check = np.uint64(xxhash.xxh3_64_intdigest(head + body)).tobytes()
    with journal_of(tmp_path).open("ab") as file:
        file.write(head + check + body)
    with pytest.raises(IndexFormatError, match=rf"ids holds {ids[-1]}, which is not in the index"):
        ItemIndex.load(tmp_path)


def flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :]
