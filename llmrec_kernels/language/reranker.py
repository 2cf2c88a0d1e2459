"""A causal language model puts a short list in order, and guesses what a new user likes.

A history is written out, one title a line, and each candidate is taken for the next line. How
likely the model finds it, log p(title | history), is its score. That likelihood has much to do with
the title itself: long and rare ones are unlikely after anything. Taking off log p(title | nothing)
leaves the pointwise mutual information of history and title, as in A. Holtzman et al., "Surface
form competition: why the highest probability answer isn't always right", EMNLP 2021.

For a user of whom a few ratings are known, the ratings are examples in the prompt, and the model
goes on with "yes" or "no" after a title that is not rated: in-context learning, as in T. Brown et
al., "Language models are few-shot learners", NeurIPS 2020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmrec_kernels.language.models import LanguageModel, texts_of
from llmrec_kernels.ops import checks
from llmrec_kernels.recommenders.rerank import list_places
from llmrec_kernels.recommenders.results import Recommendations

Normalise = Literal["sum", "per token", "prior-corrected"]
_NORMALISE: tuple[Normalise, ...] = get_args(Normalise)


class LMReranker:
    r"""Reorder recommendations by how likely a language model finds each title after the history.

    Parameters
    ----------
    model : LanguageModel
        Any causal language model.
    history : int, default 10
        How many titles of a history are told, the newest.
    opening : str
        What stands before the titles.
    line : str, default "{title}\n"
        How a title is written, the history's and the candidates'.
    normalise : {"prior-corrected", "per token", "sum"}
        What is made of log p(title | history), the sum over the tokens of the line: less
        log p(title | no history), divided by the number of tokens, or as it is.
    weight : float, default 1.0
        From 0 to 1: how much the language model counts, and 1 less that is how much the scores
        that the recommendations had do. Between them both are standardised within a list. 1 is the
        language model alone.

    Raises
    ------
    TypeError, ValueError
        An argument is of the wrong kind or out of its range.

    Examples
    --------
    >>> from llmrec_kernels.language import LanguageModel, bundled_language_model_path
    >>> reranker = LMReranker(LanguageModel(bundled_language_model_path()), history=2)
    >>> print(reranker.prompt(["Heat (1995)", "Alien (1979)", "Aliens (1986)"]))
    Films that one person watched and liked, one after the other:
    Alien (1979)
    Aliens (1986)
    <BLANKLINE>
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        history: int = 10,
        opening: str = "Films that one person watched and liked, one after the other:\n",
        line: str = "{title}\n",
        normalise: Normalise = "prior-corrected",
        weight: float = 1.0,
    ) -> None:
        if not isinstance(model, LanguageModel):
            raise TypeError(
                f"model is a {type(model).__name__}; expected a LanguageModel, which says how "
                "likely a text is"
            )
        self.model = model
        self.history = checks.positive_int("history", history)
        self.opening = texts_of("opening", [opening])[0]
        if texts_of("line", [line])[0].count("{title}") != 1:
            raise ValueError(f"line is {line!r}; expected a text with {{title}} in it once")
        self.line = line
        checks.choice("normalise", normalise, _NORMALISE)
        self.normalise: Normalise = normalise
        self.weight = checks.finite_number("weight", weight)
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight is {self.weight}; expected a number from 0 to 1")
        self._prior: dict[str, float] = {}

    def rerank(
        self,
        recommendations: Recommendations,
        histories: Mapping[Any, Sequence[str]],
        titles: Mapping[Any, str],
        k: int = 10,
    ) -> Recommendations:
        """Each user's best k of the recommendations, in the new order.

        Parameters
        ----------
        recommendations : Recommendations
            Short lists that are longer than k, such as of 20: each title costs some tokens.
        histories : mapping of user id to sequence of str
            The titles that each user took, oldest first; at least one.
        titles : mapping of item id to str
            The title of each item recommended.
        k : int
            At least 1. Lists that are shorter are reordered.

        Returns
        -------
        Recommendations
            With the new scores: natural logarithms where `weight` is 1, else a weighted sum of
            standardised scores. Equal ones keep the order that they had.

        Raises
        ------
        IndexError
            A user has no history, or an item no title.
        TypeError, ValueError
            An argument is of the wrong kind, a history is empty or too long for the model, or a
            list that is blended has a score that is not finite.
        """
        k = checks.positive_int("k", k)
        scores = self.scores(recommendations, histories, titles)
        return blended(recommendations, scores, self.weight, k)

    def scores(
        self,
        recommendations: Recommendations,
        histories: Mapping[Any, Sequence[str]],
        titles: Mapping[Any, str],
    ) -> NDArray[np.float32]:
        """What the language model alone says of each recommendation, [n]: to blend it later.

        Parameters and errors are those of `rerank`. Each user's prompt is read once.
        """
        lists = _lists(recommendations)
        items = recommendations.item.tolist()
        missing = next((item for item in items if item not in titles), None)
        if missing is not None:
            raise IndexError(f"titles lacks item {missing!r}, which is recommended")
        asked = texts_of("titles", [titles[item] for item in items])
        users = [recommendations.user[rows[:1]].tolist()[0] for rows in lists]
        prompts = [self._prompt_of(user, histories) for user in users]
        found = np.zeros(len(items), dtype=np.float32)
        for prompt, rows in zip(prompts, lists, strict=True):
            found[rows] = self._after(prompt, [asked[row] for row in rows])
        return found

    def prefer(self, examples: Sequence[tuple[str, bool]], titles: Sequence[str]) -> Tensor:
        """How probable it is that someone likes some titles, by what is known that they like.

        Parameters
        ----------
        examples : sequence of (str, bool)
            Titles, and whether the user liked each: a rating at or above a bound, say. At least
            one; they are told in this order.
        titles : sequence of str
            What to guess about.

        Returns
        -------
        Tensor
            [n] float32, p(yes) / (p(yes) + p(no)) after each title. Within one user they rank;
            as probabilities they lean to what the last examples say.

        Raises
        ------
        TypeError, ValueError
            An argument is of the wrong kind, there is no example, or the prompt is too long.
        """
        prompt = _examples(examples)
        asked = [_one_line(title) for title in texts_of("titles", titles)]
        both = [f" {title}\nLiked: {end}" for title in asked for end in ("yes", "no")]
        # What is before the ends is the same for both: it cancels.
        found = self.model.log_likelihoods(prompt, both).reshape(-1, 2)
        return torch.sigmoid(found[:, 0] - found[:, 1])

    def prompt(self, history: Sequence[str]) -> str:
        """What the model reads before a candidate: the opening, the newest titles, a line begun."""
        told = texts_of("history", history)[-self.history :]
        lines = [self.line.replace("{title}", _one_line(title)) for title in told]
        # A blank goes with the word after it, as tokenizers have it.
        return self.opening + "".join(lines) + self.line.split("{title}")[0].rstrip(" ")

    def _continuation(self, title: str) -> str:
        before, after = self.line.split("{title}")
        blanks = before[len(before.rstrip(" ")) :]
        return f"{blanks}{_one_line(title)}{after}"

    def _prompt_of(self, user: Any, histories: Mapping[Any, Sequence[str]]) -> str:
        if user not in histories:
            raise IndexError(f"histories lacks user {user!r}, to whom items are recommended")
        history = texts_of(f"histories[{user!r}]", histories[user])
        if not history:
            raise ValueError(
                f"histories[{user!r}] is empty; expected a title or more. A list of someone "
                "without a history stays as it is: leave it out"
            )
        return self.prompt(history)

    def _after(self, prompt: str, titles: list[str]) -> Tensor:
        """Scores of candidates [n] after one prompt."""
        lines = [self._continuation(title) for title in titles]
        if self.normalise == "prior-corrected":
            new = [line for line in dict.fromkeys(lines) if line not in self._prior]
            if new:
                prior = self.model.log_likelihoods(self.prompt([]), new)
                self._prior.update(zip(new, prior.tolist(), strict=True))
            return self.model.log_likelihoods(prompt, lines) - torch.tensor(
                [self._prior[line] for line in lines]
            )
        found = self.model.log_likelihoods(prompt, lines)
        if self.normalise == "per token":
            return found / torch.tensor(self.model.token_counts(lines)).clamp(min=1)
        return found


def blended(
    recommendations: Recommendations, scores: NDArray[np.float32], weight: float, k: int
) -> Recommendations:
    """Each user's best k by a weighted sum of other scores and those that they had.

    Parameters
    ----------
    recommendations : Recommendations
        Lists, best first.
    scores : [n] float32
        Of each recommendation.
    weight : float
        From 0 to 1, of `scores`; the rest is of the scores there were. Between them both are
        standardised within each list.
    k : int
        At least 1.

    Examples
    --------
    >>> one = Recommendations(
    ...     np.array([7] * 3),
    ...     np.array([10, 11, 12]),
    ...     np.array([3.0, 2.0, 1.0], dtype=np.float32),
    ...     np.array([1, 2, 3]),
    ...     (),
    ... )
    >>> likelihoods = np.array([-9.0, -5.0, -4.0], dtype=np.float32)
    >>> blended(one, likelihoods, 1.0, k=2).item.tolist()
    [12, 11]
    >>> blended(one, likelihoods, 0.5, k=2).item.tolist()
    [11, 10]
    """
    rows, kept = [], []
    for places in _lists(recommendations):
        had, new = recommendations.score[places], scores[places]
        score: NDArray[np.floating[Any]]
        if weight == 1:
            score = new
        elif weight == 0:
            score = had
        else:
            score = weight * _standardised(new) + (1 - weight) * _standardised(had)
        order = np.argsort(-score, kind="stable")[:k]
        rows.append(places[order])
        kept.append(score[order])
    none = np.zeros(0, dtype=np.int64)
    taken = np.concatenate([none, *rows])
    return Recommendations(
        recommendations.user[taken],
        recommendations.item[taken],
        np.concatenate([none, *kept]).astype(np.float32),
        np.concatenate([none, *(np.arange(1, len(one) + 1) for one in rows)]),
        recommendations.unknown_users,
    )


def _lists(recommendations: Recommendations) -> list[NDArray[np.int64]]:
    """The rows of each list."""
    return [places[places >= 0] for places in list_places(recommendations)]


def _standardised(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean 0 and standard deviation 1; zeros where all are alike."""
    if not np.isfinite(scores).all():
        raise ValueError("recommendations has a score that is not finite; expected numbers")
    wide = scores.astype(np.float64)
    deviation = wide.std()
    centred: NDArray[np.float64] = (wide - wide.mean()) / (deviation if deviation > 0 else 1.0)
    return centred


def _examples(examples: Sequence[tuple[str, bool]]) -> str:
    """The prompt with what the user liked and did not, up to the title in question."""
    told = []
    for place, one in enumerate(examples):
        if not isinstance(one, tuple) or len(one) != 2 or not isinstance(one[0], str):
            raise TypeError(f"examples[{place}] is {one!r}; expected (title, whether it was liked)")
        title, liked = one
        if not isinstance(liked, bool | np.bool_):
            raise TypeError(
                f"examples[{place}] has {liked!r} beside its title; expected True or False: "
                "compare ratings with a bound first"
            )
        told.append(f"Title: {_one_line(title)}\nLiked: {'yes' if liked else 'no'}\n\n")
    if not told:
        raise ValueError("examples is empty; expected a title or more that the user rated")
    return f"Films that one person liked or did not like.\n\n{''.join(told)}Title:"


def _one_line(title: str) -> str:
    return " ".join(title.split())
