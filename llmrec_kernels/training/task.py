"""What is trained, and what came of it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor, nn


class Task(Protocol):
    """What a model wants to learn: a network, examples by number, and their loss."""

    network: nn.Module  # its parameters of float32 that require a gradient are trained
    size: int  # training examples, at least 1

    def loss(self, examples: Tensor) -> Tensor:
        """The mean loss of some examples.

        Parameters
        ----------
        examples : Tensor, [b] int64 on the CPU
            Numbers from 0 to `size` - 1. Of several processes each gets its part of a batch, where
            negatives from the same batch are then fewer.

        Returns
        -------
        Tensor, scalar
            What it draws (dropout, negatives) comes from torch's global generator, which the loop
            seeds for each batch.
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
    """What came of a pass over the examples."""

    loss: float  # the mean over the examples, each as it came
    validation: float | None
    seconds: float


class TrainingReport(NamedTuple):
    """What came of a training; with a checkpoint, of all runs that led here.

    `best_epoch` counts from 1: the epoch whose weights the network has now.
    """

    epochs: list[EpochRecord]
    best_epoch: int
    stopped_early: bool
    seconds: float
    steps: int


class TrainingDivergedError(ArithmeticError):
    """A loss or a gradient is NaN or infinite; training stopped before it met the weights.

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
