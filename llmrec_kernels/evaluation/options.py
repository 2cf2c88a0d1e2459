"""Checks of the options that splits and bootstraps share."""

from __future__ import annotations

from typing import Any

from llmrec_kernels.ops import checks


def check_seed(seed: Any) -> int:
    """Give the seed of a draw, or raise TypeError or ValueError where it is none.

    Examples
    --------
    >>> check_seed(-1)
    Traceback (most recent call last):
    ...
    ValueError: seed is -1; expected at least 0
    """
    number = checks.integer("seed", seed, "an integer of at least 0")
    if number < 0:
        raise ValueError(f"seed is {number}; expected at least 0")
    return number
