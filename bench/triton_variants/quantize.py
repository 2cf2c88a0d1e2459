"""Quantization: every float to every narrow type."""

from __future__ import annotations

from pathlib import Path

from llmrec_kernels.ops.quantize import reference
from llmrec_kernels.ops.quantize.reference import DTYPES
from llmrec_kernels.ops.quantize.triton import COLUMNS, ROWS, WARPS, quantize_rows, target_of
from triton_variants import STORAGES, Variant, integers, row_types, sources

SOURCES = (*sources("quantize", __file__), Path(reference.__file__))


def variants() -> list[Variant]:
    return [
        _quantize(storage, *target_of(number, symmetric))
        for number, name in enumerate(DTYPES)
        for symmetric in ((False, True) if name.startswith("int") else (True,))
        for storage in (0, 1, 2)
    ]


def _quantize(storage: int, target: int, largest: int) -> Variant:
    codes, _ = row_types(target)
    return Variant(
        f"quantize {STORAGES[storage]} to {STORAGES[target]}", quantize_rows,
        {
            "data": row_types(storage)[0]["data"], "codes": codes["data"],
            "numbers": codes.get("scale", "*fp32"), **integers("rows", "dim", "stride"),
        },
        {
            "STORAGE": storage, "TO": target, "LARGEST": largest, "ROWS": ROWS,
            "COLUMNS": COLUMNS,
        },
        ("data", "codes", "numbers", "stride", "dim"), WARPS, 3, frozenset({"16-byte loads"}),
    )  # fmt: skip
