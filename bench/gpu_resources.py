"""What each kernel takes of a GPU, read from its compiled code. No GPU is needed.

    python bench/gpu_resources.py                            # writes bench/gpu_resources.md
    python bench/gpu_resources.py --only '*int8*' '*sm_90'   # these rows again; the others stay
    python bench/gpu_resources.py --only '*.cu sm_*'         # the CUDA C++ kernels alone
    python bench/gpu_resources.py --check                    # is anything worse than there?

Triton's kernels are compiled by triton_resources.py, those of csrc by cuda_resources.py, where
there is an nvcc. `--check` compiles all of an operator or file whose sources are not those that the
table names, and one in SAMPLE of the others: they cannot have changed.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import cuda_resources
import triton_resources
from gpu_table import (
    LIMITS,
    Key,
    NotComparableError,
    Outcome,
    Resources,
    by_width,
    compare,
    on_tensor_cores,
    resident_warps,
)
from triton_resources import (
    MODULES,
    compile_source,
    digests_in,
    parsed,
    render,
    specializations,
    variants,
)

TABLE = Path(__file__).with_suffix(".md")
SAMPLE = 16

__all__ = [
    "LIMITS",
    "MODULES",
    "Key",
    "Resources",
    "by_width",
    "compare",
    "compile_source",
    "digests_in",
    "on_tensor_cores",
    "parsed",
    "render",
    "resident_warps",
    "specializations",
    "variants",
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the table; write none")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="of rows")
    parser.add_argument("--modules", nargs="*", default=MODULES, help="with another --table")
    parser.add_argument("--sources", nargs="*", type=Path, help="CUDA C++, with another --table")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--sample", type=int, default=SAMPLE, help="compile one row in so many")
    given = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("TRITON_")]:
        del os.environ[name]  # the interpreter, and whatever else changes what is compiled

    if given.sources is None:
        given.sources = cuda_resources.sources() if given.modules == MODULES else []
    text = given.table.read_text() if given.table.exists() else ""
    found = [Outcome([], 0, "")]
    try:
        if given.modules:
            found.append(
                triton_resources.update(given.modules, text, given.only, given.check, given.sample)
            )
        if given.sources:
            found.append(
                cuda_resources.update(given.sources, text, given.only, given.check, given.sample)
            )
    except NotComparableError as error:
        print(f"{given.table} {error}")
        return 2
    if not given.check:
        given.table.write_text("".join(each.text for each in found))
    complaints = [line for each in found for line in each.complaints]
    print(
        *complaints,
        f"{sum(each.rows for each in found)} rows, {len(complaints)} complaints",
        sep="\n",
    )
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
