"""The time that windows are measured by, and the thread that reads sensors meanwhile.

A replay has a clock of its own, whose time passes only when it is told to.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

# Seconds between samples. The first ones come soon, so that short windows have some.
FIRST_PAUSE, PAUSE = 0.001, 0.05
THREAD = "llmrec-energy"


class Clock:
    """The time of this machine."""

    def now(self) -> float:
        """Seconds since some moment."""
        return time.perf_counter()

    def cpu_seconds(self) -> float:
        """Seconds of all CPUs that this process has used."""
        return time.process_time()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    @contextmanager
    def sampling(self, sample: Callable[[], None]) -> Iterator[None]:
        """Call `sample` now and then, from a thread that ends with the context."""
        ended = threading.Event()

        def loop() -> None:
            pause = FIRST_PAUSE
            while not ended.wait(pause):
                sample()
                pause = min(2 * pause, PAUSE)

        with ThreadPoolExecutor(1, thread_name_prefix=THREAD) as pool:
            looping = pool.submit(loop)
            try:
                yield
            finally:
                ended.set()
        looping.result()  # raises what the thread raised
