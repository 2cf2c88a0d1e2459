"""Memory for large tensors, in large pages where the system has them.

A random row then costs no walk through page tables, and fresh memory one fault for 2 MB in place
of 512. It is a wish: nothing depends on it.
"""

from __future__ import annotations

import math
import mmap
import sys

import torch
from torch import Tensor

LARGE = 4 << 20  # bytes from which pages of 2 MB are worth asking for


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor with nothing in particular in it.

    Examples
    --------
    >>> empty((3, 2), torch.float32, torch.device("cpu")).shape
    torch.Size([3, 2])
    """
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or size < LARGE:
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.frombuffer(anonymous(size), dtype=dtype).view(shape)


def anonymous(size: int) -> mmap.mmap:
    """So many bytes of zeros, which are none of the system's until they are written."""
    try:
        if sys.platform == "win32":
            return mmap.mmap(-1, size)
        # What Python takes without being told is shared memory, which has no large pages.
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"there is no memory for {size:,} bytes") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
