"""The `llmrec` operator library: its schemas live in Python, its compiled kernels in `_C`.

The extension is loaded once, when this module is first imported. Why it could not be loaded
is kept for `llmrec-kernels info` and for the warning that the first slower call gives.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

import torch

MINIMUM_TORCH = (2, 11)
EXTENSION_MODULE = "llmrec_kernels._C"

library = torch.library.Library("llmrec", "FRAGMENT")

_REQUIRE = "require"


def _too_old() -> str | None:
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version >= MINIMUM_TORCH:
        return None
    wanted = ".".join(map(str, MINIMUM_TORCH))
    return (
        f"torch {torch.__version__} is older than {wanted}, the oldest that the extension loads in"
    )


def _load() -> tuple[Any, str | None]:
    choice = os.environ.get("LLMREC_EXTENSION", "auto")
    if choice not in ("auto", "0", _REQUIRE):
        raise ValueError(f"LLMREC_EXTENSION is one of auto, 0, require; got {choice!r}")
    if choice == "0":
        return None, "LLMREC_EXTENSION=0 switches it off"
    error = _too_old()
    if error is None and importlib.util.find_spec(EXTENSION_MODULE) is None:
        error = "it was not built when the package was installed (no torch or no C++ compiler then)"
    if error is None:
        try:
            return importlib.import_module(EXTENSION_MODULE), None
        except ImportError as failure:
            error = f"it failed to load: {failure.__cause__ or failure}"
    if choice == _REQUIRE:
        raise ImportError(f"LLMREC_EXTENSION=require, but the extension is missing: {error}")
    return None, error


extension, load_error = _load()


def switched_off() -> bool:
    """Whether the user asked for no extension, so that its absence is no surprise."""
    return os.environ.get("LLMREC_EXTENSION") == "0"


def build_info() -> dict[str, Any]:
    """What the extension was built with and which kernels it holds; empty without it."""
    return {} if extension is None else dict(extension.build_info())


def cuda_problem(index: int) -> str:
    """Why the CUDA kernels that were built cannot run on a GPU; empty where they can."""
    return str(extension.cuda_problem(index))
