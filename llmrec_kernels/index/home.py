"""The folder that an index was loaded from, or is saved to: its lock and its journal."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import torch

from llmrec_kernels.index import disk, manifest, saved
from llmrec_kernels.index.blocks import open_segment
from llmrec_kernels.index.journal import NOTHING, Journal, Reader
from llmrec_kernels.index.layout import Kind
from llmrec_kernels.index.manifest import Manifest, SegmentRecord
from llmrec_kernels.index.segment import Entries, Segment
from llmrec_kernels.index.store import Store
from llmrec_kernels.index.turns import Turns
from llmrec_kernels.index.version import Part

CPU = torch.device("cpu")


class Home:
    """Where an index lives.

    Parameters
    ----------
    folder : Path
        Absolute.
    mapped : bool
        Whether segments stay in their files.
    """

    def __init__(self, folder: Path, *, mapped: bool) -> None:
        self.folder, self.mapped = folder, mapped
        self._identity = disk.identity(folder) if folder.is_dir() else None
        self.journal: Journal | None = None
        self._lock: int | None = None
        self._process = os.getpid()

    @property
    def forked(self) -> bool:
        """Whether this is another process than the one that opened it."""
        return os.getpid() != self._process

    def lock(self) -> None:
        """Keep other processes from writing there, until `close`."""
        self._lock = disk.lock(self.folder)

    def go_on(self, reader: Reader, found: Manifest) -> None:
        """Write changes behind those that were read."""
        last = reader.last
        if last is None:
            token, first = disk.new_token(), found.changes + 1
            self.journal = Journal.begin(self.folder, token, found.kind, after=NOTHING, first=first)
            with saved.Save(self.folder, found.kind) as saving:
                saving.made(manifest.journal_name(token))
                # From now on it would be missed if it were not there.
                manifest.write(found.model_copy(update={"journal": token}), self.folder)
            return
        if reader.torn:
            os.truncate(last.path, reader.end)
        self.journal = Journal(self.folder, last.token, found.kind)
        self.journal.sync()

    def turn(self, kind: Kind, number: int) -> str | None:
        """Begin the journal of the changes after this number, if one is kept; returns its token."""
        if self.journal is None:
            return None
        self.journal.sync()
        token, after = disk.new_token(), self.journal.token
        new = Journal.begin(self.folder, token, kind, after=after, first=number + 1)
        old, self.journal = self.journal, new
        old.close()
        return token

    def is_in(self, folder: Path) -> bool:
        """Whether the index lives in this folder, which is there; by whatever name."""
        return disk.identity(folder) == self._identity

    def writing(self, folder: Path) -> contextlib.AbstractContextManager[None]:
        """Let no other process write to this folder meanwhile."""
        ours = self.is_in(folder) and self._lock is not None
        return contextlib.nullcontext() if ours else disk.locked(folder)

    def close(self) -> None:
        """Let go of the journal and the folder."""
        journal, self.journal = self.journal, None
        if journal is not None:
            journal.close()
        handle, self._lock = self._lock, None
        if handle is not None and self.forked:
            os.close(handle)  # the other one still has it
        elif handle is not None:
            disk.unlock(handle)

    def __del__(self) -> None:
        self.close()


def save(folder: Path, home: Home, store: Store, changing: Turns, kind: Kind, metric: str) -> None:
    """Put what the store holds now into a folder; changes wait only until it is known what."""
    disk.make_folder(folder)
    own, where = home.is_in(folder), disk.identity(folder)
    with home.writing(folder), saved.Save(folder, kind) as saving:
        saved.check_target(folder)
        with changing.next():
            if own and home.mapped:
                store.reclaim(keeping(saving))
            store.seal()
            version = store.version
            token = home.turn(kind, version.number) if own else None
        parts = version.parts[:-1]
        records = [_record(saving, where, kind, part) for part in parts]
        removed = saving.removed(parts, records) if any(part.removed for part in parts) else None
        saving.commit(
            Manifest.of(kind, metric, version.number, token, segments=records, removed=removed)
        )
    for part, record in zip(parts, records, strict=True):
        assert isinstance(part.block, Segment)
        part.block.files[where] = record
        if own and home.mapped and not part.block.mapped:
            new = open_segment(folder, kind, record, mapped=True, device=CPU)
            with changing.next():
                store.replace(part.block, new)


def keeping(saving: saved.Save) -> Callable[[Entries], Segment]:
    """How rows become a segment that stays in its file."""

    def keep(entries: Entries) -> Segment:
        record = saving.segment(entries)
        return open_segment(saving.folder, saving.kind, record, mapped=True, device=CPU)

    return keep


def _record(saving: saved.Save, where: str, kind: Kind, part: Part) -> SegmentRecord:
    """A segment's file, which is written where it is not there."""
    assert isinstance(part.block, Segment)
    record = part.block.files.get(where)
    if record is None or not saved.has_segment(saving.folder, kind, record):
        record = saving.segment(part.block.all)
    return record.model_copy(update={"removed": part.removed})
