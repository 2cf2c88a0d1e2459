"""The reference score: one number for a query and an item, the same bits on every machine.

Float64 over eight fixed lanes, rounded once. Lane `j` adds the products of elements `j`,
`j + 8`, `j + 16`, ... in that order; the lanes are then added in the tree 4, 2, 1. A product of
two float32 numbers is exact in float64, so that a fused multiply-add changes nothing, and a
float64 sum in a fixed order does not depend on the width of the machine's registers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LANES = 8


def lane_dot(a: Tensor, b: Tensor) -> Tensor:
    """The dot products of paired rows, [n, d] float32 twice -> [n] float64.

    Examples
    --------
    >>> lane_dot(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[4.0, 5.0, 6.0]]))
    tensor([32.], dtype=torch.float64)
    """
    products = a.double() * b.double()
    lanes = products.new_zeros(products.shape[0], LANES)
    for start in range(0, products.shape[1], LANES):
        part = products[:, start : start + LANES]
        lanes[:, : part.shape[1]] += part
    lanes = lanes[:, :4] + lanes[:, 4:]
    lanes = lanes[:, :2] + lanes[:, 2:]
    return lanes[:, 0] + lanes[:, 1]


def norms(rows: Tensor) -> Tensor:
    """The Euclidean norm of each row, [n, d] float32 -> [n] float64.

    It is finite exactly where the row is: a float64 sum of float32 squares cannot overflow.

    Examples
    --------
    >>> norms(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([5., 0.], dtype=torch.float64)
    """
    return _sqrt(lane_dot(rows, rows))


def _sqrt(values: Tensor) -> Tensor:
    """The correctly rounded square root, which IEEE 754 defines and every processor has.

    torch's own on the CPU is MKL's, whose last bit is wrong for about one number in eighty.
    """
    if values.device.type != "cpu":
        return values.sqrt()
    return torch.from_numpy(np.sqrt(values.numpy()))


def invert(lengths: Tensor) -> Tensor:
    """1 / norm, and 0 for a zero row, so that its cosine is 0 and not NaN.

    Examples
    --------
    >>> invert(torch.tensor([5.0, 0.0], dtype=torch.float64))
    tensor([0.2000, 0.0000], dtype=torch.float64)
    """
    return torch.where(lengths == 0, lengths, 1.0 / lengths)
