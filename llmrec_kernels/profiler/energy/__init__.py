"""The energy that code takes: joules of CPU, memory and GPU, each with its source and interval."""

from llmrec_kernels.profiler.energy.monitor import EnergyMonitor
from llmrec_kernels.profiler.energy.reading import Reading

__all__ = ["EnergyMonitor", "Reading"]
