"""A stand-in for hardware that is not there: what the tests of a GPU use of torch.cuda.

With LLMREC_GPU_DRY_RUN=1 `pytest -m gpu` runs every test on the CPU, with the CPU's backends, so
that none of them fails on a slip of the pen the day that a GPU is there. It proves nothing about a
GPU: streams, events and memory are pretended. Without the variable this module hands on torch.cuda.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llmrec_kernels import backends, explain

DRY_RUN = os.environ.get("LLMREC_GPU_DRY_RUN") == "1"
DEVICE = "cpu" if DRY_RUN else "cuda"
ELSEWHERE = "meta" if DRY_RUN else "cpu"  # a device that is not DEVICE
BACKENDS = ("cpu", "reference") if DRY_RUN else ("cuda", "triton", "nvrtc")
LARGE = 2**20 if DRY_RUN else 2**31  # elements that a 32-bit offset cannot count

_MEMORY = 2**40  # bytes that the stand-in says it has
_NEEDED = 2**27  # and those without which no operator of ours runs

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not DRY_RUN and not torch.cuda.is_available(), reason="torch finds no CUDA device"
    ),
]


def there(value: Any) -> Any:
    """A tensor, a table, or lists on the GPU; None stays."""
    return None if value is None else value.to(DEVICE)


def require(backend: str, *ops: str) -> None:
    """Skip, with the reasons that a user would see, where the backend cannot run an operator."""
    try:
        for op in ops:
            explain(op, torch.empty(0, device=DEVICE), backend=backend)
    except ValueError as error:
        pytest.skip(str(error))
    if backend == "triton" and os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("Triton's interpreter is on in this process; run pytest -m gpu")


def operator(op: str, backend: str) -> Any:
    """The torch operator of a backend: those of Triton and NVRTC exist once they are selected."""
    return getattr(torch.ops.llmrec, backends.select(op, there(torch.empty(0)).device, backend))


def spoil(vectors: Tensor, row: int, value: float) -> None:
    """Put NaN or Inf into a row: no look at contents refuses it on a GPU, but one does on a CPU."""
    if DRY_RUN:
        vectors[row] = 0
    else:
        vectors[row, vectors.shape[1] // 2] = value


def unchecked(entries: Sequence[int], size: int) -> Tensor:
    """Indices that may lie outside 0 .. size - 1, and that a CPU refuses."""
    allowed = [min(max(entry, 0), size - 1) for entry in entries] if DRY_RUN else list(entries)
    return torch.tensor(allowed, device=DEVICE)


def unchecked_offsets(entries: Sequence[int], count: int) -> Tensor:
    """Offsets that may be no such thing, and that a CPU refuses."""
    inside = sorted(min(max(entry, 0), count) for entry in entries[1:-1])
    return torch.tensor([0, *inside, count] if DRY_RUN else list(entries), device=DEVICE)


class Recorder(TorchDispatchMode):
    """Keeps each call that torch dispatches."""

    def __init__(self, calls: list[tuple[Any, ...]]) -> None:
        super().__init__()
        self.calls = calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result


class Graph:
    """Does again what was recorded, into the same tensors."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def replay(self) -> None:
        for function, arguments, options, results in self.calls:
            again = function(*arguments, **options)
            for held, new in zip(tree_leaves(results), tree_leaves(again), strict=True):
                if isinstance(held, Tensor) and held is not new:
                    held.copy_(new)


class NoMemory(TorchDispatchMode):
    """No operator of ours finds memory."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "llmrec":
            raise torch.OutOfMemoryError("the stand-in for a GPU was told to have no memory")
        return func(*args, **(kwargs or {}))


class Stream:
    """All work is done when a call returns, so that there is nothing to wait for."""

    def __init__(self, gpu: StandIn) -> None:
        self.synchronize = gpu.synchronize

    def wait_stream(self, stream: Any) -> None:
        """Nothing to wait for."""


class Event:
    """Happened, unless the stand-in pretends to sleep."""

    def __init__(self, gpu: StandIn) -> None:
        self._gpu = gpu

    def record(self) -> None:
        """Nothing to note."""

    def query(self) -> bool:
        return not self._gpu.sleeps


class StandIn:
    """As much of torch.cuda as the tests use; each name is one of torch.cuda's."""

    def __init__(self) -> None:
        self.sleeps = False
        self._caches = True
        self._starved: NoMemory | None = None
        self.CUDAGraph: Callable[[], Graph] = Graph

    def Stream(self) -> Stream:  # noqa: N802 - as torch.cuda spells it
        return Stream(self)

    def Event(self) -> Event:  # noqa: N802
        return Event(self)

    def current_stream(self) -> Stream:
        return Stream(self)

    def stream(self, stream: Any) -> AbstractContextManager[None]:
        return nullcontext()

    def device(self, index: int) -> AbstractContextManager[None]:
        return nullcontext()

    def device_count(self) -> int:
        return 2

    @contextmanager
    def graph(self, graph: Graph) -> Iterator[None]:
        with Recorder(graph.calls):
            yield

    def _sleep(self, cycles: int) -> None:
        self.sleeps = True

    def synchronize(self) -> None:
        self.sleeps = False

    def set_sync_debug_mode(self, mode: str) -> None:
        assert mode in ("default", "warn", "error")

    def empty_cache(self) -> None:
        self._caches = False

    def memory_reserved(self) -> int:
        return 0

    def mem_get_info(self) -> tuple[int, int]:
        """Nothing is free unless the cache was emptied for this very look."""
        free = 0 if self._caches else _MEMORY
        self._caches = True
        return free, _MEMORY

    def set_per_process_memory_fraction(self, fraction: float) -> None:
        if self._starved is not None:
            self._starved.__exit__(None, None, None)
            self._starved = None
        if fraction * _MEMORY < _NEEDED:
            self._starved = NoMemory()
            self._starved.__enter__()


cuda: Any = StandIn() if DRY_RUN else torch.cuda


def device_at(index: int) -> torch.device:
    """The GPU of this number."""
    return torch.device("cpu") if DRY_RUN else torch.device("cuda", index)
