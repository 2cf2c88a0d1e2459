"""How a call of csrc/cosine_topk/topk.cu is cut up: its chunks, batches, scans and workspace.

The same numbers as there; tests compare the launches.
"""

from __future__ import annotations

from typing import NamedTuple

from llmrec_kernels.ops import nvrtc_common as nvrtc
from llmrec_kernels.ops.nvrtc_common import parts

WARP = 32
TILE_ITEMS, GROUP, BLOCK_ITEMS, STEP = 128, 32, 16, 32  # kTileItems and so on, of call.cuh
DECIDERS, MOST_DECIDERS = 256, 1024  # kDeciders and kMostDeciders of decide.cuh
SCANNERS, CHUNK_GROUPS, STAGES = 128, 256, 4  # kScanners and so on, of scan.cuh
TILE_BLOCKS = TILE_ITEMS // BLOCK_ITEMS  # kTileBlocks
SCAN_TILES = SCANNERS // WARP  # kScanTiles
QUERY_TERMS_BYTES = 16  # sizeof(QueryTerms)

WORKSPACE_BYTES = 1 << 30  # of a batch of queries
CHUNK_BYTES = 32 << 20  # of codes that are made on the way: they stay in L2
MOST_QUERIES, FEWEST_QUERIES = 4096, 8
FEW_QUERIES, QUERIES_FOR_MOST = 8, 64  # kFewQueries, kQueriesForMost
PADDED = 128  # queries, in their codes
LEAST_CAPACITY, CAPACITY_OF_K = 8192, 128
SAMPLED_SHARE = 16  # a sample has one tile in so many


class Tuning(NamedTuple):
    """How the search goes about it; 0 chooses. No result depends on it; tests press on it.

    Parameters
    ----------
    capacity
        Candidates that a query may hold.
    chunk_bytes
        Codes of the items that are scanned at a time.
    round_queries
        Queries searched at a time.
    """

    capacity: int = 0
    chunk_bytes: int = 0
    round_queries: int = 0


class Scan(NamedTuple):
    """A kernel that scans, for so many queries."""

    kernel: str
    few: bool
    queries: int
    threads: int
    shared: int

    @classmethod
    def few_of(cls, queries: int) -> Scan:
        """`scan_few`."""
        name = nvrtc.expression("scan_few", queries)
        return cls(name, True, queries, SCANNERS, CHUNK_GROUPS * queries * 4)

    @classmethod
    def many_of(cls, blocks: int, columns: int, sides: int) -> Scan:
        """`scan`, on tensor cores, of a Shape."""
        threads = TILE_BLOCKS // blocks * sides * WARP  # kThreads
        stage = TILE_ITEMS * STEP + columns * sides * 8 * STEP  # kStage
        groups, queries = TILE_ITEMS // GROUP, 8 * columns * sides
        knows = 4 * (2 * TILE_ITEMS + groups * (4 + queries) + queries)  # sizeof(Knows)
        shared = STAGES * stage + knows  # kShared
        name = nvrtc.expression("scan", blocks, columns, sides)
        return cls(name, False, queries, threads, shared)


SCANS = (
    Scan.few_of(1), Scan.few_of(2), Scan.few_of(4), Scan.few_of(8), Scan.many_of(2, 4, 1),
    Scan.many_of(4, 8, 2),
)  # fmt: skip


def scan_for(count: int) -> Scan:
    """The one for a batch of queries; the last takes any number."""
    return next((scan for scan in SCANS if count <= scan.queries), SCANS[-1])


def deciders_of(count: int, most: int) -> int:
    """Threads that decide a query."""
    return most if count <= QUERIES_FOR_MOST else min(DECIDERS, most)


def padded(count: int, size: int) -> int:
    """The next multiple."""
    return parts(count, size) * size


class Plan(NamedTuple):
    """How one call is cut up.

    Parameters
    ----------
    groups
        Of 32 items.
    capacity
        Entries of a query.
    chunk
        Items that are scanned at a time.
    batch
        Queries that are searched at a time.
    tile_step, sampled
        Of the sample: every so many tiles, and its groups; 0 groups for none.
    filtered, per_query, sketched, overflows
        Whether there are filters, whether they differ by query, whether the items came with a
        sketch, and whether more items may pass than there is room for.
    """

    groups: int
    capacity: int
    chunk: int
    batch: int
    tile_step: int
    sampled: int
    filtered: bool
    per_query: bool
    sketched: bool
    overflows: bool

    @classmethod
    def of(
        cls, count: int, items: int, dim: int, k: int, filtered: bool, per_query: bool,
        sketched: bool, tuning: Tuning,
    ) -> Plan:  # fmt: skip
        """As plan_of has it."""
        kept, groups = min(k, items), parts(items, GROUP)
        item_bytes = max(1, padded(dim, 4))
        chunk_bytes = tuning.chunk_bytes or (items * item_bytes if sketched else CHUNK_BYTES)
        chunk = min(padded(items, TILE_ITEMS), padded(chunk_bytes // item_bytes, TILE_ITEMS))
        chunk = max(chunk, TILE_ITEMS)

        # All items of the k best groups fit in any case.
        wanted = tuning.capacity or max(LEAST_CAPACITY, CAPACITY_OF_K * kept)
        capacity = min(groups * GROUP, max(GROUP * kept, wanted))
        overflows = capacity < items

        tiles, in_tile = parts(min(chunk, items), TILE_ITEMS), TILE_ITEMS // GROUP
        sample = parts(max(2 * kept + 1, tiles * in_tile // SAMPLED_SHARE), in_tile)
        tile_step = 0
        if 2 * sample <= tiles:
            tile_step = tiles // sample
        elif overflows and tiles * in_tile >= kept:
            tile_step = 1
        sampled = padded(parts(tiles, tile_step), SCAN_TILES) * in_tile if tile_step else 0

        of_query = capacity * 20 + sampled * 4 + groups * 8 + padded(dim, STEP) + 64
        of_query += groups * 4 if per_query else 0
        most = tuning.round_queries or MOST_QUERIES
        batch = min(max(WORKSPACE_BYTES // of_query, min(FEWEST_QUERIES, most)), most)
        if batch > PADDED:
            batch = batch // PADDED * PADDED
        return cls(
            groups, capacity, chunk, min(batch, count), tile_step, sampled, filtered, per_query,
            sketched, overflows,
        )  # fmt: skip

    def sizes(self, dim: int) -> dict[str, int]:
        """Bytes of the parts of a workspace, in their order: fields, and what is made of items."""
        batch = self.batch
        made = 0 if self.sketched else self.chunk
        entries = batch * self.capacity
        bytes_of = {
            "query_codes": padded(batch, PADDED) * padded(dim, STEP),
            "query_terms": batch * QUERY_TERMS_BYTES,
            "query_inverse": batch * 8,
            "state": batch * 4,
            "threshold": batch * 4,
            "found": batch * 4,
            "kept": batch * 4,
            "lows": batch * self.sampled * 4,
            "estimates": entries * 4,
            "slacks": entries * 4,
            "entries": entries * 4,
            "keys": entries * 8,
            "group_keys": batch * self.groups * 8,
            "marked": (batch if self.per_query else 1) * (self.groups if self.filtered else 0) * 4,
            "made_codes": made * padded(dim, 4),
            "made_unit_scale": made * 4,
            "made_residual": made * 4,
            "made_lengths": made * 8,
        }
        return {name: padded(size, 256) for name, size in bytes_of.items()}
