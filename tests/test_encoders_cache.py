"""EmbeddingCache: no damage, full disk or other process ever makes it give a wrong vector."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec_kernels.encoders.cache import EmbeddingCache


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def vector(number: int, d: int = 16) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(d, dtype=np.float32)


def rows_of(cache: EmbeddingCache, count: int) -> dict[bytes, np.ndarray]:
    return dict(cache.read([key(n) for n in range(count)]))


def filled(path: Path, count: int) -> EmbeddingCache:
    cache = EmbeddingCache(path)
    cache.write([key(n) for n in range(count)], np.stack([vector(n) for n in range(count)]))
    return cache


# Damage


@given(data=st.data())
def test_a_flipped_byte_or_a_lost_end_never_gives_a_wrong_vector(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "vectors.sqlite"
        filled(path, count=60)
        content = bytearray(path.read_bytes())
        if data.draw(st.booleans(), label="truncate"):
            del content[data.draw(st.integers(0, len(content) - 1), label="length") :]
        else:
            for _ in range(data.draw(st.integers(1, 40), label="flips")):
                place = data.draw(st.integers(0, len(content) - 1))
                content[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)

        cache = EmbeddingCache(path)
        for found, stored in cache.read([key(n) for n in range(60)]):
            assert np.array_equal(stored, vector(int.from_bytes(found, "big")))
        assert cache.dim() in (16, None)
        cache.write([key(0)], vector(0)[None])
        for found, stored in cache.read([key(n) for n in range(60)]):
            assert np.array_equal(stored, vector(int.from_bytes(found, "big")))


def test_a_vector_under_the_key_of_another_is_a_miss_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    filled(path, count=2)
    content = path.read_bytes()
    first, second = vector(0).tobytes(), vector(1).tobytes()
    swapped = content.replace(first, b"?" * len(first)).replace(second, first)
    path.write_bytes(swapped.replace(b"?" * len(first), second))
    with pytest.warns(UserWarning, match="holds 2 damaged vectors, which are encoded again"):
        assert rows_of(EmbeddingCache(path), count=2) == {}


def test_the_journal_of_a_damaged_file_is_not_left_for_the_next(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    journal = path.with_name(path.name + "-journal")
    filled(path, count=5)
    writer = sqlite3.connect(path)
    writer.execute("DELETE FROM vectors")  # Not committed: the journal holds the way back.
    path.write_bytes(b"damaged " * 1000)
    assert journal.exists()
    with pytest.warns(UserWarning, match="is damaged"):
        assert rows_of(EmbeddingCache(path), count=5) == {}
    assert not path.exists()
    assert not journal.exists()


# A folder that cannot be written


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder owned by the user, who is not root in this test: root may write anywhere."""
    folder = Path(tempfile.mkdtemp())
    was_root = os.geteuid() == 0
    if was_root:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    yield folder
    folder.chmod(0o755)
    if was_root:
        os.seteuid(0)
    shutil.rmtree(folder)


def test_a_folder_without_write_permission_gives_hits_and_one_warning_for_the_rest(
    unprivileged: Path,
) -> None:
    path = unprivileged / "vectors.sqlite"
    filled(path, count=3)
    path.chmod(0o444)
    unprivileged.chmod(0o555)
    cache = EmbeddingCache(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(rows_of(cache, count=5)) == 3
        assert caught == []
        for _ in range(2):
            cache.write([key(4)], vector(4)[None])
    assert [str(w.message).count("cannot be used") for w in caught] == [1]
    assert len(rows_of(cache, count=5)) == 3
    # A refusal can take as long as a lock is waited for, so none is asked for twice.
    unprivileged.chmod(0o755)
    path.chmod(0o644)
    cache.write([key(4)], vector(4)[None])
    assert len(rows_of(cache, count=5)) == 3


def test_a_file_that_can_be_neither_read_nor_written_costs_one_warning(unprivileged: Path) -> None:
    path = unprivileged / "vectors.sqlite"
    filled(path, count=3)
    path.chmod(0o000)
    cache = EmbeddingCache(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert rows_of(cache, count=3) == {}
        assert cache.dim() is None
        cache.write([key(4)], vector(4)[None])
    assert [str(w.message).count("cannot be used") for w in caught] == [1]


# The cache alone, by its file: it needs no torch, whose import would be most of these tests' time.
LOAD_CACHE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("cache", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
EmbeddingCache = module.EmbeddingCache
"""
CACHE_FILE = sys.modules[EmbeddingCache.__module__].__file__ or ""

FULL_DISK = """
import resource, sys, warnings
from pathlib import Path
import numpy as np

cache = EmbeddingCache(Path(sys.argv[2]))
keys = [n.to_bytes(32, "big") for n in range(4000)]
cache.write(keys[:10], np.ones((10, 16), np.float32))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for start in range(10, 4000, 10):
        cache.write(keys[start:start + 10], np.ones((10, 16), np.float32))
assert len(caught) == 1 and "cannot be used" in str(caught[0].message), [str(w) for w in caught]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
found = dict(EmbeddingCache(Path(sys.argv[2])).read(keys))
assert 100 <= len(found) < 4000
assert all((stored == 1).all() and len(stored) == 16 for stored in found.values())
"""


def test_a_full_disk_costs_one_warning_and_keeps_what_was_stored(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    program = LOAD_CACHE + FULL_DISK
    subprocess.run([sys.executable, "-c", program, CACHE_FILE, str(path)], check=True)


# Several processes

WRITER = """
import sys, warnings
from pathlib import Path
import numpy as np

warnings.simplefilter("error")
cache = EmbeddingCache(Path(sys.argv[2]))
rows = list(range(int(sys.argv[3]), int(sys.argv[4])))
print("ready", flush=True)
sys.stdin.readline()
for start in range(0, len(rows), 5):
    batch = rows[start:start + 5]
    vectors = [np.random.default_rng(n).standard_normal(16, dtype=np.float32) for n in batch]
    cache.write([n.to_bytes(32, "big") for n in batch], np.stack(vectors))
    for key, vector in cache.read([n.to_bytes(32, "big") for n in rows]):
        n = int.from_bytes(key, "big")
        assert (vector == np.random.default_rng(n).standard_normal(16, dtype=np.float32)).all()
"""


def start_writer(path: Path, first: int, end: int) -> subprocess.Popen[str]:
    """Start a process that waits for `go` and then writes and reads rows first..end."""
    writer = subprocess.Popen(
        [sys.executable, "-c", LOAD_CACHE + WRITER, CACHE_FILE, str(path), str(first), str(end)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    return writer


def go(writer: subprocess.Popen[str]) -> None:
    assert writer.stdin is not None
    writer.stdin.write("go\n")
    writer.stdin.flush()


def test_processes_that_write_the_same_file_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    writers = [start_writer(path, first, first + 150) for first in (0, 50, 100)]
    for writer in writers:
        go(writer)
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    found = rows_of(EmbeddingCache(path), count=250)
    assert len(found) == 250
    assert all(np.array_equal(found[key(n)], vector(n)) for n in range(250))


def test_a_process_that_is_killed_while_writing_leaves_a_sound_file(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    writer = start_writer(path, 0, 100_000)
    go(writer)
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = rows_of(EmbeddingCache(path), count=100_000)
        filled(path, count=10)
    assert len(found) >= 5
    assert all(np.array_equal(found[key(n)], vector(n)) for n in range(len(found)))
