"""Counts the work of any torch code, operator by operator.

Our operators are counted by their registered formulas (`llmrec_kernels.cost`). Everything else
that runs, encoders and training among it, is counted by PyTorch's own FLOP formulas, and its
bytes as what each operator must read and write: its arguments and its results. Views move nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from llmrec_kernels import cost
from llmrec_kernels.cost import Cost


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
        Wall-clock time of all calls on the CPU. A GPU runs behind the caller's back, so this is
        then the time to launch and not to finish.
    """

    calls: int = 0
    cost: Cost = field(default_factory=Cost)
    seconds: float = 0.0

    def add(self, other: Cost, seconds: float) -> None:
        """Count one more call."""
        self.calls += 1
        self.cost = self.cost + other
        self.seconds += seconds


class CostCounter(TorchDispatchMode):
    """Counts operations, bytes and time of the torch operators that run inside it.

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
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_op: dict[str, OpCost] = {}

    @property
    def total(self) -> Cost:
        """The work of everything that ran."""
        return sum((entry.cost for entry in self.by_op.values()), Cost())

    @property
    def seconds(self) -> float:
        """Time inside operators; what Python spends between them is not in it."""
        return sum(entry.seconds for entry in self.by_op.values())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if cost.formula(func._overloadpacket) is None and func._overloadpacket not in _FORMULAS:
            # Inference mode hands composite operators over whole: count their parts.
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        start = time.perf_counter()
        out = func(*args, **kwargs)
        seconds = time.perf_counter() - start
        # A backend that is an operator of its own counts under the operator's one name.
        name = str(func._overloadpacket).removesuffix("_reference")
        self.by_op.setdefault(name, OpCost()).add(_cost_of(func, args, kwargs, out), seconds)
        return out

    def __str__(self) -> str:
        lines = [f"{'operator':32}{'calls':>8}{'seconds':>10}{'GFLOP':>12}{'MB':>12}"]
        ordered = sorted(self.by_op.items(), key=lambda item: -item[1].seconds)
        for name, entry in [*ordered, ("total", OpCost(self._calls, self.total, self.seconds))]:
            lines.append(
                f"{name:32}{entry.calls:>8}{entry.seconds:>10.3f}"
                f"{entry.cost.flops / 1e9:>12.3f}{entry.cost.bytes / 1e6:>12.1f}"
            )
        return "\n".join(lines)

    @property
    def _calls(self) -> int:
        return sum(entry.calls for entry in self.by_op.values())


def _attention_flops(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **kwargs: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


# torch's registry has the attention kernels of GPUs and not the CPU's.
_FORMULAS = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
}


def _cost_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Cost:
    packet = func._overloadpacket
    formula = cost.formula(packet)
    if formula is not None:
        return formula(*args, out=out, **kwargs)
    count = _FORMULAS.get(packet)
    flops = int(count(*args, **kwargs, out_val=out)) if count is not None else 0
    if func.is_view:
        return Cost(flops=flops)
    return Cost(
        flops=flops,
        bytes_read=_nbytes((args, kwargs)),
        bytes_written=_nbytes(out),
    )


def _nbytes(values: Any) -> int:
    return cost.nbytes(*(leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)))
