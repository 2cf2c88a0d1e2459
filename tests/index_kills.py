"""Kills processes in the middle of saves: `python index_kills.py NAME FOLDER` prints the result.

Torch is imported once, in a process with one thread, and each process that is killed is a fork of
that one.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from index_folders import Contents, change, contents, files, filled, known_files

from llmrec_kernels import ItemIndex
from llmrec_kernels.index import store

ROUNDS = 300
# All by which the package changes what is in a folder: tests/test_index_power_cuts.py sees to it.
CALLS = [
    *((os, name) for name in ("open", "write", "fsync", "ftruncate", "truncate")),
    *((Path, name) for name in ("mkdir", "replace", "unlink")),
]


class Known:
    """What each version holds: in memory, where nothing is saved."""

    def __init__(self) -> None:
        self._index = new()
        self._contents: list[Contents] = [contents(self._index)]
        self.first = self._index.version

    def __getitem__(self, version: int) -> Contents:
        while self._index.version < version:
            change(self._index)
            self._contents.append(contents(self._index))
        return self._contents[version - self.first]


def new() -> ItemIndex:
    return filled(dim=2, removed=True)


# What is done until the process is killed. `say` tells which version is sure to be there.

Say = Callable[[int], None]


def save_to_nothing(folder: Path, say: Say) -> None:
    """A first save."""
    index = new()
    index.save(folder)
    say(index.version)


def save(folder: Path, say: Say) -> None:
    """A save of what was changed, with segments that are there already."""
    index = ItemIndex.load(folder)
    change(index)
    index.save(folder)
    say(index.version)


def save_mapped(folder: Path, say: Say) -> None:
    """The same of rows that are in files, written anew, and new files mapped."""
    index = ItemIndex.load(folder, mmap=True)
    change(index)
    index.compact()
    index.save(folder)
    say(index.version)


def save_with_journal(folder: Path, say: Say) -> None:
    """Changes in a journal, a save that begins another, and a change in that."""
    with ItemIndex.open(folder) as index:
        for _ in range(2):
            change(index)
            say(index.version)
        index.save(folder)
        change(index)
        say(index.version)


ACTS = [save_to_nothing, save, save_mapped, save_with_journal]


def each_call(root: Path) -> dict[str, Any]:
    """A kill before each call of each act, and in the middle of each write."""
    known = Known()
    found = {}
    for act in ACTS:
        there = root / act.__name__
        there.mkdir()
        if act is not save_to_nothing:
            new().save(there / "before")
        for half in (False, True):
            number, killed, versions, wrong = 0, True, [], []
            while killed:
                number += 1
                folder = there / "index"
                shutil.rmtree(folder, ignore_errors=True)
                if (there / "before").exists():
                    shutil.copytree(there / "before", folder)
                said, killed = forked(act, folder, call=number, half=half)
                sure = said or (known.first if (there / "before").exists() else 0)
                version, problem = checked(folder, sure, known)
                versions.append(version)
                if problem:
                    wrong.append(f"killed at call {number}: {problem}")
            name = act.__name__ + (" half written" if half else "")
            found[name] = {"calls": number - 1, "versions": versions, "wrong": wrong}
    return found


def any_moment(root: Path) -> dict[str, Any]:
    """A kill after a random time, which is of the order of what an act takes."""
    known, rng = Known(), random.Random(0)
    folder, sure = root / "index", known.first
    new().save(folder)
    begin = time.perf_counter()
    for _ in range(8):
        forked(save, folder)
    usual = (time.perf_counter() - begin) / 8
    sure += 8
    result: dict[str, Any] = {"killed": 0, "leftovers": 0, "on": 0, "wrong": []}
    for number in range(ROUNDS):
        act = ACTS[1 + number % 3]
        said, killed = forked(act, folder, after=rng.uniform(0, usual))
        left = set(files(folder)) - known_files(folder)
        version, problem = checked(folder, max(sure, said), known)
        if problem:
            result["wrong"].append(f"round {number}, {act.__name__}: {problem}")
            break
        result["killed"] += killed
        result["leftovers"] += any(not name.startswith("journal") for name in left)
        result["on"] += version > sure
        sure = version + 1  # the check saved one more
    return result


def forked(act: Callable[[Path, Say], None], folder: Path, **kill: Any) -> tuple[int, bool]:
    """Run an act in a process of its own; the last version that it said, and whether it died."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        status = 1
        try:
            os.close(reader)
            write = os.write
            if "call" in kill:
                kill_at(kill["call"], kill["half"])
            act(folder, lambda version: write(writer, version.to_bytes(4, "little")))
            while "after" in kill:
                act(folder, lambda version: write(writer, version.to_bytes(4, "little")))
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    if "after" in kill:
        time.sleep(kill["after"])
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"{act.__name__} failed")
    return int.from_bytes(said[-4:], "little"), os.WIFSIGNALED(status)


def kill_at(number: int, half: bool) -> None:
    """Die at the call of this number: before it, or in the middle where something is written."""
    count = 0

    def deadly(name: str, real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += not half or name == "write"
            if count == number and (not half or name == "write"):
                if half:
                    real(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        return call

    for owner, name in CALLS:
        setattr(owner, name, deadly(name, getattr(owner, name)))


def checked(folder: Path, sure: int, known: Known) -> tuple[int, str]:
    """The version that is there, 0 for none; what is wrong with it, or with saving the next."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".* ends with \d+ bytes of a change", RuntimeWarning)
            loaded = [ItemIndex.load(folder, mmap=mmap) for mmap in (False, True)]
        there = [contents(index) for index in loaded]
    except FileNotFoundError as error:
        new().save(folder)
        return 0, str(error) if sure else ""
    except (OSError, ValueError) as error:
        return 0, f"{type(error).__name__}: {error}"
    version = there[0].version
    if not sure <= version or there[0] != known[version] or there[1] != known[version]:
        return version, f"version {version} after {sure} is another than it was"
    index = loaded[version % 2]
    change(index)
    index.save(folder)
    if contents(ItemIndex.load(folder)) != known[version + 1]:
        return version, "the save after it is another"
    if set(files(folder)) != known_files(folder):
        return version, f"the save after it left {set(files(folder)) - known_files(folder)}"
    return version, ""


if __name__ == "__main__":
    torch.set_num_threads(1)
    store.TAIL = 16
    os.fsync = lambda handle: None  # what was written outlives its process without
    sys.stdout.write(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]))))
