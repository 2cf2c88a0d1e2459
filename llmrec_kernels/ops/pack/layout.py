"""Where the codes of a sketch are: blocks of sixteen rows, in each of them four elements at a time.

Element j of row i is at `[i // 16, j // 4, i % 16, j % 4]`. The four elements are one 32-bit word,
which is the least that these functions move.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

LANES = 16  # rows in a block
GROUP = 4  # elements in a word


def blocks(count: int) -> int:
    """How many blocks hold `count` rows.

    Examples
    --------
    >>> blocks(0), blocks(16), blocks(17)
    (0, 1, 2)
    """
    return (count + LANES - 1) // LANES


def groups(dim: int) -> int:
    """How many words hold `dim` elements."""
    return (dim + GROUP - 1) // GROUP


def interleave(codes: Tensor) -> Tensor:
    """Codes row by row, [n, dim] int8, in blocks; zeros fill what is not there.

    Examples
    --------
    >>> codes = interleave(torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]], dtype=torch.int8))
    >>> codes.shape, codes[0, 0, :2].tolist(), codes[0, 1, :2].tolist()
    (torch.Size([1, 2, 16, 4]), [[1, 2, 3, 4], [6, 7, 8, 9]], [[5, 0, 0, 0], [10, 0, 0, 0]])
    """
    count, dim = codes.shape
    rows = pad(codes, (0, -dim % GROUP)).contiguous().flatten().view(torch.int32)
    return interleave_words(rows.view(count, groups(dim)))


def interleave_words(rows: Tensor) -> Tensor:
    """The same of codes that are words already, [n, groups] int32."""
    count, width = rows.shape
    filled = pad(rows, (0, 0, 0, -count % LANES))
    by_block = filled.new_empty(blocks(count), width, LANES)
    by_block.copy_(filled.view(blocks(count), LANES, width).transpose(1, 2))
    return by_block.view(torch.int8).view(blocks(count), width, LANES, GROUP)


def take(codes: Tensor, positions: Tensor) -> Tensor:
    """The codes of the rows at these positions, as codes of their own."""
    return interleave_words(words(codes, positions))


def words(codes: Tensor, positions: Tensor) -> Tensor:
    """The codes of the rows at these positions, row by row, [n, groups] int32."""
    return _words(codes)[positions // LANES, positions % LANES]


def replace(codes: Tensor, positions: Tensor, new: Tensor) -> None:
    """Overwrite the rows at these positions with the first rows of `new`."""
    rows = _words(new).flatten(0, 1)[: positions.shape[0]]
    _words(codes)[positions // LANES, positions % LANES] = rows


def append(codes: Tensor, start: int, new: Tensor, count: int) -> None:
    """Write the `count` rows of `new` from row `start` on, and zeros up to the end of a block.

    Where `start` is in the middle of a block, each block of `new` comes to lie across two.
    """
    first, lane = divmod(start, LANES)
    full, end = first + new.shape[0], blocks(start + count)
    codes[first:full, :, lane:] = new[:, :, : LANES - lane]
    if end > first + 1:
        codes[first + 1 : end, :, :lane] = new[: end - first - 1, :, LANES - lane :]
    if end > full:
        codes[full:end, :, lane:] = 0


def truncate(codes: Tensor, count: int) -> None:
    """Write zeros behind the first `count` rows, up to the end of their last block."""
    codes[count // LANES : blocks(count), :, count % LANES :] = 0


def _words(codes: Tensor) -> Tensor:
    """The same memory as [blocks, 16, groups] int32."""
    return codes.view(torch.int32).squeeze(3).transpose(1, 2)
