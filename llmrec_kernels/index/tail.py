"""The rows that were added last: behind each other, in the order in which they came."""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor

from llmrec_kernels.index.lazy import lazy
from llmrec_kernels.index.removals import Positions, Removals
from llmrec_kernels.index.segment import Entries, Ids
from llmrec_kernels.ops import PackedItems
from llmrec_kernels.ops.pack.room import Room, capacity, resized, used
from llmrec_kernels.ops.rows import Rows


class Tail:
    """Rows that one thread appends while others read those before them.

    A row, once it is published, is never written again, and what is behind the last one published
    is nobody's. An id can have several rows, of which all but the last were removed.

    Parameters
    ----------
    empty : Rows
        No rows, of the kind that will come.
    """

    def __init__(self, empty: Rows) -> None:
        self.rows = Room(empty)
        self.host_ids = np.empty(0, np.int64)
        self.earlier = np.empty(0, np.int32)  # the row before this one that had the same id, or -1
        device = empty.data.device
        self.ids = torch.empty(0, dtype=torch.int64, device=device)
        self.bias = torch.empty(0, dtype=torch.float32, device=device)
        self.scale = torch.empty(0, dtype=torch.float32, device=device)
        self.latest: dict[int, int] = {}  # the last row of an id
        self.removals = Removals()
        self.ascending = True
        # Whether a bias or a scale was ever given: a search reads no column of zeros or ones.
        self.biased = self.scaled = False

    def __len__(self) -> int:
        return self.rows.count

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is held, the room for more rows included."""
        columns = (self.ids, self.earlier, self.bias, self.scale, self.removals)
        known = sys.getsizeof(self.latest) + 64 * len(self.latest)  # two integers each
        return self.rows.nbytes + sum(each.nbytes for each in columns) + known

    def reserve(self, more: int) -> None:
        """Have room for so many rows, so that `append` cannot fail."""
        count = len(self)
        room = capacity(self.ids.shape[0], count + more)
        if room > self.ids.shape[0]:
            ids, bias, scale = (
                resized(column, room, count) for column in (self.ids, self.bias, self.scale)
            )
            host_ids = ids.numpy() if ids.device.type == "cpu" else _longer(self.host_ids, room)
            earlier = _longer(self.earlier, room)
            # All of them or none, also where it is broken off: no call is between these.
            self.host_ids, self.earlier, self.bias, self.scale = host_ids, earlier, bias, scale
            self.ids = ids
        self.rows.reserve(more)

    def append(self, entries: Entries) -> None:
        """Put rows behind the last."""
        ids, rows, bias, scale = entries
        self.reserve(ids.shape[0])
        start, count = len(self), len(self) + ids.shape[0]
        listed = ids.tolist()
        self.earlier[start:count] = [self.latest.get(one, -1) for one in listed]
        if ids.shape[0]:
            self.ascending &= start == 0 or listed[0] > int(self.host_ids[start - 1])
        self.host_ids[start:count] = ids
        if self.ids.device.type != "cpu":
            self.ids[start:count] = torch.from_numpy(ids)
        self.biased = _written(self.bias, bias, 0.0, slice(start, count), self.biased)
        self.scaled = _written(self.scale, scale, 1.0, slice(start, count), self.scaled)
        self.rows.append(rows)
        self.latest.update(zip(listed, range(start, count), strict=True))


class Prefix:
    """The first rows of a tail, as one version sees them."""

    mapped = False

    def __init__(self, tail: Tail) -> None:
        self.tail = tail
        self.count = len(tail)
        self.removals = tail.removals
        self.ascending = tail.ascending
        # What the tail grows out of later is still there; views of it are made when it is read.
        self._held = tail.rows.prefix()
        self._ids, self._host_ids = tail.ids, tail.host_ids
        self._bias = tail.bias if tail.biased else None
        self._scale = tail.scale if tail.scaled else None

    @lazy
    def all(self) -> Entries:
        """Everything."""
        bias, scale = (
            None if each is None else each[: self.count] for each in (self._bias, self._scale)
        )
        return Entries(self.host_ids, used(*self._held), bias, scale)

    @lazy
    def host_ids(self) -> Ids:
        """External ids by position."""
        return self._host_ids[: self.count]

    @lazy
    def ids(self) -> Tensor:
        """The same on the index's device."""
        return self._ids[: self.count]

    @lazy
    def items(self) -> PackedItems:
        """As the operators take them."""
        return PackedItems.of(self.all.rows)

    def some(self, positions: Positions) -> Entries:
        """Everything: it is in memory."""
        return self.all

    def find(self, ids: Ids) -> Positions:
        """The last row of each of these ids, or -1."""
        if 4 * ids.shape[0] < self.count:
            return np.fromiter(map(self.find_one, ids.tolist()), np.int64, ids.shape[0])
        if self.count == 0:
            return np.full(ids.shape, -1)
        order = self._by_id
        places = self.host_ids[order].searchsorted(ids, side="right") - 1
        found = order[places]
        return np.where((places >= 0) & (self.host_ids[found] == ids), found, -1)

    @lazy
    def _by_id(self) -> Positions:
        """Rows by id, those of one id in the order in which they came."""
        return self.host_ids.argsort(kind="stable")

    def find_one(self, item_id: int) -> int:
        """`find` of one id."""
        place = self.tail.latest.get(item_id, -1)
        while place >= self.count:  # it came later
            place = int(self.tail.earlier[place])
        return place


def _written(
    column: Tensor, values: Tensor | None, default: float, part: slice, before: bool
) -> bool:
    """Whether the column is in use; until a first value is given, nothing is written to it."""
    if values is None and not before:
        return False
    with torch.inference_mode():  # in which any tensor may be written
        if not before:
            column[: part.start] = default
        column[part] = default if values is None else values
    return True


def _longer(array: np.ndarray, room: int) -> np.ndarray:
    longer = np.empty(room, array.dtype)
    longer[: array.shape[0]] = array
    return longer
