"""The feedback loop: a replay in the order of time, weights that learn from it, and what it costs.

A recommender in use is not fitted once and then asked: each answer is followed by feedback, and
the next answer should know of it. The replay stands in for that. Events come in the order of time;
each is predicted, then learned from with `update` (`evaluation/prequential.py`). The same events
go through the adaptive hybrid, through the same hybrid with fixed weights, and through each part
alone, so that all differences are of the models and can be compared user by user.

The rate at which weights move, β, is chosen on an earlier stretch of time. Two more fixed hybrids
have weights that the adaptive one came to in that stretch: they show whether to go on learning is
worth more than to have learned once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from llmrec_kernels.datasets import load
from llmrec_kernels.evaluation import compare_paired, prequential
from llmrec_kernels.recommenders import (
    ContentRecommender,
    EASERecommender,
    HybridRecommender,
    ItemKNNRecommender,
    PopularityRecommender,
    Recommender,
    UserKNNRecommender,
)
from llmrec_kernels.studies import models
from llmrec_kernels.studies import replay_report as report
from llmrec_kernels.studies.replay_report import ADAPTIVE, EQUAL, HR, LAST, MEAN, NDCG, K, Replayed
from llmrec_kernels.studies.study import Picture, Study, Table

MIN_RATINGS = 5  # of a film: the others cannot be recommended, and their ratings are left out
FITTED, CHOSEN = 0.5, 0.65  # the shares of the events that end the first fit, and the choice
RATES = (0.03, 0.1, 0.3)
BATCH = 20  # events that are predicted before the models learn from them
WINDOW = 3000  # events that a moving mean goes back

SIZES = (10_000, 30_000, 80_000)  # interactions that a model is fitted on before it is timed
BATCHES = (1, 10, 100)
REPEATS = 20  # of which the median counts
LENGTHS = "items in these users' histories"

Parts = Mapping[str, models.Make]

PARTS: Parts = {
    "popularity": PopularityRecommender,
    "content": lambda: ContentRecommender(models.text_encoder(), pooling="recency", half_life=5),
    "item neighbours": lambda: ItemKNNRecommender(half_life=5),
    "user neighbours": UserKNNRecommender,
    "EASE": lambda: EASERecommender(500, half_life=5),
}


class Task(NamedTuple):
    """Events in the order of time, and the items that can be recommended."""

    events: pd.DataFrame  # `user`, `item`, `rating`, `timestamp`
    items: pd.DataFrame


class Costs(NamedTuple):
    """What it takes to learn and to answer: a row a model, a column a length of batch and size."""

    updates: pd.DataFrame  # microseconds an event; last, how long the histories are
    questions: pd.DataFrame  # microseconds of the first question after an update


def replay() -> Study:
    """Replay ml-latest-small: an adaptive hybrid against fixed ones and against each part.

    Returns
    -------
    Study
        Tables of HR@10 and NDCG@10, of paired differences and of what an event costs; plots of
        the weights and of the quality over time.

    Raises
    ------
    DatasetNotFoundError
        The data are in none of the places searched.
    """
    data = load("ml-latest-small")
    task = frequent(data.interactions, data.items, MIN_RATINGS)
    return study_of(task, PARTS)


def frequent(interactions: pd.DataFrame, items: pd.DataFrame, least: int) -> Task:
    """Keep the items with so many interactions, and order these by time.

    Parameters
    ----------
    interactions : pandas.DataFrame
        With `item` and `timestamp`; of those at one time the later row comes later.
    items : pandas.DataFrame
        With `item`.
    least : int
        Interactions of an item that is kept.
    """
    counts = interactions["item"].value_counts()
    kept = counts.index[counts >= least]
    events = interactions[interactions["item"].isin(kept)]
    return Task(
        events.sort_values("timestamp", kind="stable", ignore_index=True),
        items[items["item"].isin(kept)].reset_index(drop=True),
    )


def study_of(
    task: Task,
    parts: Parts,
    *,
    rates: Sequence[float] = RATES,
    batch: int = BATCH,
    window: int = WINDOW,
    sizes: Sequence[int] = SIZES,
) -> Study:
    """The study of one task.

    Parameters
    ----------
    task : Task
        Events and items.
    parts : mapping of str to callable
        Each gives one part of the hybrid, not fitted.
    rates : sequence of float
        The β to choose from.
    batch : int
        Events that are predicted before the models learn from them.
    window : int
        Events that the plotted means go back.
    sizes : sequence of int
        Interactions to fit on before `update` is timed.
    """
    ends = [int(share * len(task.events)) for share in (FITTED, CHOSEN)]
    choice = {rate: replayed(_hybrid(parts, rate=rate), task, *ends, batch=batch) for rate in rates}
    best = max(rates, key=lambda rate: choice[rate].result[NDCG])
    contest: dict[str, Recommender[Any]] = {
        ADAPTIVE: _hybrid(parts, rate=best),
        EQUAL: _hybrid(parts),
        MEAN: _hybrid(parts, weights=choice[best].settled_weights()),
        LAST: _hybrid(parts, weights=choice[best].last_weights()),
        **{name: make() for name, make in parts.items()},
    }
    end = len(task.events)
    found = {
        name: replayed(model, task, ends[1], end, batch=batch) for name, model in contest.items()
    }
    paired = {
        (other, label): compare_paired(found[ADAPTIVE].result, found[other].result, label)
        for other in found
        if other != ADAPTIVE
        for label in (HR, NDCG)
    }
    costs = update_costs(task, _timed(parts), sizes)
    weights = found[ADAPTIVE].weights
    return Study(
        "Feedback: a replay in the order of time",
        _protocol(task, ends, rates, batch),
        [
            Table(report.choice_caption(choice, best), report.choice_frame(choice)),
            Table("**All replayed events.**", report.quality(found), decimals=4),
            Table(f"**{ADAPTIVE.capitalize()} less each other one.**", report.differences(paired)),
            Table(_costs_caption(sizes), costs.updates),
            Table(
                f"**And the first question after it**, in microseconds: `recommend` with k = {K} "
                "for the user of the batch's last event (median of the same batches).",
                costs.questions,
            ),
        ],
        [
            Picture(
                "replay-weights", "Weights over time", lambda: report.draw_weights(weights, window)
            ),
            Picture(
                "replay-quality", "Quality over time", lambda: report.draw_quality(found, window)
            ),
        ],
        report.findings(found, paired),
    )


def replayed(
    model: Recommender[Any], task: Task, begin: int, end: int, *, batch: int = BATCH
) -> Replayed:
    """Fit a model on the events before `begin`, and replay those up to `end`.

    Parameters
    ----------
    model : Recommender
        Not fitted; the weights of a `HybridRecommender` are noted after each batch.
    task : Task
        Events and items.
    begin, end : int
        Numbers of events.
    batch : int
        Events that are predicted before the model learns from them.
    """
    train, events = task.events[:begin], task.events[begin:end]
    model.fit(train, task.items)
    noted: dict[int, dict[str, float]] = {}

    def note(count: int) -> None:
        if isinstance(model, HybridRecommender):
            noted[count] = model.current_weights

    note(0)
    result = prequential(
        model, events, train=train, items=task.items, k=K, batch=batch, observe=note
    )
    return Replayed(result, pd.DataFrame.from_dict(noted, orient="index"))


def update_costs(
    task: Task,
    makes: Mapping[str, models.Make],
    sizes: Sequence[int] = SIZES,
    batches: Sequence[int] = BATCHES,
) -> Costs:
    """Time `update`, and the question after it, for models and batches of several sizes.

    What a model puts off until it is asked is part of that question.

    Parameters
    ----------
    task : Task
        A model of size n is fitted on the first n events, and updated with those that follow.
    makes : mapping of str to callable
        The models, not fitted.
    sizes, batches : sequence of int
        In interactions, and in events.

    Returns
    -------
    Costs
        Medians over batches, as text. The question is for the user of the last event of a batch;
        the length of histories is how many items those of a batch's users have.
    """
    updates: dict[str, dict[str, str]] = {}
    questions: dict[str, dict[str, str]] = {}
    lengths: dict[str, str] = {}
    for name, make in makes.items():
        updates[name], questions[name] = {}, {}
        for size in sizes:
            model, at = make().fit(task.events[:size], task.items), size
            for batch in batches:
                stop = at + REPEATS * batch
                taken = [
                    _seconds(model, task.events[start : start + batch])
                    for start in range(at, stop, batch)
                ]
                update, question = 1e6 * np.median(taken, axis=0)
                column = f"{batch} on {size:,}"
                updates[name][column] = f"{update / batch:,.0f}"
                questions[name][column] = f"{question:,.0f}"
                lengths[column] = f"{_changed(task.events, at, stop, batch):,.0f}"
                at = stop
    order = [f"{batch} on {size:,}" for batch in batches for size in sizes]
    return Costs(
        pd.DataFrame.from_dict(updates | {LENGTHS: lengths}, orient="index")[order],
        pd.DataFrame.from_dict(questions, orient="index")[order],
    )


def _changed(events: pd.DataFrame, begin: int, end: int, batch: int) -> float:
    """Items in the histories of the users of a batch, the median over batches."""
    user = events["user"].to_numpy()
    return float(
        np.median(
            [
                np.isin(user[:start], user[start : start + batch]).sum()
                for start in range(begin, end, batch)
            ]
        )
    )


def _seconds(model: Recommender[Any], events: pd.DataFrame) -> tuple[float, float]:
    """How long the model takes to learn from the events, and to answer the last one's user."""
    begun = time.perf_counter()
    model.update(events)
    learned = time.perf_counter()
    model.recommend([events["user"].iloc[-1]], k=K)
    return learned - begun, time.perf_counter() - learned


def _hybrid(
    parts: Parts, *, rate: float | None = None, weights: Mapping[str, float] | None = None
) -> HybridRecommender:
    """The hybrid of all parts: adaptive where there is a rate."""
    made = {name: make() for name, make in parts.items()}
    if rate is None:
        return HybridRecommender(made, weights=weights)
    return HybridRecommender(made, weights=weights, adaptive=True, rate=rate)


def _timed(parts: Parts) -> dict[str, models.Make]:
    return {
        **parts,
        "fixed hybrid": lambda: _hybrid(parts),
        ADAPTIVE: lambda: _hybrid(parts, rate=RATES[0]),
    }


def _protocol(task: Task, ends: Sequence[int], rates: Sequence[float], batch: int) -> str:
    fitted, chosen = ends
    events, total = task.events, len(task.events)
    known = set(events["user"][:chosen])
    rest = events["user"][chosen:]
    return (
        f"**Data.** The {total:,} ratings of the {len(task.items):,} items with at least "
        f"{MIN_RATINGS} ratings, whatever the rating, in the order of time (of those at one time, "
        f"in the order of the file). That an item will have {MIN_RATINGS} ratings is not known at "
        "the time: the choice of items is the one thing that looks ahead, the same for all models."
        "\n\n"
        f"**Replay.** Each event is predicted (the {K} best of all items that its user has not "
        f"taken; a hit if the item is among them), then learned from with `update`, in batches of "
        f"{batch}: the events of a batch do not know of each other. Nothing is fitted again. Who "
        "is not known yet is answered with what is popular at that time, by every model. "
        f"{(~rest.isin(known)).mean():.0%} of the {total - chosen:,} reported events are of "
        f"{rest[~rest.isin(known)].nunique()} users who come new; people here come one after "
        "another, and rate many films in one sitting.\n\n"
        f"**Choice.** Models are fitted on the first {fitted:,} events, and β is the one of "
        f"{', '.join(f'{rate:g}' for rate in rates)} with the best NDCG@{K} over the next "
        f"{chosen - fitted:,}. The report is of models fitted on the first {chosen:,} and replayed "
        "on the rest, which no choice has seen. The adaptive hybrid begins with equal weights; "
        f'"{MEAN}" has the mean of its weights over the later half of the choice, "{LAST}" those '
        "that it ended the choice with. "
        "Intervals are of 95%, of users drawn with all their events; differences are paired by "
        "user. No model here draws anything at random.\n\n"
        "**Parts.** Popularity; content (MiniLM on title, year and genres, centred, the newest "
        "items of a history count most: half-life 5); item neighbours and EASE (λ = 500), both "
        "with half-life 5; user neighbours. Similarities of items and EASE's weights stay as "
        "fitted; histories, popularity and neighbouring users learn at once."
    )


def _costs_caption(sizes: Sequence[int]) -> str:
    return (
        "**What `update` costs**, in microseconds an event (median of "
        f"{REPEATS} batches): batches of {', '.join(map(str, BATCHES))} events on models fitted on "
        f"{', '.join(f'{size:,}' for size in sizes)} interactions. A call costs something of its "
        "own, which a batch shares out, and each history that it changes is written anew: the last "
        "row says how many items these have, all together, in a batch."
    )
