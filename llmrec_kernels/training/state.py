"""How far a training has come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from llmrec_kernels.training.options import Training
from llmrec_kernels.training.task import EpochRecord


@dataclass
class State:
    """The epochs that are done, and how far the next one has come."""

    records: list[EpochRecord] = field(default_factory=list)
    step: int = 0  # steps of the epoch that are done
    loss: float = 0.0  # summed over their examples
    seconds: float = 0.0  # that they took
    first: float | None = None  # loss of the main process's part of the first batch, at first
    best: dict[str, Tensor] = field(default_factory=dict)  # weights of the best epoch, by name

    @property
    def epoch(self) -> int:
        """The epoch that runs, from 0."""
        return len(self.records)

    @property
    def best_epoch(self) -> int:
        """The first with the best validation, else the last one, counted from 1."""
        values = [one.validation for one in self.records if one.validation is not None]
        return values.index(min(values)) + 1 if values else len(self.records)

    def finished(self, training: Training) -> bool:
        """Whether there are epochs enough, or too many without a better one."""
        stale = self.epoch - self.best_epoch
        return self.epoch >= training.epochs or (
            training.patience is not None and stale >= training.patience
        )

    def end_epoch(self, size: int, validation: float | None) -> EpochRecord:
        """Note the epoch that is done."""
        record = EpochRecord(self.loss / size, validation, self.seconds)
        self.records.append(record)
        self.step, self.loss, self.seconds = 0, 0.0, 0.0
        return record

    def as_record(self) -> dict[str, Any]:
        """All but tensors, for JSON."""
        return {
            "epochs": [list(one) for one in self.records],
            "step": self.step,
            "loss": self.loss,
            "seconds": self.seconds,
            "first": self.first,
        }

    @staticmethod
    def of_record(record: dict[str, Any], best: dict[str, Tensor]) -> State:
        """As it was."""
        records = [EpochRecord(*one) for one in record["epochs"]]
        step, loss, seconds = record["step"], record["loss"], record["seconds"]
        return State(records, step, loss, seconds, record["first"], best)
