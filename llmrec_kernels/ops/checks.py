"""Checks of kinds, shapes, dtypes and devices, shared by the operators.

They look at no element: contents are checked by the kernels, where the data is read anyway.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import Tensor

from llmrec_kernels.ops.arrays import as_tensor
from llmrec_kernels.ragged import check_int64

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
LARGEST_INT = torch.iinfo(torch.int64).max
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def float_array(name: str, array: Any, shape: str) -> Tensor:
    """A floating-point tensor with as many dimensions as `shape` names, such as "[B, d]"."""
    tensor = as_tensor(name, array)
    dimensions(name, tensor, shape)
    if tensor.dtype not in FLOATS:
        raise ValueError(
            f"{name} has dtype {tensor.dtype}; expected float32, float16, bfloat16 or float64"
        )
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def id_array(name: str, array: Any, shape: str) -> Tensor:
    """An int64 tensor of ids, indices or offsets; a list of Python integers will do."""
    if isinstance(array, list | tuple | range):
        for position, entry in enumerate(array):
            check_int64(f"{name}[{position}] is", entry)
        array = torch.tensor(array, dtype=torch.int64)
    tensor = as_tensor(name, array)
    if tensor.dtype not in INTEGERS:
        raise ValueError(f"{name} has dtype {tensor.dtype}; expected int64")
    dimensions(name, tensor, shape)
    return tensor.to(torch.int64)


def dimensions(name: str, tensor: Tensor, shape: str) -> None:
    """Refuse a tensor that has not as many dimensions as `shape` names."""
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} is a {tensor.layout} tensor; expected a dense one, {shape}")
    if tensor.dim() != shape.count(",") + 1:
        raise ValueError(f"{name} has shape {list(tensor.shape)}; expected {shape}")


def vector(name: str, array: Any, length: int, shape: str, device: torch.device) -> Tensor | None:
    """An optional float32 vector of a given length: one number an item, or a query."""
    if array is None:
        return None
    tensor = float_array(name, array, shape)
    if tensor.shape[0] != length:
        raise ValueError(f"{name} has {tensor.shape[0]} entries; expected {length}, {shape}")
    same_device(name, tensor, device)
    return tensor.float()


def same_device(name: str, tensor: Tensor, device: torch.device) -> None:
    """Refuse a tensor that lives elsewhere than the first argument."""
    if tensor.device != device:
        raise ValueError(f"{name} is on {tensor.device}; expected {device}, as the queries are")


def integer(name: str, value: Any, expected: str = "an integer") -> int:
    """An integer of any library's kind, but no bool."""
    if isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; expected {expected}")
    if isinstance(value, int):
        return value  # perhaps a traced one, which operator.index would make a constant
    if not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {value!r}; expected {expected}")
    return operator.index(value)


def positive_int(name: str, value: Any) -> int:
    """An integer from 1 to the largest int64."""
    number = integer(name, value, "an integer of at least 1")
    if number < 1:
        raise ValueError(f"{name} is {number}; expected at least 1")
    if number > LARGEST_INT:
        raise ValueError(f"{name} is {number}; expected at most {LARGEST_INT}")
    return number


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> int:
    """The position of a word among the words allowed: what the operators' schemas carry."""
    if value not in allowed:
        words = ", ".join(repr(word) for word in allowed)
        raise ValueError(f"{name} is {value!r}; expected one of {words}")
    return allowed.index(value)


def finite_number(name: str, value: Any) -> float:
    """A finite Python float."""
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} is {value!r}; expected a number")
    number = float(value)
    # A traced number has no value yet; float64 inside the operator takes it as it comes.
    if not torch.compiler.is_compiling() and not math.isfinite(number):
        raise ValueError(f"{name} is {number}; expected a finite number")
    return number
