"""What an operator call costs, from its real arguments: the registry that each op enters.

A formula counts *compulsory* work: the operations of the definition and the bytes that must
move at least once. What a kernel really moves is measured elsewhere.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cost:
    """Work of one call, or of many added up.

    Parameters
    ----------
    flops
        Floating-point operations; a multiply-add counts two.
    int_ops
        Integer operations, counted likewise.
    bytes_read, bytes_written
        Compulsory memory traffic in bytes.

    Examples
    --------
    >>> Cost(flops=2) + Cost(flops=3, bytes_read=8)
    Cost(flops=5, int_ops=0, bytes_read=8, bytes_written=0)
    """

    flops: int = 0
    int_ops: int = 0
    bytes_read: int = 0
    bytes_written: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.flops + other.flops,
            self.int_ops + other.int_ops,
            self.bytes_read + other.bytes_read,
            self.bytes_written + other.bytes_written,
        )

    @property
    def bytes(self) -> int:
        """Bytes read and written."""
        return self.bytes_read + self.bytes_written


@dataclass(frozen=True)
class Formula:
    """What a call of an operator costs, and under which roof.

    Parameters
    ----------
    count
        `count(*args, out, **kwargs) -> Cost`.
    kind
        Arithmetic that the fastest kernel does most of its operations in: its peak is the roof.
    lookup
        The place of the argument that names rows, if there is one.
    """

    count: Callable[..., Cost]
    kind: str = "float32"
    lookup: int | None = None


_FLOP_COUNTER = "torch.utils.flop_counter"
_formulas: dict[Any, Formula] = {}


def register(op: Any, formula: Formula) -> None:
    """Enter the formula of a torch operator packet, such as `torch.ops.llmrec.pack`.

    The floating-point operations are entered with `torch.utils.flop_counter` too, so that
    PyTorch's own `FlopCounterMode` counts the op.
    """
    _formulas[op] = formula
    if _FLOP_COUNTER in sys.modules:
        _enter(op, formula)


def _enter(op: Any, formula: Formula) -> None:
    def flops(*args: Any, out_val: Any = None, **kwargs: Any) -> int:
        return formula.count(*args, out=out_val, **kwargs).flops

    sys.modules[_FLOP_COUNTER].register_flop_formula(op, get_raw=True)(flops)


class _Follower(importlib.abc.MetaPathFinder):
    """Enters the formulas with torch's counter when that is imported: it imports all of Triton."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _FLOP_COUNTER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def load_and_enter(module: ModuleType) -> None:
            load(module)
            for op, known in _formulas.items():
                _enter(op, known)

        spec.loader.exec_module = load_and_enter  # type: ignore[method-assign]
        return spec


if _FLOP_COUNTER not in sys.modules:
    sys.meta_path.insert(0, _Follower())


def formula(op: Any) -> Formula | None:
    """The registered formula of an operator packet, if there is one."""
    return _formulas.get(op)


def registered() -> int:
    """How many formulas there are: more than before means that one was registered since."""
    return len(_formulas)


def nbytes(*tensors: Tensor | None) -> int:
    """Bytes that the elements of these tensors take; None takes none.

    Elements that a dimension repeats (stride 0) are there once.

    Examples
    --------
    >>> nbytes(torch.ones(3, 4), None, torch.ones(1, 4).expand(100, 4))
    64
    """
    return sum([_nbytes(tensor) for tensor in tensors if tensor is not None])


def _nbytes(tensor: Tensor) -> int:
    if tensor.layout is not torch.strided:  # sparse: its indices are few beside its values
        stored = tensor._nnz() if tensor.is_sparse else tensor.values().numel()
        return int(stored) * tensor.element_size()
    if tensor.is_contiguous():
        return tensor.nbytes
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    count = math.prod(size for size, stride in sizes if stride != 0 or size == 0)
    return count * tensor.element_size()


def nbytes_of(out: Tensor | tuple[Tensor, ...]) -> int:
    """Bytes of an operator's result, one tensor or several."""
    return nbytes(out) if isinstance(out, torch.Tensor) else nbytes(*out)
