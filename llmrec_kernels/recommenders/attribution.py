"""What each input of a network gives to its score: integrated gradients.

Along the straight line from a baseline x' to the inputs x, the gradient times the way is added up:

    share_k = Σ_d (x_kd - x'_kd) ∫ ∂F/∂x_kd (x' + a (x - x')) da,  a from 0 to 1

The shares of all inputs sum to F(x) - F(x'): nothing of the score is left over. The integral is a
sum over Gauss-Legendre points, of which there are twice as many until that holds.

Source: M. Sundararajan, A. Taly and Q. Yan, Axiomatic attribution for deep networks, ICML 2017.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TOLERANCE = 1e-5  # of the score, or of 1 where that is larger
_MOST_STEPS = 4096
_AT_ONCE = 256  # points that are scored together


def integrated_gradients(
    score: Callable[[Tensor], Tensor],
    inputs: Tensor,
    baseline: Tensor | None = None,
    steps: int = 64,
) -> tuple[Tensor, float]:
    """Share a score out among the vectors that it is a function of.

    Parameters
    ----------
    score : callable
        Gives scores, [b], of inputs, [b, n, d], each by itself; differentiable, without chance.
    inputs : Tensor, [n, d]
        Best in float64: the sum of the shares is as exact as the score.
    baseline : Tensor, [n, d] or [d], optional
        Inputs that say nothing; by default zeros.
    steps : int
        Points of the line to begin with.

    Returns
    -------
    shares : Tensor, [n] float64
        Of each vector, its dimensions together.
    baseline_score : float
        The score of the baseline; with the shares it is the score, within 1e-5 of its size, or
        1e-5 where it is smaller than 1.

    Raises
    ------
    ImportError
        If there is no `captum`.
    ArithmeticError
        If 4,096 points do not do: the score leaps somewhere on the line.

    Examples
    --------
    >>> inputs = torch.tensor([[1.0, 2.0], [3.0, 0.0]], dtype=torch.float64)
    >>> shares, nothing = integrated_gradients(lambda x: x[:, 0].prod(1) + x[:, 1].sum(1), inputs)
    >>> [round(share, 6) for share in shares.tolist()], nothing
    ([2.0, 3.0], 0.0)
    """
    try:
        from captum.attr import IntegratedGradients
    except ImportError as error:
        raise ImportError(
            "explaining a network needs captum, which is not installed: "
            "pip install 'llmrec-kernels[attribution]'"
        ) from error
    nothing = torch.zeros_like(inputs) if baseline is None else baseline.expand_as(inputs)
    ends = torch.stack([inputs, nothing])
    with torch.no_grad():
        whole, without = score(ends).double().tolist()
    method = IntegratedGradients(score, multiply_by_inputs=True)
    while steps <= _MOST_STEPS:
        parts = method.attribute(
            inputs[None], nothing[None], n_steps=steps, internal_batch_size=min(steps, _AT_ONCE)
        )
        shares = parts[0].detach().double().sum(dim=1)
        left = whole - without - float(shares.sum())
        if abs(left) <= TOLERANCE * max(1.0, abs(whole)):
            return shares, without
        steps *= 2
    raise ArithmeticError(
        f"the shares of {len(inputs)} inputs miss the score {whole:g} by {left:g} after "
        f"{steps // 2} points; expected a score that is smooth between baseline and inputs"
    )
