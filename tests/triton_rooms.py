"""The modules of the Triton kernels, imported into the repaired interpreter.

Their operators are called below the public functions, whose dispatch takes Triton on a GPU alone.
"""

from __future__ import annotations

import importlib
from typing import Any

import triton_interpreter
from cases import STORAGES

triton_interpreter.install()
KEPT = [name for name in STORAGES if name != "float64"]


def room(op: str) -> Any:
    """The module with an operator's kernels."""
    return importlib.import_module(f"llmrec_kernels.ops.{op}.triton")
