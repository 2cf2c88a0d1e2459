"""Candidates: every storage with no terms and with all, and each number of results kept."""

from __future__ import annotations

from typing import Any

from llmrec_kernels.ops.candidate_scores.triton import PAIRS, WARPS, best_of_part, score_pairs
from llmrec_kernels.ops.triton_common import per_step
from triton_variants import ALIGNED_ROWS, STORAGES, Variant, integers, row_types, sources

SOURCES = sources("candidate_scores", __file__)
TERMS = ("query_bias", "item_bias", "query_scale", "item_scale")


def variants() -> list[Variant]:
    return [
        *(_score(storage, kind) for storage in range(len(STORAGES)) for kind in KINDS),
        *(_best(kept) for kept in (16, 32, 64, 128, 256)),
    ]


KINDS = ("cosine", "cosine, packed, all terms", "dot")


def _score(storage: int, kind: str) -> Variant:
    types, constants = row_types(storage)
    types |= {"queries": "*fp32", "candidates": "*i64", "offsets": "*i64", "offset": "*fp64"}
    types |= {"out": "*fp32", **integers("count", "items", "entries", "steps")}
    constants |= {
        "STORAGE": storage, "IS_COSINE": kind != "dot", "PAIRS": PAIRS,
        "COLUMNS": per_step(storage), "NONE_IS_NAN": kind != "cosine",
    }  # fmt: skip
    if "all" in kind:
        types |= dict.fromkeys(TERMS, "*fp32") | {"inverse_norms": "*fp64"}
    else:
        constants |= dict.fromkeys((*TERMS, "inverse_norms"))
    return Variant(
        f"score_pairs {STORAGES[storage]}, {kind}", score_pairs, types, constants,
        (*ALIGNED_ROWS, "queries", "out"), WARPS, 3,
        frozenset({"16-byte loads"}),
    )  # fmt: skip


def _best(kept: int) -> Variant:
    types: dict[str, Any] = {"scores": "*fp32", "candidates": "*i64", "offsets": "*i64"}
    return Variant(
        f"best_of_part {kept}", best_of_part,
        {**types, "best": "*i64", **integers("entries", "parts")},
        {"BLOCK": max(kept, 512), "KEPT": kept}, ("scores", "candidates", "offsets", "best"),
        4 if kept < 128 else 8, 3, frozenset(),
    )  # fmt: skip
