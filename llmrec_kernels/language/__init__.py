"""Language models that write, explain and rank, from given facts only.

Importing this room imports torch and no transformers.
"""

from llmrec_kernels.language.models import (
    LanguageModel,
    WrongModelError,
    bundled_language_model_path,
)
from llmrec_kernels.language.reranker import LMReranker

__all__ = ["LMReranker", "LanguageModel", "WrongModelError", "bundled_language_model_path"]
