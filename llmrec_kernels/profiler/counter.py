"""Counts the work of any torch code, operator by operator, while it runs."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from llmrec_kernels.cost import Cost
from llmrec_kernels.profiler import formulas


@dataclass
class OpCost:
    """The calls of one operator.

    Parameters
    ----------
    calls
        How often it ran.
    cost
        The work of all calls.
    seconds
        Wall-clock time of all calls. A GPU runs behind the caller's back: with
        `CostCounter(details=True)` each call is waited for, and else this is the time to launch.
    counted
        Whether its operations have a formula, or are in proportion to its elements, which by
        PyTorch's convention count none.
    kind
        Arithmetic of most operations, such as "float32" or "int8".
    rows, unique_rows
        Rows that a lookup names, and how many of a call's differ, added up; None where the
        operator is no lookup, or without `details`.
    """

    calls: int = 0
    cost: Cost = field(default_factory=Cost)
    seconds: float = 0.0
    counted: bool = True
    kind: str = "float32"
    rows: int | None = None
    unique_rows: int | None = None

    def add(self, other: Cost, seconds: float) -> None:
        """Count one more call."""
        self.calls += 1
        self.cost = self.cost + other
        self.seconds += seconds


class CostCounter(TorchDispatchMode):
    """Counts operations, bytes and time of the torch operators that run inside it.

    What `torch.compile` made runs uncompiled inside, because compiled code calls no operators that
    could be counted; `inference_mode` is counted as any other. Operators of other threads are not
    seen.

    Parameters
    ----------
    details
        Count also what takes time of its own: distinct rows of lookups, and on a GPU the time until
        each operator is done.

    Examples
    --------
    >>> import torch
    >>> from llmrec_kernels import cosine_topk
    >>> with CostCounter() as counter:
    ...     _ = cosine_topk(torch.ones(2, 8), torch.eye(8), k=3)
    >>> counter.by_op["llmrec.cosine_topk"].cost.flops == 2 * 2 * 8 * 8
    True
    >>> counter.total.flops
    256
    >>> counter.uncounted
    {}
    """

    supports_higher_order_operators = True

    def __init__(self, *, details: bool = False) -> None:
        super().__init__()
        self.details = details
        self.by_op: dict[str, OpCost] = {}
        self._stances: list[contextlib.AbstractContextManager[Any]] = []

    def __enter__(self) -> CostCounter:
        # Compiled code calls no operators. The compiler would step aside by itself, but would never
        # try again to compile what it met here first.
        compiler = "torch._dynamo" in sys.modules
        stance = torch.compiler.set_stance("force_eager") if compiler else contextlib.nullcontext()
        self._stances.append(stance)
        stance.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        try:
            super().__exit__(*raised)
        finally:
            self._stances.pop().__exit__(*raised)

    @property
    def total(self) -> Cost:
        """The work of everything that ran."""
        return sum((entry.cost for entry in self.by_op.values()), Cost())

    @property
    def seconds(self) -> float:
        """Time inside operators; what Python spends between them is not in it."""
        return sum(entry.seconds for entry in self.by_op.values())

    @property
    def uncounted(self) -> dict[str, int]:
        """Calls by operator whose operations have no formula: `total.flops` is without them."""
        return {name: entry.calls for name, entry in self.by_op.items() if not entry.counted}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):
            return self._uncounted(func, args, kwargs)
        if func.namespace in ("prim", "profiler"):  # what a tensor is, and marks for torch.profiler
            return func(*args, **kwargs)
        rule = formulas.rule_of(func)
        if rule.composite:
            # Inference mode hands composite operators over whole: count their parts.
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        start = time.perf_counter()
        out = func(*args, **kwargs)
        if self.details and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        entry = self._entry(rule, rule.kind(args))
        entry.add(rule.cost(args, kwargs, out), seconds)
        if self.details and rule.lookup is not None:
            _count_rows(entry, args[rule.lookup])
        return out

    def _entry(self, rule: formulas.Rule, kind: str) -> OpCost:
        """The operator's, or one of its own for arithmetic of another kind than its first."""
        entry = self.by_op.setdefault(rule.name, OpCost(counted=rule.counted, kind=kind))
        if entry.kind == kind:
            return entry
        other = OpCost(counted=rule.counted, kind=kind)
        return self.by_op.setdefault(f"{rule.name} ({kind})", other)

    def _uncounted(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What takes functions, such as torch.cond: it runs, and what is inside is not seen."""
        start = time.perf_counter()
        out = func(*args, **kwargs)
        entry = self.by_op.setdefault(str(func), OpCost(counted=False))
        entry.add(Cost(), time.perf_counter() - start)
        return out

    def __str__(self) -> str:
        lines = [f"{'operator':32}{'calls':>8}{'seconds':>10}{'GFLOP':>12}{'MB':>12}"]
        ordered = sorted(self.by_op.items(), key=lambda item: -item[1].seconds)
        for name, entry in [*ordered, ("total", OpCost(self._calls, self.total, self.seconds))]:
            flops = f"{entry.cost.flops / 1e9:.3f}" if entry.counted else "uncounted"
            lines.append(
                f"{name:32}{entry.calls:>8}{entry.seconds:>10.3f}"
                f"{flops:>12}{entry.cost.bytes / 1e6:>12.1f}"
            )
        return "\n".join(lines)

    @property
    def _calls(self) -> int:
        return sum(entry.calls for entry in self.by_op.values())


def _count_rows(entry: OpCost, ids: Tensor) -> None:
    entry.rows = (entry.rows or 0) + ids.numel()
    entry.unique_rows = (entry.unique_rows or 0) + ids.unique().numel()
