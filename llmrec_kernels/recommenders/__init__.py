"""Recommenders: the caller's own user and item ids in, ranked item ids out."""

from llmrec_kernels.recommenders.base import Recommender, UnsupportedError
from llmrec_kernels.recommenders.content import ContentRecommender
from llmrec_kernels.recommenders.popularity import PopularityRecommender
from llmrec_kernels.recommenders.results import Explanation, Recommendations, SimilarItems

__all__ = [
    "ContentRecommender",
    "Explanation",
    "PopularityRecommender",
    "Recommendations",
    "Recommender",
    "SimilarItems",
    "UnsupportedError",
]
