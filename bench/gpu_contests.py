"""What a contest on a GPU is: who takes part in a job of a cell, and how answers are judged.

A contestant is a function that prepares what a user would prepare once, and returns the call that
is timed. Who cannot take part raises LeftOut with the reason, or fails, which is a reason too.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from gpu_machine import Call, Machine
from torch import Tensor

from llmrec_kernels import Ragged, explain

SAMPLE = 8  # queries or bags that are compared with the reference
Prepare = Callable[[], Call]


class LeftOut(Exception):  # noqa: N818 - a reason, not an error
    """Why somebody does not take part, in a sentence."""


@dataclass
class Contest:
    """Who takes part in one job of a cell.

    `agreement(answer)` is the share of a sample in which an answer is that of the reference:
    found ids, or numbers within a rounding of the largest. Ours must have 1, and the same bits
    where `right` says so.
    """

    ours: dict[str, Prepare]  # by backend
    peers: dict[str, Prepare]
    agreement: Callable[[Any], float]
    right: Callable[[Any], bool]
    inexact: frozenset[str] = frozenset()  # peers with codes or half precision of their own
    cold: bool = False


def by_backend(machine: Machine, op: str, call: Callable[[str], Call]) -> dict[str, Prepare]:
    """Each of our backends, or why it cannot run."""

    def prepare(backend: str) -> Call:
        try:
            explain(op, torch.empty(0, device=machine.device), backend=backend)
        except ValueError as error:
            raise LeftOut(str(error)) from error
        return call(backend)

    return {backend: partial(prepare, backend) for backend in machine.backends}


def no_gpu(machine: Machine) -> None:
    if machine.device == "cpu":
        raise LeftOut("it needs a GPU, and this is a dry run")


def installed(module: str, package: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise LeftOut(f"it is not installed: pip install {package}")


def part_of(value: Any, queries: int, count: int) -> Any:
    """A filter for the first queries."""
    if isinstance(value, Ragged):
        offsets = value.offsets[: queries + 1]
        return Ragged(value.values[: int(offsets[-1])], offsets)
    return value[:queries] if value.dim() == 2 and value.shape[0] == count else value


def recall(ids: Tensor, truth: Tensor) -> float:
    """The share of the true ids that were found, row by row; rows that are short count as such."""
    hits = total = 0
    for row, true in zip(ids.cpu(), truth.cpu(), strict=True):
        there = true[true >= 0]
        hits += int(torch.isin(there, row.to(torch.int64)).sum())
        total += there.shape[0]
    return hits / max(1, total)


def close(answer: Tensor, truth: Tensor) -> float:
    """The share of the numbers that are within 1e-5 of the largest."""
    near = (answer.float() - truth.float()).abs() <= 1e-5 * truth.abs().max()
    return float(near.float().mean())
