"""AUC needs the whole ranking of each user; it is asked for and judged some users at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llmrec_kernels.evaluation import metrics as _metrics
from llmrec_kernels.evaluation.ranked import Recommends, Rules, numbered, sets_of

_PLACES_AT_ONCE = 2**20  # users × items asked for at once


def auc_of(
    model: Recommends,
    rules: Rules,
    wanted: pd.DataFrame,
    users: NDArray[Any],
    catalogue: pd.Series,
) -> NDArray[np.float64]:
    """AUC of each user, [U]; what is in the catalogue, or relevant to anyone, competes."""
    competing: pd.Series = pd.concat([catalogue, wanted["item"]]).drop_duplicates()
    n_items = np.full(len(users), len(competing))
    if rules.filter_seen:
        n_items -= _n_seen(rules.train, users, competing)
    step = max(1, _PLACES_AT_ONCE // len(competing))
    row = pd.Index(users).get_indexer(pd.Index(wanted["user"]))
    values = []
    for start in range(0, len(users), step):
        some = users[start : start + step]
        theirs = wanted[(row >= start) & (row < start + step)]
        ranked = rules.ask(model, some, len(competing))
        recommended, relevant, known = numbered(ranked, theirs["item"], competing)
        lists = ranked.lists(recommended)
        lists[~np.isin(lists, known)] = _metrics.PAD
        sets = sets_of(theirs, relevant, some)
        values.append(_metrics.auc(lists, sets, n_items[start : start + step]))
    return np.concatenate(values)


def _n_seen(train: pd.DataFrame, users: NDArray[Any], competing: pd.Series) -> NDArray[np.int64]:
    """How many of the competing items each user has in train."""
    pairs = train[["user", "item"]].drop_duplicates()
    pairs = pairs[pairs["item"].isin(competing)]
    rows = pd.Index(users).get_indexer(pd.Index(pairs["user"]))
    return np.bincount(rows[rows >= 0], minlength=len(users))
