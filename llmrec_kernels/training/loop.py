"""Train: epochs of steps, validated, the best weights kept, checkpoints written."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

from llmrec_kernels.ops import checks
from llmrec_kernels.training import interrupt
from llmrec_kernels.training.checkpoint import Checkpoints, Found, checkpoints
from llmrec_kernels.training.learner import Learner, Step, own_randomness
from llmrec_kernels.training.options import Training
from llmrec_kernels.training.progress import Progress, progress
from llmrec_kernels.training.state import State
from llmrec_kernels.training.task import (
    CheckpointError,
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

    The same task with the same settings gives the same bits on one machine's CPU with one number of
    threads, interrupted or not.
    Several processes share the work when each calls this: start them by
    `accelerate launch --num_processes 2 script.py` on GPUs and by
    `torchrun --standalone --nproc-per-node 2 script.py` on CPUs.

    Parameters
    ----------
    task : Task
        What is learned.
    training : Training
        How.
    parameter_groups : list of dictionaries, optional
        For AdamW: groups of all trained parameters with settings of their own, such as
        `{"params": [...], "lr": 1e-5}`.

    Returns
    -------
    TrainingReport
        What came of each epoch.

    Raises
    ------
    TrainingDivergedError
        If a loss, a gradient or a validation is NaN or infinite; such a step is not made. And if,
        at the end of an epoch, weights are NaN or infinite, or the loss of the first batch is more
        than 10 (|l| + 1) above l, what it was before the first step. The last good checkpoint is
        kept.
    CheckpointError
        If the checkpoint is damaged, or of another training.
    KeyboardInterrupt
        At Ctrl-C, when the step that runs is done and in the checkpoint. At a second one, at once.

    Examples
    --------
    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> class Line:
    ...     network = torch.nn.Linear(1, 1)
    ...     size = 4
    ...
    ...     def loss(self, examples):
    ...         x = examples[:, None] / 4
    ...         return (self.network(x) - 2 * x).square().mean()
    ...
    ...     def validate(self):
    ...         return float(self.loss(torch.arange(4)))
    ...
    ...     def identity(self):
    ...         return {"architecture": "line"}
    >>> report = train(Line(), Training(epochs=100, batch_size=2, learning_rate=0.1))
    >>> report.epochs[report.best_epoch - 1].validation < 0.01
    True
    """
    training = Training.of(training)
    checks.positive_int("task.size", task.size)
    learner = Learner(task, training, parameter_groups)
    patience = interrupt.SAME_PRESS_SECONDS if learner.processes.count > 1 else 0.0
    with (
        own_randomness(learner.device),
        _opened(learner) as (store, found),
        interrupt.listening(patience) as pressed,
    ):
        run = _Run(learner, store, found, pressed)
        try:
            run.train()
        finally:
            learner.network.eval()
    return run.report()


@contextlib.contextmanager
def _opened(learner: Learner) -> Iterator[tuple[Checkpoints | None, Found | None]]:
    """The checkpoints, which the main process alone has, and what all go on from."""
    folder, stores = learner.training.checkpoint, list[Checkpoints]()
    with contextlib.ExitStack() as stack:

        def read() -> Found | None:
            assert folder is not None
            stores.append(stack.enter_context(checkpoints(folder, learner.same())))
            return stores[0].read(learner.changing())

        found = None if folder is None else learner.processes.from_main(read)
        yield (stores[0] if stores else None), found


class _Run:
    """A training that runs."""

    def __init__(
        self,
        learner: Learner,
        store: Checkpoints | None,
        found: Found | None,
        pressed: interrupt.Interrupt,
    ) -> None:
        self._learner, self._store, self._pressed = learner, store, pressed
        self._training, self._size = learner.training, learner.task.size
        self._per_step = self._training.batch_size * self._training.accumulate
        self._steps = math.ceil(self._size / self._per_step)  # of an epoch
        self._state = State()
        if found is not None:
            self._state = found.state
            learner.restore(found.tensors)
            self._check_epochs()
        learner.processes.take_from_main(learner.changing().values())

    def train(self) -> None:
        """Train until there is no more to do."""
        state, processes = self._state, self._learner.processes
        if state.first is None and processes.main:
            self._learner.network.train()
            state.first = self._learner.first_loss()
        with progress(self._training, self._steps, state, processes.main) as shown:
            while not state.finished(self._training):
                self._epoch(shown)
        if state.best:
            self._learner.put(state.best)
        processes.take_from_main(self._learner.changing().values())

    def report(self) -> TrainingReport:
        """What came of it."""
        records = self._state.records
        return TrainingReport(
            list(records),
            self._state.best_epoch,
            len(records) < self._training.epochs,
            sum(one.seconds for one in records),
            len(records) * self._steps,
        )

    def _epoch(self, shown: Progress) -> None:
        """The rest of the epoch."""
        state, learner = self._state, self._learner
        learner.network.train()
        started = time.perf_counter() - state.seconds
        batches = learner.order(state.epoch).split(self._per_step)
        for number in range(state.step, len(batches)):
            step = learner.step(batches[number], state.epoch, number, self._pressed)
            if not step.finite:
                raise self._diverged(f"{_told(step)}; the step was not made", number)
            state.step = number + 1
            state.loss += step.loss * len(batches[number])
            state.seconds = time.perf_counter() - started
            shown.step(state, state.loss / min(state.step * self._per_step, self._size))
            if step.interrupted:
                self._check_weights()
                self._leave()
            elif self._store and self._store.due and self._lost() is None:
                self._write()
        self._check_weights()
        value, interrupted = self._validated()
        state.seconds = time.perf_counter() - started
        state.end_epoch(self._size, value)
        if value is not None and state.best_epoch == state.epoch:
            state.best = {name: one.clone() for name, one in learner.changing().items()}
        shown.epoch(state)
        if interrupted:
            self._leave()
        self._write()

    def _lost(self) -> str | None:
        """Why the weights are no good, in the main process."""
        first = self._state.first
        return None if first is None else self._learner.lost(first)

    def _check_weights(self) -> None:
        """Stop all processes where the weights are no good."""
        processes = self._learner.processes
        lost = processes.from_main(self._lost)
        if lost is not None:
            raise self._diverged(lost, self._state.step - 1)

    def _validated(self) -> tuple[float | None, bool]:
        """The main process's validation, and whether a process was asked to stop meanwhile."""
        processes = self._learner.processes
        value = self._learner.validate()
        mine = value if processes.main and value is not None else 0.0
        shared, asked = processes.summed([mine, float(self._pressed.asked)])
        if not math.isfinite(shared):
            raise self._diverged(f"validation {shared}", self._steps - 1)
        return (None if value is None else shared), asked > 0

    def _write(self) -> None:
        if self._store:
            self._store.write(self._state, self._learner.tensors())

    def _leave(self) -> None:
        self._write()
        self._learner.processes.wait()
        raise KeyboardInterrupt(
            f"training was interrupted at {_place(self._state)}. {self._kept()}"
            + ("; the same call goes on from there" if self._training.checkpoint else "")
        )

    def _diverged(self, what: str, number: int) -> TrainingDivergedError:
        rates = sorted({group["lr"] for group in self._learner.optimizer.param_groups})
        advice = "a smaller learning_rate"
        if self._learner.precision != "float32":
            advice += " or precision='float32'"
        if self._store and self._store.last:
            self._store.note_divergence()
            advice += " (the same call with it goes on from the checkpoint)"
        self._learner.processes.wait()
        return TrainingDivergedError(
            f"training diverged at epoch {self._state.epoch + 1}, step {number + 1} of "
            f"{self._steps}, learning rate {', '.join(map(str, rates))}: {what}. {self._kept()}. "
            f"Try {advice}, and look for numbers in the data that are NaN or far from the others"
        )

    def _kept(self) -> str:
        """Where the last good weights are, in words."""
        if self._training.checkpoint is None:
            return "No checkpoint was kept, as training.checkpoint is None"
        if self._store is None:
            return f"The main process keeps the checkpoint in {self._training.checkpoint}"
        if self._store.last is None:
            return f"There is no checkpoint in {self._store.folder} yet"
        kept = State.of_record(self._store.last["state"], {})
        return f"The last good checkpoint is in {self._store.folder}, of {_place(kept)}"

    def _check_epochs(self) -> None:
        state, epochs = self._state, self._training.epochs
        if state.epoch + (state.step > 0) > epochs:
            raise CheckpointError(
                f"the checkpoint in {self._training.checkpoint} is of {_place(state)}, further "
                f"than training.epochs, {epochs}; expected at least as many, or another folder"
            )


def _place(state: State) -> str:
    if state.step:
        return f"epoch {state.epoch + 1}, after step {state.step}"
    return f"the end of epoch {state.epoch}"


def _told(step: Step) -> str:
    return f"loss {step.loss}, norm of the gradient {step.norm}"
