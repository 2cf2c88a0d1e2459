"""Packing in plain torch: a copy of the rows, checked, with their inverse norms and an int8 sketch.

The sketch rounds each row to `limit` steps either side of zero and notes how much that leaves out,
in float64 and rounded up, so that |q . x - step (q . codes)| <= |q| residual |x| for every query.
Each operation is rounded as it is written here, so that every implementation has the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llmrec_kernels.ops import contents, score
from llmrec_kernels.ops.pack import layout
from llmrec_kernels.ops.rows import Rows, Sketch

BLOCK = 1 << 18  # elements handled at a time: their float64 products stay in cache

_SMALLEST, _LARGEST = 2.0**-100, 2.0**100  # of the largest element of a row that has codes
_CODE_OF_A_QUERY = 255  # at most, times the largest code of an item, summed over a row in int32
_MARGIN = 1 + 2.0**-40  # more than what the float64 sums of the residual's norms can lose


def pack(
    data: Tensor, scale: Tensor | None, bias: Tensor | None, bits: int, dim: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A copy of the rows' data, 1 / norm of each row, [N] float64, and the three of `Sketch`."""
    rows, count = Rows(data, scale, bias, bits, dim), data.shape[0]
    inverse_norms = torch.empty(count, dtype=torch.float64, device=data.device)
    sketch = Sketch(
        data.new_empty(
            layout.blocks(count), layout.groups(dim), layout.LANES, layout.GROUP, dtype=torch.int8
        ),
        data.new_empty(count, dtype=torch.float32),
        data.new_empty(count, dtype=torch.float32),
    )
    step = layout.LANES * max(1, BLOCK // max(1, layout.LANES * dim))  # whole blocks of codes
    for start in range(0, count, step):
        part = slice(start, start + step)
        values = rows.widen(part)
        lengths = score.norms(values)
        contents.finite_rows("items", lengths, start)
        inverse_norms[part] = score.invert(lengths)
        codes, sketch.unit_scale[part], sketch.residual[part] = _round(values, inverse_norms[part])
        first = start // layout.LANES
        blocks = layout.interleave(codes)
        sketch.codes[first : first + blocks.shape[0]] = blocks
    return data.clone(memory_format=torch.contiguous_format), inverse_norms, *sketch


def largest_code(dim: int) -> int:
    """The largest code of a row, so that no dot product with a query's codes leaves int32.

    Examples
    --------
    >>> largest_code(384), largest_code(100_000), largest_code(10_000_000)
    (127, 84, 0)
    """
    return min(127, torch.iinfo(torch.int32).max // (_CODE_OF_A_QUERY * max(1, dim)))


def _round(values: Tensor, inverse_norms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes [n, dim] int8, and the unit scale and the residual of each row, [n] float32."""
    dim = values.shape[1]
    largest = values.abs().amax(1) if dim else values.new_zeros(values.shape[0])
    # A tensor: torch divides a number by a tensor, and on a GPU a tensor by a number, with a
    # reciprocal, which rounds twice.
    limit = torch.full_like(largest, largest_code(dim))
    known = (largest >= _SMALLEST) & (largest <= _LARGEST) & (limit > 0)
    step = torch.where(known, largest / limit, 0.0)
    codes = (values * torch.where(known, limit / largest, 0.0)[:, None]).round()
    errors = values.double() - step.double()[:, None] * codes.double()  # the product is exact
    left_out = score.norms(errors) * inverse_norms * _MARGIN
    nothing_known = (largest > 0).double()
    return (
        codes.to(torch.int8),
        (step.double() * inverse_norms).float(),
        _rounded_up(torch.where(known, left_out, nothing_known)),
    )


def _rounded_up(values: Tensor) -> Tensor:
    """The smallest float32 numbers that are not below these."""
    nearest = values.float()
    above = nearest.nextafter(torch.full_like(nearest, torch.inf))
    return torch.where(nearest.double() < values, above, nearest)
