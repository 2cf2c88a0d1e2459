"""What a recommendation costs: operations, bytes, share of the roofline, joules, CO2e and money."""

from llmrec_kernels.profiler.compare import Comparison, compare
from llmrec_kernels.profiler.cost_model import CostModel
from llmrec_kernels.profiler.counter import CostCounter, OpCost
from llmrec_kernels.profiler.energy import EnergyMonitor
from llmrec_kernels.profiler.figures import Figure
from llmrec_kernels.profiler.files import read
from llmrec_kernels.profiler.predict import predict
from llmrec_kernels.profiler.profile import profile
from llmrec_kernels.profiler.report import Bench, Prediction, Report
from llmrec_kernels.profiler.roofs import Roofs, roofs

__all__ = [
    "Bench",
    "Comparison",
    "CostCounter",
    "CostModel",
    "EnergyMonitor",
    "Figure",
    "OpCost",
    "Prediction",
    "Report",
    "Roofs",
    "compare",
    "predict",
    "profile",
    "read",
    "roofs",
]
