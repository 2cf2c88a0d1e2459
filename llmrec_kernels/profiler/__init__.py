"""What code costs: operations, bytes and time by operator."""

from llmrec_kernels.profiler.counter import CostCounter, OpCost

__all__ = ["CostCounter", "OpCost"]
