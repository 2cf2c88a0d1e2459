"""Who changes an index, one after the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock that refuses whoever holds it already: a signal handler, say, or a finalizer.

    What it did would be lost when the change goes on that it interrupts.

    Parameters
    ----------
    act
        What is done in a turn, for the error.
    """

    def __init__(self, act: str) -> None:
        self._act, self._lock, self._taken = act, threading.RLock(), False

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the others, and then keep them waiting."""
        with self._lock:
            if self._taken:
                raise RuntimeError(
                    f"the index is being {self._act} by this very thread, which was interrupted; "
                    "wait until it has returned"
                )
            try:
                self._taken = True
                yield
            finally:
                self._taken = False
