"""Files that are on the disk when these functions say so.

Data goes into new files, under names that nothing refers to yet; what refers to them is replaced
last, in one step. So whatever moment the power fails at, what was referred to is whole.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import xxhash

from llmrec_kernels.index.errors import IndexFormatError

PIECE = 1 << 23  # bytes written at a time

Bytes = bytes | bytearray | memoryview


def checksum(*parts: Any) -> str:
    """XXH3 of 64 bits over these bytes, as 16 hexadecimal digits."""
    state = xxhash.xxh3_64()
    for part in parts:
        state.update(part)
    return state.hexdigest()


def new_token() -> str:
    """16 hexadecimal digits that no other file has."""
    return secrets.token_hex(8)


def write_all(handle: int, data: Bytes) -> None:
    """Write all of it, however little the system takes at a time."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(handle, view[:PIECE]) :]


def write_new(path: Path, parts: Iterable[Bytes]) -> None:
    """Make a file that is not there, and wait until the disk has it; if it fails there is none."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        for part in parts:
            write_all(handle, part)
        os.fsync(handle)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    finally:
        os.close(handle)


def replace(path: Path, data: bytes) -> None:
    """Put a file in the place of another: whoever reads it finds the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{new_token()}")
    write_new(temporary, [data])
    try:
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names of a folder's files."""
    if sys.platform == "win32":  # where folders are not opened, and names are written through
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder, if it is not there, in one that is."""
    if folder.is_dir():
        return
    try:
        folder.mkdir()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            error.errno, f"there is no folder {folder.parent} to make {folder.name} in"
        ) from error
    except FileExistsError as error:
        raise FileExistsError(error.errno, f"{folder} is a file; expected a folder") from error
    sync_folder(folder.absolute().parent)


def identity(folder: Path) -> str:
    """What tells a folder from others, whatever name it goes by."""
    status = folder.stat()
    return f"{status.st_dev}:{status.st_ino}"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let no other process write to a folder meanwhile; refuse where one does."""
    handle = lock(folder)
    try:
        yield
    finally:
        unlock(handle)


def lock(folder: Path) -> int:
    """The same, until `unlock`, or until the process ends."""
    if sys.platform == "win32":
        return -1
    import fcntl

    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise BlockingIOError(
            error.errno, f"{folder} is open for changes elsewhere; close the index there first"
        ) from error
    return handle


def unlock(handle: int) -> None:
    """Let others write to the folder again, whatever forked processes hold of it."""
    if sys.platform == "win32":
        return
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)


def size_of_file(path: Path) -> int:
    """Its bytes; refuses what is no file, such as a pipe, that would be waited for."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise IndexFormatError(f"{path} is no file")
    return status.st_size


@contextlib.contextmanager
def sentences(folder: Path) -> Iterator[None]:
    """Say of a system's error what it means here."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.filename2 is None and error.errno is None:
            raise
        if isinstance(error, FileNotFoundError | BlockingIOError | FileExistsError):
            raise
        raise OSError(
            error.errno,
            f"{folder} cannot be written to ({error.strerror}); the index and what was saved "
            "before are as they were",
        ) from error
