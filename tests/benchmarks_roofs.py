"""Roofs that no machine reaches, so that runs need not measure any: that takes many seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmrec_kernels.profiler.environment import fingerprint
from llmrec_kernels.profiler.report import Ceiling
from llmrec_kernels.profiler.roofs import KINDS, SIZES, Roofs


def keep_high_roofs(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Put them where the profiler keeps what it measured of the CPU."""
    patch.setenv("LLMREC_CACHE", str(folder))
    names = [*(f"read {size}" for size in SIZES), *(f"scalar {kind}" for kind in KINDS)]
    ceiling = Ceiling(per_second=1e18, source="made up", repeatability=0.0)
    found = Roofs(
        device="cpu", fingerprint=fingerprint("cpu"), threads=1,
        rates=dict.fromkeys(names, ceiling), refused={}, cache_bytes=2**20,
    )  # fmt: skip
    (folder / "roofs").mkdir()
    (folder / "roofs" / f"{found.fingerprint}-cpu.json").write_text(found.model_dump_json())
