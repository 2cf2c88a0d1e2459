"""Changes since the last save, one record each, behind each other in a file.

A record is in the system's hands before the change is visible, so a process that is killed loses
nothing; what a power cut may take is what came after the last `sync`. The last record may be torn:
then that change never was. docs/index-format.md has the bytes.

A save begins a new journal, which names the one before it. Until the save is on the disk the
manifest names the old one, and both are read, one after the other.
"""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import re
import struct
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmrec_kernels.index import disk
from llmrec_kernels.index.errors import IndexFormatError
from llmrec_kernels.index.layout import DTYPES, Kind, raw
from llmrec_kernels.index.manifest import journal_name
from llmrec_kernels.index.segment import Entries, Ids

MAGIC = b"LLMRECJ\n"
VERSION = 1
HEADER = struct.Struct("<8sII8s8sQ16xQ")  # magic, version, 0, token, the one before, first, check
RECORD = b"LLMRECR\n"
HEAD = struct.Struct("<8sIIQQQQ")  # magic, what, given, number, count, bytes that follow, check
PUT, REMOVE = 1, 2
BIASED, SCALED = 1, 2
NOTHING = "0" * 16  # the token of no journal


class Change(NamedTuple):
    """What a record holds.

    Parameters
    ----------
    number : int
        Of the version that it leads to.
    ids : ndarray, [n] int64
        Ascending.
    columns : dict or None
        What is kept of the vectors, by name, as `Kind.columns` has it; None where ids are removed.
    bias, scale : Tensor, [n] float32, or None
        As they were given to the rows.
    """

    number: int
    ids: Ids
    columns: dict[str, Tensor] | None
    bias: Tensor | None
    scale: Tensor | None


_NAME = re.compile(r"journal-[0-9a-f]{16}\.log")


class Journal:
    """The journal that is written to.

    Parameters
    ----------
    folder, token
        Where it is.
    kind : Kind
        What the index keeps.
    """

    def __init__(self, folder: Path, token: str, kind: Kind) -> None:
        self._folder, self.token, self._kind = folder, token, kind
        self._path = folder / journal_name(token)
        self._handle = os.open(self._path, os.O_WRONLY | getattr(os, "O_BINARY", 0))
        self.nbytes = os.lseek(self._handle, 0, os.SEEK_END)
        self._broken = False

    @staticmethod
    def begin(folder: Path, token: str, kind: Kind, *, after: str, first: int) -> Journal:
        """Make an empty one, for the changes from number `first` on."""
        head = HEADER.pack(MAGIC, VERSION, 0, bytes.fromhex(token), bytes.fromhex(after), first, 0)[
            :-8
        ]
        disk.write_new(folder / journal_name(token), [head, _check(head)])
        try:
            disk.sync_folder(folder)
            return Journal(folder, token, kind)
        except BaseException:
            with contextlib.suppress(OSError):  # one without changes is passed over
                (folder / journal_name(token)).unlink()
            raise

    def put(self, number: int, added: Sequence[Entries]) -> None:
        """Write that rows come, in place of those that have their ids."""
        names = [name for name, _, _ in self._kind.columns()]
        parts: list[npt.NDArray[Any]] = [each.ids for each in added]
        for name in names:
            parts += [raw(getattr(each.rows, name)) for each in added]
        given = 0
        for flag, name, default in ((BIASED, "bias", 0.0), (SCALED, "scale", 1.0)):
            columns = [getattr(each, name) for each in added]
            if any(column is not None for column in columns):
                given |= flag
                parts += [
                    np.full(each.ids.shape, default, np.float32) if column is None else raw(column)
                    for each, column in zip(added, columns, strict=True)
                ]
        self._write(PUT, given, number, sum(each.ids.shape[0] for each in added), parts)

    def remove(self, number: int, ids: Ids) -> None:
        """Write that the rows of these ids go."""
        self._write(REMOVE, 0, number, ids.shape[0], [ids])

    def sync(self) -> None:
        """Wait until the disk has every record, and nothing else."""
        self._mend()
        os.fsync(self._handle)

    def close(self) -> None:
        """Write no more."""
        os.close(self._handle)

    def _write(
        self, what: int, given: int, number: int, count: int, parts: Sequence[npt.NDArray[Any]]
    ) -> None:
        self._mend()
        if os.fstat(self._handle).st_nlink == 0:
            raise FileNotFoundError(
                errno.ENOENT, f"{self._path} was removed, so no change can be written to it"
            )
        length = sum(part.nbytes for part in parts)
        head = HEAD.pack(RECORD, what, given, number, count, length, 0)[:-8]
        try:
            disk.write_all(self._handle, head + _check(head, *parts))
            for part in parts:
                disk.write_all(self._handle, part.data if part.size else b"")
        except BaseException:
            self.cut(self.nbytes)
            raise
        self.nbytes += HEAD.size + length

    def cut(self, size: int) -> None:
        """Forget what is behind so many bytes: those changes were not made."""
        self.nbytes, self._broken = size, True
        with contextlib.suppress(OSError):
            self._mend()

    def _mend(self) -> None:
        """Cut off what is not whole, if that could not be done before."""
        if self._broken:
            os.ftruncate(self._handle, self.nbytes)
            os.lseek(self._handle, self.nbytes, os.SEEK_SET)
            self._broken = False


class Log(NamedTuple):
    """A journal's file with a whole beginning."""

    path: Path
    token: str
    before: str  # the token of the one that it follows
    first: int  # the number of its first change

    @property
    def empty(self) -> bool:
        """Whether there is no change in it."""
        return self.path.stat().st_size <= HEADER.size


class Reader:
    """What the journals of a folder say: the one that a manifest names, and those that follow.

    Parameters
    ----------
    folder, token
        Where the first one is, if there is one.
    kind : Kind
        What the index keeps.
    number : int
        The version that the manifest is of.
    """

    def __init__(self, folder: Path, token: str | None, kind: Kind, number: int) -> None:
        self._kind, self._number = kind, number
        self._logs: dict[str, Log] = {}  # but for those that were read
        self.last: Log | None = None  # that was read
        self.end = 0  # of it, what is whole
        self.torn = 0  # and what is not
        self._first: Log | None = None
        if token is None:
            return
        paths = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
        logs = [log for path in paths if (log := _log(path)) is not None]
        self._logs = {log.token: log for log in logs}
        self._first = self._logs.pop(token, None)
        if self._first is None:
            path = folder / journal_name(token)
            if path.exists():
                raise IndexFormatError(f"{path} is cut within its first {HEADER.size} bytes")
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))

    def __iter__(self) -> Iterator[Change]:
        log = self._first
        while log is not None:
            if log.first != self._number + 1:
                raise IndexFormatError(
                    f"{log.path} begins with change {log.first}; expected {self._number + 1}"
                )
            self.last = log
            with log.path.open("rb") as file:
                yield from self._changes(log, file)
            log = None if self.torn else self._next(log)
            if log is not None:
                del self._logs[log.token]

    def _next(self, log: Log) -> Log | None:
        """The journal that follows: with changes, if there is one.

        Without any it may be left of a save that failed, after which this one was gone on with.
        """
        following = [each for each in self._logs.values() if each.before == log.token]
        following.sort(key=lambda each: each.empty)
        after_all = [each for each in following if not each.empty or each.first > self._number]
        return after_all[0] if after_all else None

    def _changes(self, log: Log, file: io.BufferedReader) -> Iterator[Change]:
        size = os.fstat(file.fileno()).st_size
        self.end = HEADER.size
        while self.end < size:
            file.seek(self.end)
            found = _record(file, self._kind, size - self.end)
            if found is None or found[0].number != self._number + 1:
                self._refuse_hole(log, file, size)
                self.torn = size - self.end
                warnings.warn(
                    f"{log.path} ends with {self.torn} bytes of a change that was not written "
                    "whole: it is dropped",
                    RuntimeWarning,
                    stacklevel=2,
                )
                return
            change, length = found
            yield change
            self._number, self.end = change.number, self.end + length

    def _refuse_hole(self, log: Log, file: io.BufferedReader, size: int) -> None:
        """What is not whole may be the end of the last file, and nothing else."""
        file.seek(self.end)
        rest = file.read()
        following = self._next(log)
        start, later = 1, following is not None and not following.empty
        while not later and (start := rest.find(RECORD, start)) >= 0:
            file.seek(self.end + start)
            later = _record(file, self._kind, size - self.end - start) is not None
            start += 1
        if later:
            raise IndexFormatError(
                f"{log.path} is damaged at byte {self.end:,}, and whole changes follow; to go on "
                f"without them, cut it to {self.end} bytes and remove the journals after it"
            )


def _log(path: Path) -> Log | None:
    """What a journal begins with, if that is whole."""
    try:
        disk.size_of_file(path)
        with path.open("rb") as file:
            head = file.read(HEADER.size)
            more = file.read(1)
    except FileNotFoundError:
        return None
    whole = len(head) == HEADER.size and head[-8:] == _check(head[:-8])
    if not whole and not more:
        return None  # its making was broken off
    magic, version, _, token, before, first, _ = HEADER.unpack(head)
    if not whole or magic != MAGIC or journal_name(token.hex()) != path.name:
        raise IndexFormatError(f"{path} is damaged in its first {HEADER.size} bytes")
    if version != VERSION:
        raise IndexFormatError(
            f"{path} is of version {version}; this llmrec_kernels reads {VERSION}"
        )
    return Log(path, token.hex(), before.hex(), first)


def _record(file: io.BufferedReader, kind: Kind, left: int) -> tuple[Change, int] | None:
    """The record that begins here and its length, if it is whole in the bytes that are left."""
    head = file.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    magic, what, given, number, count, length, _ = HEAD.unpack(head)
    columns = kind.columns() if what == PUT else []
    numbers = [name for flag, name in ((BIASED, "bias"), (SCALED, "scale")) if given & flag]
    tensors = [
        ("ids", "I64", ()),
        *columns,
        *((f"item_{name}", "F32", ()) for name in numbers),
    ]
    widths = [math.prod(shape) * DTYPES[dtype].itemsize for _, dtype, shape in tensors]
    if magic != RECORD or what not in (PUT, REMOVE) or length != count * sum(widths):
        return None
    if HEAD.size + length > left:
        return None
    body = bytearray(length)
    if file.readinto(body) != length or head[-8:] != _check(head[:-8], body):
        return None
    found, start = {}, 0
    for (name, dtype, shape), width in zip(tensors, widths, strict=True):
        if count:
            flat = torch.frombuffer(
                body, dtype=DTYPES[dtype], count=count * math.prod(shape), offset=start
            )
        else:
            flat = torch.empty(0, dtype=DTYPES[dtype])
        found[name] = flat.view(count, *shape)
        start += count * width
    rows = {name: found[name] for name, _, _ in columns} if what == PUT else None
    ids = found["ids"].numpy()
    if (ids[1:] <= ids[:-1]).any():
        return None
    change = Change(number, ids, rows, found.get("item_bias"), found.get("item_scale"))
    return change, HEAD.size + length


def _check(*parts: Any) -> bytes:
    return bytes.fromhex(disk.checksum(*parts))[::-1]
