"""What an index takes."""

from __future__ import annotations

from typing import NamedTuple


class IndexStats(NamedTuple):
    """Counts and bytes of an `ItemIndex` at one moment.

    Parameters
    ----------
    items : int
        Items that a search can return.
    removed : int
        Rows that were removed or replaced, and are still held.
    segments : int
        Parts that a search reads one after the other; the tail is none.
    version : int
        Changes seen.
    memory_bytes : int
        Bytes held in memory: rows with their codes, ids, biases and scales, notes of what was
        removed, and room to grow. Rows that only an older snapshot sees are not counted.
    mapped_bytes : int
        Bytes of rows that are in files, and in memory where the system caches them.
    journal_bytes : int
        Bytes of the journal, which the next `save` empties.
    """

    items: int
    removed: int
    segments: int
    version: int
    memory_bytes: int
    mapped_bytes: int
    journal_bytes: int

    @property
    def bytes_per_item(self) -> float:
        """Bytes held for each item, wherever they are; 0 where there is none."""
        return (self.memory_bytes + self.mapped_bytes) / self.items if self.items else 0.0
