"""Arrays of any library in, torch tensors out, without a copy where DLPack allows none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack


def as_tensor(name: str, array: Any) -> Tensor:
    """View an array of torch, NumPy, CuPy or JAX as a torch tensor.

    Raises
    ------
    TypeError
        If it is no array at all.

    Examples
    --------
    >>> as_tensor("queries", np.ones((2, 3), dtype=np.float32)).shape
    torch.Size([2, 3])
    """
    if isinstance(array, Tensor):
        return array
    if isinstance(array, np.ndarray):
        return _of_numpy(name, array)
    if hasattr(array, "__dlpack__"):
        return from_dlpack(array)
    if hasattr(array, "__array__"):
        return _of_numpy(name, np.asarray(array))
    raise TypeError(
        f"{name} is a {type(array).__name__}; expected a torch, NumPy, CuPy or JAX array"
    )


def _of_numpy(name: str, array: np.ndarray[Any, Any]) -> Tensor:
    # torch aborts the process on negative strides and refuses foreign byte orders: copy those.
    native = array.dtype.newbyteorder("=")
    if any(stride < 0 for stride in array.strides) or array.dtype != native:
        array = array.astype(native, order="C", copy=True)
    try:
        return from_dlpack(array)
    except (BufferError, RuntimeError, TypeError):
        pass  # older NumPy exports no read-only array, and DLPack knows fewer dtypes
    try:
        return torch.from_numpy(np.array(array, order="C", copy=True))
    except TypeError as error:
        raise ValueError(
            f"{name} has dtype {array.dtype}; expected floating point or integers"
        ) from error


def returner(queries: Any) -> Callable[[Tensor], Any]:
    """How to hand results back: as the library that the queries came from.

    Examples
    --------
    >>> returner(np.ones(1))(torch.ones(2))
    array([1., 1.], dtype=float32)
    """
    if isinstance(queries, Tensor):
        return lambda tensor: tensor
    if type(queries).__module__.partition(".")[0] == "cupy":
        import cupy  # imported only for whom has it: the queries are its arrays

        return lambda tensor: cupy.from_dlpack(tensor)
    if isinstance(queries, np.ndarray):
        return lambda tensor: tensor.detach().numpy()
    return lambda tensor: tensor
