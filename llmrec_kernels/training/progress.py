"""Epoch, loss and time left, on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from llmrec_kernels.training.options import Training
from llmrec_kernels.training.state import State

_BAR = "{desc}|{bar:20}| {elapsed} elapsed, {remaining} left{postfix}"


class Progress:
    """What is shown of a training: nothing."""

    def step(self, state: State, loss: float) -> None:
        """A step is done; the loss is the mean of the epoch so far."""

    def epoch(self, state: State) -> None:
        """An epoch is done, its validation too."""

    def close(self) -> None:
        """No more is done."""


class Bar(Progress):
    """A bar over all steps of all epochs, for a terminal."""

    def __init__(self, epochs: int, steps: int, state: State) -> None:
        self._epochs = epochs
        self._bar: tqdm[Any] = tqdm(
            total=epochs * steps,
            initial=state.epoch * steps + state.step,
            bar_format=_BAR,
            smoothing=0,  # time left by all that has passed, validations too
            file=sys.stderr,
        )
        self._name(state)

    def step(self, state: State, loss: float) -> None:
        """See `Progress`."""
        self._bar.set_postfix_str(_told(loss, _validation(state)), refresh=False)
        self._bar.update()

    def epoch(self, state: State) -> None:
        """See `Progress`."""
        self._bar.set_postfix_str(_told(state.records[-1].loss, _validation(state)), refresh=False)
        self._name(state)

    def close(self) -> None:
        """See `Progress`."""
        self._bar.close()

    def _name(self, state: State) -> None:
        self._bar.set_description_str(f"epoch {min(state.epoch + 1, self._epochs)}/{self._epochs} ")


class Lines(Progress):
    """A line an epoch, for a file."""

    def __init__(self, epochs: int, state: State) -> None:
        self._epochs, self._before, self._started = epochs, state.epoch, time.perf_counter()

    def epoch(self, state: State) -> None:
        """See `Progress`."""
        record = state.records[-1]
        passed = time.perf_counter() - self._started
        left = passed / (state.epoch - self._before) * (self._epochs - state.epoch)
        print(  # noqa: T201
            f"epoch {state.epoch}/{self._epochs}: {_told(record.loss, record.validation)}, "
            f"{tqdm.format_interval(passed)} elapsed, {tqdm.format_interval(left)} left",
            file=sys.stderr,
            flush=True,
        )


@contextlib.contextmanager
def progress(training: Training, steps: int, state: State, main: bool) -> Iterator[Progress]:
    """Show a training of so many steps an epoch, in the main process."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    shown = terminal if training.progress is None else training.progress
    kind = Progress()
    if main and shown and not state.finished(training):
        bar = terminal
        kind = Bar(training.epochs, steps, state) if bar else Lines(training.epochs, state)
    try:
        yield kind
    finally:
        kind.close()


def _validation(state: State) -> float | None:
    return state.records[-1].validation if state.records else None


def _told(loss: float, validation: float | None) -> str:
    return f"loss {loss:.4g}" + ("" if validation is None else f", validation {validation:.4g}")
