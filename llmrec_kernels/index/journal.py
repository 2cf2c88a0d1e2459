"""Changes since the last save, one record each, behind each other in a file.

A record is in the system's hands before the change is visible, so a process that is killed loses
nothing; what a power cut may take is what came after the last `sync`. The last record may be torn:
then that change never was. docs/index-format.md has the bytes.

A save begins a new journal, which names the one before it. Until the save is on the disk the
manifest names the old one, and both are read, one after the other.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
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


def name_of(token: str) -> str:
    """The file of a journal."""
    return f"journal-{token}.log"


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
        self._path = folder / name_of(token)
        self._handle = os.open(self._path, os.O_WRONLY | getattr(os, "O_BINARY", 0))
        self.nbytes = os.lseek(self._handle, 0, os.SEEK_END)
        self._before = self.nbytes
        self._broken = False

    @staticmethod
    def begin(folder: Path, token: str, kind: Kind, *, after: str, first: int) -> Journal:
        """Make an empty one, for the changes from number `first` on."""
        head = HEADER.pack(MAGIC, VERSION, 0, bytes.fromhex(token), bytes.fromhex(after), first, 0)[
            :-8
        ]
        disk.write_new(folder / name_of(token), [head, _check(head)])
        disk.sync_folder(folder)
        return Journal(folder, token, kind)

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

    def take_back(self) -> None:
        """Forget the last record: its change was not made."""
        self._cut(self._before)

    def sync(self) -> None:
        """Wait until the disk has every record."""
        os.fsync(self._handle)

    def close(self) -> None:
        """Write no more."""
        os.close(self._handle)

    def delete(self) -> None:
        """Close it, and let its file go."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def _write(
        self, what: int, given: int, number: int, count: int, parts: Sequence[npt.NDArray[Any]]
    ) -> None:
        if self._broken:
            raise OSError(
                f"{self._path} could not be cut to what was whole of it; save the index to go on"
            )
        length = sum(part.nbytes for part in parts)
        head = HEAD.pack(RECORD, what, given, number, count, length, 0)[:-8]
        self._before = self.nbytes
        try:
            disk.write_all(self._handle, head + _check(head, *parts))
            for part in parts:
                disk.write_all(self._handle, part.data if part.size else b"")
        except BaseException:
            self._cut(self._before)
            raise
        self.nbytes += HEAD.size + length

    def _cut(self, size: int) -> None:
        self._broken = True  # until it is known to be whole
        with contextlib.suppress(OSError):
            os.ftruncate(self._handle, size)
            os.lseek(self._handle, size, os.SEEK_SET)
            self.nbytes, self._broken = size, False


class Log(NamedTuple):
    """A journal's file with a whole beginning."""

    path: Path
    token: str
    before: str  # the token of the one that it follows
    first: int  # the number of its first change


def chain(folder: Path, token: str) -> list[Log]:
    """The journals of a manifest: the one that it names, and those that follow."""
    path = folder / name_of(token)
    first = _log(path)
    if first is None:
        if path.exists() and path.stat().st_size > HEADER.size:
            raise IndexFormatError(f"{path} is damaged in its first {HEADER.size} bytes")
        return []
    others = [log for path in folder.glob(name_of("?" * 16)) if (log := _log(path)) is not None]
    after = {log.before: log for log in others}
    found = [first]
    while (later := after.get(found[-1].token)) is not None and later not in found:
        found.append(later)
    return found


class Reader:
    """What the journals of a folder say, record by record.

    Parameters
    ----------
    logs : list of Log
        From `chain`.
    kind : Kind
        What the index keeps.
    number : int
        The version that the manifest is of.
    """

    def __init__(self, logs: Sequence[Log], kind: Kind, number: int) -> None:
        self._logs, self._kind, self._number = logs, kind, number
        self.end = 0  # of the last file, what is whole
        self.torn = 0  # and what is not

    def __iter__(self) -> Iterator[Change]:
        for log in self._logs:
            if log.first != self._number + 1:
                raise IndexFormatError(
                    f"{log.path} begins with change {log.first}; expected {self._number + 1}"
                )
            with log.path.open("rb") as file:
                yield from self._changes(log, file)

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
        start, later = 1, log is not self._logs[-1]
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
        with path.open("rb") as file:
            head = file.read(HEADER.size)
    except FileNotFoundError:
        return None
    if len(head) < HEADER.size or head[-8:] != _check(head[:-8]):
        return None
    magic, version, _, token, before, first, _ = HEADER.unpack(head)
    if magic != MAGIC or name_of(token.hex()) != path.name:
        return None
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
