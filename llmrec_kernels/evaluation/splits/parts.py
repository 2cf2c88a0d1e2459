"""What the splits share: shares, places in a history, and the frames they return."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llmrec_kernels.evaluation.columns import require_rows, require_times
from llmrec_kernels.ops import checks


def require_moments(interactions: pd.DataFrame, *columns: str) -> None:
    """Raise as `require_rows` and `require_times` do.

    A frame without times hears which splits need none.
    """
    if isinstance(interactions, pd.DataFrame) and "timestamp" not in interactions.columns:
        held = ", ".join(map(str, interactions.columns)) or "none"
        raise ValueError(
            f"interactions has no column timestamp; its columns are {held}. random_split, k_fold, "
            "ratio_split(by='random') and cold_item_split need no times"
        )
    require_rows("interactions", interactions, *columns, "timestamp")
    require_times("interactions", interactions)


def check_share(test_ratio: float) -> None:
    """Refuse what is no share to hold out."""
    if not 0 < checks.finite_number("test_ratio", test_ratio) < 1:
        raise ValueError(f"test_ratio must lie between 0 and 1; got {test_ratio}")


def floor_share(count: Any, test_ratio: float) -> Any:
    """floor(count · test_ratio), as on paper."""
    # The small term undoes the rounding of products such as 0.29 * 100 = 28.999999999999996.
    return np.floor(count * test_ratio + 1e-9).astype(np.int64)


def place_in_history(
    users: pd.Series, order: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Say for each row which of its user's interactions it is (from 0), and of how many."""
    users = users.reset_index(drop=True)
    ordered: Any = users.iloc[order]
    place = ordered.groupby(ordered).cumcount().sort_index().to_numpy()
    grouped: Any = users.groupby(users)
    return place, grouped.transform("size").to_numpy()


def in_time(interactions: pd.DataFrame) -> NDArray[np.int64]:
    """Row numbers in the order of time; of rows at one time the later row comes later."""
    order: NDArray[np.int64] = np.argsort(interactions["timestamp"].to_numpy(), kind="stable")
    return order


def divide(
    interactions: pd.DataFrame, in_test: NDArray[np.bool_]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Copy the rows outside and inside of test."""
    return interactions[~in_test].copy(), interactions[in_test].copy()
