"""Metrics, vectorised over users: of rankings, of ratings, and of what is shown to whom."""

from llmrec_kernels.evaluation.metrics.beyond import (
    POPULARITY_GROUPS,
    coverage,
    exposure,
    gini,
    intra_list_diversity,
    novelty,
    popularity_groups,
)
from llmrec_kernels.evaluation.metrics.lists import PAD
from llmrec_kernels.evaluation.metrics.ranking import (
    Hits,
    auc,
    average_precision,
    hit_rate,
    match,
    mrr,
    ndcg,
    precision,
    recall,
)
from llmrec_kernels.evaluation.metrics.rating import mae, rmse

__all__ = [
    "PAD",
    "POPULARITY_GROUPS",
    "Hits",
    "auc",
    "average_precision",
    "coverage",
    "exposure",
    "gini",
    "hit_rate",
    "intra_list_diversity",
    "mae",
    "match",
    "mrr",
    "ndcg",
    "novelty",
    "popularity_groups",
    "precision",
    "recall",
    "rmse",
]
