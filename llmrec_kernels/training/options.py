"""How a model is trained: the settings that all neural recommenders share."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from llmrec_kernels.ops import checks

PRECISIONS = ("float32", "bfloat16", "auto")

_MOST_RATE, _MOST_DECAY = 1e30, 1e6  # with more, AdamW's own numbers are too large for float32


class Training(NamedTuple):
    """How a model is trained.

    A recommender takes one, or a dictionary of what differs from its own defaults.

    Parameters
    ----------
    epochs : int
        Most passes over the examples.
    batch_size : int
        Examples that go through the network at once.
    learning_rate : float
        Of AdamW, above 0 and at most 1e30.
    weight_decay : float
        Of AdamW, from 0 to 1e6.
    accumulate : int
        Batches whose gradients are one step: as a batch so many times larger, in less memory.
    patience : int or None
        Epochs without a better validation after which training stops; None: all epochs.
    precision : {"float32", "bfloat16", "auto"}
        Of products in the network; its weights stay float32. "auto" is bfloat16 where the device
        has instructions for it.
    clip : float
        Largest norm of the gradient, above 0; a longer one is scaled down to it.
    seed : int
        Of the order of examples, and of whatever the loss draws; at least 0.
    checkpoint : path, optional
        Folder of a checkpoint, written after each epoch, every minute and at Ctrl-C. Training goes
        on from what is there. It is never part of a saved model.
    progress : bool, optional
        Show epoch, loss and time left on stderr. None: where stderr is a terminal.

    Examples
    --------
    >>> Training.of({"epochs": 5}).epochs
    5
    >>> Training.of({"epoch": 5})
    Traceback (most recent call last):
        ...
    ValueError: training has 'epoch'; expected names among epochs, batch_size, learning_rate,
    weight_decay, accumulate, patience, precision, clip, seed, checkpoint, progress
    """

    epochs: int = 20
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    accumulate: int = 1
    patience: int | None = 3
    precision: str = "float32"
    clip: float = 1.0
    seed: int = 0
    checkpoint: str | None = None
    progress: bool | None = None

    @staticmethod
    def of(
        training: Training | Mapping[str, Any] | None, default: Training | None = None
    ) -> Training:
        """Settings that are checked; those that a dictionary has not are the default's.

        Parameters
        ----------
        training : Training or dictionary or None
            None is the default.
        default : Training, optional
            By default that of this class.

        Raises
        ------
        TypeError, ValueError
            If a name or a value is not one of a training.
        """
        default = Training() if default is None else default
        if training is None:
            training = default
        elif isinstance(training, Mapping):
            for name in training:
                if name not in Training._fields:
                    raise ValueError(
                        f"training has {name!r}; expected names among {', '.join(Training._fields)}"
                    )
            training = default._replace(**training)
        elif not isinstance(training, Training):
            raise TypeError(f"training is {training!r}; expected a Training or a dictionary")
        return _checked(training)


def _checked(given: Training) -> Training:
    checks.choice("training.precision", given.precision, PRECISIONS)
    if given.progress is not None and not isinstance(given.progress, bool):
        raise TypeError(f"training.progress is {given.progress!r}; expected a bool or None")
    return Training(
        epochs=_count("epochs", given.epochs),
        batch_size=_count("batch_size", given.batch_size),
        learning_rate=_number("learning_rate", given.learning_rate, above=True, most=_MOST_RATE),
        weight_decay=_number("weight_decay", given.weight_decay, above=False, most=_MOST_DECAY),
        accumulate=_count("accumulate", given.accumulate),
        patience=None if given.patience is None else _count("patience", given.patience),
        precision=given.precision,
        clip=_number("clip", given.clip, above=True),
        seed=_seed(given.seed),
        checkpoint=_folder(given.checkpoint),
        progress=given.progress,
    )


def _count(name: str, value: Any) -> int:
    return checks.positive_int(f"training.{name}", value)


def _number(name: str, value: Any, *, above: bool, most: float = math.inf) -> float:
    """A finite number of at least 0, or above it, and at most so much."""
    if isinstance(value, bool):
        raise TypeError(f"training.{name} is {value}; expected a number")
    number = checks.finite_number(f"training.{name}", value)
    if number < 0 or (above and number == 0):
        expected = "more than 0" if above else "at least 0"
        raise ValueError(f"training.{name} is {number}; expected {expected}")
    if number > most:
        raise ValueError(f"training.{name} is {number}; expected at most {most:g}")
    return number


def _seed(value: Any) -> int:
    seed = checks.integer("training.seed", value)
    if not 0 <= seed <= checks.LARGEST_INT:
        raise ValueError(f"training.seed is {seed}; expected 0 to {checks.LARGEST_INT}")
    return seed


def _folder(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"training.checkpoint is {value!r}; expected the path of a folder or None")
    path = os.fsdecode(value)
    if not path:
        raise ValueError("training.checkpoint is empty; expected the path of a folder or None")
    return path
