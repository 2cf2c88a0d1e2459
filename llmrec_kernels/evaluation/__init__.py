"""Offline evaluation: splits without leakage, ranking and rating metrics, and tables of both."""

from llmrec_kernels.evaluation.evaluate import METRICS, compare, evaluate
from llmrec_kernels.evaluation.metrics import (
    PAD,
    Hits,
    coverage,
    hit_rate,
    mae,
    match,
    mrr,
    ndcg,
    precision,
    recall,
    rmse,
)
from llmrec_kernels.evaluation.report import Report
from llmrec_kernels.evaluation.splits import cold_item_split, leave_last_out, ratio_split

__all__ = [
    "METRICS",
    "PAD",
    "Hits",
    "Report",
    "cold_item_split",
    "compare",
    "coverage",
    "evaluate",
    "hit_rate",
    "leave_last_out",
    "mae",
    "match",
    "mrr",
    "ndcg",
    "precision",
    "ratio_split",
    "recall",
    "rmse",
]
