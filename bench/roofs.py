"""The peaks of this machine, measured: what a kernel's speed is a share of.

    python bench/roofs.py

Multiply-adds are counted, not operations: a multiplication and its addition are one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from llmrec_kernels import _library

LEVELS = ("scalar", "avx2", "avx2_vnni", "avx512", "amx", "neon")
KINDS = ("int8", "bfloat16", "float32")
REPETITIONS = 10
BYTES = 2**29  # several times any second-level cache

_library.library.define("read_roof(int level, int bytes, int repetitions) -> float")
_library.library.define("peak_roof(int level, int kind, int repetitions) -> float")


@dataclass(frozen=True)
class Roofs:
    """What this machine can do at best; prints as a table.

    Parameters
    ----------
    threads
        Threads that worked together.
    read
        By level: bytes per second from a buffer that no second-level cache holds, or the sentence
        that says why there is no figure.
    peaks
        By level and kind: multiply-adds per second on registers, or the same.
    """

    threads: int
    read: dict[str, float | str]
    peaks: dict[tuple[str, str], float | str]

    @property
    def read_bandwidth(self) -> float:
        """Bytes per second of the level that reads fastest."""
        return _best(self.read)

    def __str__(self) -> str:
        lines = [
            f"{self.threads} threads, the best of {REPETITIONS} repetitions",
            _row("", "read", *KINDS),
            _row("", "GB/s", *["G/s"] * len(KINDS)),
        ]
        for level in LEVELS:
            rates = [self.read[level], *(self.peaks[level, kind] for kind in KINDS)]
            cells = ("-" if isinstance(rate, str) else f"{rate / 1e9:,.1f}" for rate in rates)
            lines.append(_row(level, *cells))
        reasons = [*self.read.values(), *self.peaks.values()]
        return "\n".join(lines + sorted({f"  {why}" for why in reasons if isinstance(why, str)}))


def roofs() -> Roofs:
    """Measure everything: some seconds."""
    return Roofs(
        torch.get_num_threads(),
        {level: _read(level, BYTES) for level in LEVELS},
        {(level, kind): _peak(level, kind) for level in LEVELS for kind in KINDS},
    )


def read_bandwidth(size: int) -> float:
    """Bytes per second from a buffer of `size` bytes, at the level that reads it fastest."""
    return _best({level: _read(level, size) for level in LEVELS})


def int8_peak(level: str) -> float:
    """Int8 multiply-adds per second that a kernel of this level can reach.

    A kernel of level avx2 takes the instructions of avx2_vnni where the processor has them.
    """
    levels = ("avx2", "avx2_vnni") if level == "avx2" else (level,)
    return _best({each: _peak(each, "int8") for each in levels})


def _read(level: str, size: int) -> float | str:
    return _measured(torch.ops.llmrec.read_roof, LEVELS.index(level), size)


def _peak(level: str, kind: str) -> float | str:
    return _measured(torch.ops.llmrec.peak_roof, LEVELS.index(level), KINDS.index(kind))


def _measured(op: Callable[..., float], *arguments: int) -> float | str:
    """A rate, or the sentence that refuses it."""
    if _library.load_error is not None:
        raise RuntimeError(f"the compiled extension measures roofs, but {_library.load_error}")
    try:
        return op(*arguments, REPETITIONS)
    except ValueError as error:
        return str(error)


def _best(rates: dict[str, float | str]) -> float:
    return max(rate for rate in rates.values() if not isinstance(rate, str))


def _row(level: str, *cells: str) -> str:
    return f"{level:10}" + "".join(f"{cell:>11}" for cell in cells)


if __name__ == "__main__":
    print(roofs())
