"""Checks of contents, for the reference implementations; the compiled kernels make the same."""

from __future__ import annotations

from torch import Tensor


def _first(bad: Tensor) -> int:
    return int(bad.nonzero()[0, 0])


def finite_rows(name: str, lengths: Tensor, start: int = 0) -> None:
    """Refuse vectors that hold NaN or Inf, told by their norms; `start` is the first row's id."""
    bad = ~lengths.isfinite()
    if bool(bad.any()):
        raise ValueError(
            f"{name} holds NaN or Inf in row {start + _first(bad)}; expected finite numbers"
        )


def finite(name: str, values: Tensor | None) -> None:
    """Refuse a vector of numbers that holds NaN or Inf."""
    if values is None:
        return
    bad = ~values.isfinite()
    if bool(bad.any()):
        raise ValueError(f"{name} holds NaN or Inf at entry {_first(bad)}; expected finite numbers")


def in_range(name: str, ids: Tensor, size: int) -> None:
    """Refuse ids outside `0 .. size - 1`."""
    bad = (ids < 0) | (ids >= size)
    if bool(bad.any()):
        entry = _first(bad)
        raise IndexError(
            f"{name} holds {int(ids[entry])} at entry {entry}; expected 0 to {size - 1}"
            if size
            else f"{name} holds {int(ids[entry])} at entry {entry}, but there are no rows"
        )


def offsets(name: str, bounds: Tensor, count: int) -> None:
    """Refuse offsets that do not begin with 0, go down, or do not end with `count`."""
    if int(bounds[0]) != 0:
        raise ValueError(f"{name} begins with {int(bounds[0])}; expected 0")
    down = bounds[1:] < bounds[:-1]
    if bool(down.any()):
        entry = _first(down) + 1
        if int(bounds[entry - 1]) > count:
            raise ValueError(
                f"{name} holds {int(bounds[entry - 1])} at entry {entry - 1}; "
                f"expected at most {count}, the number of entries"
            )
        raise ValueError(
            f"{name} goes down from {int(bounds[entry - 1])} to {int(bounds[entry])} "
            f"at entry {entry}; expected offsets that never go down"
        )
    if int(bounds[-1]) != count:
        raise ValueError(f"{name} ends with {int(bounds[-1])}; expected {count}, the entries")
