"""What each input of a network gives to its score: integrated gradients.

Along the straight line from a baseline x' to the inputs x, the gradient times the way is added up:

    share_k = Σ_d (x_kd - x'_kd) ∫ ∂F/∂x_kd (x' + a (x - x')) da,  a from 0 to 1

The shares of all inputs sum to F(x) - F(x'): nothing of the score is left over. That tells whether
a sum over points is close to the integral: where it is not, the line is halved, and each half gets
as many points. Layers that scale their input to one length turn fast near zeros.

Source: M. Sundararajan, A. Taly and Q. Yan, Axiomatic attribution for deep networks, ICML 2017.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TOLERANCE = 1e-6  # of the score, or of 1 where that is larger
_PART = 1 / 64  # of it for each piece of the line, of which there are seldom so many
_SHORTEST = 2.0**-24  # piece of the line


def integrated_gradients(
    score: Callable[[Tensor], Tensor],
    inputs: Tensor,
    baseline: Tensor | None = None,
    steps: int = 32,
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
        Points on the line, and on each piece of it where it is cut.

    Returns
    -------
    shares : Tensor, [n] float64
        Of each vector, its dimensions together.
    baseline_score : float
        The score of the baseline; with the shares it is the score, within 1e-6 of its size, or
        1e-6 where it is smaller than 1.

    Raises
    ------
    ImportError
        If there is no `captum`.
    ArithmeticError
        If the score leaps somewhere on the line.

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
    method, way = IntegratedGradients(score), inputs - nothing

    def scored(at: float) -> float:
        with torch.no_grad():
            return float(score((nothing + at * way)[None])[0])

    without, whole = scored(0.0), scored(1.0)
    allowed = TOLERANCE * max(1.0, abs(whole))
    shares = torch.zeros(len(inputs), dtype=torch.float64)
    pieces = [(0.0, 1.0, without, whole)]
    while pieces:
        begin, end, before, after = pieces.pop()
        ends = nothing + end * way, nothing + begin * way
        parts = method.attribute(*(one[None] for one in ends), n_steps=steps)
        found = parts[0].detach().double().sum(dim=1)
        left = after - before - float(found.sum())
        if abs(left) <= allowed * _PART:
            shares += found
        elif end - begin > _SHORTEST:
            middle = (begin + end) / 2
            between = scored(middle)
            pieces += [(begin, middle, before, between), (middle, end, between, after)]
        else:
            raise ArithmeticError(
                f"the score leaps by {left:g} at {begin:.6f} of the way from the baseline to the "
                f"{len(inputs)} inputs; expected one that is smooth"
            )
    return shares, without
