"""What a power cut can leave of files: calls to the system are recorded, and played back in part.

The model is what POSIX promises and no more. What a file holds is sure up to its last `fsync`;
what was written since may be there, or be missing, or be zeros, in part or in whole. A name that
was given, changed or taken in a folder is sure from an `fsync` of the folder on; of those since,
any may have come to the disk, in any choice. Only a rename is whole or not at all.
"""

from __future__ import annotations

import itertools
import os
import random
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Op(NamedTuple):
    """A call: what it does, to which file (a number) or name, and with what."""

    what: str  # make, write, cut, sync, name, unlink, folder, sync folder
    file: int = -1
    name: str = ""
    more: Any = None


class Disk:
    """Files as programs see them, and what of them is sure to be on the disk."""

    def __init__(self, root: Path) -> None:
        paths = sorted(root.rglob("*"))
        self.folders = {"."} | {name(root, path) for path in paths if path.is_dir()}
        self.sure_folders = set(self.folders)
        self.names = {name(root, path): n for n, path in enumerate(paths) if path.is_file()}
        self.sure_names = dict(self.names)
        self.data = {n: (root / path).read_bytes() for path, n in self.names.items()}
        self.sure_data = dict(self.data)
        self.pending: list[Op] = []  # names since the last sync of their folder

    def do(self, op: Op) -> None:
        """Make a call."""
        what, file, path, more = op
        if what == "make":
            self.data[file], self.sure_data[file] = b"", b""
        elif what == "write":
            start, raw = more
            before = self.data[file].ljust(start, b"\0")
            self.data[file] = before[:start] + raw + before[start + len(raw) :]
        elif what == "cut":
            self.data[file] = self.data[file][:more].ljust(more, b"\0")
        elif what == "sync":
            self.sure_data[file] = self.data[file]
        elif what == "sync folder":
            for each in [each for each in self.pending if parent(each.name) == path]:
                named(each, self.sure_names, self.sure_folders)
                self.pending.remove(each)
        if what in ("make", "name", "unlink", "folder"):
            named(op, self.names, self.folders)
            self.pending.append(op)

    def seen(self) -> dict[str, bytes]:
        """What programs see: by name, what files hold."""
        return {path: self.data[file] for path, file in self.names.items()}

    def left(self, rng: random.Random) -> Iterator[dict[str, bytes]]:
        """What a power cut may leave now."""
        ways = [*WAYS, None, None]
        for kept in choices(len(self.pending), rng):
            names, folders = dict(self.sure_names), set(self.sure_folders)
            for op in (self.pending[number] for number in kept):
                named(op, names, folders)
            whole = len(kept) in (0, len(self.pending))
            for way in ways if whole else [written, None]:
                yield {
                    path: (way or rng.choice(WAYS))(self.sure_data[file], self.data[file], rng)
                    for path, file in names.items()
                    if parent(path) in folders
                }


def named(op: Op, names: dict[str, int], folders: set[str]) -> None:
    if op.what == "folder":
        folders.add(op.name)
    elif op.what == "unlink":
        names.pop(op.name, None)
    else:
        names.pop(op.more, None)  # the old name
        names[op.name] = op.file


def choices(count: int, rng: random.Random) -> Iterator[list[int]]:
    """All choices of a few, or of many those that are next to all and none, and some others."""
    everything = list(range(count))
    if count <= 3:
        for size in range(count + 1):
            yield from map(list, itertools.combinations(everything, size))
        return
    yield from (everything, [])
    for one in everything:
        yield [one]
        yield [each for each in everything if each != one]
    for _ in range(4):
        yield [each for each in everything if rng.random() < 0.5]


def written(sure: bytes, data: bytes, rng: random.Random) -> bytes:
    return data


def missing(sure: bytes, data: bytes, rng: random.Random) -> bytes:
    return sure


def zeros(sure: bytes, data: bytes, rng: random.Random) -> bytes:
    return sure.ljust(len(data), b"\0")


def begun(sure: bytes, data: bytes, rng: random.Random) -> bytes:
    """All that is sure, and some of what is not."""
    least = min(len(sure), len(data))
    least = next((at for at in range(least) if sure[at] != data[at]), least)
    return data[: rng.randint(least, len(data))]


def begun_and_zeros(sure: bytes, data: bytes, rng: random.Random) -> bytes:
    return begun(sure, data, rng).ljust(len(data), b"\0")


WAYS = [written, missing, zeros, begun, begun_and_zeros]


@contextmanager
def recorded(root: Path) -> Iterator[list[Op]]:
    """The calls within that change what is below a folder, in their order."""
    recorder = Recorder(root)
    with pytest.MonkeyPatch.context() as patch:
        for each in ("open", "close", "write", "fsync", "ftruncate", "truncate", "unlink", "mkdir"):
            patch.setattr(os, each, getattr(recorder, each))
        for each in ("replace", "rename"):
            patch.setattr(os, each, recorder.replace)
        patch.setattr(os, "remove", recorder.unlink)
        # Before Python 3.11 a path has functions of its own from the time when it was imported.
        patch.setattr(Path, "unlink", lambda path, **_: recorder.unlink(path))
        patch.setattr(Path, "mkdir", lambda path: recorder.mkdir(path))
        patch.setattr(Path, "replace", lambda path, target: recorder.replace(path, target))
        yield recorder.ops


class Recorder:
    """Functions of `os` that note what they do."""

    def __init__(self, root: Path) -> None:
        self.root, self.ops, self.real = root, [], vars(os).copy()
        self.files = dict(Disk(root).names)
        self.count = itertools.count(1000)
        self.open_files: dict[int, int | str] = {}

    def open(self, path: Any, flags: int, *mode: int) -> int:
        here, new = self.inside(path), not Path(path).exists()
        handle = self.real["open"](path, flags, *mode)
        if here is None:
            return handle
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            self.open_files[handle] = here
            return handle
        if new and flags & os.O_CREAT:
            self.files[here] = next(self.count)
            self.ops.append(Op("make", self.files[here], here))
        self.open_files[handle] = self.files[here]
        if flags & os.O_TRUNC:
            self.ops.append(Op("cut", self.files[here], more=0))
        return handle

    def close(self, handle: int) -> None:
        self.open_files.pop(handle, None)
        self.real["close"](handle)

    def write(self, handle: int, data: Any) -> int:
        start = os.lseek(handle, 0, os.SEEK_CUR) if handle in self.open_files else 0
        count = self.real["write"](handle, data)
        if handle in self.open_files:
            raw = bytes(memoryview(data).cast("B")[:count])
            self.ops.append(Op("write", self.open_files[handle], more=(start, raw)))
        return count

    def fsync(self, handle: int) -> None:
        self.real["fsync"](handle)
        there = self.open_files.get(handle)
        if isinstance(there, str):
            self.ops.append(Op("sync folder", name=there))
        elif there is not None:
            self.ops.append(Op("sync", there))

    def ftruncate(self, handle: int, size: int) -> None:
        self.real["ftruncate"](handle, size)
        if handle in self.open_files:
            self.ops.append(Op("cut", self.open_files[handle], more=size))

    def truncate(self, path: Any, size: int) -> None:
        self.real["truncate"](path, size)
        if (here := self.inside(path)) is not None:
            self.ops.append(Op("cut", self.files[here], more=size))

    def unlink(self, path: Any) -> None:
        self.real["unlink"](path)
        if (here := self.inside(path)) is not None:
            self.ops.append(Op("unlink", self.files.pop(here), here))

    def mkdir(self, path: Any, *mode: int) -> None:
        self.real["mkdir"](path, *mode)
        if (here := self.inside(path)) is not None:
            self.ops.append(Op("folder", name=here))

    def replace(self, path: Any, target: Any) -> None:
        self.real["replace"](path, target)
        old, new = self.inside(path), self.inside(target)
        if old is not None and new is not None:
            self.files[new] = self.files.pop(old)
            self.ops.append(Op("name", self.files[new], new, old))

    def inside(self, path: Any) -> str | None:
        path = Path(path)
        return name(self.root, path) if path.is_relative_to(self.root) else None


def name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def parent(path: str) -> str:
    return Path(path).parent.as_posix()
