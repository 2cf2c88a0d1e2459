"""What tests have other processes do with an index: `python index_processes.py NAME FOLDER`."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from index_folders import contents, every_change

from llmrec_kernels import ItemIndex
from llmrec_kernels.index import store

NOBODY = 65534
SECONDS = 6  # for each index that strangers made up
ROOM = 1 << 28  # bytes of memory for all that strangers may make us ask for


def user(folder: Path) -> None:
    """Use an index in a folder that a user without root's rights can read, but not write to."""
    index, mapped = ItemIndex.load(folder / "index"), ItemIndex.load(folder / "index", mmap=True)
    # All that is to come is done once before, since a user may not read what Python then imports.
    index.save(folder / "open" / "before")
    ItemIndex.open(folder / "open" / "before").close()
    refusal(lambda: index.save(folder / "file"))
    contents(mapped)
    if os.getuid() == 0:
        with contextlib.suppress(OSError):  # a container may have no other user
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
    index.remove([30])
    changed = contents(index)
    save = refusal(lambda: index.save(folder / "index"))
    mapped_save = refusal(lambda: mapped.save(folder / "index"))
    below = refusal(lambda: index.save(folder / "index" / "new"))
    opened = refusal(lambda: ItemIndex.open(folder / "index"))
    same = contents(index) == changed
    index.add([30], index.vectors([34]))
    index.save(folder / "open" / "mine")
    found = {
        "root": os.getuid() == 0,
        "save": save,
        "mapped save": mapped_save,
        "below": below,
        "open": opened,
        "as before": same,
        "saved elsewhere": contents(ItemIndex.load(folder / "open" / "mine")) == contents(index),
        "loaded": [
            contents(ItemIndex.load(folder / "index", mmap=mmap)) == contents(mapped)
            for mmap in (False, True)
        ],
    }
    say(found)


def other(folder: Path) -> None:
    """Try all that can be done with an index that another process has open; open it after that."""
    index = ItemIndex.load(folder)
    found = {
        "open": refusal(lambda: ItemIndex.open(folder)),
        "save": refusal(lambda: index.save(folder)),
        "loaded": index.version,
    }
    say(found)
    sys.stdin.readline()
    index = ItemIndex.open(folder)
    index.remove([34])
    say({"version": index.version})
    sys.stdin.readline()


def changes(folder: Path) -> None:
    """Change the indexes that are there until the process is killed; nothing is saved or closed."""
    store.TAIL = 16
    indexes = [ItemIndex.open(path, mmap=True) for path in sorted(folder.iterdir())]
    for index in indexes:
        for _ in every_change(index):
            say({"version": index.version})
    say({"version": 0})
    sys.stdin.readline()


def strangers(folder: Path) -> None:
    """Load what others made up, with little memory and little time; what comes of each."""
    for mmap in (False, True):
        index = ItemIndex.load(folder / "as it should be", mmap=mmap)
        contents(index)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    signal.signal(signal.SIGALRM, late)
    found = {}
    for path in sorted(folder.iterdir()):
        found[path.name] = [loaded(path, mmap) for mmap in (False, True)]
    say(found)


def late(*_: object) -> None:
    raise TimeoutError("it took too long")


def loaded(folder: Path, mmap: bool) -> list[str]:
    """The error of loading an index and looking at all of it, and what it says."""
    signal.alarm(SECONDS)
    try:
        contents(ItemIndex.load(folder, mmap=mmap))
    except Exception as error:
        return [type(error).__name__, str(error)]
    return ["none", ""]


def refusal(act: Callable[[], object]) -> list[Any]:
    """The error that an act raises: its kind, its number, and what it says."""
    try:
        act()
    except OSError as error:
        return [type(error).__name__, error.errno, str(error.strerror)]
    return ["none", 0, ""]


def say(found: dict[str, Any]) -> None:
    """Tell the test."""
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
