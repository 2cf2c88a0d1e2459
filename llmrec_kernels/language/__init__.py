"""Language models that write, explain and rank, from given facts only.

Importing this room imports torch and no transformers.
"""

from llmrec_kernels.language.describer import ItemDescriber
from llmrec_kernels.language.explainer import Explainer
from llmrec_kernels.language.facts import unsupported
from llmrec_kernels.language.models import (
    LanguageModel,
    WrongModelError,
    bundled_language_model_path,
)
from llmrec_kernels.language.paraphraser import Paraphraser
from llmrec_kernels.language.reranker import LMReranker
from llmrec_kernels.language.summarizer import Summarizer, SummarizingEncoder
from llmrec_kernels.language.writing import Writing

__all__ = [
    "Explainer",
    "ItemDescriber",
    "LMReranker",
    "LanguageModel",
    "Paraphraser",
    "Summarizer",
    "SummarizingEncoder",
    "Writing",
    "WrongModelError",
    "bundled_language_model_path",
    "unsupported",
]
