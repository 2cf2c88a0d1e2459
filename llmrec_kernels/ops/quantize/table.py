"""A table with narrow rows, and the layouts in which other libraries keep such rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmrec_kernels.ops import checks
from llmrec_kernels.ops.quantize.reference import BITS, DTYPES, FLOAT_CODES, STORED
from llmrec_kernels.ops.rows import Rows, RowStore

SCHEMES = ("affine", "symmetric")
LAYOUTS = ("torch", "fbgemm")

# How many numbers come with a row, of what type.
_NUMBERS = {"int8": (2, torch.float32), "int4": (2, torch.float16), "fp8_e4m3": (1, torch.float32)}


@dataclass(frozen=True)
class QuantizedTable(RowStore):
    """An embedding table with narrow codes and a scale (and a bias) per row.

    Made by `quantize`. Element `[v, j]` stands for `scale[v] * code[v, j] + bias[v]`, computed
    in float32 with the product rounded before the sum; without a scale or a bias, for the rest.

    Parameters
    ----------
    codes : Tensor
        int8: `[V, D]` uint8 (affine) or int8 (symmetric). int4: `[V, ceil(D / 2)]` uint8, the
        element with the even index in the low nibble. Else `[V, D]` of the floating-point type.
    scale : Tensor, [V], or None
        float32 for int8 and fp8_e4m3, float16 for int4: torch's own choice. None for float16 and
        bfloat16. Lookups are fastest where scale and bias alternate in memory, as `quantize`
        leaves them.
    bias : Tensor, [V], or None
        The same type; None for the symmetric scheme, whose codes are signed, and for floats.
    dtype : str
        `"int8"`, `"int4"`, `"fp8_e4m3"`, `"float16"` or `"bfloat16"`.
    dim : int
        D.

    Examples
    --------
    >>> from llmrec_kernels import quantize
    >>> table = quantize(torch.tensor([[0.0, 1.0], [2.0, 4.0]]), "int8")
    >>> table.codes.tolist(), table.shape, table.nbytes
    ([[0, 255], [0, 255]], (2, 2), 20)
    """

    codes: Tensor
    scale: Tensor | None
    bias: Tensor | None
    dtype: str
    dim: int

    def __post_init__(self) -> None:
        checks.choice("dtype", self.dtype, DTYPES)
        checks.dimensions("codes", self.codes, "[V, bytes per row]")
        width = (self.dim + 1) // 2 if self.dtype == "int4" else self.dim
        signed = self.dtype == "int8" and self.bias is None
        wanted = FLOAT_CODES.get(self.dtype, torch.int8 if signed else torch.uint8)
        if self.codes.dtype != wanted or self.codes.shape[1] != width:
            raise ValueError(
                f"codes has {self.codes.shape[1]} columns of {self.codes.dtype}; "
                f"expected {width} of {wanted} for {self.dtype} rows of {self.dim}"
            )
        count, stored = _NUMBERS.get(self.dtype, (0, torch.float32))
        if count > 0 and self.scale is None:
            raise ValueError(f"scale is None; expected {stored} numbers for {self.dtype} rows")
        for place, (name, values) in enumerate((("scale", self.scale), ("bias", self.bias))):
            if values is None:
                continue
            if place >= count:
                raise ValueError(f"{name} is given; expected None for {self.dtype} rows")
            if values.shape != self.codes.shape[:1] or values.dtype != stored:
                raise ValueError(
                    f"{name} has shape {list(values.shape)} and dtype {values.dtype}; "
                    f"expected [{self.codes.shape[0]}] and {stored}"
                )
            checks.same_device(name, values, self.codes.device)

    @property
    def scheme(self) -> str:
        """`"affine"` or `"symmetric"`."""
        return "symmetric" if self.bias is None else "affine"

    def rows(self) -> Rows:
        """As the operators' schemas carry it."""
        bits = 8 if self.dtype == "fp8_e4m3" else BITS.get(self.dtype, 0)
        return Rows(self.codes, self.scale, self.bias, bits, self.dim)

    def dequantize(self) -> Tensor:
        """The values that the codes stand for, [V, D] float32.

        Examples
        --------
        >>> from llmrec_kernels import quantize
        >>> quantize(torch.tensor([[0.0, 0.5, 1.0]]), "int4").dequantize()
        tensor([[0.0000, 0.5332, 0.9998]])
        """
        return self.rows().widen(slice(None))

    def to(self, device: torch.device | str) -> QuantizedTable:
        """The same table on another device.

        Examples
        --------
        >>> from llmrec_kernels import quantize
        >>> quantize(torch.ones(1, 2)).to("cpu").shape
        (1, 2)
        """
        numbers = [n for n in (self.scale, self.bias) if n is not None]
        scale, bias = _side_by_side([number.to(device) for number in numbers])
        return QuantizedTable(self.codes.to(device), scale, bias, self.dtype, self.dim)

    def state_dict(self) -> dict[str, Any]:
        """Everything that is held, for `torch.save`; `from_state_dict` makes the table again.

        Examples
        --------
        >>> from llmrec_kernels import quantize
        >>> sorted(quantize(torch.ones(1, 2)).state_dict())
        ['bias', 'codes', 'dim', 'dtype', 'scale']
        """
        parts = {"codes": self.codes, "scale": self.scale, "bias": self.bias}
        held = {name: part for name, part in parts.items() if part is not None}
        return {**held, "dtype": self.dtype, "dim": self.dim}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> QuantizedTable:
        """The table that `state_dict` described.

        Raises
        ------
        ValueError
            If an entry is missing, unknown, or does not fit the others.

        Examples
        --------
        >>> from llmrec_kernels import quantize
        >>> table = quantize(torch.ones(1, 2))
        >>> QuantizedTable.from_state_dict(table.state_dict()).dequantize()
        tensor([[1., 1.]])
        """
        known = {"codes", "scale", "bias", "dtype", "dim"}
        if not {"codes", "dtype", "dim"} <= set(state) <= known:
            raise ValueError(
                f"state has the entries {sorted(state)}; "
                "expected codes, dtype and dim, and scale and bias where the format has them"
            )
        return cls(
            state["codes"], state.get("scale"), state.get("bias"), state["dtype"], state["dim"]
        )

    @classmethod
    def from_rows(
        cls, rows: Tensor, dtype: str, dim: int, *, layout: str = "torch"
    ) -> QuantizedTable:
        """A table from rows of bytes that another library wrote; nothing is rounded.

        Parameters
        ----------
        rows : Tensor, [V, bytes] uint8
            As `to_rows` describes them.
        dtype : "int8" or "int4"
        dim : int
            D, which the rows of an odd int4 table, and padded ones, do not tell.
        layout : "torch" or "fbgemm"

        Raises
        ------
        ValueError
            If the rows are no uint8 matrix, or too narrow for `dim` elements.

        Examples
        --------
        >>> packed = torch.ops.quantized.embedding_bag_byte_prepack(torch.ones(1, 3))
        >>> QuantizedTable.from_rows(packed, "int8", 3).dequantize()
        tensor([[1., 1., 1.]])
        """
        width, number_dtype, numbers_first = _layout(dtype, dim, layout)
        checks.dimensions("rows", rows, "[V, bytes]")
        number_bytes = 2 * number_dtype.itemsize
        exact = layout == "torch"
        wide_enough = rows.shape[1] == width + number_bytes
        if not exact:
            wide_enough = rows.shape[1] >= width + number_bytes
        if rows.dtype != torch.uint8 or not wide_enough:
            raise ValueError(
                f"rows has {rows.shape[1]} columns of {rows.dtype}; "
                f"expected {'' if exact else 'at least '}{width + number_bytes} of torch.uint8 "
                f"for {dtype} rows of {dim} in the layout of {layout}"
            )
        at = 0 if numbers_first else width
        start = number_bytes if numbers_first else 0
        codes, numbers = (
            part.clone(memory_format=torch.contiguous_format)
            for part in (rows[:, start : start + width], rows[:, at : at + number_bytes])
        )
        numbers = numbers.view(number_dtype).to(STORED[BITS[dtype]])
        return cls(codes, numbers[:, 0], numbers[:, 1], dtype, dim)

    def to_rows(self, layout: str = "torch", *, alignment: int = 1) -> Tensor:
        """The rows as another library keeps them, [V, bytes] uint8; nothing is rounded.

        Parameters
        ----------
        layout : "torch" or "fbgemm"
            `"torch"`: the codes, then scale and bias, as `torch.ops.quantized.embedding_bag_byte`
            and `..._4bit` read them: float32 for int8 and float16 for int4. `"fbgemm"`: scale and
            bias first, in float16 for both, as the tables of
            `fbgemm_gpu.IntNBitTableBatchedEmbeddingBagsCodegen` hold them.
        alignment : int
            Of `"fbgemm"`: rows are padded with zeros to a multiple of so many bytes (16 on GPUs).

        Raises
        ------
        ValueError
            If the table is not affine int8 or int4, or the layout's float16 cannot hold a scale
            or bias exactly.

        Examples
        --------
        >>> from llmrec_kernels import quantize
        >>> table = quantize(torch.tensor([[0.0, 255.0]]))
        >>> table.to_rows().tolist()
        [[0, 255, 0, 0, 128, 63, 0, 0, 0, 0]]
        >>> table.to_rows("fbgemm").tolist()
        [[0, 60, 0, 0, 0, 255]]
        """
        _, number_dtype, numbers_first = _layout(self.dtype, self.dim, layout)
        if self.scale is None or self.bias is None:
            raise ValueError(f"the table is symmetric; the layout of {layout} has affine rows")
        if checks.positive_int("alignment", alignment) != 1 and layout == "torch":
            raise ValueError(f"alignment is {alignment}; expected 1, torch's rows have no padding")
        exact = torch.stack([self.scale, self.bias], dim=1)
        numbers = exact.to(number_dtype)
        changed = (numbers.to(exact.dtype) != exact).any(dim=1)
        if bool(changed.any()):
            row = int(changed.nonzero()[0, 0])
            raise ValueError(
                f"scale or bias of row {row} is no {number_dtype}, which the layout of {layout} "
                "keeps; expected numbers that need no rounding"
            )
        parts = [self.codes, numbers.view(torch.uint8)]
        rows = torch.cat(parts[::-1] if numbers_first else parts, dim=1)
        return torch.nn.functional.pad(rows, (0, -rows.shape[1] % alignment))


def _layout(dtype: str, dim: int, layout: str) -> tuple[int, torch.dtype, bool]:
    """Bytes of a row's codes, the type of its numbers, and whether they come first."""
    checks.choice("layout", layout, LAYOUTS)
    if dtype not in BITS:
        raise ValueError(f"dtype is {dtype!r}; expected 'int8' or 'int4' for rows of bytes")
    width = dim if dtype == "int8" else (dim + 1) // 2
    if layout == "fbgemm":
        return width, torch.float16, True
    return width, STORED[BITS[dtype]], False


def _side_by_side(numbers: list[Tensor]) -> tuple[Tensor | None, Tensor | None]:
    """A scale and a bias that alternate in memory: a lookup then reads one cache line."""
    if len(numbers) < 2:
        return (numbers[0] if numbers else None), None
    both = torch.stack(numbers, dim=1)
    return both[:, 0], both[:, 1]
