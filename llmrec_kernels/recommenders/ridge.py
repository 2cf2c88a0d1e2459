"""The linear map that foretells one thing by another: ridge regression, with a free shift.

Source: A. Hoerl and R. Kennard, Ridge regression: biased estimation for nonorthogonal problems,
Technometrics 12 (1970).
"""

from __future__ import annotations

import torch
from torch import Tensor


def ridge(
    features: Tensor, targets: Tensor, known: Tensor, regularization: float
) -> tuple[Tensor, Tensor]:
    """The linear map from features to targets of known items: slope [d, t] and shift [t]."""
    if not known.any():
        return features.new_zeros(features.shape[1], targets.shape[1]), targets.new_zeros(
            targets.shape[1]
        )
    means = features[known].mean(dim=0), targets[known].mean(dim=0)
    centred = features[known] - means[0]
    square = centred.T @ centred
    square.diagonal().add_(regularization)
    slope = torch.linalg.solve(square, centred.T @ (targets[known] - means[1]))
    return slope, means[1] - means[0] @ slope
