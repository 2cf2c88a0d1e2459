"""What is trained, and what came of it."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import xxhash
from torch import Tensor, nn


class Task(Protocol):
    """What a model wants to learn: a network, examples by number, and their loss.

    Examples
    --------
    >>> import torch
    >>> class Line:
    ...     network = torch.nn.Linear(1, 1)
    ...     size = 4
    ...
    ...     def loss(self, examples):
    ...         x = examples[:, None] / 4
    ...         return (self.network(x) - 2 * x).square().mean()
    ...
    ...     def validate(self):
    ...         return None
    ...
    ...     def identity(self):
    ...         return {"architecture": "line"}
    >>> task: Task = Line()
    >>> task.loss(torch.tensor([0, 3])).shape
    torch.Size([])
    """

    network: nn.Module  # its parameters of float32 that require a gradient are trained
    size: int  # training examples, at least 1

    def loss(self, examples: Tensor) -> Tensor:
        """The mean loss of some examples: a sum over them, by their number.

        A batch in parts is to be learned from as if in one, so it is not divided by what else there
        is of them (interactions, targets), which may be more in one part than in another.

        Parameters
        ----------
        examples : Tensor, [b] int64 on the CPU
            Numbers from 0 to `size` - 1. Of several processes each gets its part of a batch, where
            negatives from the same batch are then fewer.

        Returns
        -------
        Tensor, scalar
            What it draws (dropout, negatives) comes from torch's global generator, which the loop
            seeds for each batch. It is asked for without gradients too, to see whether the weights
            are still good.
        """
        ...

    def validate(self) -> float | None:
        """How bad the network is on what is held out, the lower the better, after an epoch.

        None says that nothing is held out: then there is no early stopping.
        """
        ...

    def identity(self) -> dict[str, str | int | float]:
        """What must be alike for a checkpoint to fit: items, architecture, a digest of the data."""
        ...


class EpochRecord(NamedTuple):
    """What came of a pass over the examples.

    Examples
    --------
    >>> EpochRecord(loss=0.52, validation=0.61, seconds=1.5).validation
    0.61
    """

    loss: float  # the mean over the examples, each as it came
    validation: float | None
    seconds: float


class TrainingReport(NamedTuple):
    """What came of a training; with a checkpoint, of all runs that led here.

    `best_epoch` counts from 1: the epoch whose weights the network has now.

    Examples
    --------
    >>> epochs = [EpochRecord(0.7, 0.8, 1.5), EpochRecord(0.5, 0.6, 1.5)]
    >>> report = TrainingReport(epochs, 2, stopped_early=False, seconds=3.0, steps=20)
    >>> report.epochs[report.best_epoch - 1].validation
    0.6
    """

    epochs: list[EpochRecord]
    best_epoch: int
    stopped_early: bool
    seconds: float
    steps: int


class TrainingDivergedError(ArithmeticError):
    """A loss, a gradient or weights are NaN, infinite or far worse than when training began.

    Examples
    --------
    >>> raise TrainingDivergedError("the loss is nan at epoch 2, step 7")
    Traceback (most recent call last):
        ...
    llmrec_kernels.training.task.TrainingDivergedError: the loss is nan at epoch 2, step 7
    """


class CheckpointError(ValueError):
    """A checkpoint is damaged, or is of another training.

    Examples
    --------
    >>> raise CheckpointError("items is 1682 in the checkpoint; expected 1683")
    Traceback (most recent call last):
        ...
    llmrec_kernels.training.task.CheckpointError: items is 1682 in the checkpoint; expected 1683
    """


def architecture(network: nn.Module) -> str:
    """What a network is, in a few words that differ where its weights would not fit.

    Examples
    --------
    >>> architecture(nn.Linear(3, 2))
    'Linear of 8 numbers in 2 tensors, shapes 50d9a95d'
    """
    shapes = [tuple(one.shape) for one in network.state_dict().values()]
    digest = xxhash.xxh32_hexdigest(repr(shapes).encode())
    numbers = sum(math.prod(one) for one in shapes)
    return (
        f"{type(network).__name__} of {numbers:,} numbers in {len(shapes)} tensors, shapes {digest}"
    )
