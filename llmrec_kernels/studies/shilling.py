"""What a few injected profiles do to the lists of everybody else.

Who sells an item can make up users who love it: a shilling attack. A profile that pushes item t
gives it the highest rating, and is otherwise made to look like anyone, so that it comes near many
genuine users. The rating of item i in it is

    r_t = r_max,   r_i = r_max for the p most popular items,   r_i = mean rating of i for fillers,

with fillers until the profile is as long as the mean user's. Where these are drawn at random it is
the average attack joined to the bandwagon attack; where they are the next most popular items, the
popular attack, which shares more with everyone. An attack is one target and 1% of the users again
as profiles. What it gains is the hit ratio of the target,

    HR_t = share of the genuine users without t in their history who have t in their first ten,

and what it costs everyone else is how many of these ten places change, and NDCG@10.

Sources: S. Lam and J. Riedl, Shilling recommender systems for fun and profit, WWW 2004;
B. Mobasher, R. Burke, R. Bhaumik and C. Williams, Toward trustworthy recommender systems: an
analysis of attack models and algorithm robustness, ACM TOIT 7(4), 2007; M. O'Mahony, N. Hurley and
G. Silvestre, Recommender systems: attack types and strategies, AAAI 2005.
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
from llmrec_kernels.ops import checks
from llmrec_kernels.recommenders import (
    ItemKNNRecommender,
    Recommender,
    UnsupportedError,
    UserKNNRecommender,
)
from llmrec_kernels.studies import models
from llmrec_kernels.studies.study import Study, Table

K = 10
SHARE = 0.01  # profiles for each genuine user
POPULAR = 5
MADE: dict[str, models.Make] = models.BASELINES | {
    "hybrid": models.hybrid,
    "item neighbours, ratings": lambda: ItemKNNRecommender(feedback="ratings", shrink=0),
    "user neighbours, ratings": lambda: UserKNNRecommender(feedback="ratings"),
}
KINDS = ("unpopular", "middling")  # targets: of the lowest and of the middle third of the items
FILLERS = ("random", "popular")
_HARDLY = 0.002  # of the users, a gain that is as good as none

_PROTOCOL = f"""\
Data: {{name}}, {{users}} users, all interactions positive. Each user's last interaction is the \
test (leave-last-out), the others are train; a model is fitted on train alone, and again on train \
and the profiles of one attack. The test of the genuine users is the same both times. Models have \
the settings of `studies.models.BASELINES` and `models.hybrid()`; "ratings" are neighbours that \
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


class Attack(NamedTuple):
    """One target and the profiles that push it."""

    fillers: str  # of FILLERS
    kind: str  # of KINDS
    target: Any
    profiles: pd.DataFrame


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
        fillers=_n_fillers(train),
        targets=targets,
        seeds=", ".join(map(str, seeds)),
        attacks=len(attacks),
    )
    return Study("Bad actors", protocol, tables, findings=_findings(measured))


def attacks_of(train: pd.DataFrame, targets: int, seed: int) -> list[Attack]:
    """Draw targets of each kind, and make the profiles that push each.

    Parameters
    ----------
    train : pandas.DataFrame
        The genuine interactions: user, item, rating and timestamp.
    targets : int
        Of each kind.
    seed : int
        Of targets and fillers.

    Returns
    -------
    list of Attack
        Two for each target: one with each kind of fillers.

    Raises
    ------
    ValueError
        A third of the items has fewer than ``targets``.
    """
    targets = checks.positive_int("targets", targets)
    rng = np.random.default_rng(seed)
    counts = train["item"].value_counts().sort_index().sort_values(kind="stable")
    third = len(counts) // 3
    if targets > third:
        raise ValueError(f"targets is {targets}; expected at most {third}, a third of the items")
    return [
        Attack(fillers, kind, target, profiles_for(train, target, fillers, rng))
        for number, kind in enumerate(KINDS)
        for target in rng.choice(counts.index[number * third :][:third], targets, replace=False)
        for fillers in FILLERS
    ]


def profiles_for(
    train: pd.DataFrame, target: Any, fillers: str, rng: np.random.Generator
) -> pd.DataFrame:
    """Make up users who push an item.

    Parameters
    ----------
    train : pandas.DataFrame
        The genuine interactions: user, item, rating and timestamp.
    target : id
        The item to push.
    fillers : "random" or "popular"
        How the other items are chosen.
    rng : numpy.random.Generator
        Draws random fillers.

    Returns
    -------
    pandas.DataFrame
        The columns of train, for new users; their time is the last of train.
    """
    others = train[train["item"] != target].groupby("item")["rating"].agg(["size", "mean"])
    # The most popular first, of equal ones the lower id.
    others = others.sort_values("size", ascending=False, kind="stable")
    loved = pd.DataFrame(
        {"item": [target, *others.index[:POPULAR]], "rating": train["rating"].max()}
    )
    rest = others.iloc[POPULAR:]
    n_fillers = min(_n_fillers(train), len(rest))
    made = []
    for user in _new_users(train["user"]):
        random = fillers == "random"
        places = rng.choice(len(rest), n_fillers, replace=False) if random else range(n_fillers)
        taken = rest.iloc[places]
        ratings = np.rint(taken["mean"].to_numpy())
        made += [
            loved.assign(user=user),
            pd.DataFrame({"item": taken.index, "rating": ratings, "user": user}),
        ]
    profiles = pd.concat(made, ignore_index=True).assign(timestamp=train["timestamp"].max())
    return profiles[["user", "item", "rating", "timestamp"]]


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


def _n_fillers(train: pd.DataFrame) -> int:
    return max(0, round(len(train) / train["user"].nunique()) - POPULAR - 1)


def _new_users(users: pd.Series) -> list[Any]:
    """Ids that sort behind all others."""
    n_profiles, last = max(1, round(SHARE * users.nunique())), users.max()
    if isinstance(last, str):
        return [f"{last}+{number}" for number in range(n_profiles)]
    return [int(last) + 1 + number for number in range(n_profiles)]


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
    frame["shift"] = ["" if np.isnan(value) else f"{value:+.2f}" for value in frame["shift"]]
    return Table(caption, frame, decimals=4)


def _findings(measured: pd.DataFrame) -> str:
    """What the numbers say, for whatever models there are."""
    by = measured.groupby(["model", "fillers", "kind"], sort=False)
    means = by.mean(numeric_only=True).reset_index()
    means["gain"] = means["HR after"] - means["HR before"]
    means["loss"] = means["NDCG@10 before"] - means["NDCG@10 after"]
    gained, changed, lost = (
        means.iloc[means[column].argmax()] for column in ("gain", "places changed", "loss")
    )
    most = means.groupby("model", sort=False)[["gain", "places changed"]].max()
    lines = [
        f"The target gains most with {_cell(gained)}: its hit ratio goes from "
        f"{gained['HR before']:.4f} to {gained['HR after']:.4f}.",
        f"It reaches fewer than {_HARDLY:.1%} more of the users, in every table, with "
        f"{_names(most.index[most['gain'] < _HARDLY])}.",
        f"Lists change most with {_cell(changed)}: {changed['places changed']:.1%} of the places.",
        f"NDCG@10 falls most with {_cell(lost)}: from {lost['NDCG@10 before']:.4f} to "
        f"{lost['NDCG@10 after']:.4f}.",
        f"No list changes with {_names(most.index[most['places changed'] == 0])}.",
        "To a model of who took what a profile is a list of items, whatever its ratings. Attacks "
        "made for one model, more profiles, and targets that are nearly in the lists already may "
        "do more; these were not tried. Changes of NDCG@10 are given without an interval.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _cell(row: pd.Series) -> str:
    return f"{row['model']} ({row['kind']} targets, {row['fillers']} fillers)"


def _names(found: pd.Index[Any]) -> str:
    return ", ".join(found) or "none of the models"
