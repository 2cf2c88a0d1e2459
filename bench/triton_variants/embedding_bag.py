"""Bags: every storage in every mode, at the widest program and at a narrow one."""

from __future__ import annotations

from llmrec_kernels.ops.embedding_bag.triton import (
    NORMAL_COLUMNS,
    NORMAL_ROWS,
    REGISTERS,
    WARPS,
    normalize,
    pool,
    shape_of,
    unroll_of,
)
from llmrec_kernels.ops.triton_common import per_load
from triton_variants import ALIGNED_ROWS, STORAGES, Variant, integers, row_types, sources

SOURCES = sources("embedding_bag", __file__)
MODES = {"sum": 0, "mean": 1, "max": 2}
CASES = (
    (64, "sum", False, "fp32"), (384, "sum", False, "fp32"), (384, "mean", False, "fp32"),
    (384, "mean", True, "bf16"), (384, "max", False, "fp16"),
)  # fmt: skip


def variants() -> list[Variant]:
    return [
        *(_pool(storage, *case) for storage in range(len(STORAGES)) for case in CASES),
        *(_normalize(out) for out in ("fp32", "fp16", "bf16")),
    ]


def _pool(storage: int, dim: int, mode: str, weighted: bool, out: str) -> Variant:
    bags, columns = shape_of(storage, dim)
    types, constants = row_types(storage)
    types |= {"indices": "*i64", "offsets": "*i64", "out": f"*{out}"}
    types |= integers("table_rows", "entries", "bags", "padding")
    constants |= {
        "STORAGE": storage, "MODE": MODES[mode], "BAGS": bags, "COLUMNS": columns,
        "UNROLL": unroll_of(storage),
    }  # fmt: skip
    (types if weighted else constants)["weights"] = "*fp32" if weighted else None
    wide = 16 * dim // per_load(storage) >= 64  # bytes of a row
    return Variant(
        f"pool {STORAGES[storage]} to {out}, {'weighted ' * weighted}{mode}, {columns} columns",
        pool, types, constants, (*ALIGNED_ROWS, "indices", "offsets", "out"), WARPS, 3,
        frozenset({"16-byte loads"} if wide else ()), registers=REGISTERS,
    )  # fmt: skip


def _normalize(out: str) -> Variant:
    return Variant(
        f"normalize to {out}", normalize,
        {"pooled": "*fp32", "out": f"*{out}", **integers("count", "dim")},
        {"ROWS": NORMAL_ROWS, "COLUMNS": NORMAL_COLUMNS}, ("pooled", "out", "dim"), 4, 3,
        frozenset({"16-byte loads"}),
    )  # fmt: skip
