"""An index that somebody made up: it is refused, in little memory and time, and runs nothing."""

from __future__ import annotations

import bisect
import json
import os
import pickle
import shutil
import struct
from pathlib import Path

import index_processes
import numpy as np
import pytest
import torch
import xxhash
from index_folders import opened, rewrite_manifest, said_by
from safetensors import safe_open

from llmrec_kernels import ItemIndex
from llmrec_kernels.index import IndexFormatError, manifest, store

MOST = 2**31 - 1
MANIFESTS = {
    "more rows than it has": {"rows": 21},
    "fewer rows than it has": {"rows": 19},
    "as many rows as can be": {"rows": MOST},
    "more rows than can be": {"rows": MOST + 1},
    "more rows than there are numbers": {"rows": 10**30},
    "no rows": {"rows": 0},
    "rows below zero": {"rows": -20},
    "rows as text": {"rows": "20"},
    "rows as a fraction": {"rows": 20.0},
    "rows that are true": {"rows": True},
    "rows that are none": {"rows": None},
    "rows that are infinite": {"rows": float("inf")},
    "rows that are no number": {"rows": float("nan")},
    "removed rows that are not listed": {"removed": 4},
    "fewer removed rows than are listed": {"removed": 2},
    "more removed rows than rows": {"removed": 21},
    "as many removed rows as can be": {"removed": 2**63 - 1},
    "more removed rows than can be": {"removed": 2**63},
    "removed rows below zero": {"removed": -1},
    "a bias that is not there": {"biased": True},
    "a scale that is not there": {"scaled": True},
    "a bias that is a number": {"biased": 0},
    "another checksum": {"checksum": "0" * 16},
    "a short checksum": {"checksum": ""},
    "another key": {"codec": "zlib"},
}
TOKENS = {
    "a path up": "../../../etc/pass",
    "a path up of a token's length": "../../../../etc/",
    "a path from the top": "/etc/passwd",
    "a path from the top of a token's length": "/etc/passwd/////",
    "a folder": "0123456789/bcdef",
    "a line end": "0123456789abcdef\n",
    "a line end of a token's length": "0123456789abcde\n",
    "capitals": "0123456789ABCDEF",
    "other digits": "\u0660\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669abcdef",
    "nothing": "",
    "a zero byte": "0123456789abcde\0",
    "half of a pair": "0123456789abcde\ud800",
    "a number": 123,
}
WHOLES = {
    "as many dimensions as can be": {"dim": MOST},
    "more dimensions than can be": {"dim": MOST + 1},
    "one dimension more": {"dim": 6},
    "no dimension": {"dim": 0},
    "another storage": {"storage": "int8"},
    "a storage that is none": {"storage": "pickle"},
    "a metric that is none": {"metric": "l2"},
    "changes below zero": {"changes": -1},
    "more changes than can be": {"changes": 2**63},
    "segments that are an object": {"segments": {}},
    "segments that are nothing": {"segments": None},
    "segments that are numbers": {"segments": [1, 2]},
    "no file of what was removed": {"removed": None},
    "another key": {"pickle": "gASV"},
}


class Taken:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def results(root: Path) -> dict[str, list[list[str]]]:
    """What comes of each folder, read and mapped: the kind of the error, and what it says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "TAIL", 16)
        opened(root / "as it should be", given=("bias", "scale"), removed=True).close()
        for name, make in {**FOLDERS, **CIRCLES}.items():
            shutil.copytree(root / "as it should be", root / name)
            make(root / name)
    return said_by(index_processes.__file__, "strangers", str(root))


def segment_said(edit):
    """A manifest that says something else of its first segment."""
    return lambda folder: rewrite_manifest(folder, lambda c: c["segments"][0].update(edit))


def all_said(edit):
    return lambda folder: rewrite_manifest(folder, lambda c: c.update(edit))


def text(content: bytes):
    return lambda folder: (folder / "manifest.json").write_bytes(content)


def many_segments(folder: Path) -> None:
    def edit(content):
        one = {**content["segments"][0], "rows": MOST, "removed": MOST}
        content["segments"] = [{**one, "token": f"{n:016x}"} for n in range(20_000)]

    rewrite_manifest(folder, edit)


def one_segment_twice(folder: Path) -> None:
    rewrite_manifest(folder, lambda content: content["segments"].append(content["segments"][0]))


def large(folder: Path) -> None:
    os.truncate(folder / "manifest.json", 100 << 20)


def in_place_of(kind: str):
    """A pickle of the size that a file should have, and one of its own size."""

    def make(folder: Path) -> None:
        for path in folder.glob(kind):
            raw = pickle.dumps(Taken(folder.with_name("taken")))
            path.write_bytes(raw + b"." * max(0, path.stat().st_size - len(raw)))

    return make


def torch_in_place_of(kind: str):
    def make(folder: Path) -> None:
        for path in folder.glob(kind):
            torch.save(Taken(folder.with_name("taken")), path)

    return make


def positions(*values: int):
    """A list of removed rows with these, and checksums that agree."""

    def make(folder: Path) -> None:
        (path,) = folder.glob("removed-*")
        raw = bytearray(path.read_bytes())
        start = 8 + int.from_bytes(raw[:8], "little")
        raw[start : start + 4 * len(values)] = struct.pack(f"<{len(values)}i", *values)
        path.write_bytes(raw)
        checksum = xxhash.xxh3_64_hexdigest(bytes(raw))
        rewrite_manifest(folder, lambda content: content["removed"].update(checksum=checksum))

    return make


def first_segment(edit):
    """A first segment that holds something else, and checksums that agree."""

    def make(folder: Path) -> None:
        record = manifest.read(folder).segments[0]
        path = folder / record.file
        with safe_open(path, "np") as file:
            ids, table = file.get_tensor("ids"), file.get_tensor("checksums")
        before = path.read_bytes()
        raw = edit(before, ids)[: -table.nbytes]
        assert raw != before[: -table.nbytes]
        table[:] = xxhash.xxh3_64_intdigest(raw)
        path.write_bytes(raw + table.tobytes())
        checksum = xxhash.xxh3_64_hexdigest(table.tobytes())
        rewrite_manifest(folder, lambda content: content["segments"][0].update(checksum=checksum))

    return make


def journal(folder: Path, token: str, after: str, first: int, records: bytes = b"") -> None:
    head = struct.pack(
        "<8sII8s8sQ16x", b"LLMRECJ\n", 1, 0, bytes.fromhex(token), bytes.fromhex(after), first
    )
    (folder / f"journal-{token}.log").write_bytes(head + check(head) + records)


def record(*fields: int, body: bytes = b"") -> bytes:
    head = struct.pack("<8sIIQQQ", b"LLMRECR\n", *fields)
    return head + check(head + body) + body


def check(raw: bytes) -> bytes:
    return np.uint64(xxhash.xxh3_64_intdigest(raw)).tobytes()


def journals(*links: tuple[str, str]):
    """Journals that follow each other as they are listed; `first` is the manifest's."""

    def make(folder: Path) -> None:
        found = manifest.read(folder)
        tokens = {"first": found.journal, "none": "0" * 16, "a": "a" * 16, "b": "b" * 16}
        for token, after in links:
            journal(folder, tokens[token], tokens[after], found.changes + 1)

    return make


def changes(*fields: int, body: bytes = b"", first: int | None = None, off: int = 0):
    """A journal with one record, whose number is off by so many."""

    def make(folder: Path) -> None:
        found = manifest.read(folder)
        number = found.changes + 1 if first is None else first
        said = record(*fields[:2], number + off, *fields[2:], body=body)
        journal(folder, found.journal, "0" * 16, number, said)

    return make


FOLDERS = {
    **{f"segment with {name}": segment_said(edit) for name, edit in MANIFESTS.items()},
    **{f"segment by {name}": segment_said({"token": one}) for name, one in TOKENS.items()},
    **{f"journal by {name}": all_said({"journal": one}) for name, one in TOKENS.items()},
    **{
        f"removed by {name}": all_said({"removed": {"token": one, "checksum": "0" * 16}})
        for name, one in TOKENS.items()
    },
    **{f"manifest with {name}": all_said(edit) for name, edit in WHOLES.items()},
    "lists without end": text(b"[" * 10**7),
    "a number of a million digits": text(b'{"dim": ' + b"7" * 10**6 + b"}"),
    "a key of half a pair": text(b'{"format": "llmrec_kernels.ItemIndex", "\\ud800": 1}'),
    "many segments": many_segments,
    "one segment twice": one_segment_twice,
    "a large manifest": large,
    "a pickle for a manifest": in_place_of("manifest.json"),
    "a pickle for a segment": in_place_of("segment-*"),
    "a pickle for what was removed": in_place_of("removed-*"),
    "a torch file for a segment": torch_in_place_of("segment-*"),
    "a row removed twice": positions(3, 3),
    "a row removed before the first": positions(-1),
    "a row removed behind the last": positions(20),
    "ids that descend": first_segment(lambda raw, ids: raw.replace(bytes(ids), bytes(ids[::-1]))),
    "an id twice": first_segment(lambda raw, ids: raw.replace(bytes(ids[:1]), bytes(ids[1:2]))),
    "a header of other types": first_segment(lambda raw, _: raw.replace(b'"F32"', b'"I32"')),
    "a journal of another time": changes(2, 0, 0, 0, first=999),
    "a journal of the end of time": changes(2, 0, 0, 0, first=2**64 - 1),
    "a removal of what is not there": changes(2, 0, 1, 8, body=struct.pack("<q", 31)),
}
CIRCLES = {
    "a journal that follows itself": journals(("first", "first")),
    "journals in a circle": journals(("first", "a"), ("a", "first")),
    "journals in a large circle": journals(("first", "b"), ("a", "first"), ("b", "a")),
}
# What is nothing but an end that is not whole.
TORN = {
    "more rows than bytes": changes(1, 0, 2**62, 8),
    "as many bytes as can be": changes(2, 0, 2**61, 2**64 - 8),
    "more bytes than there are": changes(2, 0, 2**40, 2**43),
    "a change that is to come later": changes(2, 0, 1, 8, body=struct.pack("<q", 30), off=1),
    "a change that came before": changes(2, 0, 1, 8, body=struct.pack("<q", 30), off=-1),
    "a change of no kind": changes(3, 0, 0, 0),
    "ids that descend in a change": changes(2, 0, 2, 16, body=struct.pack("<2q", 32, 30)),
    "one id twice in a change": changes(2, 0, 2, 16, body=struct.pack("<2q", 30, 30)),
}
HARMLESS = {
    "journals that nothing leads to": journals(("a", "b"), ("b", "a")),
    "as many changes as can be": all_said({"changes": 2**63 - 1, "journal": None}),
    "as many dimensions as can be, of nothing": all_said(
        {"dim": MOST, "segments": [], "removed": None}
    ),
}


def test_what_a_stranger_made_up_is_refused_and_runs_nothing(tmp_path):
    found = results(tmp_path)
    assert found.pop("as it should be") == [["none", ""], ["none", ""]]
    # Without changes in them, journals in a circle are as good as none. But they come to an end.
    circles = {name: found.pop(name) for name in CIRCLES}
    assert all(
        kind in ("none", "IndexFormatError") for said in circles.values() for kind, _ in said
    )
    large = f"has {100 << 20:,} bytes; expected a manifest"  # it is not even read
    assert all(large in text for _, text in found["a large manifest"])
    others = {
        name: said
        for name, said in found.items()
        if not all(kind == "IndexFormatError" and f"/{name}" in text for kind, text in said)
    }
    assert others == {}
    assert found.keys() == FOLDERS.keys()


def test_the_pickles_of_strangers_would_run_something(tmp_path):
    pickle.loads(pickle.dumps(Taken(tmp_path / "taken")))
    assert (tmp_path / "taken").is_dir()


@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"x":', "}")], ids=["lists", "objects"])
def test_what_is_nested_is_refused_at_any_depth(tmp_path, begin, end):
    def manifest_of(depth):
        value = begin * depth + "1" + end * depth
        return f'{{"format": "llmrec_kernels.ItemIndex", "version": 1, "x": {value}}}'

    def is_read(depth):
        try:
            return bool(json.loads(manifest_of(depth)))
        except RecursionError:
            return False

    # Where reading it comes to its limit, so does writing it, to be compared with its checksum.
    most = bisect.bisect_left(range(10**5), True, key=lambda depth: not is_read(depth))
    for depth in (1, 100, *range(most - 40, most + 5), 10**6):
        (tmp_path / "manifest.json").write_text(manifest_of(depth))
        with pytest.raises(IndexFormatError):
            ItemIndex.load(tmp_path)


@pytest.mark.parametrize("name", TORN)
def test_a_change_that_a_stranger_made_up_is_no_change(tmp_path, name):
    index = opened(tmp_path, removed=True)
    index.close()
    TORN[name](tmp_path)
    with pytest.warns(RuntimeWarning, match="was not written whole: it is dropped"):
        assert ItemIndex.load(tmp_path).version == index.version


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_odd_and_right_is_loaded(tmp_path, name):
    opened(tmp_path).close()
    HARMLESS[name](tmp_path)
    for mmap in (False, True):
        index = ItemIndex.load(tmp_path, mmap=mmap)
        assert len(index) == len(list(index)) == (0 if "of nothing" in name else 60)
