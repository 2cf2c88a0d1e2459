"""What people take next, of items that others took before: all unseen items are ranked."""

from __future__ import annotations

import itertools
import time
from typing import Any

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
    ContentRecommender,
    EASERecommender,
    HybridRecommender,
    ItemKNNRecommender,
    Recommender,
)
from llmrec_kernels.studies import models
from llmrec_kernels.studies.models import Chosen
from llmrec_kernels.studies.study import Study, Table, interval, short, signed

_LABELS = ("HR@10", "NDCG@10")
_RECENT = "EASE, newest first"
_HALF_LIVES = (None, 5.0, 10.0, 20.0, 40.0)
_REGULARIZATIONS = (100.0, 200.0, 500.0, 1000.0)
_SPLIT_WEIGHTS = (0.0, 0.25, 0.5, 1.0)
_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)
_BESIDE_SEQUENCES = (0.0, 0.5, 1.0, 2.0)
_SEQUENCE_WEIGHTS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
_WITH_SEQUENCE = "hybrid with sequence"


def choose(train: pd.DataFrame, items: pd.DataFrame) -> Chosen:
    """Settings by NDCG@10 on each user's last interaction in train: one after the other.

    First λ and half-life of EASE together, then the half-life of item neighbours, then the weight
    of these beside EASE. Half-lives count when a model is asked, so that a model is fitted once.
    """
    inner, held_out = leave_last_out(train)

    def ndcg(model: Recommender[Any]) -> float:
        return evaluate(model, inner, held_out, metrics=("ndcg",))["NDCG@10"]

    ease = []
    for regularization in _REGULARIZATIONS:
        model = EASERecommender(regularization).fit(inner, items)
        for half_life in _HALF_LIVES:
            model.half_life = half_life
            ease.append((ndcg(model), regularization, half_life))
    _, best_regularization, ease_half_life = max(ease, key=lambda one: one[0])

    neighbours = ItemKNNRecommender().fit(inner, items)
    near = []
    for half_life in _HALF_LIVES:
        neighbours.half_life = half_life
        near.append((ndcg(neighbours), half_life))
    items_half_life = max(near, key=lambda one: one[0])[1]

    fused = []
    for weight in _WEIGHTS:
        chosen = Chosen(best_regularization, ease_half_life, items_half_life, weight)
        fused.append((ndcg(chosen.model().fit(inner, items)), chosen))
    return max(fused, key=lambda one: one[0])[1]


def choose_weights(train: pd.DataFrame, items: pd.DataFrame, chosen: Chosen) -> dict[str, float]:
    """How much neighbours and sequences count beside EASE, by NDCG@10 on the same interactions."""
    inner, held_out = leave_last_out(train)
    model = chosen.with_sequence({}).fit(inner, items)

    def ndcg(weights: dict[str, float]) -> float:
        return evaluate(model.set_weights(weights), inner, held_out, metrics=("ndcg",))["NDCG@10"]

    tried = (
        {"items": near, "sequence": next_}
        for near in _BESIDE_SEQUENCES
        for next_ in _SEQUENCE_WEIGHTS
    )
    return max(tried, key=ndcg)


def leave_last(name: str) -> Study:
    """Each user's last interaction held out, on MovieLens-100K or ml-latest-small."""
    data = load(name)
    train, test = leave_last_out(data.interactions)
    tuned = name == "ml-100k"
    chosen = choose(train, data.items) if tuned else models.CHOSEN
    weights = choose_weights(train, data.items, chosen) if tuned else {}
    made = dict(models.BASELINES)
    if tuned:
        made["content, 3 interests"] = lambda: ContentRecommender(
            models.text_encoder(), interests=3
        )
        made["hybrid, all items alike"] = chosen._replace(
            ease_half_life=None, items_half_life=None
        ).model
    else:  # these take their time on so many films, and say nothing new
        for slow in ("aligned", "ALS", "content"):
            del made[slow]
    made[_RECENT] = lambda: EASERecommender(chosen.regularization, half_life=chosen.ease_half_life)
    made["hybrid"] = chosen.model
    if tuned:
        made["sequence"] = models.sequence
        made[_WITH_SEQUENCE] = lambda: chosen.with_sequence(weights)
    reports, seconds = {}, {}
    for label, make in made.items():
        reports[label], seconds[label] = _measured(make(), data, train, test)
    both = {label: reports[label] for label in (_RECENT, "hybrid")}
    tables = [
        Table("Mean over users, with 95% bootstrap intervals.", _table(reports, seconds)),
        Table("Less EASE, the same users.", _against(reports, "EASE", _LABELS)),
        Table(f"Less {_RECENT}: what the second part adds.", _against(both, _RECENT, _LABELS)),
    ]
    if tuned:
        ordered = {label: reports[label] for label in ("hybrid", "sequence", _WITH_SEQUENCE)}
        tables += [
            Table("Less the hybrid: what the order says.", _against(ordered, "hybrid", _LABELS)),
            Table("ALS by seed.", _by_seed(data, train, test)),
            Table(
                "NDCG@10 with the ratings of one second in five orders drawn anew (seeds 0 to 4): "
                "which of them is the last is chance.",
                _by_order(data, {name: made[name] for name in ("EASE", _RECENT, "hybrid")}),
            ),
        ]
    findings = _findings(reports, data.interactions)
    return Study(
        f"Known items: {name}", _protocol(data, chosen, weights, tuned), tables, findings=findings
    )


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
    rows, recall, ndcg = {}, {}, {}
    for label, make in made.items():
        model = make().fit(train, data.items)
        recall[label] = evaluate(model, train, test, k=20, metrics=("recall",))
        ndcg[label] = evaluate(model, train, test, metrics=("ndcg",))
        rows[label] = {
            "Recall@20": _with_interval(recall[label], "Recall@20"),
            "NDCG@10": _with_interval(ndcg[label], "NDCG@10"),
        }
    protocol = (
        "MovieLens-100K, `u1.base` and `u1.test`; every rating counts as taken, and every item of "
        "the catalogue that a user has not rated in `u1.base` is ranked. λ of EASE was chosen "
        "among 100, 200, 300, 400 and 500 by NDCG@10 on 20% of `u1.base` drawn at random (seed "
        f"0): {best:g}. The hybrid is that EASE, {weights['als']:g} of ALS (seed 0) and "
        f"{weights['items']:g} of item neighbours; these weights were chosen on the same 20%, "
        "among 0, .25, .5 and 1 each."
    )
    tables = [Table("Mean over users, with 95% bootstrap intervals.", pd.DataFrame(rows).T)]
    for baseline in ("EASE, λ = 200", f"EASE, λ = {best:g}"):
        frames = [
            _against(recall, baseline, ("Recall@20",)),
            _against(ndcg, baseline, ("NDCG@10",)),
        ]
        tables.append(Table(f"Less {baseline}, the same users.", pd.concat(frames)))
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
    low, high = report.interval(label)
    return f"{short(report[label], 3)} {interval(low, high, 3)}"


def _against(reports: dict[str, Report], baseline: str, labels: tuple[str, ...]) -> pd.DataFrame:
    rows = {}
    for (name, report), label in itertools.product(reports.items(), labels):
        if name != baseline:
            paired = compare_paired(report, reports[baseline], label)
            rows[f"{name}, {label}"] = {
                "difference": signed(paired.difference, 4),
                "95% interval": interval(paired.low, paired.high, 4),
                "p": short(paired.p, 4),
                "wins / losses": f"{paired.wins} / {paired.losses}",
            }
    return pd.DataFrame(rows).T


def _by_seed(data: Dataset, train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    rows = {}
    for seed in models.SEEDS:
        report = evaluate(ALSRecommender(seed=seed).fit(train, data.items), train, test)
        rows[f"seed {seed}"] = {"HR@10": report["HR@10"], "NDCG@10": report["NDCG@10"]}
    return pd.DataFrame(rows).T


def _by_order(data: Dataset, made: dict[str, models.Make]) -> pd.DataFrame:
    """NDCG@10 with the ratings of one second in another order."""
    rows: dict[str, dict[str, float]] = {name: {} for name in made}
    for seed in models.SEEDS:
        mixed = data.interactions.sample(frac=1, random_state=seed)
        train, test = leave_last_out(mixed)
        for name, make in made.items():
            report = evaluate(make().fit(train, data.items), train, test, metrics=("ndcg",))
            rows[name][f"order {seed}"] = report["NDCG@10"]
    return pd.DataFrame(rows).T


def _findings(reports: dict[str, Report], interactions: pd.DataFrame) -> str:
    """What the hybrid owes to its parts, and how much chance is in the last interaction."""
    newest = compare_paired(reports[_RECENT], reports["EASE"], "NDCG@10")
    added = compare_paired(reports["hybrid"], reports[_RECENT], "NDCG@10")
    perhaps = "" if added.low > 0 or added.high < 0 else ", which may be chance"
    last = interactions.groupby("user")["timestamp"].transform("max") == interactions["timestamp"]
    several = interactions[last].groupby("user").size().gt(1).mean()
    return (
        f"*{_RECENT}*, the first part of the hybrid, is {signed(newest.difference, 4)} "
        f"{interval(newest.low, newest.high, 4)} NDCG@10 from EASE; the second part adds "
        f"{signed(added.difference, 4)} {interval(added.low, added.high, 4)}{perhaps}. "
        f"{several:.0%} of the users have several ratings in their last second, of which the one "
        "that comes last in the file is held out."
    )


def _protocol(data: Dataset, chosen: Chosen, weights: dict[str, float], tuned: bool) -> str:
    how = (
        "chosen by NDCG@10 on each user's second-last interaction, with models fitted on what is "
        "before it: λ of EASE among 100, 200, 500 and 1000 together with its half-life among "
        "none, 5, 10, 20 and 40 interactions; then the half-life of item neighbours; then their "
        "weight beside EASE among 0, .25, .5, 1 and 2; with sequences, theirs among 0, .5, 1 and "
        "2 together with that of sequences among 1, 2, 3, 4, 6 and 8. "
        "The last interaction was not looked at"
        if tuned
        else "those chosen on MovieLens-100K, not tuned here"
    )
    sequences = (
        " *Sequence* is self-attention over the newest items of a history, whose vectors begin as "
        "MiniLM's of title and genres, with the defaults of `SequenceRecommender`, which were "
        f"chosen on second-last interactions too; *{_WITH_SEQUENCE}* is that EASE, "
        f"{weights['items']:g} of item neighbours and {weights['sequence']:g} of sequence."
        if tuned
        else " Sequences, which take long to train on so many films, are left out."
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
        f"settings were {how}. *{_RECENT}* is the first part alone.{sequences}"
    )
