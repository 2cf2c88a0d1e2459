"""Ctrl-C while training: the step that runs is finished first."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

# Some launchers pass Ctrl-C on to processes that the terminal has told already.
SAME_PRESS_SECONDS = 1.0


class Interrupt:
    """Whether Ctrl-C was pressed."""

    def __init__(self, patience: float) -> None:
        self.asked = False
        self._patience = patience
        self._first = 0.0

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Remember the first press; interrupt at once at another."""
        if self.asked and time.monotonic() - self._first >= self._patience:
            raise KeyboardInterrupt
        if not self.asked:
            self.asked, self._first = True, time.monotonic()


@contextlib.contextmanager
def listening(patience: float = 0.0) -> Iterator[Interrupt]:
    """Hear Ctrl-C meanwhile, in the main thread, where Python tells signals.

    Presses within `patience` seconds of the first are the same. Where Ctrl-C is ignored, as in a
    job of the background, it stays so.
    """
    interrupt = Interrupt(patience)
    before = signal.getsignal(signal.SIGINT)
    here = threading.current_thread() is threading.main_thread()
    if not here or before in (None, signal.SIG_IGN):
        yield interrupt
        return
    signal.signal(signal.SIGINT, interrupt.hear)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
