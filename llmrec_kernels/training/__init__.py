"""The one training loop of all neural recommenders."""

from llmrec_kernels.training.loop import train
from llmrec_kernels.training.options import Training
from llmrec_kernels.training.task import (
    CheckpointError,
    EpochRecord,
    Task,
    TrainingDivergedError,
    TrainingReport,
    architecture,
)

__all__ = [
    "CheckpointError",
    "EpochRecord",
    "Task",
    "Training",
    "TrainingDivergedError",
    "TrainingReport",
    "architecture",
    "train",
]
