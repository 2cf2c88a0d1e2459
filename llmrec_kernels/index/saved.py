"""An index in a folder: how it gets there, and back.

Segments are files that never change, so a save writes those that are not there yet, then what was
removed, and last the manifest, which replaces the old one in one step. What the manifest does not
name is nobody's, and is swept.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import xxhash
from torch import Tensor

from llmrec_kernels.index import disk, manifest
from llmrec_kernels.index.blocks import open_segment
from llmrec_kernels.index.errors import IndexFormatError
from llmrec_kernels.index.layout import BLOCK, Kind, Layout, file_layout, raw, segment_layout
from llmrec_kernels.index.manifest import Manifest, RemovedRecord, SegmentRecord
from llmrec_kernels.index.segment import Entries
from llmrec_kernels.index.version import Part

OURS = re.compile(
    r"((segment|removed)-{0}\.safetensors|journal-{0}\.log|\.{1}\.{0})".format(
        "[0-9a-f]{16}", re.escape(manifest.NAME)
    )
)


def open_parts(folder: Path, found: Manifest, *, mapped: bool, device: torch.device) -> list[Part]:
    """The segments of a manifest."""
    parts = []
    for record, positions in zip(found.segments, _removed(folder, found), strict=True):
        segment = open_segment(folder, found.kind, record, mapped=mapped, device=device)
        if positions.shape[0]:
            segment.removals.note(positions, seen=0, rows=record.rows)
        parts.append(Part(segment, record.removed))
    return parts


def check_target(folder: Path) -> Manifest | None:
    """The manifest that a save will replace; refuses a folder of something else."""
    try:
        return manifest.read(folder)
    except FileNotFoundError:
        others = sorted(path.name for path in folder.iterdir() if not OURS.fullmatch(path.name))
        if others:
            raise ValueError(
                f"path is {folder}, which holds {others[0]} and no index; expected a folder "
                "of an index, an empty one, or none"
            ) from None
        return None
    except IndexFormatError as error:
        raise IndexFormatError(
            f"{error}; it is not overwritten, so remove {folder} first"
        ) from error


class Save:
    """One save: what it writes is nobody's until `commit`, and goes away if that fails.

    Parameters
    ----------
    folder : Path
        Where to.
    kind : Kind
        What the index keeps.
    """

    def __init__(self, folder: Path, kind: Kind) -> None:
        self.folder, self.kind = folder, kind
        self._written: list[Path] = []

    def __enter__(self) -> Save:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            return
        try:
            kept = manifest.read(self.folder).files
        except FileNotFoundError:
            kept = set()
        except (OSError, IndexFormatError):
            return  # nobody knows what is needed
        for path in self._written:
            if path.name not in kept:
                with contextlib.suppress(OSError):
                    path.unlink()

    def segment(self, entries: Entries) -> SegmentRecord:
        """Write a segment's file."""
        rows, given = entries.ids.shape[0], (entries.bias is not None, entries.scale is not None)
        layout = segment_layout(self.kind, rows, biased=given[0], scaled=given[1])
        table = Table()
        record = SegmentRecord(
            token=disk.new_token(),
            rows=rows,
            biased=given[0],
            scaled=given[1],
            checksum="0" * 16,
            removed=0,
        )
        self._write(record.file, table.behind(_filled(layout, _tensors(self.kind, entries))))
        return record.model_copy(update={"checksum": disk.checksum(table.bytes())})

    def removed(self, parts: Sequence[Part], records: Sequence[SegmentRecord]) -> RemovedRecord:
        """Write the file of what was removed from these segments."""
        tensors = {
            record.token: torch.from_numpy(part.gone().astype(np.int32))
            for part, record in zip(parts, records, strict=True)
            if part.removed
        }
        content = b"".join(_filled(_removed_layout(records), tensors))
        record = RemovedRecord(token=disk.new_token(), checksum=disk.checksum(content))
        self._write(record.file, [content])
        return record

    def commit(self, found: Manifest) -> None:
        """Have all of it take the place of what was there, and sweep that."""
        disk.sync_folder(self.folder)
        manifest.write(found, self.folder)
        sweep(self.folder, found)

    def made(self, name: str) -> None:
        """Take a file that was written already for one of this save's."""
        self._written.append(self.folder / name)

    def _write(self, name: str, parts: Iterable[disk.Bytes]) -> None:
        disk.write_new(self.folder / name, parts)
        self.made(name)


def has_segment(folder: Path, kind: Kind, record: SegmentRecord) -> bool:
    """Whether the file is there."""
    layout = segment_layout(kind, record.rows, biased=record.biased, scaled=record.scaled)
    try:
        return (folder / record.file).stat().st_size == layout.size
    except OSError:
        return False


def sweep(folder: Path, found: Manifest) -> None:
    """Remove what saves left behind that did not come to their end, or that are no more."""
    kept = found.files
    for path in folder.iterdir():
        if OURS.fullmatch(path.name) and path.name not in kept:
            with contextlib.suppress(OSError):  # it costs space, and nothing else
                path.unlink()


class Table:
    """The checksums of the blocks of a file that is being written."""

    def __init__(self) -> None:
        self._done: list[int] = []
        self._state, self._filled = xxhash.xxh3_64(), 0

    def behind(self, parts: Iterable[disk.Bytes]) -> Iterator[disk.Bytes]:
        """The parts of a file, and behind them the table."""
        for part in parts:
            self._add(memoryview(part).cast("B"))
            yield part
        yield self.bytes()

    def bytes(self) -> bytes:
        """What was added, block by block."""
        last = [self._state.intdigest()] if self._filled else []
        return np.array(self._done + last, "<u8").tobytes()

    def _add(self, part: memoryview) -> None:
        while part:
            some = part[: BLOCK - self._filled]
            self._state.update(some)
            self._filled += len(some)
            part = part[len(some) :]
            if self._filled == BLOCK:
                self._done.append(self._state.intdigest())
                self._state, self._filled = xxhash.xxh3_64(), 0


def _tensors(kind: Kind, entries: Entries) -> dict[str, Tensor | None]:
    rows = entries.rows
    assert rows.sketch is not None
    return {
        "codes": rows.sketch.codes,
        **{name: getattr(rows, name) for name, _, _ in kind.columns()},
        "inverse_norms": rows.inverse_norms,
        "ids": torch.from_numpy(entries.ids),
        "unit_scale": rows.sketch.unit_scale,
        "residual": rows.sketch.residual,
        "item_bias": entries.bias,
        "item_scale": entries.scale,
    }


def _filled(layout: Layout, tensors: Mapping[str, Tensor | None]) -> Iterator[disk.Bytes]:
    """The bytes of a file, but for a table of checksums at its end."""
    yield layout.header
    place = len(layout.header)
    for name, field in layout.fields.items():
        yield bytes(field.start - place)
        if (tensor := tensors.get(name)) is not None:
            yield raw(tensor).data
        place = field.stop


def _removed_layout(records: Sequence[SegmentRecord]) -> Layout:
    return file_layout([(each.token, "I32", (each.removed,)) for each in records if each.removed])


def _removed(folder: Path, found: Manifest) -> list[np.ndarray]:
    """What was removed of each segment: positions."""
    wanted = [record for record in found.segments if record.removed]
    for record in wanted:
        if record.removed > record.rows:
            raise IndexFormatError(f"{folder}: {record.file} has lost more rows than it has")
    nothing = np.empty(0, np.int64)
    if found.removed is None:
        if wanted:
            raise IndexFormatError(f"{folder / manifest.NAME}: removed is missing")
        return [nothing] * len(found.segments)
    path, layout = folder / found.removed.file, _removed_layout(found.segments)
    if (size := disk.size_of_file(path)) != layout.size:
        raise IndexFormatError(f"{path} has {size:,} bytes; expected {layout.size:,}")
    content = path.read_bytes()
    if disk.checksum(content) != found.removed.checksum:
        raise IndexFormatError(f"{path} is damaged: its checksum is not that of what it holds")
    if not content.startswith(layout.header):
        raise IndexFormatError(f"{path} has another header than what the segments have lost")
    gone = []
    for record in found.segments:
        if not record.removed:
            gone.append(nothing)
            continue
        field = layout.fields[record.token]
        positions = np.frombuffer(content, "<i4", record.removed, field.start).astype(np.int64)
        if positions.min() < 0 or positions.max() >= record.rows:
            raise IndexFormatError(f"{path} removes rows that {record.file} has not")
        if np.unique(positions).shape != positions.shape:
            raise IndexFormatError(f"{path} removes a row of {record.file} twice")
        gone.append(positions)
    return gone
