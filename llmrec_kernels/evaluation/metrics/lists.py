"""What the metrics of lists share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PAD = -1  # fills the tail of a short list


def check_k(matrix: NDArray[np.generic], k: int, argument: str) -> None:
    """Refuse a k below 1, and lists that are shorter."""
    # A narrower matrix would quietly give the metric at a smaller k.
    if k < 1 or matrix.ndim != 2 or matrix.shape[1] < k:
        raise ValueError(
            f"k must be at least 1 and {argument} of shape [U, k or more]; got k={k} and "
            f"{list(matrix.shape)}"
        )
