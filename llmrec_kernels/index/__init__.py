"""Vectors with external ids: add, update, remove, and search exactly."""

from llmrec_kernels.index.index import STORAGES, ItemIndex

__all__ = ["STORAGES", "ItemIndex"]
