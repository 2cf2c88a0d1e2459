"""Vectors with external ids: add, update, remove, and search exactly, in any number of threads."""

from llmrec_kernels.index.encode import STORAGES
from llmrec_kernels.index.errors import IndexFormatError
from llmrec_kernels.index.index import ItemIndex
from llmrec_kernels.index.snapshot import Snapshot
from llmrec_kernels.index.stats import IndexStats

__all__ = ["STORAGES", "IndexFormatError", "IndexStats", "ItemIndex", "Snapshot"]
