"""The bytes of a segment's file, each block of which is compared with its checksum before use."""

from __future__ import annotations

import io
import math
import mmap
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from torch import Tensor

from llmrec_kernels import _memory
from llmrec_kernels.index import disk
from llmrec_kernels.index.errors import IndexFormatError
from llmrec_kernels.index.layout import BLOCK, DTYPES, Field, Kind, segment_layout
from llmrec_kernels.index.manifest import SegmentRecord
from llmrec_kernels.index.removals import Positions
from llmrec_kernels.index.segment import Entries, Ids, Segment
from llmrec_kernels.ops.pack import layout as codes_layout
from llmrec_kernels.ops.rows import Rows, Sketch


class Blocks:
    """A file as it is mapped, and which of its blocks were looked at.

    Parameters
    ----------
    path
        The file, for what errors say.
    content : ndarray, [size] uint8
        All of it.
    table : ndarray, [blocks] uint64
        The checksums.
    fields : dict
        Where the tensors are.
    """

    def __init__(
        self,
        path: Path,
        content: npt.NDArray[np.uint8],
        table: npt.NDArray[np.uint64],
        fields: dict[str, Field],
    ) -> None:
        self._path, self._content, self._table, self._fields = path, content, table, fields
        self._known = np.zeros(table.shape, np.bool_)

    def of_ids(self) -> None:
        """Raise `IndexFormatError` unless the ids are as they were written."""
        field = self._fields["ids"]
        self._compare(np.arange(field.start // BLOCK, -(-field.stop // BLOCK)))
        ids = self.tensor("ids").numpy()
        if not (ids[1:] > ids[:-1]).all():
            raise IndexFormatError(f"{self._path}: ids are not in ascending order, each once")

    def of_rows(self, positions: Positions | None) -> None:
        """The same of everything that belongs to these rows, or to all."""
        if positions is None:
            self._compare(np.arange(self._table.shape[0]))
            return
        for field in self._fields.values():
            if field.name == "checksums":
                continue
            rows = positions // codes_layout.LANES if field.name == "codes" else positions
            width = field.nbytes // field.shape[0]
            first = (field.start + rows * width) // BLOCK
            last = (field.start + (rows + 1) * width - 1) // BLOCK
            for more in range(int((last - first).max(initial=0)) + 1):
                self._compare(np.unique(np.minimum(first + more, last)))

    def tensor(self, name: str) -> Tensor:
        """A tensor of the file: a view."""
        field = self._fields[name]
        with warnings.catch_warnings():  # of memory that cannot be written, and never is
            warnings.simplefilter("ignore", UserWarning)
            flat = torch.frombuffer(
                self._content,
                dtype=DTYPES[field.dtype],
                count=math.prod(field.shape),
                offset=field.start,
            )
        return flat.view(field.shape)

    def optional(self, name: str) -> Tensor | None:
        """The same, where there is one."""
        return self.tensor(name) if name in self._fields else None

    def _compare(self, blocks: npt.NDArray[np.int64]) -> None:
        end = self._fields["checksums"].start
        for block in blocks[~self._known[blocks]].tolist():
            start = block * BLOCK
            stop = min(start + BLOCK, end)
            if xxhash.xxh3_64_intdigest(self._content[start:stop].data) != self._table[block]:
                raise IndexFormatError(
                    f"{self._path} is damaged in bytes {start:,} to {stop - 1:,}, which hold "
                    f"{' and '.join(self._held(start, stop))}"
                )
            self._known[block] = True

    def _held(self, start: int, stop: int) -> list[str]:
        names = [f.name for f in self._fields.values() if f.start < stop and start < f.stop]
        return names or ["the header"]


def open_segment(
    folder: Path, kind: Kind, record: SegmentRecord, *, mapped: bool, device: torch.device
) -> Segment:
    """A segment of what its file holds: mapped, and compared as it is used, or read at once."""
    path = folder / record.file
    layout = segment_layout(kind, record.rows, biased=record.biased, scaled=record.scaled)
    size = disk.size_of_file(path)
    if size != layout.size:
        raise IndexFormatError(f"{path} has {size:,} bytes; expected {layout.size:,}")
    with path.open("rb", buffering=0) as file:
        memory = (
            mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if mapped else _read(file, size)
        )
    content = np.frombuffer(memory, np.uint8)
    if content[: len(layout.header)].tobytes() != layout.header:
        raise IndexFormatError(f"{path} has another header than a segment of {record.rows} rows")
    checksums = layout.fields["checksums"]
    table = content[checksums.start : checksums.stop].copy()
    if disk.checksum(table) != record.checksum:
        raise IndexFormatError(f"{path}: its checksums are not those that it was written with")
    blocks = Blocks(path, content, table.view("<u8"), layout.fields)
    if not mapped:
        blocks.of_rows(None)
        blocks.of_ids()
    segment = Segment(_entries(kind, blocks, device), blocks if mapped else None)
    segment.files[disk.identity(folder)] = record
    return segment


def _entries(kind: Kind, blocks: Blocks, device: torch.device) -> Entries:
    def on_device(name: str) -> Tensor:
        return blocks.tensor(name).to(device)

    def optional(name: str) -> Tensor | None:
        tensor = blocks.optional(name)
        return None if tensor is None else tensor.to(device)

    rows = Rows(
        on_device("data"),
        optional("scale"),
        optional("bias"),
        {"int8": 8, "int4": 4}.get(kind.storage, 0),
        kind.dim,
        on_device("inverse_norms"),
        Sketch(on_device("codes"), on_device("unit_scale"), on_device("residual")),
    )
    ids: Ids = blocks.tensor("ids").numpy()
    return Entries(ids, rows, optional("item_bias"), optional("item_scale"))


def _read(file: io.FileIO, size: int) -> mmap.mmap | bytearray:
    memory = _memory.anonymous(size) if size >= _memory.LARGE else bytearray(size)
    view, done = memoryview(memory), 0
    while done < size:
        more = file.readinto(view[done : done + disk.PIECE])
        if not more:
            raise IndexFormatError(f"{file.name} ended after {done:,} of {size:,} bytes")
        done += more
    return memory
