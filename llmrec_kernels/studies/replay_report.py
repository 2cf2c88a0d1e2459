"""What the replay of a hybrid says: its tables, findings and plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from llmrec_kernels.evaluation import PairedComparison, PrequentialResult
from llmrec_kernels.studies.study import interval, short, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

K = 10
HR, NDCG = f"HR@{K}", f"NDCG@{K}"
ADAPTIVE, EQUAL = "adaptive hybrid", "fixed hybrid, equal"
MEAN, LAST = "fixed hybrid, earlier mean", "fixed hybrid, earlier last"

_NAMED = {
    EQUAL: "the fixed hybrid with equal weights",
    MEAN: "the one with the mean of the weights of the earlier stretch",
    LAST: "the one with the weights that the earlier stretch ended with",
}

Pairs = Mapping[tuple[str, str], PairedComparison]  # by the other model, and the metric

_POINTS = 400


class Replayed(NamedTuple):
    """What came of the replay of one model."""

    result: PrequentialResult
    weights: pd.DataFrame  # a row for each batch by the events so far, a column a part

    def last_weights(self) -> dict[str, float]:
        """The weight of each part after the last event."""
        return dict(zip(self.weights.columns, self.weights.iloc[-1].tolist(), strict=True))

    def settled_weights(self) -> dict[str, float]:
        """The weight of each part, the mean over the later half of the batches."""
        mean = self.weights.iloc[len(self.weights) // 2 :].mean()
        return dict(zip(self.weights.columns, mean.tolist(), strict=True))


def choice_caption(choice: Mapping[float, Replayed], best: float) -> str:
    """Say which rate was chosen, and what weights it came to."""

    def told(weights: Mapping[str, float]) -> str:
        return ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())

    one = choice[best]
    return (
        f"**The choice of β**, on {one.result.n_events:,} earlier events: {best:g}. Its weights, "
        f"the mean over the later half: {told(one.settled_weights())}; the last: "
        f"{told(one.last_weights())}."
    )


def choice_frame(choice: Mapping[float, Replayed]) -> pd.DataFrame:
    """Give the quality with each rate."""
    rows = {
        f"β = {rate:g}": {label: short(one.result[label], 4) for label in (HR, NDCG)}
        for rate, one in choice.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def quality(found: Mapping[str, Replayed]) -> pd.DataFrame:
    """Give the quality of each model, with intervals."""
    rows: dict[str, dict[str, Any]] = {}
    for name, one in found.items():
        rows[name] = {}
        for label in (HR, NDCG):
            told = interval(*one.result.interval(label), 4)
            rows[name] |= {label: one.result[label], f"{label}, 95%": told}
    return pd.DataFrame.from_dict(rows, orient="index")


def differences(paired: Pairs) -> pd.DataFrame:
    """Give what the adaptive hybrid has more than each other model, user by user."""
    rows: dict[str, dict[str, str]] = {}
    for (other, label), one in paired.items():
        rows.setdefault(other, {}).update({label: _told(one), f"{label}, p": short(one.p, 4)})
    return pd.DataFrame.from_dict(rows, orient="index")


def findings(found: Mapping[str, Replayed], paired: Pairs) -> str:
    """What is better than what, in words that follow from the numbers."""

    def against(other: str) -> str:
        one = paired[other, NDCG]
        verb = "beats" if one.low > 0 else "loses to" if one.high < 0 else "does not differ from"
        return f"{verb} {_NAMED.get(other, other)}, {_told(one)}"

    weights = found[ADAPTIVE].settled_weights()
    best = max(weights, key=lambda name: found[name].result[NDCG])
    most, least = max(weights, key=weights.__getitem__), min(weights, key=weights.__getitem__)
    total = sum(weights.values())
    return (
        f"By NDCG@{K} the {ADAPTIVE} {against(best)}, the best part alone; it {against(EQUAL)}; "
        f"it {against(MEAN)}; and it {against(LAST)}. Fixed weights that are as good may exist, "
        "and without the replay nobody knows which. Over the later half its weights are "
        f"{weights[most] / total:.0%} on {most} and {weights[least] / total:.0%} on {least}, in "
        "the mean; from event to event they swing, the more the larger β is. A weight says what a "
        "part adds to the others, not how good it is alone: a part that is weak alone but unlike "
        "the others can have much of it, and one that says what others say already has little."
        "\n\n"
        "`update` of every part and of the fixed hybrid costs in proportion to the events and to "
        "the histories of their users, whatever the model was fitted on. User neighbours, alone "
        "or in a hybrid, put off some of it: the first question after an update lays out the "
        "histories that have changed. The adaptive hybrid asks its parts what they say to each "
        "user in a batch before it learns, so that its `update` holds the question that others "
        "put off: it costs about as much as a recommendation for each of these users, in "
        "proportion to the items, and with user neighbours among the parts also to the users who "
        "took the same items. A batch of one event costs as much as a whole question."
    )


def _told(one: PairedComparison) -> str:
    return f"{signed(one.difference, 4)} {interval(one.low, one.high, 4)}"


def draw_weights(weights: pd.DataFrame, window: int) -> Figure:
    """Draw the share of each part in the weights, over the events replayed.

    Faint lines are the shares themselves, the others their means over a window of events.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    shares = weights.div(weights.sum(axis=1), axis=0)
    batch = max(1, shares.index[-1] // max(1, len(shares) - 1))
    means = shares.rolling(max(1, window // batch), min_periods=1).mean()
    for number, name in enumerate(shares.columns):
        faint, mean = _thinned(shares[name]), _thinned(means[name])
        axes.plot(faint.index, faint, color=f"C{number}", linewidth=0.3, alpha=0.4)
        axes.plot(mean.index, mean, color=f"C{number}", label=name)
    axes.set_ylabel("share of the weights")
    axes.set_ylim(bottom=0)
    _finish(axes)
    figure.legend(loc="outside right center", frameon=False)
    return figure


def draw_quality(found: Mapping[str, Replayed], window: int) -> Figure:
    """Draw the mean HR@10 and NDCG@10 of the last events, over the events replayed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    hybrids = {ADAPTIVE: ("black", "-"), EQUAL: ("black", "--")}
    hybrids |= {MEAN: ("black", "-."), LAST: ("black", ":")}
    parts = [name for name in found if name not in hybrids]
    styles = hybrids | {name: (f"C{number}", "-") for number, name in enumerate(parts)}
    for axes, label in zip(panels, (HR, NDCG), strict=True):
        for name, (color, line) in styles.items():
            mean = _thinned(found[name].result.moving(label, window)["mean"].iloc[window // 2 :])
            axes.plot(mean.index, mean, line, label=name, color=color, linewidth=1.2)
        axes.set_ylabel(f"{label}, mean of the last {window:,} events")
        axes.set_ylim(bottom=0)
        _finish(axes)
    panels[0].set_xlabel("")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False)
    return figure


def _thinned(line: pd.Series) -> pd.Series:
    """As many points of a line as can be told apart, and files of kilobytes."""
    return line.iloc[:: max(1, len(line) // _POINTS)]


def _finish(axes: Axes) -> None:
    axes.set_xlabel("events replayed")
    axes.grid(axis="y", linewidth=0.4, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)
