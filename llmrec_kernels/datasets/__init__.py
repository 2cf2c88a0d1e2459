"""Events, items and users in one frame format: public data sets, or your own CSV and Parquet."""

from llmrec_kernels.datasets.catalog import load
from llmrec_kernels.datasets.frames import Dataset, item_text
from llmrec_kernels.datasets.locate import DatasetNotFoundError
from llmrec_kernels.datasets.movielens import (
    movielens_100k,
    movielens_100k_split,
    movielens_latest_small,
)
from llmrec_kernels.datasets.online_retail import online_retail
from llmrec_kernels.datasets.tables import read_dataset, read_items, read_ratings, read_users

__all__ = [
    "Dataset",
    "DatasetNotFoundError",
    "item_text",
    "load",
    "movielens_100k",
    "movielens_100k_split",
    "movielens_latest_small",
    "online_retail",
    "read_dataset",
    "read_items",
    "read_ratings",
    "read_users",
]
