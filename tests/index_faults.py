"""Calls to the system that fail, processes that die between two of them, and interruptions."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import llmrec_kernels.index

# All by which the package changes what is in a folder.
CALLS = [
    *((os, name) for name in ("open", "write", "fsync", "ftruncate", "truncate")),
    *((Path, name) for name in ("mkdir", "replace", "unlink")),
]

# Where interruptions come. In modules without a state they would tell nothing new.
INDEX = str(Path(llmrec_kernels.index.__file__).parent)
# A destructor swallows what is raised in it, and no code can close the gap between a file that was
# opened and locked and the name that it gets.
PURE = tuple(f"{INDEX}/{name}.py" for name in ("encode", "errors", "intake", "layout", "manifest"))
NO_SIGNAL = ("__del__", "<genexpr>", "lock")


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it to go on."""


@contextmanager
def faults(
    error: Callable[[], BaseException], *, first: int, last: float = float("inf")
) -> Iterator[list[str]]:
    """Within, these calls fail, counted from 1; yields a list that names all calls that came.

    A write that fails has written half of what it was to write.
    """
    names: list[str] = []

    def replaced(name: str, real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            names.append(name)
            if first <= len(names) <= last:
                if name == "write" and len(names) == first:
                    real(args[0], args[1][: len(args[1]) // 2])
                raise error()
            return real(*args, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in CALLS:
            patch.setattr(owner, name, replaced(name, getattr(owner, name)))
        yield names


def bury(index: Any) -> None:
    """Take an index's files from it, as the system does when its process ends."""
    home = index._home
    if home is None:
        return
    lock, journal = home._lock, home.journal
    home._lock = home.journal = None
    for handle in (lock, None if journal is None else journal._handle):
        if handle is not None:
            os.close(handle)


@contextmanager
def interrupted(at: int, error: type[BaseException] = KeyboardInterrupt) -> Iterator[list[bool]]:
    """Within, the index is interrupted once, as by Ctrl-C: the `at`-th time that it can be.

    Python looks for signals where a function begins and where a call has returned. Yields a list
    that has an entry once it has come to that. Each place counts twice at most, for the sake of
    loops.
    """
    came: list[bool] = []
    count, seen = 0, Counter[tuple[str, int, str]]()

    def profile(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        code = frame.f_code
        if event not in ("call", "return", "c_return") or not code.co_filename.startswith(INDEX):
            return
        if code.co_name in NO_SIGNAL or code.co_filename in PURE:
            return
        place = code.co_filename, frame.f_lineno, event
        seen[place] += 1
        count += seen[place] <= 2
        if count == at and not came:
            sys.setprofile(None)
            came.append(True)
            raise error

    sys.setprofile(profile)
    try:
        yield came
    finally:
        sys.setprofile(None)
