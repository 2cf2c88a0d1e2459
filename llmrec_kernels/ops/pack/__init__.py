"""Pack once, score many times."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from llmrec_kernels import backends
from llmrec_kernels.ops import checks, contents
from llmrec_kernels.ops.pack.room import Room
from llmrec_kernels.ops.pack.schema import OP
from llmrec_kernels.ops.rows import Rows, RowStore, Sketch, rows_of

__all__ = ["PackedItems", "pack"]


class PackedItems(RowStore):
    """Items prepared for scoring: checked once, with the norm of each row and a sketch at hand.

    Made by `pack`. It holds copies: changing the source afterwards does not change the pack.
    Items can be appended, replaced and removed at a cost in proportion to the rows changed. The
    pack is not to be changed in one thread while another one searches it.

    An item takes the bytes of its row in the source's type (with the scale and bias of a quantized
    one), 8 for its inverse norm, 4 * ceil(dim / 4) for its int8 codes, which come in blocks of
    sixteen items, and 8 for the two numbers that go with them.

    Parameters
    ----------
    data, scale, bias, bits, dim
        As in `Rows`. Tensors given here are held as they are, not copied.
    inverse_norms : Tensor, [N] float64
        1 / norm of each row, and 0 for a zero row.
    sketch : Sketch, optional
        The rows in int8, which makes an exact search faster. A pack that was built without one is
        searched as it is, and packed anew at its first change: that change copies all rows.

    Examples
    --------
    >>> items = pack(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    >>> items.shape, items.inverse_norms.tolist()
    ((2, 2), [0.2, 0.5])
    >>> items.nbytes == 2 * (2 * 4 + 8 + 8) + 16 * 4
    True
    """

    def __init__(
        self,
        data: Tensor,
        scale: Tensor | None,
        bias: Tensor | None,
        bits: int,
        dim: int,
        inverse_norms: Tensor,
        sketch: Sketch | None = None,
    ) -> None:
        self._room = Room(Rows(data, scale, bias, bits, dim, inverse_norms, sketch))

    @staticmethod
    def of(rows: Rows) -> PackedItems:
        """Rows that have their inverse norms, held as they are."""
        assert rows.inverse_norms is not None
        return PackedItems(
            rows.data, rows.scale, rows.bias, rows.bits, rows.dim, rows.inverse_norms, rows.sketch
        )

    def rows(self) -> Rows:
        """As the operators' schemas carry it."""
        return self._room.rows()

    @property
    def data(self) -> Tensor:
        """The rows in the source's type."""
        return self.rows().data

    @property
    def scale(self) -> Tensor | None:
        """The scale of each row of codes, [N], where the source was quantized."""
        return self.rows().scale

    @property
    def bias(self) -> Tensor | None:
        """The bias of each row of codes, [N], where it has one."""
        return self.rows().bias

    @property
    def bits(self) -> int:
        """0 for floating point, or 8, or 4."""
        return self.rows().bits

    @property
    def dim(self) -> int:
        """Elements in a row."""
        return self.rows().dim

    @property
    def inverse_norms(self) -> Tensor:
        """1 / norm of each row, [N] float64, and 0 for a zero row."""
        inverse_norms = self.rows().inverse_norms
        assert inverse_norms is not None
        return inverse_norms

    @property
    def sketch(self) -> Sketch | None:
        """The rows in int8."""
        return self.rows().sketch

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is held, room for more items included."""
        return self._room.nbytes

    def __len__(self) -> int:
        return self._room.count

    def __repr__(self) -> str:
        return f"<PackedItems: {len(self):,} rows of {self.dim}, {_storage(self.rows())}>"

    def append(self, items: Any, *, backend: str | None = None) -> None:
        """Put items behind the last: all of them, or, where anything is wrong, none.

        The room doubles when it runs out, so that many small appends move each row only a few
        times.

        Parameters
        ----------
        items : array [n, d], QuantizedTable or PackedItems
            What `pack` takes, in the storage of the pack: float16 rows for a pack of float16 rows,
            int4 codes with a bias for a pack of those. What is packed already is not packed again.
        backend
            As for `pack`.

        Raises
        ------
        TypeError, ValueError
            As `pack` does, and if the columns, the storage or the device are not the pack's.

        Examples
        --------
        >>> items = pack(torch.eye(2))
        >>> items.append(torch.ones(1, 2))
        >>> items.data.tolist()
        [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
        """
        new = self._alike(items, backend)
        self._sketched(backend).append(new)

    def replace(self, positions: Any, items: Any, *, backend: str | None = None) -> None:
        """Overwrite the items at some positions: all of them, or, where anything is wrong, none.

        Parameters
        ----------
        positions : array or list of int, [n]
            Each once.
        items : array [n, d], QuantizedTable or PackedItems
            As for `append`, one for each position.
        backend
            As for `pack`.

        Raises
        ------
        IndexError
            If a position does not exist.
        TypeError, ValueError
            As `append` does, and if a position comes twice or the numbers differ.

        Examples
        --------
        >>> items = pack(torch.eye(2))
        >>> items.replace([1], torch.tensor([[3.0, 4.0]]))
        >>> items.inverse_norms.tolist()
        [1.0, 0.2]
        """
        places = self._places(positions)
        new = self._alike(items, backend)
        if new.data.shape[0] != places.shape[0]:
            raise ValueError(
                f"items has {new.data.shape[0]} rows but there are {places.shape[0]} positions"
            )
        self._sketched(backend).replace(places, new)

    def remove(self, positions: Any) -> tuple[Tensor, Tensor]:
        """Remove items; the last ones move into their places.

        Parameters
        ----------
        positions : array or list of int, [n]
            Each once.

        Returns
        -------
        (Tensor, Tensor), [m] int64 twice
            Where the items that moved were, and where they are.

        Raises
        ------
        IndexError
            If a position does not exist.
        TypeError, ValueError
            If the positions are no integers, or one comes twice.

        Examples
        --------
        >>> items = pack(torch.tensor([[1.0], [2.0], [3.0]]))
        >>> items.remove([0])
        (tensor([2]), tensor([0]))
        >>> items.data.tolist()
        [[3.0], [2.0]]
        """
        places = self._places(positions)
        return self._sketched(None).remove(places)

    def take(self, positions: Any) -> PackedItems:
        """Copies of some items as a pack of their own.

        Parameters
        ----------
        positions : array or list of int, [n]
            In any order, also repeated.

        Raises
        ------
        IndexError
            If a position does not exist.
        TypeError, ValueError
            If the positions are no integers.

        Examples
        --------
        >>> pack(torch.tensor([[1.0], [2.0], [3.0]])).take([2, 0]).data.tolist()
        [[3.0], [1.0]]
        """
        places = checks.id_array("positions", positions, "[n]").to(self.device)
        contents.in_range("positions", places, len(self))
        return PackedItems.of(self._room.take(places))

    def _places(self, positions: Any) -> Tensor:
        places = checks.id_array("positions", positions, "[n]").to(self.device)
        contents.in_range("positions", places, len(self))
        once, counts = places.unique(return_counts=True)
        if once.shape[0] < places.shape[0]:
            raise ValueError(
                f"positions holds {int(once[counts.argmax()])} more than once; expected each once"
            )
        return places

    def _alike(self, items: Any, backend: str | None) -> Rows:
        """Items of the same kind as these, packed."""
        held, rows = self.rows(), rows_of("items", items)
        if rows.dim != held.dim:
            raise ValueError(f"items has {rows.dim} columns but the pack has {held.dim}")
        if _storage(rows) != _storage(held):
            raise ValueError(
                f"items is {_storage(rows)} but the pack is {_storage(held)}; expected the same"
            )
        if rows.data.device != held.data.device:
            raise ValueError(
                f"items is on {rows.data.device} but the pack is on {held.data.device}"
            )
        # A pack that is put into itself would be read where it is written.
        packed = isinstance(items, PackedItems) and rows.sketch is not None and items is not self
        return rows if packed else _packed(rows, backend)

    def _sketched(self, backend: str | None) -> Room:
        """The rows, with a sketch from now on."""
        if self.sketch is None:
            self._room = Room(_packed(self.rows(), backend))
        return self._room


def pack(items: Any, *, backend: str | None = None) -> PackedItems:
    """Prepare items for many calls of `cosine_topk` and `candidate_scores`.

    Parameters
    ----------
    items : array [N, d] float32, float16, bfloat16 or float64, or QuantizedTable
        The vectors; finite. Float64 is read as float32.
    backend
        Force one backend; None takes the best that can run.

    Returns
    -------
    PackedItems

    Raises
    ------
    TypeError
        If `items` is neither an array nor a QuantizedTable.
    ValueError
        If it is not two-dimensional and floating point, or holds NaN or Inf.

    Examples
    --------
    >>> len(pack(torch.eye(3)))
    3
    """
    return PackedItems.of(_packed(rows_of("items", items), backend))


def _packed(rows: Rows, backend: str | None) -> Rows:
    op = getattr(torch.ops.llmrec, backends.select(OP, rows.data.device, backend))
    data, inverse_norms, *sketch = op(
        rows.data.detach(), rows.scale, rows.bias, rows.bits, rows.dim
    )
    scale, bias = (
        None if numbers is None else numbers.clone(memory_format=torch.contiguous_format)
        for numbers in (rows.scale, rows.bias)
    )
    return Rows(data, scale, bias, rows.bits, rows.dim, inverse_norms, Sketch(*sketch))


def _storage(rows: Rows) -> str:
    """How the rows are kept, in words."""
    if rows.data.dtype.is_floating_point:
        return str(rows.data.dtype).removeprefix("torch.")
    return f"int{rows.bits} codes {'without' if rows.bias is None else 'with'} a bias"
