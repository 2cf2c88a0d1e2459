"""Ratings and items in one frame format: from MovieLens, or from your own CSV files."""

from llmrec_kernels.datasets.frames import Dataset, item_text
from llmrec_kernels.datasets.locate import DatasetNotFoundError
from llmrec_kernels.datasets.movielens import (
    load,
    movielens_100k,
    movielens_100k_split,
    movielens_latest_small,
)
from llmrec_kernels.datasets.tables import read_dataset, read_items, read_ratings

__all__ = [
    "Dataset",
    "DatasetNotFoundError",
    "item_text",
    "load",
    "movielens_100k",
    "movielens_100k_split",
    "movielens_latest_small",
    "read_dataset",
    "read_items",
    "read_ratings",
]
