"""Where everything is in a segment's file, byte by byte: docs/index-format.md in code.

The file is a safetensors file: eight bytes with the length of a JSON text, that text, and tensors.
What a segment holds decides every byte before its first number, so a file is recognised by
comparing those, and nothing that a file says of itself is ever believed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmrec_kernels.ops.pack import layout as codes_layout

FORMAT: Final = "llmrec_kernels.ItemIndex"
VERSION: Final = 1
BLOCK = 1 << 16  # bytes that have a checksum of their own
ALIGNMENT = 64  # of a tensor's first byte

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "U64": torch.uint64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
}
_DATA = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "U8", "int4": "U8"}
_NUMBERS = {"int8": "F32", "int4": "F16"}  # of the scale and the bias of a quantized row


class Kind(NamedTuple):
    """What all segments of an index have in common."""

    dim: int
    storage: str

    def columns(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """Name, type and shape of a row, for what is kept of its vector but for the codes."""
        width = (self.dim + 1) // 2 if self.storage == "int4" else self.dim
        numbers = _NUMBERS.get(self.storage)
        quantized = [] if numbers is None else [("scale", numbers, ()), ("bias", numbers, ())]
        return [("data", _DATA[self.storage], (width,)), *quantized]


class Field(NamedTuple):
    """A tensor in a file.

    Parameters
    ----------
    name, dtype
        As safetensors calls it.
    shape
        Its sizes.
    start
        Its first byte in the file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def nbytes(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    @property
    def stop(self) -> int:
        """The byte behind it."""
        return self.start + self.nbytes


class Layout(NamedTuple):
    """A file: what it begins with, its tensors by name, and its size."""

    header: bytes
    fields: dict[str, Field]
    size: int


def segment_layout(kind: Kind, rows: int, *, biased: bool, scaled: bool) -> Layout:
    """The file of a segment: its tensors, and the checksum of each block of bytes before that."""
    codes = (codes_layout.blocks(rows), codes_layout.groups(kind.dim), 16, 4)
    given = [name for name, there in (("item_bias", biased), ("item_scale", scaled)) if there]
    tensors = [
        ("codes", "I8", codes),
        *((name, dtype, (rows, *shape)) for name, dtype, shape in kind.columns()),
        ("inverse_norms", "F64", (rows,)),
        ("ids", "I64", (rows,)),
        ("unit_scale", "F32", (rows,)),
        ("residual", "F32", (rows,)),
        *((name, "F32", (rows,)) for name in given),
    ]
    # The header's own length is the same for all numbers of blocks that have as many digits.
    blocks = 0
    while True:
        found = file_layout([*tensors, ("checksums", "U64", (blocks,))])
        needed = -(-found.fields["checksums"].start // BLOCK)
        if needed == blocks:
            return found
        blocks = needed


def file_layout(tensors: Sequence[tuple[str, str, tuple[int, ...]]]) -> Layout:
    """A safetensors file of these tensors, one behind the other.

    Safetensors allows no gaps, so what would be one is a tensor of bytes, too.

    Examples
    --------
    >>> found = file_layout([("ids", "I64", (3,)), ("more", "F32", (2, 2))])
    >>> found.fields["more"].start - found.fields["ids"].start, found.size % 64
    (64, 16)
    """
    text: dict[str, object] = {"__metadata__": {"format": FORMAT, "version": str(VERSION)}}
    offset, fields = 0, []
    for number, (name, dtype, shape) in enumerate(tensors):
        gap = -offset % ALIGNMENT
        if gap:
            text[f"gap_{number}"] = _entry("U8", (gap,), offset)
        fields.append(Field(name, dtype, shape, offset + gap))
        text[name] = _entry(dtype, shape, offset + gap)
        offset = fields[-1].stop
    header = json.dumps(text, separators=(",", ":")).encode()
    header += b" " * (-(8 + len(header)) % ALIGNMENT)
    header = len(header).to_bytes(8, "little") + header
    placed = [field._replace(start=field.start + len(header)) for field in fields]
    return Layout(header, {field.name: field for field in placed}, len(header) + offset)


def raw(tensor: Tensor) -> npt.NDArray[np.uint8]:
    """The bytes of a tensor, as they are in a file on a little-endian machine."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


def _entry(dtype: str, shape: tuple[int, ...], offset: int) -> dict[str, object]:
    stop = offset + math.prod(shape) * DTYPES[dtype].itemsize
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, stop]}
