"""Where time, joules and money go when films are recommended: the demo's chain, step by step.

Each step is profiled by itself on real input: encode texts, pack their vectors, pool the users'
profiles, search, explain. A step that is done once for many recommendations counts as often as the
chain does it: each film is encoded and packed once, each person has one profile, one search, and an
explanation of each recommendation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from llmrec_kernels import Ragged, cosine_topk, embedding_bag, pack
from llmrec_kernels.datasets import Dataset, movielens_100k
from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path
from llmrec_kernels.profiler import Figure, Report, human, profile
from llmrec_kernels.recommenders import ContentRecommender

K = 10
TEXTS = 64  # encoded in a call: seconds, of which there are a dozen
EXPLAINED = 20  # people in a call
LIKED = 4.0  # stars from which a film counts


@dataclass(frozen=True)
class Step:
    """A step, and how often the whole chain does its unit of work."""

    report: Report
    count: int

    @property
    def seconds(self) -> float:
        """Of the chain."""
        return self.report.time.median / self.report.units * self.count

    @property
    def joules(self) -> Figure:
        """Of the chain."""
        gross = self.report.energy[-1].gross
        return gross.times(self.count / self.report.units, "J")

    @property
    def money(self) -> Figure:
        """Of the chain, for the time of the machine."""
        return self.report.costs[0].instance_money.times(self.count, "USD")


def chain(options: Mapping[str, Any], data: Dataset | None = None) -> list[Step]:
    """Profile the steps; `options` are those of `profiler.profile`."""
    films = movielens_100k() if data is None else data
    encoder = TextEncoder(bundled_encoder_path(), cache_dir=False)
    texts = films.items["text"].tolist()
    vectors = TextEncoder(bundled_encoder_path()).encode(texts)  # from the cache, if there
    users, seen, liked = _histories(films)

    def profiled(call: Callable[[], Any], units: int, unit: str, name: str) -> Report:
        return profile(call, units, unit, name=name, **options)

    packed = pack(vectors)
    pool = partial(
        embedding_bag, vectors, liked.values, liked.offsets, mode="mean", include_last_offset=True
    )
    profiles = pool()
    model = ContentRecommender(embeddings=vectors).fit(films.interactions, films.items)
    pairs = _recommended(model, users[:EXPLAINED])

    def explain() -> None:
        for user, item in pairs:
            model.explain(user, item)

    some = texts[:: max(1, len(texts) // TEXTS)][:TEXTS]
    return [
        Step(profiled(lambda: encoder.encode(some), len(some), "text", "encode"), len(texts)),
        Step(profiled(lambda: pack(vectors), len(texts), "item", "pack"), len(texts)),
        Step(
            profiled(pool, len(users), "user", "profile"),
            len(users),
        ),
        Step(
            profiled(
                lambda: cosine_topk(profiles, packed, K, exclude=seen),
                len(users), "user", "search",
            ),
            len(users),
        ),
        Step(
            profiled(explain, len(pairs), "recommendation", "explain"), len(users) * K
        ),
    ]  # fmt: skip


def table(steps: Sequence[Step]) -> str:
    """The steps, and their shares of the chain's time, joules and money."""
    users = steps[-2].count
    lines = [
        f"{K} films recommended to each of {users:,} people, with a reason for each",
        "",
        f"  {'step':9}{'a unit':>30}{'units':>9}{'seconds':>10}{'share':>8}"
        f"{'joules':>10}{'USD':>12}",
    ]
    whole = sum(step.seconds for step in steps)
    for step in steps:
        report = step.report
        one = f"{human.seconds(report.time.median / report.units)} a {report.unit}"
        lines.append(
            f"  {report.name:9}{one:>30}{step.count:>9,}{step.seconds:>10.3f}"
            f"{step.seconds / whole:>8.1%}{_shown(step.joules):>10}{_shown(step.money):>12}"
        )
    joules, money = ([getattr(step, part) for step in steps] for part in ("joules", "money"))
    lines.append(f"  {'all':48}{whole:>10.3f}{1:>8.0%}{_total(joules):>10}{_total(money):>12}")
    lines += [f"  joules: {each}" for each in _methods(joules)]
    lines += [f"  USD: {each}" for each in _methods(money)]
    return "\n".join(lines)


def _shown(figure: Figure) -> str:
    return "unknown" if figure.value is None else human.number(figure.value)


def _total(figures: Sequence[Figure]) -> str:
    """Of the figures, where all are known."""
    values = [figure.value for figure in figures if figure.value is not None]
    return human.number(sum(values)) if len(values) == len(figures) else "unknown"


def _methods(figures: Sequence[Figure]) -> list[str]:
    return list(dict.fromkeys(f"{figure.quality}, {figure.method}" for figure in figures))


def _histories(films: Dataset) -> tuple[list[Any], Ragged, Ragged]:
    """The users, the films that each has rated, and those that each likes, by row of the items."""
    row = {item: number for number, item in enumerate(films.items["item"])}
    ratings = films.interactions.assign(row=films.interactions["item"].map(row))
    by_user = [(user, group) for user, group in ratings.groupby("user", sort=True)]
    seen = Ragged.of([group["row"].tolist() for _, group in by_user])
    liked = Ragged.of(
        [
            group.loc[group["rating"] >= min(LIKED, group["rating"].max()), "row"].tolist()
            for _, group in by_user
        ]
    )
    return [user for user, _ in by_user], seen, liked


def _recommended(model: ContentRecommender, users: list[Any]) -> list[tuple[Any, Any]]:
    ranked = model.recommend(users, 1)
    found, items = np.asarray(ranked.user), np.asarray(ranked.item)
    return list(zip(found.tolist(), items.tolist(), strict=True))
