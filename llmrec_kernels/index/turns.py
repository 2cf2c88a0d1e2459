"""Who changes an index, one after the other."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager


class Turns:
    """A lock that refuses whoever holds it already: a signal handler, say, or a finalizer.

    What it did would be lost when the change goes on that it interrupts.

    Parameters
    ----------
    act
        What is done in a turn, for the error.
    """

    def __init__(self, act: str) -> None:
        self._act, self._lock = act, threading.RLock()

    def next(self) -> AbstractContextManager[bool]:
        """Within it the others wait.

        It is the lock itself, which no interruption leaves locked, as it might one of Python's own.
        """
        if self._lock._is_owned():  # type: ignore[attr-defined]
            raise RuntimeError(
                f"the index is being {self._act} by this very thread, which was interrupted; "
                "wait until it has returned"
            )
        return self._lock
