"""Studies of the recommenders on public data: what `llmrec-kernels evaluate` runs and prints."""

from llmrec_kernels.studies.study import Picture, Study, Table

__all__ = ["Picture", "Study", "Table"]
