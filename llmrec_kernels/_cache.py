"""Where the package keeps what it would else have to make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """`$LLMREC_CACHE/<name>`, else a folder of the user's cache; it need not be there yet.

    Examples
    --------
    >>> cache_folder("roofs").name
    'roofs'
    """
    root = os.environ.get("LLMREC_CACHE")
    return (Path(root) if root else Path("~/.cache/llmrec_kernels").expanduser()) / name
