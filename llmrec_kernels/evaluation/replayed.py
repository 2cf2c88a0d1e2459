"""What a replay found: one value an event, with means that run, and means that move."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd

from llmrec_kernels.evaluation.intervals import LEVEL, UserSums, check_options
from llmrec_kernels.evaluation.measured import Measured
from llmrec_kernels.ops import checks


@dataclass(frozen=True, eq=False, repr=False)
class PrequentialResult(Measured):
    """The events of a replay in their order, each with whether and where the model had its item.

    ``result["NDCG@10"]`` is the mean over events; its `interval` draws users with all their events.

    Parameters
    ----------
    k : int
        Length of the lists.
    events : pandas.DataFrame
        One row an event: ``user``, ``item``, ``timestamp``; ``known``, whether the model knew the
        item; ``repeat``, whether the user had it; ``rank`` in the list, NaN where it was in no
        place; and "HR@k", "NDCG@k" (1 / log2(rank + 1)) and "MRR@k" (1 / rank), 0 for a miss and
        NaN for a repeat that no list could have had.

    Examples
    --------
    >>> events = pd.DataFrame({"user": [1, 1, 2], "HR@1": [0.0, 1.0, 1.0], "NDCG@1": [0, 1, 1.0],
    ...                        "MRR@1": [0, 1, 1.0], "known": True, "repeat": False})
    >>> result = PrequentialResult(1, events)
    >>> round(result["HR@1"], 4)
    0.6667
    """

    k: int
    events: pd.DataFrame

    @property
    def labels(self) -> list[str]:
        """Names of the metrics."""
        return [f"{name}@{self.k}" for name in ("HR", "NDCG", "MRR")]

    @property
    def n_events(self) -> int:
        """Number of events replayed, repeats included."""
        return len(self.events)

    @property
    def n_users(self) -> int:
        """Number of users with an event."""
        return int(self.events["user"].nunique())

    @property
    def n_unknown(self) -> int:
        """Number of events with an item that the model did not know: misses."""
        return int((~self.events["known"]).sum())

    @property
    def n_repeats(self) -> int:
        """Number of events with an item that the user had."""
        return int(self.events["repeat"].sum())

    def user_sums(self, label: str) -> UserSums:
        """Give the sum of the values and the number of events of each user.

        Examples
        --------
        >>> events = pd.DataFrame({"user": [1, 1], "HR@1": [0.0, 1.0]})
        >>> PrequentialResult(1, events).user_sums("HR@1").count
        array([2.])
        """
        values = self._values(label)
        by_user = values.groupby(self.events["user"].to_numpy(), sort=False)
        total, count = by_user.sum(), by_user.count()
        return UserSums(total.index, total.to_numpy(), count.to_numpy().astype(np.float64))

    def running(self, label: str) -> pd.Series:
        """Return the mean over all events so far, after each event.

        Parameters
        ----------
        label : str
            One of ``labels``.

        Returns
        -------
        pandas.Series
            By number of the event, from 1; NaN until an event counts.

        Examples
        --------
        >>> events = pd.DataFrame({"user": [1, 1], "HR@1": [0.0, 1.0]})
        >>> PrequentialResult(1, events).running("HR@1").tolist()
        [0.0, 0.5]
        """
        return self._values(label).expanding(1).mean()

    def moving(self, label: str, window: int = 1000, *, level: float = LEVEL) -> pd.DataFrame:
        """Return the mean over the last events, after each event, with its interval.

        Parameters
        ----------
        label : str
            One of ``labels``.
        window : int, optional
            How many events back the mean goes; at the beginning it has fewer.
        level : float, optional
            Of the interval, mean ± z · s / √n over the n events in the window that count. It takes
            events for independent; `interval`, over users, does not.

        Returns
        -------
        pandas.DataFrame
            By number of the event, from 1: mean, low and high.

        Examples
        --------
        >>> events = pd.DataFrame({"user": [1, 1, 2], "HR@1": [0.0, 1.0, 1.0]})
        >>> PrequentialResult(1, events).moving("HR@1", window=2).round(2)
               mean   low  high
        event
        1       0.0   NaN   NaN
        2       0.5 -0.48  1.48
        3       1.0  1.00  1.00
        """
        window = checks.positive_int("window", window)
        check_options(level, 1)
        last = self._values(label).rolling(window, min_periods=1)
        mean, n = last.mean(), last.count()
        # Sums over a window that moves can leave a rounding below 0 where all values are equal.
        variance = last.var().clip(lower=0)
        margin = NormalDist().inv_cdf((1 + level) / 2) * (variance / n).pow(0.5)
        return pd.DataFrame({"mean": mean, "low": mean - margin, "high": mean + margin})

    def to_pandas(self) -> pd.DataFrame:
        """Return a copy of the events, one row each.

        Examples
        --------
        >>> PrequentialResult(1, pd.DataFrame({"user": [1], "HR@1": [0.0]})).to_pandas()
           user  HR@1
        0     1   0.0
        """
        return self.events.copy()

    def _values(self, label: str) -> pd.Series:
        self.check_label(label)
        number = pd.RangeIndex(1, self.n_events + 1, name="event")
        return pd.Series(self.events[label].to_numpy(np.float64), index=number)

    def __str__(self) -> str:
        cells = [f"{label} {self[label]:.4f}" for label in self.labels]
        counts = (
            f"{self.n_events} events of {self.n_users} users, {self.n_unknown} of unknown items, "
            f"{self.n_repeats} repeats"
        )
        return " | ".join([*cells, counts])

    def __repr__(self) -> str:
        return f"<PrequentialResult: {self}>"
