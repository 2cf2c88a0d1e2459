"""How good recommendations are to someone of whom little is known: a sentence, or a few likes.

Some users are held out with all they took: models are fitted on the others alone. Then each of the
held-out users comes as someone new does: nothing is known, or a sentence that says what they look
for, then their first like, the second, and so on. Their likes after the tenth are what a list
should have, whatever is known, so that all points of a curve have the same users, the same
candidates and the same relevant items, and differ in nothing but what the recommender was told:

    NDCG@10(n) = mean over held-out users u of NDCG@10(list of u by likes 1..n, likes 11.. of u)

Nobody in the public data wrote a sentence. One is made for each user from what the first ten likes
have in common, as a stand-in for what this user would type. It knows nothing of the likes that a
list should have, but more than the first like or two say.

Source: D. Liang et al., Variational autoencoders for collaborative filtering, WWW 2018 ("strong
generalization": users held out whole, one part of each history to know them by, one to predict).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llmrec_kernels.datasets import load
from llmrec_kernels.evaluation import evaluate
from llmrec_kernels.ops import checks
from llmrec_kernels.recommenders import (
    AlignedRecommender,
    ALSRecommender,
    ContentRecommender,
    EASERecommender,
    FeatureEncoder,
    HybridRecommender,
    ItemKNNRecommender,
    PopularityRecommender,
    Recommender,
    UnsupportedError,
    UserKNNRecommender,
)
from llmrec_kernels.recommenders.features import Encodes
from llmrec_kernels.studies import few_shot_report, models
from llmrec_kernels.studies.few_shot_report import (
    NDCG,
    QUESTIONS,
    Options,
    Question,
    Tried,
    best_of,
)
from llmrec_kernels.studies.few_shot_tasks import (
    GIVEN,
    MIN_LIKES,
    MIN_TAKERS,
    MOST_USERS,
    TASKS,
    Newcomers,
    Task,
    Users,
    halves,
    hold_out,
    sentences,
)
from llmrec_kernels.studies.study import Study

K = 10
# What is tried for each recommender that has settings here; the hybrid's parts have their best.
CANDIDATES: dict[str, list[Options]] = {
    "item neighbours": [{"neighbours": 100, "shrink": 10}, {"neighbours": 1000, "shrink": 30}],
    "user neighbours": [{"neighbours": 100}, {"neighbours": 300}],
    "ALS": [
        {"factors": 32, "regularization": 10},
        {"factors": 32, "regularization": 50},
        {"factors": 8, "regularization": 10},
    ],
    "EASE": [{"regularization": one} for one in (200, 2000, 20000)],
    "aligned": [{"popularity": one} for one in (0.05, 0.2, 0.8, 1.6, 3.2)],
    "hybrid": [{"ease": 1.0, "aligned": one} for one in (1.0, 2.0, 4.0, 8.0)],
}
# What these say to one user depends on what others like: of newcomers they may know but this one.
_ONE_BY_ONE = (PopularityRecommender, UserKNNRecommender)

Settings = dict[str, Options]
Fitted = dict[str, Recommender[Any]]


def few_shot(name: str, *, seeds: Sequence[int] = models.SEEDS) -> Study:
    """Quality against how much is known of a user, for each recommender that can answer.

    Parameters
    ----------
    name : str
        "ml-latest-small" or "online-retail".
    seeds : sequence of int
        Each holds out other users.

    Returns
    -------
    Study
        Tables of NDCG@10 and HR@10, of what a sentence adds, and a plot.

    Raises
    ------
    ValueError
        The study is not made for such a data set, or there is no seed.
    DatasetNotFoundError
        The data are in none of the places searched.
    """
    checks.choice("name", name, tuple(TASKS))
    return study_of(TASKS[name](load(name)), models.text_encoder(), seeds)


def study_of(task: Task, encoder: Encodes, seeds: Sequence[int]) -> Study:
    """The study of one task, with a text encoder that is asked for the same texts often."""
    if not len(seeds):
        raise ValueError("seeds is empty; expected one seed or more")
    tried = candidates_tried(task, encoder)
    settings = best_of(tried)
    users, runs = halves(task.likes), []
    for seed in seeds:
        newcomers = hold_out(task.likes, users.to_test, seed)
        fitted = {
            name: make(task, encoder, settings).fit(newcomers.train, task.items)
            for name, make in _MADE.items()
        }
        runs.append(measured(fitted, newcomers, sentences(task, newcomers.known)).assign(seed=seed))
    values = pd.concat(runs, ignore_index=True)
    return few_shot_report.study_of(task.name, _protocol(task, users, seeds), values, tried)


def candidates_tried(task: Task, encoder: Encodes) -> Tried:
    """How good each candidate is for users who are not those of the test.

    The measure is the mean NDCG@10 over the questions that tell something and that the recommender
    answers. The likes of the users of the test are not looked at, not even to fit on; but the
    catalogue is of everybody, so that they have a part in which items there are.

    Parameters
    ----------
    task : Task
        Likes and items.
    encoder : object with `encode(texts)`
        Of the texts.

    Returns
    -------
    dict of str to list of (settings, NDCG@10)
        By recommender, in the order of `CANDIDATES`.
    """
    users = halves(task.likes)
    likes = task.likes[~task.likes["user"].isin(users.to_test)]
    newcomers = hold_out(likes, users.to_choose, 0)
    texts = sentences(task, newcomers.known)
    tried: Tried = {}
    for name, candidates in CANDIDATES.items():
        best, means = best_of(tried), []
        for one in candidates:
            model = _MADE[name](task, encoder, best | {name: one})
            model.fit(newcomers.train, task.items)
            answers = measured({name: model}, newcomers, texts).groupby("question")[NDCG].mean()
            means.append(float(answers.drop(QUESTIONS[0].label).mean()))
        tried[name] = list(zip(candidates, means, strict=True))
    return tried


def measured(fitted: Fitted, newcomers: Newcomers, texts: dict[Any, str]) -> pd.DataFrame:
    """Ask each recommender each question that it can answer, for each held-out user.

    Parameters
    ----------
    fitted : dict of str to Recommender
        Fitted on the likes of the others; they are told the known likes as the study goes on.
    newcomers : Newcomers
        Whom to ask for.
    texts : dict of user to str
        What each of them would type.

    Returns
    -------
    pandas.DataFrame
        One row a recommender, question and user, with `NDCG@10` and `HR@10`.
    """
    rows = []
    told = 0
    for question in QUESTIONS:
        fresh = newcomers.likes(told, question.likes)
        told = question.likes
        for name, model in fitted.items():
            if not isinstance(model, _ONE_BY_ONE):
                model.update(fresh)
            asked = Told(model, newcomers, question, texts)
            try:
                report = evaluate(
                    asked, newcomers.known, newcomers.test, k=K, metrics=("ndcg", "hit_rate")
                )
            except UnsupportedError:  # it reads no text
                continue
            answers = report.per_user.reset_index()
            rows.append(answers.assign(recommender=name, question=question.label))
    return pd.concat(rows, ignore_index=True)


class Told:
    """A recommender that answers the held-out users by what a question tells of them.

    None of their first likes is in a list, whether the question tells of it or not.

    Parameters
    ----------
    model : Recommender
        Fitted, and told the likes of the question unless it is asked for one user at a time.
    newcomers : Newcomers
        The held-out users.
    question : Question
        What it is told.
    texts : dict of user to str
        The sentences.
    """

    def __init__(
        self,
        model: Recommender[Any],
        newcomers: Newcomers,
        question: Question,
        texts: dict[Any, str],
    ) -> None:
        self._model, self._question, self._texts = model, question, texts
        self._first = {user: one.tolist() for user, one in newcomers.known.groupby("user")["item"]}

    def recommend(
        self,
        users: Any,
        k: int = 10,
        *,
        filter_seen: bool = True,
        allow: Any = None,
        exclude: Any = None,
    ) -> Any:
        """Up to k items for each user; `evaluate` asks, and leaves all else as it is."""
        if self._question.sentence or isinstance(self._model, _ONE_BY_ONE):
            return _Lists.of({user: self._one(user, k) for user in users})
        return self._model.recommend(users, k, exclude=[self._first[user] for user in users])

    def _one(self, user: Any, k: int) -> NDArray[Any]:
        """A list by what one user said and liked, as if there were no other newcomer."""
        given = self._first[user][: self._question.likes]
        others = self._first[user][self._question.likes :]
        enough = k + len(others)  # that k are left without the others
        if self._question.sentence:
            answer = self._model.recommend_from_text(self._texts[user], enough, liked=given)
        else:
            answer = self._model.recommend_from_history(given, k=enough)
        kept = ~pd.Index(answer.item).isin(others)
        return np.asarray(answer.item[kept][:k])


class _Lists(NamedTuple):
    """One row a recommendation."""

    user: list[Any]
    item: list[Any]
    rank: list[int]

    @staticmethod
    def of(lists: dict[Any, NDArray[Any]]) -> _Lists:
        rows = [
            (user, item, rank)
            for user, items in lists.items()
            for rank, item in enumerate(items.tolist(), 1)
        ]
        return _Lists(*(list(column) for column in zip(*rows, strict=True)))


def _features(task: Task, encoder: Encodes) -> FeatureEncoder:
    columns = (*task.categories, *task.numbers)
    weights = dict.fromkeys(columns, models.FEATURE_WEIGHT)
    return FeatureEncoder(
        encoder, categories=task.categories, numbers=task.numbers, weights=weights
    )


def _hybrid(task: Task, encoder: Encodes, settings: Settings) -> HybridRecommender:
    parts = {
        "ease": _MADE["EASE"](task, encoder, settings),
        "aligned": _MADE["aligned"](task, encoder, settings),
    }
    return HybridRecommender(parts, weights=settings["hybrid"])


# By the names of the tables, in their order.
_MADE: dict[str, Callable[[Task, Encodes, Settings], Recommender[Any]]] = {
    "popularity": lambda task, encoder, settings: PopularityRecommender(),
    "content (text)": lambda task, encoder, settings: ContentRecommender(encoder),
    "content (text and features)": lambda task, encoder, settings: ContentRecommender(
        _features(task, encoder)
    ),
    "item neighbours": lambda task, encoder, settings: ItemKNNRecommender(
        **settings["item neighbours"]
    ),
    "user neighbours": lambda task, encoder, settings: UserKNNRecommender(
        **settings["user neighbours"]
    ),
    "ALS": lambda task, encoder, settings: ALSRecommender(**settings["ALS"]),
    "EASE": lambda task, encoder, settings: EASERecommender(**settings["EASE"]),
    "aligned": lambda task, encoder, settings: AlignedRecommender(
        _features(task, encoder), **settings["aligned"]
    ),
    "hybrid": _hybrid,
}


def _protocol(task: Task, users: Users, seeds: Sequence[int]) -> str:
    enough = len(users.to_choose) + len(users.to_test)
    first = hold_out(task.likes, users.to_test, seeds[0])
    features = ", ".join((*task.categories, *task.numbers))
    return f"""\
Data: {task.name}, items that at least {MIN_TAKERS} people took ({len(task.items):,} items, \
{len(task.likes):,} likes of {task.likes["user"].nunique():,} users). {task.made}

The {enough:,} users with {MIN_LIKES} likes or more are put in the order \
`numpy.random.default_rng(0).permutation(sorted ids)`. The first half chooses settings, the second \
is for the test. With each of the seeds {", ".join(map(str, seeds))}, the first \
{first.known["user"].nunique()} of `default_rng(seed).permutation(second half)` (two fifths, at \
most {MOST_USERS}) are held out with all they liked, and models are fitted on the likes of \
everybody else. Relevant are all likes of a held-out user after the {GIVEN}th (in the order of \
time, and of equal times in that of the file), whatever is told. Candidates are all items but the \
user's first {GIVEN} likes, whatever is told of these. Metrics are means over held-out users, of \
lists of {K}.

Told are the first likes, all alike (no ratings), by `update`, which changes nothing that a model \
has learned of items, and asked is `recommend(users, exclude=)`. What popularity and user \
neighbours say to one user depends on what others like: they are asked by \
`recommend_from_history(likes)` for one user at a time. Sentences are asked by \
`recommend_from_text(sentence, liked=)`. Where nothing is known, all models answer with what is \
popular; where a model reads no text, the cell has “{few_shot_report.CANNOT}”.

Texts are encoded by MiniLM; beside the text, each feature ({features}) counts \
{models.FEATURE_WEIGHT:g}. Aligned has text and features, the hybrid adds the standardised scores \
of EASE and aligned. Settings are chosen once from a few candidates (last table), by mean NDCG@10 \
over all columns but the first, in the same protocol among the users who are not for the test: two \
fifths of the first half, at most {MOST_USERS}, are held out with the seed 0, and models are \
fitted on the rest. What the users of the test like has no part in that, but for the catalogue: \
the {MIN_TAKERS} people who took an item are counted over everybody. ALS begins with the seed 0 \
each time: the seeds change who is held out, not how it begins. All else is as the recommenders \
have it by default."""
