"""What a few injected profiles do to the lists of everybody else.

`shilling_attacks` makes up users who push one item, a target t: an attack. It has 1% of the users
again as profiles. What it gains is the hit ratio of the target,

    HR_t = share of the genuine users without t in their history who have t in their first ten,

and what it costs everyone else is how many of these ten places change, and NDCG@10.

Source: S. Lam and J. Riedl, Shilling recommender systems for fun and profit, WWW 2004.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llmrec_kernels.datasets import Dataset
from llmrec_kernels.evaluation import Hits, leave_last_out, ndcg
from llmrec_kernels.recommenders import (
    ItemKNNRecommender,
    Recommender,
    UnsupportedError,
    UserKNNRecommender,
)
from llmrec_kernels.studies import models
from llmrec_kernels.studies.shilling_attacks import (
    POPULAR,
    SHARE,
    Attack,
    attacks_of,
    n_fillers,
)
from llmrec_kernels.studies.study import Study, Table, short, signed

K = 10
MADE: dict[str, models.Make] = models.BASELINES | {
    "hybrid": models.hybrid,
    "item neighbours, ratings": lambda: ItemKNNRecommender(feedback="ratings", shrink=0),
    "user neighbours, ratings": lambda: UserKNNRecommender(feedback="ratings"),
}
_HARDLY = 0.002  # of the users, a gain that is as good as none

_PROTOCOL = f"""\
Data: {{name}}, {{users}} users, all interactions positive. Each user's last interaction is the \
test (leave-last-out), the others are train; a model is fitted on train alone, and again on train \
and the profiles of one attack. The test of the genuine users is the same both times. Models have \
the settings of `studies.models.BASELINES` and `models.hybrid()`, and ALS begins with the seed 0 \
before and after each attack; "ratings" are neighbours that \
rank by the rating they predict (items without shrinkage).

An attack has one target item and {{profiles}} profiles ({SHARE:.0%} of the users). Each profile \
rates the target and the {POPULAR} most popular others {{highest:g}}, and {{fillers}} filler items \
with their mean rating in train, rounded to a whole number, so that it is as long as the mean \
user's history in train. Random fillers are drawn without replacement, for each profile by \
itself, from all other items in train; popular fillers are the most popular of them.

Targets: the items in train by their number of interactions (equal ones by id), in thirds. For \
each of the seeds {{seeds}}, `numpy.random.default_rng(seed)` draws {{targets}} of the lowest \
third ("unpopular") and {{targets}} of the middle third ("middling"); each is pushed with random \
and with popular fillers, one attack at a time, {{attacks}} attacks in all.

Each model ranks all items that a genuine user has not in train. The hit ratio (HR) of the target \
is the share of the genuine users without it in train who have it among their first {K}; its rank \
is its mean place in the whole rankings of these users; "places changed" is the share of the first \
{K} places of all genuine users whose item was not among the first {K} before. Each is a mean over \
the attacks; "highest HR" is that of the most successful one. The shift is how much the target's \
predicted rating rises for users without it, of the models that predict ratings."""


class Ranks(NamedTuple):
    """Where each item is in the whole ranking of each genuine user."""

    users: pd.Index[Any]
    items: pd.Index[Any]
    rank: NDArray[np.int64]  # [U, N]: from 1; 0 where the user has the item in train
    rating: NDArray[np.float64]  # [U, T]: predicted, of the targets asked for; NaN without one


def shilling(
    data: Dataset,
    made: Mapping[str, models.Make] = MADE,
    *,
    seeds: Sequence[int] = models.SEEDS,
    targets: int = 1,
) -> Study:
    """Attack each recommender with made-up users, one target at a time.

    Parameters
    ----------
    data : Dataset
        With ratings and timestamps, such as `movielens_100k()`.
    made : mapping of str to callable, optional
        What makes each recommender, by the name to show.
    seeds : sequence of int, optional
        Each draws its own targets and fillers.
    targets : int, optional
        Targets of each kind and seed.

    Returns
    -------
    Study
        A table for each kind of targets and fillers.

    Raises
    ------
    ValueError
        There is no model or no seed, or there are too few items to draw targets from.

    Examples
    --------
    >>> from llmrec_kernels.recommenders import PopularityRecommender
    >>> log = pd.DataFrame({"user": [1, 1, 1, 2, 2, 2], "item": [7, 8, 9, 7, 9, 6]})
    >>> items = pd.DataFrame({"item": [6, 7, 8, 9]})
    >>> data = Dataset("six", log.assign(rating=4.0, timestamp=range(6)), items)
    >>> study = shilling(data, {"popularity": PopularityRecommender}, seeds=[0], targets=1)
    >>> study.tables[0].frame.index.tolist()
    ['popularity']
    """
    if not made or not len(seeds):
        raise ValueError(f"made has {len(made)} models and seeds {len(seeds)}; expected some")
    train, test = leave_last_out(data.interactions)
    attacks = [attack for seed in seeds for attack in attacks_of(train, targets, seed)]
    rows = [
        {"model": name} | row
        for name, make in made.items()
        for row in attacked(make, data.items, train, test, attacks)
    ]
    measured = pd.DataFrame(rows).set_index("model")
    counts = train["item"].value_counts()
    tables = [
        _table(str(fillers), str(kind), of_both, counts)
        for (fillers, kind), of_both in measured.groupby(["fillers", "kind"], sort=False)
    ]
    protocol = _PROTOCOL.format(
        name=data.name,
        users=train["user"].nunique(),
        profiles=attacks[0].profiles["user"].nunique(),
        highest=train["rating"].max(),
        fillers=n_fillers(train),
        targets=targets,
        seeds=", ".join(map(str, seeds)),
        attacks=len(attacks),
    )
    return Study("Bad actors", protocol, tables, findings=findings(measured))


def attacked(
    make: models.Make,
    items: pd.DataFrame,
    train: pd.DataFrame,
    test: pd.DataFrame,
    attacks: Sequence[Attack],
) -> Iterator[dict[str, Any]]:
    """Measure a model before and after each attack, each of which is made on train alone.

    Parameters
    ----------
    make : callable
        Gives the model, not fitted.
    items : pandas.DataFrame
        The catalogue.
    train, test : pandas.DataFrame
        The genuine interactions; test has one row a user.
    attacks : sequence of Attack
        Which.

    Yields
    ------
    dict
        "fillers", "kind" and "target" of the attack; "HR before", "HR after", "rank before", "rank
        after", "places changed", "NDCG@10 before", "NDCG@10 after", and "shift", NaN where the
        model predicts no ratings.
    """
    targets = [one.target for one in attacks]
    before = ranks_of(make().fit(train, items), items, test, targets)
    for number, (fillers, kind, target, profiles) in enumerate(attacks):
        model = make().fit(pd.concat([train, profiles], ignore_index=True), items)
        after = ranks_of(model, items, test, [target])
        column = before.items.get_loc(target)
        free = before.rank[:, column] > 0  # who could be shown the target
        old, new = before.rank[free, column], after.rank[free, column]
        shift = after.rating[free, 0] - before.rating[free, number]
        yield {
            "fillers": fillers,
            "kind": kind,
            "target": target,
            "HR before": (old <= K).mean(),
            "HR after": (new <= K).mean(),
            "rank before": old.mean(),
            "rank after": new.mean(),
            "places changed": _changed(before, after),
            "NDCG@10 before": _ndcg(before, test),
            "NDCG@10 after": _ndcg(after, test),
            "shift": shift.mean(),
        }


def ranks_of(
    model: Recommender[Any], items: pd.DataFrame, test: pd.DataFrame, targets: Sequence[Any]
) -> Ranks:
    """Ask a model for the whole ranking of each genuine user, and for the targets' ratings.

    Parameters
    ----------
    model : Recommender
        Fitted.
    items : pandas.DataFrame
        The catalogue.
    test : pandas.DataFrame
        Its users are the genuine ones.
    targets : sequence of ids, [T]
        Whose ratings are predicted.
    """
    users, catalogue = pd.Index(test["user"].unique()), pd.Index(items["item"])
    ranked = model.recommend(users, k=len(catalogue))
    rank = np.zeros((len(users), len(catalogue)), dtype=np.int64)
    rank[users.get_indexer(ranked.user), catalogue.get_indexer(ranked.item)] = ranked.rank
    rating = np.full((len(users), len(targets)), np.nan)
    with contextlib.suppress(UnsupportedError):  # most recommenders predict no ratings
        pairs = np.repeat(users, len(targets)), np.tile(targets, len(users))
        rating[:] = model.predict(*pairs).reshape(rating.shape)
    return Ranks(users, catalogue, rank, rating)


def _changed(before: Ranks, after: Ranks) -> float:
    """The share of the first places whose item was not there before."""
    was, shown = ((one.rank > 0) & (one.rank <= K) for one in (before, after))
    return float((shown & ~was).sum() / shown.sum())


def _ndcg(ranks: Ranks, test: pd.DataFrame) -> float:
    rank = ranks.rank[
        ranks.users.get_indexer(pd.Index(test["user"])),
        ranks.items.get_indexer(pd.Index(test["item"])),
    ]
    hits = Hits(rank[:, None] == np.arange(1, K + 1), np.ones(len(rank), dtype=np.int64))
    return float(ndcg(hits, K).mean())


def _table(fillers: str, kind: str, measured: pd.DataFrame, counts: pd.Series) -> Table:
    """Means over the attacks, a row a model."""
    known = counts[measured["target"]]
    caption = (
        f"**{kind.capitalize()} targets, {fillers} fillers**: {measured['target'].nunique()} items "
        f"with {known.min()} to {known.max()} interactions."
    )
    by_model = measured.drop(columns=["fillers", "kind", "target"]).groupby("model", sort=False)
    frame = by_model.mean()
    frame.insert(2, "highest HR", by_model["HR after"].max())
    for column in ("rank before", "rank after"):
        frame[column] = [f"{value:,.0f}" for value in frame[column]]
    frame["shift"] = ["" if np.isnan(value) else signed(value, 2) for value in frame["shift"]]
    return Table(caption, frame, decimals=4)


def findings(measured: pd.DataFrame) -> str:
    """Say what the numbers say, whatever they are.

    Parameters
    ----------
    measured : pandas.DataFrame
        Rows of `attacked`, by the name of the model.
    """
    by = measured.groupby(["model", "fillers", "kind"], sort=False)
    means = by.mean(numeric_only=True).reset_index()
    means["gain"] = means["HR after"] - means["HR before"]
    means["loss"] = means["NDCG@10 before"] - means["NDCG@10 after"]
    most = means.groupby("model", sort=False)[["gain", "places changed"]].max()
    hardly = ", ".join(most.index[most["gain"] < _HARDLY])
    same = ", ".join(most.index[most["places changed"] == 0])
    reached = f"fewer than {_HARDLY:.1%} more of the users, in every table"
    lines = [
        _most(means, "gain", "HR", "The target gains most", "The target gains with no model"),
        f"It reaches {reached}, with {hardly}."
        if hardly
        else f"With every model it reaches {_HARDLY:.1%} more of the users or more, in some table.",
        _changes(means),
        _most(means, "loss", "NDCG@10", "NDCG@10 falls most", "NDCG@10 falls with no model"),
        f"All lists stay as they are with {same}."
        if same
        else "With every model some list changes.",
        "To a model of who took what a profile is a list of items, whatever its ratings. Attacks "
        "made for one model, more profiles, and targets that are nearly in the lists already may "
        "do more; these were not tried. Changes of NDCG@10 are given without an interval.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _most(means: pd.DataFrame, change: str, metric: str, where: str, nowhere: str) -> str:
    """Where a metric changes most to the worse, if it does anywhere."""
    row = means.iloc[means[change].argmax()]
    if row[change] <= 0:
        return f"{nowhere}."
    before, after = (short(row[f"{metric} {when}"], 4) for when in ("before", "after"))
    return f"{where} with {_cell(row)}: {metric} goes from {before} to {after}."


def _changes(means: pd.DataFrame) -> str:
    row = means.iloc[means["places changed"].argmax()]
    if not row["places changed"]:
        return "No place changes."
    return f"Lists change most with {_cell(row)}: {row['places changed']:.1%} of the places."


def _cell(row: pd.Series) -> str:
    return f"{row['model']} ({row['kind']} targets, {row['fillers']} fillers)"
