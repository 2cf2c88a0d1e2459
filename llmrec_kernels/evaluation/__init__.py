"""Offline evaluation: splits without leakage, ranking and rating metrics, and tables of both.

- Splits: `leave_last_out`, `ratio_split`, `time_split`, `random_split`, `k_fold`,
  `cold_item_split`, `cold_user_split`.
- `evaluate` a recommender, `compare` several, `evaluate_ratings` of a model that predicts them, and
  `prequential` for one that learns as it goes. Each gives a report whose metrics have bootstrap
  intervals; `compare_paired` compares two reports user by user, and `pool` puts the reports of
  several seeds or folds together.
- The metrics by themselves, as functions of arrays.
"""

from llmrec_kernels.evaluation.compare import compare
from llmrec_kernels.evaluation.evaluate import DEFAULT_METRICS, METRICS, evaluate
from llmrec_kernels.evaluation.groups import Gap
from llmrec_kernels.evaluation.intervals import Interval, bootstrap_interval
from llmrec_kernels.evaluation.metrics import (
    PAD,
    POPULARITY_GROUPS,
    Hits,
    auc,
    average_precision,
    coverage,
    exposure,
    gini,
    hit_rate,
    intra_list_diversity,
    mae,
    match,
    mrr,
    ndcg,
    novelty,
    popularity_groups,
    precision,
    recall,
    rmse,
)
from llmrec_kernels.evaluation.paired import PairedComparison, compare_paired
from llmrec_kernels.evaluation.pool import Pooled, pool
from llmrec_kernels.evaluation.prequential import prequential
from llmrec_kernels.evaluation.ratings import RatingReport, evaluate_ratings
from llmrec_kernels.evaluation.replayed import PrequentialResult
from llmrec_kernels.evaluation.report import Report
from llmrec_kernels.evaluation.splits import (
    cold_item_split,
    cold_user_split,
    k_fold,
    leave_last_out,
    random_split,
    ratio_split,
    time_split,
)

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "PAD",
    "POPULARITY_GROUPS",
    "Gap",
    "Hits",
    "Interval",
    "PairedComparison",
    "Pooled",
    "PrequentialResult",
    "RatingReport",
    "Report",
    "auc",
    "average_precision",
    "bootstrap_interval",
    "cold_item_split",
    "cold_user_split",
    "compare",
    "compare_paired",
    "coverage",
    "evaluate",
    "evaluate_ratings",
    "exposure",
    "gini",
    "hit_rate",
    "intra_list_diversity",
    "k_fold",
    "leave_last_out",
    "mae",
    "match",
    "mrr",
    "ndcg",
    "novelty",
    "pool",
    "popularity_groups",
    "precision",
    "prequential",
    "random_split",
    "ratio_split",
    "recall",
    "rmse",
    "time_split",
]
