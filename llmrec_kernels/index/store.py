"""The rows of an index as they change: one thread changes them, any number of others read.

Rows are added behind the last of the *tail*. When that is full, what is left of it becomes a
*segment*: rows in the order of their ids, which never change. Segments of like size become one, so
that there are few, and each row is copied a few times only (O'Neil, Cheng, Gawlick and O'Neil,
*The Log-Structured Merge-Tree*, Acta Informatica 33, 1996). A row is removed by a note beside its
segment, and updated by removing it and adding another. Segments of which a quarter was removed are
written anew without.

Nothing that a published version sees is ever written: a reader takes `version` once, and needs no
lock.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

from llmrec_kernels.index.removals import Positions
from llmrec_kernels.index.segment import Entries, Segment, merged
from llmrec_kernels.index.stats import IndexStats
from llmrec_kernels.index.tail import Prefix, Tail
from llmrec_kernels.index.version import Part, Places, Version
from llmrec_kernels.ops.rows import Rows

TAIL = 1 << 12  # rows of the tail; as many at once are a segment by themselves
FAN = 4  # segments of like size that become one
MERGED = 1 << 18  # rows of a segment that others were merged into
LARGEST = 1 << 20  # rows of a segment
MAPPED = 1 << 22  # bytes of a mapped segment that is still merged with others by a save
WORTH = 64  # rows removed from the tail before it is written anew


class Store:
    """Parts, and the version that holds them.

    Parameters
    ----------
    empty : Rows
        No rows, of the kind that the index keeps.
    parts : sequence of Part
        Segments to begin with.
    number : int
        How many changes they have seen.
    """

    def __init__(self, empty: Rows, parts: Sequence[Part] = (), number: int = 0) -> None:
        self._empty = empty
        self._broken_off = False
        self.version = Version(number, (*parts, Part(Prefix(Tail(empty)), 0)))

    @property
    def _tail(self) -> Tail:
        """The tail that the version has the beginning of: one name for both cannot disagree."""
        last = self.version.parts[-1].block
        assert isinstance(last, Prefix)
        return last.tail

    def stats(self, journal_bytes: int) -> IndexStats:
        """What the index takes now."""
        version, tail = self.version, self._tail
        segments = [part.block for part in version.parts if isinstance(part.block, Segment)]
        notes = sum(segment.removals.nbytes for segment in segments)
        held = sum(segment.nbytes for segment in segments if not segment.mapped)
        return IndexStats(
            version.live,
            sum(part.removed for part in version.parts),
            len(segments),
            version.number,
            tail.nbytes + notes + held,
            sum(segment.nbytes for segment in segments if segment.mapped),
            journal_bytes,
        )

    def make_room(self, more: int) -> None:
        """Before a change that adds so many rows: the parts may be others then."""
        if self._broken_off or (0 < more < TAIL < len(self._tail) + more):
            self.seal()

    def change(
        self,
        added: Sequence[Entries],
        removed: Places | None,
        certain: Callable[[], None] = lambda: None,
    ) -> None:
        """Remove and add rows, and publish the next version; where anything fails, neither.

        `certain` is called when nothing but a bug or an interruption can fail any more.
        """
        parts, tail = list(self.version.parts), self._tail
        short = [each for each in added if each.ids.shape[0] < TAIL]
        tail.reserve(sum(each.ids.shape[0] for each in short))
        gone = {} if removed is None else _by_part(removed, len(parts))
        for number, positions in gone.items():  # as many notes as the tail has room for by now
            block, seen = parts[number]
            block.removals.reserve(positions.shape[0], seen=seen, rows=self._room(block))
        segments = [Part(Segment(each), 0) for each in added if each.ids.shape[0] >= TAIL]
        certain()
        self._broken_off = True
        for number, positions in gone.items():
            block, seen = parts[number]
            block.removals.note(positions, seen=seen, rows=self._room(block))
            parts[number] = Part(block, seen + positions.shape[0])
        for each in short:
            tail.append(each)
        last = Part(Prefix(tail), parts[-1].removed)
        self.version = Version(self.version.number + 1, (*parts[:-1], *segments, last))
        self._broken_off = False

    def tidy(self) -> None:
        """After a change: merge what is small, and write anew what is mostly removed.

        The items stay the same, and so does the number of the version. What fails, for lack of
        memory say, is put off with a warning: the change was made.
        """
        try:
            self._tidy()
        except Exception as error:
            warnings.warn(
                f"the change was made, but the index could not be tidied: {error}",
                RuntimeWarning,
                stacklevel=4,
            )

    def seal(self) -> None:
        """Make a segment of the tail."""
        *parts, last = self.version.parts
        if last.live:
            parts.append(Part(Segment(merged([(last.block, last.left())])), 0))
        self._start_tail(parts)

    def reclaim(self, keep: Callable[[Entries], Segment]) -> None:
        """Write mapped segments anew of which a quarter was removed: `tidy` leaves them alone."""
        parts = [
            Part(keep(merged([(part.block, part.left())])), 0)
            if part.block.mapped and _is_wasteful(part)
            else part
            for part in self.version.parts[:-1]
            if part.live
        ]
        while (alike := _alike(parts, _is_small)) >= FAN:
            pieces = [(part.block, part.left()) for part in parts[-alike:]]
            parts[-alike:] = [Part(keep(merged(pieces)), 0)]
        self._publish(parts)

    def replace(self, old: Segment, new: Segment) -> None:
        """Have the same rows from elsewhere, if they are still there."""
        parts = [
            Part(new, part.removed) if part.block is old else part
            for part in self.version.parts[:-1]
        ]
        new.removals = old.removals
        self._publish(parts)

    def compact(self, keep: Callable[[Entries], Segment]) -> None:
        """Write segments and tail anew in as few segments as may be, without what was removed.

        `keep` makes a segment of rows; at most `LARGEST` of them are in memory beside the others.
        """
        self.seal()
        done = [part for part in self.version.parts[:-1] if _is_compact(part)]
        work = [part for part in self.version.parts[:-1] if not _is_compact(part) and part.live]
        if len(work) == 1 and work[0].removed == 0:
            done, work = [*done, *work], []
        pieces: list[tuple[Segment | Prefix, Positions]] = []
        room = LARGEST
        for part in work:
            left = part.left()
            while left.shape[0]:
                pieces.append((part.block, left[:room]))
                left, room = left[room:], room - pieces[-1][1].shape[0]
                if room == 0:
                    done.append(Part(keep(merged(pieces)), 0))
                    pieces, room = [], LARGEST
        if pieces:
            done.append(Part(keep(merged(pieces)), 0))
        self._publish(done)

    def _tidy(self) -> None:
        *parts, last = self.version.parts
        whole = [part for part in parts if part.live]
        for number, part in enumerate(whole):
            if not part.block.mapped and _is_wasteful(part):
                whole[number] = Part(Segment(merged([(part.block, part.left())])), 0)
        while (alike := _alike(whole, lambda part: not part.block.mapped)) >= FAN:
            pieces = [(part.block, part.left()) for part in whole[-alike:]]
            whole[-alike:] = [Part(Segment(merged(pieces)), 0)]
        if last.removed >= WORTH and 2 * last.removed >= last.block.count:
            kept = merged([(last.block, last.left())])
            self._start_tail(whole, kept)
        elif whole != parts:
            self._publish(whole)

    def _start_tail(self, parts: Sequence[Part], kept: Entries | None = None) -> None:
        tail = Tail(self._empty)
        if kept is not None:
            tail.append(kept)
        self._publish(parts, Part(Prefix(tail), 0))
        self._broken_off = False

    def _publish(self, parts: Sequence[Part], last: Part | None = None) -> None:
        last = last or self.version.parts[-1]
        self.version = Version(self.version.number, (*parts, last))

    def _room(self, block: Segment | Prefix) -> int:
        """Rows that the block may come to have."""
        return block.count if isinstance(block, Segment) else self._tail.ids.shape[0]


def _by_part(places: Places, count: int) -> dict[int, Positions]:
    found = {number: places.in_part(number) for number in range(count)}
    return {number: positions for number, positions in found.items() if positions.shape[0]}


def _alike(parts: Sequence[Part], may: Callable[[Part], bool]) -> int:
    """How many of the last parts are of one size, and not too large to be merged."""
    alike = total = 0
    for part in reversed(parts):
        total += part.live
        if _size(part) > _size(parts[-1]) or total > MERGED or not may(part):
            break
        alike += 1
    return alike


def _size(part: Part) -> int:
    """Which power of the fan: rows that are merged come to be of the next one."""
    return int(math.log(max(1.0, part.live / TAIL), FAN) + 1e-9)


def _is_small(part: Part) -> bool:
    return isinstance(part.block, Segment) and part.block.nbytes < MAPPED


def _is_wasteful(part: Part) -> bool:
    return 4 * part.removed >= part.block.count


def _is_compact(part: Part) -> bool:
    return part.removed == 0 and part.block.count > LARGEST // 2
