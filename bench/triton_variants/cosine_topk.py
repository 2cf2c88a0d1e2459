"""Top-K: each kernel of the search for every storage, with filters and biases and without."""

from __future__ import annotations

from typing import Any

from llmrec_kernels.ops.cosine_topk.triton import (
    COLUMNS,
    DIMS,
    EXACT_REGISTERS,
    ITEMS,
    PAIRS,
    ROWS,
    SCAN_REGISTERS,
    tile_of,
)
from llmrec_kernels.ops.cosine_topk.triton_kernels import (
    look_again,
    mark,
    pack_mask,
    scan,
    search_exactly,
    squares,
)
from llmrec_kernels.ops.triton_common import per_load, per_step
from triton_variants import ALIGNED_ROWS, STORAGES, Variant, integers, row_types, sources

SOURCES = sources("cosine_topk", __file__)
MINIMUM_SM = 80  # tensor cores, in Triton


def variants() -> list[Variant]:
    storages = range(len(STORAGES))
    return [
        *(_scan(s, count, all_) for s in storages for count in (1, 64) for all_ in (False, True)),
        *(_look_again(storage, all_) for storage in storages for all_ in (False, True)),
        *(_squares(storage) for storage in storages),
        *(_search_exactly(storage, 64, "cosine") for storage in storages),
        *(_search_exactly(storage, 256, "packed cosine") for storage in (0, 3)),
        *(_search_exactly(0, kept, "dot") for kept in (64, 128, 256)),
        _pack_mask(),
        *(_mark(allow, lists) for allow in (False, True) for lists in (False, True)),
    ]


def _bounds(storage: int, all_: bool) -> tuple[dict[str, str], dict[str, Any]]:
    """What the scan and the second look have in common; filters and biases, or none."""
    types, constants = row_types(storage)
    types |= {"queries": "*fp16", "relative": "fp32", **integers("items", "word_stride")}
    types |= dict.fromkeys(("factor", "inverse", "weight", "slack", "out"), "*fp32")
    if all_:
        types |= {"item_bias": "*fp32", "words": "*i32"}
    else:
        constants |= {"item_bias": None, "words": None}
    return types, constants | {"STORAGE": storage}


def _scan(storage: int, count: int, all_: bool) -> Variant:
    queries, warps = tile_of(count)
    types, constants = _bounds(storage, all_)
    types |= integers("count", "groups")
    constants |= {"QUERIES": queries, "ITEMS": ITEMS, "DIMS": DIMS}
    # A step of the scan is 16 bytes of a row of 4-bit codes, which two threads share.
    wide = {"16-byte loads"} if per_load(storage) < 32 else set()
    return Variant(
        f"scan {STORAGES[storage]}, {queries} queries{', bias, filter' * all_}", scan, types,
        constants, (*ALIGNED_ROWS, "queries"), warps, 2, frozenset({"tensor cores", *wide}),
        MINIMUM_SM, SCAN_REGISTERS,
    )  # fmt: skip


def _look_again(storage: int, all_: bool) -> Variant:
    types, constants = _bounds(storage, all_)
    types |= {"groups": "*i64", "chosen": "i32"}
    return Variant(
        f"look_again {STORAGES[storage]}{', bias, filter' * all_}", look_again, types,
        constants | {"COLUMNS": DIMS}, (*ALIGNED_ROWS, "queries"), 4, 3,
        frozenset({"16-byte loads"}), MINIMUM_SM,
    )  # fmt: skip


def _squares(storage: int) -> Variant:
    types, constants = row_types(storage)
    return Variant(
        f"squares {STORAGES[storage]}", squares, {**types, "out": "*fp64", "items": "i32"},
        {**constants, "STORAGE": storage, "ROWS": ROWS, "COLUMNS": COLUMNS}, ALIGNED_ROWS, 4, 3,
        frozenset({"16-byte loads"} if per_load(storage) < 32 else ()), MINIMUM_SM,
    )  # fmt: skip


def _search_exactly(storage: int, kept: int, kind: str) -> Variant:
    types, constants = row_types(storage)
    types |= {"queries": "*fp32", "certain": "*i8", "below": "*i64", "best": "*i64"}
    types |= integers("items", "parts", "word_stride")
    constants |= {
        "STORAGE": storage, "IS_COSINE": kind != "dot", "PAIRS": PAIRS,
        "COLUMNS": per_step(storage), "KEPT": kept,
    }  # fmt: skip
    terms = {"item_bias": "*fp32", "item_scale": "*fp32", "words": "*i32"}
    if kind == "dot":
        constants |= dict.fromkeys((*terms, "inverse_norms"))
    else:
        types |= terms
        packed = "packed" in kind
        (types if packed else constants)["inverse_norms"] = "*fp64" if packed else None
    return Variant(
        f"search_exactly {STORAGES[storage]}, {kind}, {kept} kept", search_exactly, types,
        constants, (*ALIGNED_ROWS, "queries"), 4 if kept <= 128 else 8, 3, frozenset(),
        MINIMUM_SM, EXACT_REGISTERS,
    )  # fmt: skip


def _pack_mask() -> Variant:
    return Variant(
        "pack_mask", pack_mask, {"mask": "*u8", "words": "*i32", **integers("items", "row_words")},
        {"WORDS": 32}, ("mask", "words"), 4, 3, frozenset(), MINIMUM_SM,
    )  # fmt: skip


def _mark(allow: bool, lists: bool) -> Variant:
    types = {"ids": "*i64", "words": "*i32"}
    types |= integers("lists", "first_list", "entries", "items", "row_words", "rows", "steps")
    constants: dict[str, Any] = {"ALLOW": allow, "COUNT": 256}
    (types if lists else constants)["offsets"] = "*i64" if lists else None
    return Variant(
        f"mark {'allowed' if allow else 'excluded'}, {'by query' if lists else 'for all'}", mark,
        types, constants, ("ids", "words"), 4, 3, frozenset(), MINIMUM_SM,
    )  # fmt: skip
