"""Writes what tests/test_index_format.py reads, once for each version of the format.

`python tests/index_format_fixture.py tests/index_format_N` before version N is released; what it
wrote then stays as it is.
"""

from __future__ import annotations

import sys

import torch

from llmrec_kernels import ItemIndex
from llmrec_kernels.index import store


def write(folder: str) -> None:
    """Two segments with biases and scales, removed rows of both, and a journal of four changes."""
    store.TAIL = 4
    index = ItemIndex(3, metric="dot", storage="int8")
    index.add(
        [-(2**63), -5, 0, 7, 11],
        torch.tensor(
            [[1.0, 0.0, 0.5], [0.25, -1.0, 0.0], [0.0, 0.0, 0.0], [3.0, 2.0, 1.0], [-1.0, 1.0, 4.0]]
        ),
    )
    index.add(
        [3, 5, 2**63 - 1, 8],
        torch.tensor([[0.5, 0.5, 0.5], [1.0, 2.0, 3.0], [-2.0, 0.125, 1.0], [0.0, 1.0, 0.0]]),
        bias=torch.tensor([0.0, 1.5, -0.25, 2.0]),
        scale=torch.tensor([1.0, 0.5, 2.0, 1.0]),
    )
    index.remove([11, 3])
    index.save(folder)
    with ItemIndex.open(folder) as index:
        index.add([20, 4], torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.75, -1.0]]))
        index.update([5], bias=torch.tensor([-1.0]))
        index.update([8], torch.tensor([[2.0, -1.0, 0.5]]), scale=torch.tensor([3.0]))
        index.remove([-5])


if __name__ == "__main__":
    write(sys.argv[1])
