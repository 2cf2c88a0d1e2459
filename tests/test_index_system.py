"""`ItemIndex` in a folder without rights, on a full disk, and beside other processes."""

from __future__ import annotations

import errno
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from index_folders import contents, files, filled, numbers

import llmrec_kernels
from llmrec_kernels import ItemIndex
from llmrec_kernels.index import store

PROCESSES = Path(__file__).with_name("index_processes.py")
FULL_DISK = Path(__file__).with_name("check_full_disk.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(llmrec_kernels.__file__).parents[1])}


@pytest.fixture(autouse=True)
def _small_tail(monkeypatch):
    monkeypatch.setattr(store, "TAIL", 16)


# An ordinary user: root may write anywhere, whatever the rights of a folder say.


@pytest.fixture(scope="module")
def reader():
    """What an ordinary user found in a folder that is not theirs, and what is in it after that."""
    with tempfile.TemporaryDirectory() as name:  # tmp_path is the user's own who runs the tests
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "open").mkdir()
        (folder / "open").chmod(0o777)
        (folder / "file").touch()
        filled(given=("bias",), removed=True).save(folder / "index")
        before = files(folder / "index")
        (folder / "index").chmod(0o555)
        process = started("user", folder)
        output, _ = process.communicate()
        assert process.returncode == 0, output
        (folder / "index").chmod(0o755)
        found = json.loads(output)
        if found["root"]:
            pytest.skip("the system has no user beside root")
        yield found | {"kept": files(folder / "index") == before}


@pytest.mark.parametrize("act", ["save", "mapped save", "below"])
def test_a_save_where_one_may_not_write_is_refused(reader, act):
    kind, number, text = reader[act]
    assert (kind, number) == ("PermissionError", errno.EACCES)
    assert text.endswith(
        "cannot be written to (Permission denied); the index and what was saved before are as "
        "they were"
    )


def test_a_journal_where_one_may_not_write_is_refused(reader):
    kind, number, text = reader["open"]
    assert (kind, number) == ("PermissionError", errno.EACCES)
    assert "cannot be written to (Permission denied)" in text


def test_a_refused_save_leaves_index_and_folder_as_they_were(reader):
    assert reader["as before"]
    assert reader["saved elsewhere"]
    assert reader["kept"]


def test_an_index_is_loaded_from_where_one_may_not_write(reader):
    assert reader["loaded"] == [True, True]


def test_a_full_disk_loses_nothing(tmp_path):
    """tests/check_full_disk.py, where a user may mount: in a room that goes with its process."""
    mount = 'mount -t tmpfs -o size=1m none "$0"'
    try:
        subprocess.run(
            ["unshare", "-rm", "sh", "-c", mount, tmp_path],
            check=True,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare, which makes a room for a small disk")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no small disk can be mounted: {error.stderr.strip()}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp"]
    process = subprocess.run(
        ["unshare", "-rm", *command, tmp_path / "inside", str(FULL_DISK)],
        env={**ENVIRONMENT, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert " passed" in process.stdout


def test_a_path_leads_where_the_system_says(tmp_path):
    """Into the disk of a container, say, where a path that is written out leads elsewhere."""
    mount = 'mount -t tmpfs none "$0" && echo ready && read _'
    try:
        process = subprocess.Popen(
            ["unshare", "-rm", "sh", "-c", mount, tmp_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare, which makes another process a room of its own")
    with process:
        if (said := process.stdout.readline()) != "ready\n":
            pytest.skip(f"nothing can be mounted: {said.strip()}")
        folder = Path(f"/proc/{process.pid}/root") / tmp_path.relative_to("/") / "index"
        index = filled()
        index.save(folder)
        assert (folder / "manifest.json").exists()
        assert contents(ItemIndex.load(folder)) == contents(index)
        process.stdin.close()
    assert files(tmp_path) == {}


# Others.


def test_one_process_at_a_time_has_an_index_open(tmp_path):
    filled().save(tmp_path)
    index = ItemIndex.open(tmp_path)
    index.remove([30])
    before = files(tmp_path)
    with started("other", tmp_path) as process:
        found = json.loads(process.stdout.readline())
        for act in ("open", "save"):
            kind, number, text = found[act]
            assert (kind, number) == ("BlockingIOError", errno.EWOULDBLOCK)
            assert text == (
                f"{tmp_path} is open for changes elsewhere; close the index there first"
            )
        assert found["loaded"] == index.version == 4
        assert files(tmp_path) == before
        index.close()
        process.stdin.write("\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"version": 5}
        for act in (lambda: ItemIndex.open(tmp_path), lambda: filled().save(tmp_path)):
            with pytest.raises(BlockingIOError, match="is open for changes elsewhere"):
                act()
        process.kill()
    # A lock goes with its process, and the change that was made stays.
    with ItemIndex.open(tmp_path) as index:
        assert index.version == 5
        assert 34 not in index


def test_one_index_at_a_time_has_a_folder_open_in_one_process(tmp_path):
    filled().save(tmp_path)
    other = ItemIndex.load(tmp_path)
    with ItemIndex.open(tmp_path) as index:
        index.remove([30])
        for act in (lambda: ItemIndex.open(tmp_path), lambda: other.save(tmp_path)):
            with pytest.raises(BlockingIOError, match="is open for changes elsewhere"):
                act()
        assert contents(ItemIndex.load(tmp_path)) == contents(index)
    ItemIndex.open(tmp_path).close()
    other.save(tmp_path)


def test_a_folder_that_took_the_place_of_an_open_one_is_another(tmp_path):
    filled().save(tmp_path / "index")
    with ItemIndex.open(tmp_path / "index") as index:
        index.remove([30])
        (tmp_path / "index").rename(tmp_path / "old")
        filled(seed=1).save(tmp_path / "index")
        with ItemIndex.open(tmp_path / "index") as other:
            before = files(tmp_path / "index")
            with pytest.raises(BlockingIOError, match="is open for changes elsewhere"):
                index.save(tmp_path / "index")
            assert files(tmp_path / "index") == before
            other.remove([32])
        assert contents(ItemIndex.load(tmp_path / "index")) == contents(other)
        assert contents(ItemIndex.load(tmp_path / "old")) == contents(index)


def test_a_folder_is_free_when_an_index_could_not_be_opened(tmp_path):
    filled().save(tmp_path)
    next(tmp_path.glob("segment-*")).write_bytes(b"")
    with pytest.raises(ValueError, match="has 0 bytes") as caught:
        ItemIndex.open(tmp_path)
    filled(seed=1).save(tmp_path)
    # Until here the error keeps what was open alive.
    assert caught.value.__traceback__ is not None


@pytest.mark.parametrize("mmap", [False, True], ids=["read", "mapped"])
@pytest.mark.parametrize("journal", [False, True], ids=["saved", "open"])
def test_a_load_finds_what_was_there_when_it_began_or_what_is_saved_meanwhile(
    tmp_path, monkeypatch, journal, mmap
):
    writer = filled(removed=True)
    writer.save(tmp_path)
    if journal:
        writer = ItemIndex.open(tmp_path)
    real, opened = Path.open, 0

    def interrupted(path, *args, **options):
        """Save in between, before one of the files is opened."""
        nonlocal opened
        opened += 1
        if opened == at:
            step()
        return real(path, *args, **options)

    def step():
        writer.remove([next(iter(writer))])
        writer.save(tmp_path)
        if journal:
            writer.update([46], numbers(1, 5, seed=opened))

    monkeypatch.setattr(Path, "open", interrupted)
    for at in itertools.count(1):
        if journal:
            writer.remove([next(iter(writer))])
        before, opened = contents(writer), 0
        loaded = contents(ItemIndex.load(tmp_path, mmap=mmap))
        if opened < at:
            break
        opened = at  # a save opens files, too
        assert loaded in (before, contents(writer))
    assert at > 4


def test_a_folder_with_another_index_at_each_look_is_refused_in_the_end(tmp_path, monkeypatch):
    writer, real = filled(), Path.open
    writer.save(tmp_path)

    def interrupted(path, *args, **options):
        if path.suffix == ".safetensors":
            monkeypatch.setattr(Path, "open", real)
            filled().save(tmp_path)
            monkeypatch.setattr(Path, "open", interrupted)
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "open", interrupted)
    with pytest.raises(OSError, match="has another index each time that it is read; try again"):
        ItemIndex.load(tmp_path)


def started(name: str, folder: Path) -> subprocess.Popen[str]:
    """Another process that does what tests/index_processes.py has under this name."""
    return subprocess.Popen(
        [sys.executable, str(PROCESSES), name, str(folder)],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
