"""Train: epochs of steps, validated, the best weights kept."""

from __future__ import annotations

import math
import time
from typing import Any

from torch import Tensor

from llmrec_kernels.ops import checks
from llmrec_kernels.training.learner import Learner, Step, own_randomness
from llmrec_kernels.training.options import Training
from llmrec_kernels.training.task import (
    EpochRecord,
    Task,
    TrainingDivergedError,
    TrainingReport,
)


def train(
    task: Task,
    training: Training,
    *,
    parameter_groups: list[dict[str, Any]] | None = None,
) -> TrainingReport:
    """Train a task's network, and leave it at its best epoch, in eval mode.

    Parameters
    ----------
    task : Task
        What is learned.
    training : Training
        How.
    parameter_groups : list of dictionaries, optional
        For the optimiser: groups of all trained parameters with settings of their own, such as
        `{"params": [...], "lr": 1e-5}`.

    Raises
    ------
    TrainingDivergedError
        If a loss or a gradient is NaN or infinite.
    """
    training = Training.of(training)
    size = checks.positive_int("task.size", task.size)
    learner = Learner(task, training, parameter_groups)
    per_step = training.batch_size * training.accumulate
    records: list[EpochRecord] = []
    best: dict[str, Tensor] = {}
    with own_randomness(learner.device):
        learner.network.train()
        while len(records) < training.epochs and not _stale(records, training.patience):
            epoch, started, total = len(records), time.perf_counter(), 0.0
            for number, examples in enumerate(learner.order(epoch).split(per_step)):
                step = learner.step(examples, epoch, number)
                if not step.finite:
                    raise _diverged(step, epoch, number, training)
                total += step.loss * len(examples)
            value = learner.validate()
            records.append(EpochRecord(total / size, value, time.perf_counter() - started))
            if value is not None and best_epoch(records) == len(records):
                best = {name: one.clone() for name, one in learner.changing().items()}
    if best:
        learner.put(best)
    learner.network.eval()
    return TrainingReport(
        records,
        best_epoch(records),
        len(records) < training.epochs,
        sum(one.seconds for one in records),
        len(records) * math.ceil(size / per_step),
    )


def best_epoch(records: list[EpochRecord]) -> int:
    """The first of the best validation, else the last one, counted from 1."""
    values = [one.validation for one in records if one.validation is not None]
    return values.index(min(values)) + 1 if values else len(records)


def _stale(records: list[EpochRecord], patience: int | None) -> bool:
    return patience is not None and len(records) - best_epoch(records) >= patience


def _diverged(step: Step, epoch: int, number: int, training: Training) -> TrainingDivergedError:
    what = f"loss {step.loss}, gradient of norm {step.norm}"
    return TrainingDivergedError(
        f"{what} at epoch {epoch + 1}, step {number + 1}, learning rate {training.learning_rate}"
    )
