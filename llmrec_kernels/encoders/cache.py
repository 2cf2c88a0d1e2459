"""Vectors kept on disk, so that a text is encoded once.

Each way of encoding (model, pooling, length, normalisation, number type) has its own SQLite file,
and in it each text has one row: the SHA-256 of the text, the vector as little-endian float32, and a
checksum over both. SQLite brings what a cache shared by several processes needs: atomic commits,
locks, recovery after a crash. Its rollback journal is used, not WAL, because a WAL file can neither
be read from a folder without write permission nor be shared over a network file system.

A cache may fail but must not harm: whatever goes wrong here becomes one warning and a miss. A row
whose checksum does not fit is a miss too, so a damaged file costs time and never gives a wrong
vector. The texts themselves are not stored.
"""

from __future__ import annotations

import hashlib
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS vectors "
    "(key BLOB PRIMARY KEY, vector BLOB NOT NULL, checksum BLOB NOT NULL)"
)
# SQLite before 3.32 takes at most 999 parameters in one statement.
_KEYS_PER_QUERY = 500
# How long a process waits for another that is writing, which takes milliseconds.
_LOCK_TIMEOUT_SECONDS = 30.0


# A message of SQLite may quote the damaged bytes, which Python then cannot decode.
_FAILURES = (OSError, sqlite3.Error, UnicodeDecodeError)


class BlobCache:
    """Bytes by key in one SQLite file, safe for threads and processes side by side.

    Parameters
    ----------
    path : Path
        The file. It and its folder are made by the first write.
    """

    # For warnings: "the embedding cache ... holds 2 damaged vectors, which are encoded again".
    name: ClassVar[str]
    rows: ClassVar[str]
    made: ClassVar[str]

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writable = True
        self._warned = False

    def read_blobs(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, bytes) for those of `keys` that are stored and undamaged."""
        damaged = 0
        try:
            if not self.path.is_file():
                return
            with closing(self._connect()) as database:
                for start in range(0, len(keys), _KEYS_PER_QUERY):
                    some = keys[start : start + _KEYS_PER_QUERY]
                    query = f"SELECT * FROM vectors WHERE key IN ({','.join('?' * len(some))})"
                    for key, blob, checksum in database.execute(query, some):
                        if _is_sound(key, blob, checksum):
                            yield key, blob
                        else:
                            damaged += 1
        except _FAILURES as error:
            self._recover(error)
        if damaged:
            self._warn(f"holds {damaged} damaged {self.rows}, which are {self.made} again")

    def write_blobs(self, keys: Sequence[bytes], blobs: Sequence[bytes]) -> None:
        """Store bytes under `keys`, all or none; nothing once the file has refused."""
        if not self._writable:
            return
        rows = [(key, blob, _checksum(key, blob)) for key, blob in zip(keys, blobs, strict=True)]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as database, database:
                database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)
        except _FAILURES as error:
            self._writable = self._recover(error)

    def _connect(self) -> sqlite3.Connection:
        """One connection per call: nothing is left open over a fork, between threads or at exit."""
        database = sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT_SECONDS)
        try:
            # A damaged row may have lost its type; as bytes it reaches the checksum, which refuses
            # it.
            database.text_factory = bytes
            # In readers too: another process may have made the file and not yet the table.
            database.execute(_SCHEMA)
        except BaseException:
            database.close()
            raise
        return database

    def _recover(self, error: Exception) -> bool:
        """Warn, delete the file if it is damaged, and say whether writing may go on."""
        # SQLite's "malformed" and "not a database" arrive as exactly this class; the operational
        # ones (no permission, disk full, locked) as a subclass.
        damaged = type(error) is sqlite3.DatabaseError or isinstance(error, UnicodeDecodeError)
        if not damaged:
            self._warn(
                f"cannot be used ({error}): {self.rows} are computed and not kept. Set cache_dir= "
                "or LLMREC_CACHE to a folder with room to write, or cache_dir=False"
            )
            return False
        self._warn(f"is damaged ({error}): it is deleted and its texts are {self.made} again")
        try:
            # The journal first: left behind, it would be replayed into the next file of this name.
            self.path.with_name(self.path.name + "-journal").unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"the {self.name} cache {self.path} {what}.", stacklevel=7)


class EmbeddingCache(BlobCache):
    """Vectors by key in one SQLite file, safe for threads and processes side by side.

    Parameters
    ----------
    path : Path
        The file. It and its folder are made by the first write.

    Examples
    --------
    >>> import tempfile
    >>> cache = EmbeddingCache(Path(tempfile.mkdtemp()) / "vectors.sqlite")
    >>> cache.write([b"a"], np.array([[1.0, 2.0]], dtype=np.float32))
    >>> {key: vector.tolist() for key, vector in cache.read([b"a", b"b"])}
    {b'a': [1.0, 2.0]}
    """

    name, rows, made = "embedding", "vectors", "encoded"

    def read(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, NDArray[np.float32]]]:
        """Yield (key, vector [d]) for those of `keys` that are stored and undamaged."""
        for key, blob in self.read_blobs(keys):
            yield key, np.frombuffer(blob, dtype="<f4")

    def write(self, keys: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Store `vectors` [n, d] under `keys`, all or none; nothing once the file has refused."""
        self.write_blobs(keys, [vector.astype("<f4").tobytes() for vector in vectors])

    def dim(self) -> int | None:
        """Length of the stored vectors; None where none is stored."""
        try:
            if self.path.is_file():
                with closing(self._connect()) as database:
                    for row in database.execute("SELECT * FROM vectors LIMIT 1"):
                        if _is_sound(*row):
                            return len(row[1]) // 4
        except _FAILURES as error:
            self._recover(error)
        return None


def _checksum(key: bytes, blob: bytes) -> bytes:
    return hashlib.blake2b(key + blob, digest_size=8).digest()


def _is_sound(key: object, blob: object, checksum: object) -> bool:
    return isinstance(key, bytes) and isinstance(blob, bytes) and checksum == _checksum(key, blob)
