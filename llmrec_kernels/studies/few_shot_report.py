"""The tables, the picture and the findings of the study of what little is known (`few_shot`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from llmrec_kernels.evaluation.intervals import LEVEL, RESAMPLES, UserSums, intervals
from llmrec_kernels.studies.study import Picture, Study, Table, interval, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import ErrorbarContainer
    from matplotlib.figure import Figure

NDCG, HR = "NDCG@10", "HR@10"


class Question(NamedTuple):
    """What a recommender is told of someone."""

    label: str
    likes: int
    sentence: bool = False


# In the order in which a recommender can be told: the likes never become fewer.
QUESTIONS = (
    Question("nothing", 0),
    Question("a sentence", 0, sentence=True),
    Question("1 like", 1),
    Question("2 likes", 2),
    Question("a sentence and 2 likes", 2, sentence=True),
    Question("5 likes", 5),
    Question("10 likes", 10),
)
# What is compared with each other: the same users, and the second told more or something else.
PAIRS = (("a sentence", "1 like"), ("2 likes", "a sentence and 2 likes"))
FLOOR = "popularity"
CANNOT = "\N{EN DASH}"  # it reads no text

# The palette of Okabe and Ito, which the colour-blind can tell apart too (with grey for its yellow,
# too pale for lines), and a marker for each, for print without colours.
_COLOURS = ("#000000", "#0072B2", "#56B4E9", "#009E73", "#999999", "#CC79A7", "#E69F00", "#D55E00")
_MARKERS = "osD^vP*X<"
_DODGE = 0.06  # between the markers of two recommenders, where 1 is between two questions


class Estimate(NamedTuple):
    """A mean over the held-out users of all seeds."""

    mean: float
    deviation: float  # standard, of the seeds' means
    low: float
    high: float

    def spread(self) -> str:
        """Mean and standard deviation of the seeds' means."""
        return f"{short(self.mean, 3)} ± {short(self.deviation, 3)}"

    def interval(self) -> str:
        """Mean and interval.

        Examples
        --------
        >>> Estimate(0.25, 0.01, -0.05, 0.5).interval()
        '.250 [-.050, .500]'
        """
        return f"{short(self.mean, 3)} {interval(self.low, self.high, 3)}"


Options = dict[str, Any]
Tried = dict[str, list[tuple[Options, float]]]  # with their NDCG@10, by recommender
Estimates = dict[tuple[str, str], Estimate]  # by recommender and question


def study_of(name: str, protocol: str, values: pd.DataFrame, tried: Tried) -> Study:
    """What was measured, as a study.

    Parameters
    ----------
    name : str
        Of the data set.
    protocol : str
        How it was measured, in Markdown.
    values : pandas.DataFrame
        One row a seed, user, recommender and question, with `NDCG@10` and `HR@10`.
    tried : dict of str to list of (settings, NDCG@10)
        What was to choose from.

    Returns
    -------
    Study
        Tables and a picture.
    """
    found, beyond = estimates(values, NDCG), beyond_popularity(values, NDCG)
    picture = Picture(
        f"few-shot-{name}",
        f"NDCG@10 by what is known of a user, {name}: likes alone (left), and a sentence (right). "
        "Bars are 95% bootstrap intervals over users.",
        partial(draw, found),
    )
    gains = differences(values, NDCG)
    steps = [f"{first} → {second}" for first, second in PAIRS]
    asked = [question.label for question in QUESTIONS]
    tables = [
        Table(
            "NDCG@10: mean ± standard deviation of the seeds' means.",
            _laid_out(found, asked, Estimate.spread),
        ),
        Table(
            "NDCG@10 with 95% bootstrap intervals over users.",
            _laid_out(found, asked, Estimate.interval),
        ),
        Table(
            "NDCG@10 beyond that of popularity: differences on the same users, such intervals.",
            _laid_out(beyond, asked[1:], Estimate.interval),
        ),
        Table(
            "NDCG@10 that a like has beyond a sentence, and that a sentence adds to two likes.",
            _laid_out(gains, steps, Estimate.interval),
        ),
        Table("HR@10.", _laid_out(estimates(values, HR), asked, Estimate.interval)),
        Table("Settings: the mean NDCG@10 by which they were chosen.", _choices(tried)),
    ]
    title = f"Little known of a user: {name}"
    return Study(title, protocol, tables, [picture], findings(found, beyond, gains))


def estimates(values: pd.DataFrame, metric: str) -> Estimates:
    """Estimate a metric for each recommender and question, in the order of the rows.

    A user whom several seeds hold out is one user to the bootstrap, with several values.

    Examples
    --------
    >>> values = pd.DataFrame({"seed": [0, 0, 1, 1], "user": [7, 8, 8, 9], "HR": [0, 1, 0.5, 0.5]})
    >>> values = values.assign(recommender="any", question="1 like")
    >>> estimates(values, "HR")["any", "1 like"].mean
    0.5
    """
    groups = values.groupby(["recommender", "question"], sort=False)
    return {(str(name), str(one)): _estimate(rows, metric) for (name, one), rows in groups}


def differences(values: pd.DataFrame, metric: str) -> Estimates:
    """Estimate how much a metric gains from the first to the second of each of `PAIRS`."""
    found = {}
    for name, rows in values.groupby("recommender", sort=False):
        answers = rows.pivot(index=["seed", "user"], columns="question", values=metric)
        for first, second in PAIRS:
            if first in answers and second in answers:
                gains = (answers[second] - answers[first]).rename(metric).reset_index()
                found[str(name), f"{first} → {second}"] = _estimate(gains, metric)
    return found


def beyond_popularity(values: pd.DataFrame, metric: str) -> Estimates:
    """Estimate how much a metric of each recommender is above that of popularity."""
    first = values["question"] == QUESTIONS[0].label
    floor = values[first & (values["recommender"] == FLOOR)].set_index(["seed", "user"])[metric]
    keys = pd.MultiIndex.from_frame(values[["seed", "user"]])
    above = values.assign(**{metric: values[metric].to_numpy() - floor.loc[keys].to_numpy()})
    others = (values["recommender"] != FLOOR) & ~first
    return estimates(above[others], metric)


def _estimate(rows: pd.DataFrame, metric: str) -> Estimate:
    """Of rows with a seed and a user."""
    by_user = rows.groupby("user")[metric].agg(["sum", "count"])
    count = by_user["count"].to_numpy(np.float64)
    sums = UserSums(by_user.index, by_user["sum"].to_numpy(np.float64), count)
    seeds = rows.groupby("seed")[metric].mean()
    return Estimate(
        sums.value(), float(seeds.std(ddof=1)), *intervals([sums], LEVEL, RESAMPLES, 0)[0]
    )


def _laid_out(
    found: Estimates, columns: Sequence[str], cell: Callable[[Estimate], str]
) -> pd.DataFrame:
    names = list(dict.fromkeys(name for name, _ in found))
    rows = [
        [cell(found[name, one]) if (name, one) in found else CANNOT for one in columns]
        for name in names
    ]
    return pd.DataFrame(rows, index=names, columns=list(columns))


def best_of(tried: Tried) -> dict[str, Options]:
    """The settings that were best, by recommender; of equal ones the first."""
    return {name: max(some, key=lambda one: one[1])[0] for name, some in tried.items()}


def _choices(tried: Tried) -> pd.DataFrame:
    """What was tried and what was chosen."""

    def told(options: Options) -> str:
        return ", ".join(f"{name} {value:g}" for name, value in options.items())

    rows = [
        ["; ".join(f"{told(one)}: {short(value, 3)}" for one, value in tried[name]), told(best)]
        for name, best in best_of(tried).items()
    ]
    return pd.DataFrame(rows, index=list(tried), columns=["tried", "chosen"])


_CAVEATS = """\
“Above” and “below” are those whose 95% interval lies off 0, each by itself: of twenty that differ \
in nothing, one would. The sentence is a stand-in, made of ten likes, where a person would write \
what is on their mind. Settings are one for all columns, from a short list; one at its end might \
be better beyond."""


def findings(found: Estimates, beyond: Estimates, gains: Estimates) -> str:
    """Say which recommender is best, who is above popularity, and whom a sentence helps."""
    lines = [f"What is popular has NDCG@10 {short(found[FLOOR, QUESTIONS[0].label].mean, 3)}.\n"]
    for question in QUESTIONS[1:]:
        answers = _of(found, question.label)
        best = max(answers, key=lambda name: answers[name].mean)
        lines.append(
            f"- {question.label.capitalize()}: best is {best} ({short(answers[best].mean, 3)}). "
            f"Against what is popular, {_sides(_of(beyond, question.label))}."
        )
    for first, second in PAIRS:
        sides = _sides(_of(gains, f"{first} → {second}"))
        lines.append(f"- {second.capitalize()}, against {first}: {sides}.")
    return "\n".join([*lines, "", _CAVEATS])


def _sides(answers: dict[str, Estimate]) -> str:
    """Whose difference is off 0."""
    above = ", ".join(name for name, one in answers.items() if one.low > 0)
    below = ", ".join(name for name, one in answers.items() if one.high < 0)
    return f"above: {above or 'none'}; below: {below or 'none'}"


def _of(found: Estimates, column: str) -> dict[str, Estimate]:
    """The estimates of one column, by recommender."""
    return {name: one for (name, other), one in found.items() if other == column}


def draw(found: Estimates) -> Figure:
    """NDCG@10 against the number of likes, and with a sentence beside it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    by_likes, by_text = figure.subplots(1, 2, sharey=True, width_ratios=(5, 4))
    names = list(dict.fromkeys(name for name, _ in found))
    counts = [question for question in QUESTIONS if not question.sentence]
    words = [question for question in QUESTIONS if question.likes in (0, 2)]
    readers = [name for name in names if (name, "a sentence") in found]
    looks = {name: _look(place) for place, name in enumerate(names)}
    lines = [_draw_line(by_likes, found, name, counts, looks[name], joined=True) for name in names]
    for name in readers:
        _draw_line(by_text, found, name, words, looks[name], joined=False)
    by_likes.set_xticks(range(len(counts)), [str(one.likes) for one in counts])
    by_likes.set_xlabel("likes known")
    by_likes.set_ylabel(NDCG)
    by_text.set_xticks(range(len(words)), [one.label.replace(" and ", "\nand ") for one in words])
    by_text.set_xlabel("known, to recommenders that read text")
    figure.legend(handles=lines, loc="outside right center", frameon=False)
    return figure


class _Look(NamedTuple):
    """How a recommender is drawn."""

    colour: str
    marker: str
    line: str
    shift: float  # to the right


def _look(place: int) -> _Look:
    """By the place among the recommenders."""
    colour, line = _COLOURS[place % len(_COLOURS)], "-" if place < len(_COLOURS) else "--"
    return _Look(colour, _MARKERS[place % len(_MARKERS)], line, (place - 4) * _DODGE)


def _draw_line(
    axes: Axes,
    found: Estimates,
    name: str,
    questions: list[Question],
    look: _Look,
    *,
    joined: bool,
) -> ErrorbarContainer:
    """The answers of one recommender, joined where the questions have an order."""
    answers = [found[name, one.label] for one in questions]
    mean = np.array([one.mean for one in answers])
    axes.grid(axis="y", linewidth=0.4, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return axes.errorbar(
        np.arange(len(questions)) + look.shift,
        mean,
        yerr=[mean - [one.low for one in answers], [one.high for one in answers] - mean],
        color=look.colour,
        marker=look.marker,
        linestyle=look.line if joined else "none",
        linewidth=1.2,
        markersize=5,
        elinewidth=0.7,
        label=name,
    )
