"""Modules over the operators, for models that are built of `torch.nn`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from llmrec_kernels.ops import checks
from llmrec_kernels.ops.embedding_bag import (
    MODES,
    embedding_bag,
    out_index,
    padding_row,
)
from llmrec_kernels.ops.embedding_bag.reference import OUT_DTYPES
from llmrec_kernels.ops.quantize import QuantizedTable, quantize
from llmrec_kernels.ops.quantize.reference import DTYPES

__all__ = ["QuantizedEmbeddingBag"]


class QuantizedEmbeddingBag(nn.Module):
    """`torch.nn.EmbeddingBag` over a quantized table, for inference.

    The table's parts are buffers: they move with `.to(device)` and are in the `state_dict`, which
    loads into a module of the same format alone. They keep their types where a model is cast.

    Parameters
    ----------
    num_embeddings : int
        V, the rows of the table.
    embedding_dim : int
        D, the elements of a row.
    mode : "sum", "mean" or "max"
        "mean", as torch's own.
    include_last_offset : bool
        `offsets` has B + 1 entries; the last is the number of indices.
    padding_idx : int, optional
        Entries with this index do not count.
    dtype, scheme : str
        As `quantize` takes them.
    normalize : bool
        L2-normalise each pooled row.
    out_dtype : torch.dtype
        float32, float16 or bfloat16.
    device : torch.device or str, optional
        Where the table is.

    Raises
    ------
    ValueError
        For a size below 1, or a word or type that is not one of those above.
    IndexError
        If `padding_idx` is out of range.

    Examples
    --------
    >>> bag = nn.EmbeddingBag(3, 2, mode="sum")
    >>> QuantizedEmbeddingBag.from_float(bag)(torch.tensor([[0, 1], [2, 2]])).shape
    torch.Size([2, 2])
    """

    codes: Tensor
    scale: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        mode: str = "mean",
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        dtype: str = "int8",
        scheme: str = "affine",
        normalize: bool = False,
        out_dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.num_embeddings = checks.positive_int("num_embeddings", num_embeddings)
        self.embedding_dim = checks.positive_int("embedding_dim", embedding_dim)
        self.mode = MODES[checks.choice("mode", mode, MODES)]
        self.include_last_offset = include_last_offset
        self.padding_idx = padding_idx
        padding_row(padding_idx, num_embeddings)
        self.normalize = normalize
        self.out_dtype = OUT_DTYPES[out_index(out_dtype)]
        self.dtype = dtype
        table = quantize(torch.zeros(num_embeddings, embedding_dim), dtype, scheme=scheme)
        self._hold(table if device is None else table.to(device))

    @classmethod
    def from_float(
        cls, module: nn.EmbeddingBag, *, dtype: str = "int8", scheme: str = "affine", **options: Any
    ) -> QuantizedEmbeddingBag:
        """A module that looks the same rows up, quantized.

        Parameters
        ----------
        module : torch.nn.EmbeddingBag
            Its mode, padding and offsets are kept.
        dtype, scheme : str
            As `quantize` takes them.
        **options
            `normalize` and `out_dtype`.

        Raises
        ------
        TypeError
            If `module` is no `torch.nn.EmbeddingBag`.
        ValueError
            If it renormalises what it looks up (`max_norm`).

        Examples
        --------
        >>> QuantizedEmbeddingBag.from_float(nn.EmbeddingBag(3, 2, mode="sum"), dtype="int4").mode
        'sum'
        """
        if not isinstance(module, nn.EmbeddingBag):
            raise TypeError(
                f"module is a {type(module).__name__}; expected a torch.nn.EmbeddingBag"
            )
        if module.max_norm is not None:
            raise ValueError(
                f"module has max_norm {module.max_norm}, which changes its rows when they are "
                "looked up; expected None"
            )
        return cls.from_table(
            quantize(module.weight.detach(), dtype, scheme=scheme),
            mode=module.mode,
            include_last_offset=module.include_last_offset,
            padding_idx=module.padding_idx,
            **options,
        )

    @classmethod
    def from_table(cls, table: QuantizedTable, **options: Any) -> QuantizedEmbeddingBag:
        """A module over a table that is quantized already, which it does not copy.

        Parameters
        ----------
        table : QuantizedTable
        **options
            As the constructor's.

        Examples
        --------
        >>> QuantizedEmbeddingBag.from_table(quantize(torch.ones(3, 2)), mode="sum").num_embeddings
        3
        """
        padding_idx = options.pop("padding_idx", None)
        module = cls(1, table.dim, dtype=table.dtype, scheme=table.scheme, **options)
        module.num_embeddings, module.padding_idx = len(table), padding_idx
        padding_row(padding_idx, len(table))
        module._hold(table)
        return module

    @property
    def table(self) -> QuantizedTable:
        """The table that the buffers make."""
        return QuantizedTable(self.codes, self.scale, self.bias, self.dtype, self.embedding_dim)

    def forward(
        self,
        input: Tensor,  # noqa: A002  torch's own name
        offsets: Tensor | None = None,
        per_sample_weights: Tensor | None = None,
    ) -> Tensor:
        """Pooled rows, [B, D]; the arguments are those of `torch.nn.EmbeddingBag`.

        Parameters
        ----------
        input : Tensor, [nnz] or [B, L] integers
            Rows of the table; two dimensions are B bags of L each.
        offsets : Tensor, [B] integers, optional
            Where each bag begins in one-dimensional `input`.
        per_sample_weights : Tensor, the shape of `input`, optional
            For sum and mean.

        Raises
        ------
        ValueError, IndexError
            As `llmrec_kernels.embedding_bag`.

        Examples
        --------
        >>> module = QuantizedEmbeddingBag.from_table(quantize(torch.ones(3, 2)), mode="sum")
        >>> module(torch.tensor([0, 2, 2]), torch.tensor([0, 1]))
        tensor([[1., 1.],
                [2., 2.]])
        """
        pooled: Tensor = embedding_bag(
            self.table,
            input,
            offsets,
            mode=self.mode,
            per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset,
            padding_idx=self.padding_idx,
            normalize=self.normalize,
            out_dtype=self.out_dtype,
        )
        return pooled

    def extra_repr(self) -> str:
        """What `repr` shows between the parentheses.

        Examples
        --------
        >>> QuantizedEmbeddingBag(3, 2).extra_repr()
        "3, 2, mode='mean', dtype='int8'"
        """
        return (
            f"{self.num_embeddings}, {self.embedding_dim}, mode={self.mode!r}, dtype={self.dtype!r}"
        )

    def get_extra_state(self) -> Tensor:
        """The format, which a `state_dict` carries: dtype, scheme and dimension as numbers.

        Examples
        --------
        >>> QuantizedEmbeddingBag(3, 2, dtype="int4").get_extra_state()
        tensor([1, 0, 2])
        """
        symmetric = int(self.bias is None)
        return torch.tensor([DTYPES.index(self.dtype), symmetric, self.embedding_dim])

    def set_extra_state(self, state: Tensor) -> None:
        """Nothing: the format was compared before anything was loaded."""

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        theirs, ours = state_dict.get(f"{prefix}_extra_state"), self.get_extra_state()
        if theirs is not None and theirs.tolist() != ours.tolist():
            error_msgs.append(
                f"{prefix}codes are {_format(theirs)}; expected {_format(ours)}, as the module's"
            )
            return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        # They may alternate in memory, which file formats of plain tensors refuse.
        for name in ("scale", "bias"):
            if prefix + name in destination:
                numbers = destination[prefix + name]
                destination[prefix + name] = numbers.clone(memory_format=torch.contiguous_format)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedEmbeddingBag:
        # A cast is not for codes, nor for the numbers that belong to them.
        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(move, recurse)
        return self

    def _hold(self, table: QuantizedTable) -> None:
        self.register_buffer("codes", table.codes)
        self.register_buffer("scale", table.scale)
        self.register_buffer("bias", table.bias)


def _format(state: Tensor) -> str:
    dtype, symmetric, dim = state.tolist()
    return f"{DTYPES[dtype]} ({'symmetric' if symmetric else 'affine'}) of {dim} dimensions"
