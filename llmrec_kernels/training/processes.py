"""One training by several processes: `accelerate launch` starts them on GPUs, `torchrun` on CPUs.

Each takes its part of each batch, and gradients are summed, weighted by examples: a step is that of
one process with the same settings, up to rounding. `accelerate` knows how the processes were
started and how they speak; it is imported only where there are several.

The sums are made here and not by DistributedDataParallel. That one wraps the forward call of one
module, and a task's loss may call several, or one twice, and leaves parameters unused; a part may
even be empty, where a batch has fewer examples than there are processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

# How launchers say how many processes there are: torchrun and accelerate, and three kinds of MPI.
_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")

Made = TypeVar("Made")


class Processes:
    """The one process that there is."""

    count = 1
    rank = 0

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and shows."""
        return self.rank == 0

    def part(self, batch: Tensor) -> Tensor:
        """The examples of a batch that are this process's, [b] to [0 .. b]."""
        return batch.tensor_split(self.count)[self.rank]

    def summed(self, numbers: Sequence[float]) -> list[float]:
        """Numbers of all processes, each summed."""
        return list(numbers)

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Sum the gradients of all processes; a parameter that none used keeps none."""

    def from_main(self, make: Callable[[], Made]) -> Made:
        """What the main process makes, or the error that it meets, in all of them."""
        return make()

    def take_from_main(self, tensors: Iterable[Tensor]) -> None:
        """Put the main process's values into tensors."""

    def wait(self) -> None:
        """Wait for all to come here: a launcher ends the others when one leaves with an error."""


class ManyProcesses(Processes):
    """One process of several."""

    def __init__(self, device: torch.device) -> None:
        state = _state(device)
        self.count, self.rank = state.num_processes, state.process_index
        self._device = state.device  # of what the processes can send
        if device.type == "cuda" and device != self._device:
            raise ValueError(
                f"the network of process {self.rank} is on {device}; expected {self._device}: make "
                "it on accelerate.PartialState().device, for each process has a GPU of its own"
            )

    def summed(self, numbers: Sequence[float]) -> list[float]:
        """See `Processes`."""
        return list(self._sum(torch.tensor(numbers, dtype=torch.float64)).tolist())

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """See `Processes`."""
        used = self.summed([float(one.grad is not None) for one in parameters])
        some = [one for one, count in zip(parameters, used, strict=True) if count]
        for one in some:
            if one.grad is None:
                one.grad = torch.zeros_like(one)
        for kind in dict.fromkeys(one.dtype for one in some):  # in the same order everywhere
            gradients = [one.grad for one in some if one.grad is not None and one.dtype == kind]
            flat = self._sum(torch.cat([one.flatten() for one in gradients]))
            parts = flat.split([one.numel() for one in gradients])
            for one, part in zip(gradients, parts, strict=True):
                one.copy_(part.view_as(one))

    def from_main(self, make: Callable[[], Made]) -> Made:
        """See `Processes`."""
        from accelerate.utils import broadcast_object_list

        answer = [_tried(make) if self.main else _Answer(None, None)]
        broadcast_object_list(answer)
        if answer[0].error is not None:
            raise answer[0].error
        return answer[0].made  # type: ignore[no-any-return]

    def take_from_main(self, tensors: Iterable[Tensor]) -> None:
        """See `Processes`."""
        from accelerate.utils import broadcast

        for one in tensors:
            one.copy_(broadcast(one.to(self._device).contiguous()))

    def wait(self) -> None:
        """See `Processes`."""
        self.summed([0.0])

    def _sum(self, tensor: Tensor) -> Tensor:
        from accelerate.utils import reduce

        total = reduce(tensor.to(self._device), reduction="sum")
        assert isinstance(total, Tensor)
        return total


class _Answer(NamedTuple):
    made: Any
    error: Exception | None


def processes(device: torch.device) -> Processes:
    """The processes that the environment speaks of."""
    return ManyProcesses(device) if _several() else Processes()


def first_process() -> bool:
    """Whether this is the main process, before they speak with each other."""
    return not _several() or next(filter(None, map(os.environ.get, _RANKS)), "0") == "0"


def _several() -> bool:
    return any(os.environ.get(name, "1") not in ("", "0", "1") for name in _COUNTS)


def _state(device: torch.device) -> Any:
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise ImportError(
            "the environment speaks of several processes, and training in several needs "
            "accelerate: pip install 'llmrec_kernels[train]'"
        ) from error
    return PartialState(cpu=device.type == "cpu")


def _tried(make: Callable[[], Any]) -> _Answer:
    try:
        return _Answer(make(), None)
    except Exception as error:
        return _Answer(None, error)
