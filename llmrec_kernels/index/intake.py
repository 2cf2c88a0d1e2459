"""What callers give an index, checked and made into rows as it keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmrec_kernels.index.encode import encode, stored
from llmrec_kernels.index.segment import Entries, Ids
from llmrec_kernels.index.store import LARGEST
from llmrec_kernels.index.version import Places, Version
from llmrec_kernels.ops import checks, contents


class Intake(NamedTuple):
    """What an index keeps, and where."""

    dim: int
    storage: str
    device: torch.device

    def given(self, ids: Any, vectors: Any, bias: Any, scale: Any) -> Given:
        """Rows for ids in the form of tensors: kinds and shapes are right, and numbers finite."""
        values, order = unique(ids)
        count = values.shape[0]
        rows = None if vectors is None else self._vectors(vectors, count)
        numbers = self._numbers("bias", bias, count), self._numbers("scale", scale, count)
        return Given(values, order, rows, *numbers)

    def added(self, given: Given) -> list[Entries]:
        """New rows, as many at a time as a segment has."""
        entries = []
        for part in _pieces(given.ids):
            some = given.piece(part)
            assert some.vectors is not None
            entries.append(Entries(some.ids, self._rows(some), *some.numbers(self.device)))
        return entries

    def changed(self, given: Given, version: Version, places: Places) -> list[Entries]:
        """Rows that are there, with what is given in place of what they had."""
        entries = []
        for part in _pieces(given.ids):
            some, old = given.piece(part), Places(places.part[part], places.position[part])
            if some.vectors is None:
                had = version.entries(old)
            else:
                had = Entries(some.ids, self._rows(some), *version.numbers(old))
            bias, scale = some.numbers(self.device)
            entries.append(
                had._replace(
                    bias=had.bias if bias is None else bias,
                    scale=had.scale if scale is None else scale,
                )
            )
        return entries

    def stored(
        self,
        ids: Ids,
        columns: Mapping[str, Tensor],
        bias: Tensor | None,
        scale: Tensor | None,
    ) -> list[Entries]:
        """Rows of what was kept of them before."""
        entries = []
        for part in _pieces(ids):
            some = {name: column[part].to(self.device) for name, column in columns.items()}
            numbers = (
                None if each is None else each[part].to(self.device) for each in (bias, scale)
            )
            entries.append(Entries(ids[part], stored(some, self.storage, self.dim), *numbers))
        return entries

    def empty(self) -> Entries:
        """No rows."""
        vectors = torch.empty(0, self.dim, dtype=torch.float32, device=self.device)
        return Entries(unique([])[0], encode(vectors, self.storage), None, None)

    def _rows(self, given: Given) -> Any:
        vectors = given.vectors_by_id().to(self.device).float()
        return encode(vectors, self.storage, given.order)

    def _vectors(self, vectors: Any, count: int) -> Tensor:
        tensor = checks.float_array("vectors", vectors, "[n, dim]")
        if tensor.shape != (count, self.dim):
            raise ValueError(
                f"vectors has shape {list(tensor.shape)}; expected [{count}, {self.dim}], "
                "a row for each id"
            )
        return tensor.detach()

    def _numbers(self, name: str, values: Any, count: int) -> Tensor | None:
        if values is None:
            return None
        tensor = checks.float_array(name, values, "[n]").detach().to(self.device)
        checks.vector(name, tensor, count, "[n]", self.device)
        contents.finite(name, tensor.float())
        return tensor.float()


class Given(NamedTuple):
    """Ids in ascending order, and what was given for them, in the caller's.

    Parameters
    ----------
    ids : ndarray, [n] int64
    order : Tensor, [n] int64
        Where each of them was.
    vectors : Tensor, [m, dim], or None
    bias, scale : Tensor, [m] float32, or None
    """

    ids: Ids
    order: Tensor
    vectors: Tensor | None
    bias: Tensor | None
    scale: Tensor | None

    def piece(self, part: slice) -> Given:
        """Some of the ids."""
        return self._replace(ids=self.ids[part], order=self.order[part])

    def numbers(self, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """Bias and scale in the order of the ids."""
        order = self.order.to(device)
        bias, scale = (None if each is None else each[order] for each in (self.bias, self.scale))
        return bias, scale

    def vectors_by_id(self) -> Tensor:
        """The vectors in the order of the ids: without a copy where that is the caller's."""
        assert self.vectors is not None
        order = self.order.numpy()
        if order.shape[0] == 1 or (order[1:] == order[:-1] + 1).all():
            return self.vectors[int(order[0]) : int(order[-1]) + 1]
        return self.vectors.index_select(0, self.order.to(self.vectors.device))


def unique(ids: Any) -> tuple[Ids, Tensor]:
    """Ids in ascending order, each of which comes once, and where each was."""
    values = checks.id_array("ids", ids, "[n]").cpu().numpy()
    order = values.argsort(kind="stable")
    values = values[order]
    twice = values[1:] == values[:-1]
    if twice.any():
        raise ValueError(
            f"ids holds {values[twice.argmax()]} more than once; expected each id once"
        )
    return values, torch.from_numpy(order)


def _pieces(ids: Ids) -> list[slice]:
    """Stretches of as many rows as a segment has."""
    return [slice(start, start + LARGEST) for start in range(0, ids.shape[0], LARGEST)]
