"""What people take next, of items that others took before: all unseen items are ranked."""

from __future__ import annotations

import itertools
import time
from typing import Any, NamedTuple

import pandas as pd

from llmrec_kernels.datasets import Dataset, load, movielens_100k_split
from llmrec_kernels.evaluation import (
    Report,
    compare_paired,
    evaluate,
    leave_last_out,
    random_split,
)
from llmrec_kernels.recommenders import (
    ALSRecommender,
    EASERecommender,
    HybridRecommender,
    ItemKNNRecommender,
    Recommender,
)
from llmrec_kernels.studies import models
from llmrec_kernels.studies.study import Study, Table

_LABELS = ("HR@10", "NDCG@10")
_HALF_LIVES = (None, 5.0, 10.0, 20.0, 40.0)
_REGULARIZATIONS = (100.0, 200.0, 500.0, 1000.0)
_SPLIT_WEIGHTS = (0.0, 0.25, 0.5, 1.0)
_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)


class Chosen(NamedTuple):
    """Settings of the hybrid."""

    regularization: float
    ease_half_life: float | None
    items_half_life: float | None
    items_weight: float

    def model(self) -> HybridRecommender:
        """The hybrid with these settings, not yet fitted."""
        return HybridRecommender(
            {
                "ease": EASERecommender(self.regularization, half_life=self.ease_half_life),
                "items": ItemKNNRecommender(half_life=self.items_half_life),
            },
            weights={"items": self.items_weight},
        )


def choose(train: pd.DataFrame, items: pd.DataFrame) -> tuple[Chosen, pd.DataFrame]:
    """Settings by NDCG@10 on each user's last interaction in train: one after the other.

    First λ and half-life of EASE together, then the half-life of item neighbours, then the weight
    of these beside EASE. Half-lives count when a model is asked, so that a model is fitted once.
    """
    inner, held_out = leave_last_out(train)
    tried: list[dict[str, Any]] = []

    def ndcg(model: Recommender[Any], **settings: Any) -> float:
        value = evaluate(model, inner, held_out, metrics=("ndcg",))["NDCG@10"]
        tried.append(settings | {"NDCG@10": value})
        return value

    ease = []
    for regularization in _REGULARIZATIONS:
        model = EASERecommender(regularization).fit(inner, items)
        for half_life in _HALF_LIVES:
            model.half_life = half_life
            value = ndcg(model, part="EASE", regularization=regularization, half_life=half_life)
            ease.append((value, regularization, half_life))
    _, best_regularization, ease_half_life = max(ease, key=lambda one: one[0])

    neighbours = ItemKNNRecommender().fit(inner, items)
    near = []
    for half_life in _HALF_LIVES:
        neighbours.half_life = half_life
        near.append((ndcg(neighbours, part="item neighbours", half_life=half_life), half_life))
    items_half_life = max(near, key=lambda one: one[0])[1]

    fused = []
    for weight in _WEIGHTS:
        chosen = Chosen(best_regularization, ease_half_life, items_half_life, weight)
        value = ndcg(chosen.model().fit(inner, items), part="hybrid", weight=weight)
        fused.append((value, chosen))
    return max(fused, key=lambda one: one[0])[1], pd.DataFrame(tried)


def leave_last(name: str) -> Study:
    """Each user's last interaction held out, on MovieLens-100K or ml-latest-small."""
    data = load(name)
    train, test = leave_last_out(data.interactions)
    chosen = Chosen(500.0, 5.0, 5.0, 0.5)
    if name == "ml-100k":
        chosen, _ = choose(train, data.items)
    made: dict[str, models.Make] = dict(models.BASELINES)
    if name != "ml-100k":
        del made["aligned"], made["ALS"], made["content"]
    recent = EASERecommender(chosen.regularization, half_life=chosen.ease_half_life)
    made["EASE, recent first"] = lambda: recent
    made["hybrid"] = chosen.model
    reports, seconds = {}, {}
    for label, make in made.items():
        reports[label], seconds[label] = _measured(make(), data, train, test)
    tables = [
        Table("Mean over users, with 95% bootstrap intervals.", _table(reports, seconds), 3),
        Table("Against EASE, the same users.", _against(reports, "EASE", _LABELS), 4),
        Table(
            "Against EASE with the newest items first: what the second part adds.",
            _against(
                {name: reports[name] for name in ("EASE, recent first", "hybrid")},
                "EASE, recent first",
                _LABELS,
            ),
        ),
    ]
    if name == "ml-100k":
        tables.append(Table("ALS by seed.", _by_seed(data, train, test), 3))
    return Study(f"Known items: {name}", _protocol(data, chosen, name), tables)


def official_split() -> Study:
    """The publisher's split u1 of MovieLens-100K: 462 users, many relevant items each."""
    train, test = movielens_100k_split("u1")
    data = load("ml-100k")
    inner, held_out = random_split(train, 0.2, seed=0)
    tried = {
        one: evaluate(EASERecommender(one).fit(inner, data.items), inner, held_out)["NDCG@10"]
        for one in (100.0, 200.0, 300.0, 400.0, 500.0)
    }
    best = max(tried, key=lambda one: tried[one])
    parts: dict[str, models.Make] = {
        "ease": lambda: EASERecommender(best),
        "als": ALSRecommender,
        "items": ItemKNNRecommender,
    }
    fused = HybridRecommender({name: make() for name, make in parts.items()})
    fused.fit(inner, data.items)
    weights = max(
        ({"als": als, "items": near} for als in _SPLIT_WEIGHTS for near in _SPLIT_WEIGHTS),
        key=lambda one: evaluate(fused.set_weights(one), inner, held_out)["NDCG@10"],
    )
    made: dict[str, models.Make] = {
        "popularity": models.BASELINES["popularity"],
        "item neighbours": ItemKNNRecommender,
        "user neighbours": models.BASELINES["user neighbours"],
        "ALS": ALSRecommender,
        "EASE, λ = 200": EASERecommender,
        f"EASE, λ = {best:g}": lambda: EASERecommender(best),
        "hybrid": lambda: HybridRecommender(
            {name: make() for name, make in parts.items()}, weights=weights
        ),
    }
    rows, reports = {}, {}
    for label, make in made.items():
        model = make().fit(train, data.items)
        twenty = evaluate(model, train, test, k=20, metrics=("recall",))
        reports[label] = evaluate(model, train, test, metrics=("ndcg",))
        rows[label] = {
            "Recall@20": _with_interval(twenty, "Recall@20"),
            "NDCG@10": _with_interval(reports[label], "NDCG@10"),
        }
    protocol = (
        "MovieLens-100K, `u1.base` and `u1.test`; every rating counts as taken, and every item of "
        "the catalogue that a user has not rated in `u1.base` is ranked. λ of EASE was chosen "
        "among 100, 200, 300, 400 and 500 by NDCG@10 on 20% of `u1.base` drawn at random (seed "
        f"0): {best:g}. The hybrid is that EASE, {weights['als']:g} of ALS (seed 0) and "
        f"{weights['items']:g} of item neighbours; these weights were chosen on the same 20%, "
        "among 0, .25, .5 and 1 each."
    )
    tables = [
        Table("Mean over users, with 95% bootstrap intervals.", pd.DataFrame(rows).T),
        Table("Against EASE, λ = 200.", _against(reports, "EASE, λ = 200", ("NDCG@10",)), 4),
    ]
    return Study("Known items: the split u1 of ml-100k", protocol, tables)


def _measured(
    model: Recommender[Any], data: Dataset, train: pd.DataFrame, test: pd.DataFrame
) -> tuple[Report, tuple[float, float]]:
    """The metrics of a model, and the seconds that it took to fit and to recommend to all."""
    begun = time.perf_counter()
    model.fit(train, data.items)
    fitted = time.perf_counter()
    model.recommend(train["user"].unique(), k=10)
    done = time.perf_counter()
    report = evaluate(
        model, train, test, items=data.items, metrics=("hit_rate", "ndcg", "mrr", "coverage")
    )
    return report, (fitted - begun, done - fitted)


def _table(reports: dict[str, Report], seconds: dict[str, tuple[float, float]]) -> pd.DataFrame:
    rows = {}
    for label, report in reports.items():
        rows[label] = {
            "HR@10": _with_interval(report, "HR@10"),
            "NDCG@10": _with_interval(report, "NDCG@10"),
            "MRR@10": report["MRR@10"],
            "Coverage@10": report["Coverage@10"],
            "fit, s": f"{seconds[label][0]:.2f}",
            "recommend to all, s": f"{seconds[label][1]:.2f}",
        }
    return pd.DataFrame(rows).T


def _with_interval(report: Report, label: str) -> str:
    row = report.to_pandas().loc[label]
    mean, low, high = (f"{row[one]:.3f}"[1:] for one in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _against(reports: dict[str, Report], baseline: str, labels: tuple[str, ...]) -> pd.DataFrame:
    rows = {}
    for (name, report), label in itertools.product(reports.items(), labels):
        if name != baseline:
            paired = compare_paired(report, reports[baseline], label)
            rows[f"{name}, {label}"] = {
                "difference": f"{paired.difference:+.4f}",
                "95% interval": f"[{paired.low:+.4f}, {paired.high:+.4f}]",
                "p": f"{paired.p:.4f}",
                "wins / losses": f"{paired.wins} / {paired.losses}",
            }
    return pd.DataFrame(rows).T


def _by_seed(data: Dataset, train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    rows = {}
    for seed in models.SEEDS:
        report = evaluate(ALSRecommender(seed=seed).fit(train, data.items), train, test)
        rows[f"seed {seed}"] = {"HR@10": report["HR@10"], "NDCG@10": report["NDCG@10"]}
    return pd.DataFrame(rows).T


def _protocol(data: Dataset, chosen: Chosen, name: str) -> str:
    how = (
        "chosen by NDCG@10 on each user's second-last interaction, with models fitted on what is "
        "before it: λ of EASE among 100, 200, 500 and 1000 together with its half-life among "
        "none, 5, 10, 20 and 40 interactions; then the half-life of item neighbours; then their "
        "weight beside EASE among 0, .25, .5, 1 and 2. The last interaction was not looked at"
        if name == "ml-100k"
        else "those chosen on MovieLens-100K, not tuned here"
    )
    return (
        f"{len(data.interactions):,} ratings of {len(data.items):,} films by "
        f"{data.interactions['user'].nunique():,} people; every rating counts as taken. Each "
        "user's last rating (by timestamp; of the same second, the later row) is held out; all "
        "films that the user has not rated are ranked. EASE has λ = 200, item and user neighbours "
        "are 100 by cosine with shrink 10, ALS has 32 factors, λ = 10, alpha = 1, 10 sweeps, seed "
        "0; content and aligned read title and genres by MiniLM. The hybrid adds the standardised "
        f"scores of EASE (λ = {chosen.regularization:g}, half-life {chosen.ease_half_life}) and "
        f"{chosen.items_weight:g} of item neighbours (half-life {chosen.items_half_life}); these "
        f"settings were {how}. Seconds are of two cores of the machine that made this page."
    )
