"""The whole chain on real input: ratings and texts in, recommendations and their cost out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from torch import Tensor

from llmrec_kernels import backends
from llmrec_kernels.datasets import Dataset, movielens_100k
from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path
from llmrec_kernels.evaluation import Report, cold_item_split, evaluate, leave_last_out
from llmrec_kernels.profiler import CostCounter
from llmrec_kernels.recommenders import (
    ContentRecommender,
    PopularityRecommender,
    Recommender,
)

LIKED = 4.0  # stars from which a film counts as liked
K = 10
SEEDS = range(5)
COLD_ITEMS = 336  # held out of the 1,682 films: a fifth


@dataclass(frozen=True)
class Step:
    """One measured step of the chain."""

    name: str
    count: int
    unit: str
    seconds: float
    counter: CostCounter


class Demo:
    """Runs the steps one after the other and prints what each found."""

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self.titles = dict(zip(data.items["item"], data.items["title"], strict=True))
        self.steps: list[Step] = []

    @contextmanager
    def measured(self, name: str, count: int, unit: str) -> Iterator[None]:
        """Count the work inside."""
        start = time.perf_counter()
        with CostCounter() as counter:
            yield
        self.steps.append(Step(name, count, unit, time.perf_counter() - start, counter))

    def encode(self) -> Tensor:
        """Vectors of the films' texts, [items, d]."""
        encoder = TextEncoder(bundled_encoder_path())
        texts = self.data.items["text"].tolist()
        heading(f"Encoding {len(texts):,} film texts; the first time takes up to a minute")
        typer.echo(f'  such as "{texts[0]}"')
        with self.measured("encode texts", len(texts), "texts"):
            vectors = encoder.encode(texts)
        known = self.steps[-1].counter.total.flops == 0
        how = (
            "read from the cache, where the last run left them" if known else "and kept in a cache"
        )
        typer.echo(f"  {vectors.shape[1]} dimensions each, {how}")
        return vectors

    def recommend(self, vectors: Tensor, people: int) -> None:
        """Show a few people their recommendations, and why."""
        model = ContentRecommender(embeddings=vectors)
        with self.measured("fit", len(self.data.interactions), "ratings"):
            model.fit(self.data.interactions, self.data.items)
        users = self.data.interactions["user"].unique()
        with self.measured("recommend", len(users), "users"):
            model.recommend(users, K)
        chosen = np.sort(users)[:: max(1, len(users) // people)][:people]
        heading(f"Recommendations for {len(chosen)} of {len(users)} people, unseen films only")
        for user in chosen:
            ranked = model.recommend([user], 3)
            typer.echo(f"  user {user}")
            for item, score in zip(ranked.item, ranked.score, strict=True):
                typer.echo(f"    {score:.3f}  {self.titles[item]}")
                typer.echo(f"           because of {self._reasons(model, user, item)}")

    def _reasons(self, model: ContentRecommender, user: int, item: int) -> str:
        """The two seen films that give most to a score, with their exact shares of it."""
        why = model.explain(user, item)
        return " and ".join(
            f"{self.titles[seen]} (+{share:.3f})"
            for seen, share in zip(why.source[:2], why.share[:2], strict=True)
        )

    def compare_warm(self, vectors: Tensor) -> None:
        """Content against popularity on each user's last rating."""
        train, test = leave_last_out(self.data.interactions)
        heading("Known films: each person's last rating held out, all unseen films ranked")
        models: dict[str, Recommender[Any]] = {
            "content": ContentRecommender(embeddings=vectors),
            "popularity": PopularityRecommender(),
        }
        reports = {
            name: evaluate(model.fit(train, self.data.items), train, test, k=K)
            for name, model in models.items()
        }
        show(reports, ("HR@10", "NDCG@10", "Coverage@10"))
        typer.echo("  Popularity knows what everybody watches; text alone does not.")

    def compare_cold(self, vectors: Tensor) -> None:
        """Content against popularity on films that nobody has rated, liked ones being relevant."""
        items = self.data.items["item"].to_numpy()
        heading(
            f"New films: {COLD_ITEMS} of {len(items):,} that nobody has rated, {len(SEEDS)} draws"
        )
        scores: dict[str, list[float]] = {"content": [], "popularity": []}
        for seed in SEEDS:
            held_out = items[np.random.default_rng(seed).choice(len(items), COLD_ITEMS, False)]
            train, test = cold_item_split(self.data.interactions, held_out)
            for name, model in (
                ("content", ContentRecommender(embeddings=vectors)),
                ("popularity", PopularityRecommender()),
            ):
                model.fit(train, self.data.items)
                report = evaluate(model, train, test, k=K, allow=held_out, relevance=LIKED)
                scores[name].append(report[f"NDCG@{K}"])
        for name, values in scores.items():
            typer.echo(
                f"  {name:12} NDCG@{K} {np.mean(values):.3f} "
                f"(from {min(values):.3f} to {max(values):.3f})"
            )
        typer.echo(
            "  No new film has been rated, so popularity falls back to the order of the films,"
        )
        typer.echo("  where well-known ones come early. Titles and genres say more.")

    def cost(self) -> None:
        """What each step took."""
        heading("What it cost")
        typer.echo(f"  {'step':14}{'seconds':>9}{'GFLOP':>11}{'MB':>10}{'per second':>20}")
        for step in self.steps:
            work = step.counter.total
            rate = f"{step.count / step.seconds:,.0f} {step.unit}"
            typer.echo(
                f"  {step.name:14}{step.seconds:>9.3f}{work.flops / 1e9:>11.3f}"
                f"{work.bytes / 1e6:>10.1f}{rate:>20}"
            )
        recommend = next(step for step in self.steps if step.name == "recommend")
        typer.echo(f"\n  of which, to recommend {K} films to {recommend.count} users:")
        ours = {n: c for n, c in recommend.counter.by_op.items() if n.startswith("llmrec.")}
        for name, entry in ours.items():
            typer.echo(
                f"  {name.removeprefix('llmrec.'):14}{entry.seconds:>9.3f}"
                f"{entry.cost.flops / 1e9:>11.3f}{entry.cost.bytes / 1e6:>10.1f}"
            )
        typer.echo(f"\n  {backends.explain('cosine_topk', torch.empty(0))}".splitlines()[1])


def heading(text: str) -> None:
    """Print what comes next."""
    typer.echo(f"\n{text}")


def show(reports: dict[str, Report], labels: tuple[str, ...]) -> None:
    """Print a line for each model with its metrics."""
    for name, report in reports.items():
        values = "   ".join(f"{label} {report[label]:.3f}" for label in labels)
        typer.echo(f"  {name:12} {values}")


def run(people: int = 3, data: Path | None = None) -> None:
    """Run the demo; see `llmrec-kernels demo --help`."""
    start = time.perf_counter()
    demo = Demo(movielens_100k(data))
    frames = demo.data
    typer.echo(
        f"{len(frames.interactions):,} ratings of {len(frames.items):,} films "
        f"by {frames.interactions['user'].nunique()} people (MovieLens-100K)"
    )
    vectors = demo.encode()
    demo.recommend(vectors, people)
    demo.compare_warm(vectors)
    demo.compare_cold(vectors)
    demo.cost()
    heading(f"Done in {time.perf_counter() - start:.0f} s. What to try next:")
    typer.echo("  llmrec-kernels recommend --help   the same from your own CSV files")
    typer.echo("  llmrec-kernels info               which kernels run here, and what is missing")
    typer.echo("  README.md                         the same in ten lines of Python")
