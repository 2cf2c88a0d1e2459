"""The configurations of each operator's Triton kernels, for `gpu_resources.py` to compile.

A module for each operator has `variants()` and `SOURCES`, the files that decide what is compiled.
Types and alignment are those of a launch: sizes below 2^31 come as int32, a number that is 1 as a
constant, and tensors, strides and vectors of common lengths are multiples of 16.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from llmrec_kernels.ops.triton_common import (
    INT4_AFFINE,
    INT4_SYMMETRIC,
    INT8_AFFINE,
    OPTIONS,
    STORAGES,
)

_OPS = Path(__file__).resolve().parent.parent.parent / "llmrec_kernels" / "ops"
_POINTERS = ("*fp32", "*fp16", "*i16", "*u8", "*i8", "*u8", "*u8", "*u8")  # of STORAGES
ALIGNED_ROWS = ("data", "stride", "width", "dim")


class Variant(NamedTuple):
    """A kernel in one configuration.

    Parameters
    ----------
    name
        What the table calls it.
    kernel
        The jitted function.
    signature, constants
        The types of its arguments, and its constants.
    aligned
        Arguments that are multiples of 16.
    num_warps, num_stages
        As the launch has them.
    expects
        What the compiled code must have: "16-byte loads", "tensor cores".
    minimum_sm
        The oldest architecture that it is offered on.
    registers
        The most that a thread may have.
    """

    name: str
    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    aligned: tuple[str, ...]
    num_warps: int
    num_stages: int
    expects: frozenset[str]
    minimum_sm: int = 75
    registers: int = OPTIONS["maxnreg"]


def sources(op: str, variants: str) -> tuple[Path, ...]:
    """The kernels of an operator, what they share, and the file of its variants."""
    shared = (_OPS / "triton_common.py", Path(__file__), Path(variants))
    return (*sorted((_OPS / op).glob("triton*.py")), *shared)


def row_types(storage: int) -> tuple[dict[str, str], dict[str, Any]]:
    """Types of a table's `data`, `scale`, `bias` and strides, and those that are constants."""
    affine = storage in (INT8_AFFINE.value, INT4_AFFINE.value)
    types = {"data": _POINTERS[storage], **dict.fromkeys(("stride", "width", "dim"), "i32")}
    constants: dict[str, Any] = {}
    number = "*fp16" if storage in (INT4_AFFINE.value, INT4_SYMMETRIC.value) else "*fp32"
    for name, there in (("scale", storage >= INT8_AFFINE.value), ("bias", affine)):
        (types if there else constants)[name] = number if there else None
    if affine:  # scales and biases alternate
        types["number_stride"] = "i32"
    else:
        constants["number_stride"] = 1
    return types, constants


def integers(*names: str) -> dict[str, str]:
    """Sizes."""
    return dict.fromkeys(names, "i32")


__all__ = ["ALIGNED_ROWS", "STORAGES", "Variant", "integers", "row_types", "sources"]
