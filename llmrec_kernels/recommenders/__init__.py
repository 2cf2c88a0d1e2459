"""Recommenders: the caller's own user and item ids in, ranked item ids out."""

from llmrec_kernels.recommenders.aligned import AlignedRecommender
from llmrec_kernels.recommenders.als import ALSRecommender
from llmrec_kernels.recommenders.answering import UnsupportedError
from llmrec_kernels.recommenders.base import Recommender
from llmrec_kernels.recommenders.content import ContentRecommender
from llmrec_kernels.recommenders.ease import EASERecommender
from llmrec_kernels.recommenders.features import FeatureEncoder
from llmrec_kernels.recommenders.hybrid import HybridRecommender
from llmrec_kernels.recommenders.item_knn import ItemKNNRecommender
from llmrec_kernels.recommenders.popularity import PopularityRecommender
from llmrec_kernels.recommenders.privacy import GaussianProfile
from llmrec_kernels.recommenders.results import Explanation, Recommendations, SimilarItems
from llmrec_kernels.recommenders.saving import ModelFormatError
from llmrec_kernels.recommenders.sequence import SequenceRecommender
from llmrec_kernels.recommenders.text_ratings import TextRatingRegressor
from llmrec_kernels.recommenders.two_tower import TwoTowerRecommender
from llmrec_kernels.recommenders.user_knn import UserKNNRecommender

__all__ = [
    "ALSRecommender",
    "AlignedRecommender",
    "ContentRecommender",
    "EASERecommender",
    "Explanation",
    "FeatureEncoder",
    "GaussianProfile",
    "HybridRecommender",
    "ItemKNNRecommender",
    "ModelFormatError",
    "PopularityRecommender",
    "Recommendations",
    "Recommender",
    "SequenceRecommender",
    "SimilarItems",
    "TextRatingRegressor",
    "TwoTowerRecommender",
    "UnsupportedError",
    "UserKNNRecommender",
]
