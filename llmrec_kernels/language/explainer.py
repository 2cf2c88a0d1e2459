"""One or two sentences on why an item is recommended, from the numbers that a recommender gives.

The numbers decide what is told: the items of the history that give most to the score, and what they
all have in common with the item. A model puts that into words and each sentence is checked against
it (`facts`); where none stands, a template says it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import pandas as pd

from llmrec_kernels.language import roles
from llmrec_kernels.language.models import LanguageModel
from llmrec_kernels.language.titles import with_readable_title
from llmrec_kernels.language.values import fact_texts
from llmrec_kernels.language.writing import (
    Prompting,
    Writer,
    Writing,
    checked_columns,
    checked_noun,
    column_facts,
    joined,
    judged,
    rows_of,
    spelled,
    told,
)
from llmrec_kernels.ops.checks import positive_int
from llmrec_kernels.recommenders.results import Explanation

_Told: TypeAlias = "dict[str, list[str]]"

_SENTENCES = 2
_SYSTEM = (
    "Say in one or two sentences why the {noun} is recommended. Use only the facts that are given."
)
# What is recommended comes last: a small model begins with what it read last.
_EXAMPLES: tuple[tuple[_Told, str], ...] = (
    (
        {
            "{verb}": ["Winter Ferry", "Letters to Ann"],
            "shared genres": ["Drama", "Romance"],
            "recommended": ["The Glass Harbour"],
        },
        "We recommend The Glass Harbour because you {verb} Winter Ferry and Letters to Ann. They "
        "share the genres Drama and Romance.",
    ),
    (
        {
            "{verb}": ["Dead Reckoning"],
            "shared directors": ["Paul Orr"],
            "recommended": ["Night Convoy"],
        },
        "We recommend Night Convoy because you {verb} Dead Reckoning. They share the director Paul "
        "Orr.",
    ),
    (
        {"{verb}": ["Long Division"], "recommended": ["The Ninth Wave"]},
        "We recommend The Ninth Wave because you {verb} Long Division.",
    ),
    (
        {
            "{verb}": ["The Baker", "Sunday Bread"],
            "shared genres": ["Comedy"],
            "recommended": ["Apple Street"],
        },
        "We recommend Apple Street because you {verb} The Baker and Sunday Bread. They share the "
        "genre Comedy.",
    ),
)


class Explainer:
    """Say in one or two sentences why an item is recommended.

    Parameters
    ----------
    model : LanguageModel or None
        What writes; None takes the template for all.
    items : pandas.DataFrame
        A row an item, with `item`, `title`, and columns of what items may have in common.
    noun : str, default "item"
        What the items are, such as "film" or "book".
    verb : str, default "chose"
        What people did with the items of their history: "chose", "watched", "read", "heard",
        "played", "bought", "took", "rated", "visited" or "liked". Where a history has also what
        was taken and not liked, "liked" would be no fact.
    columns : sequence of str, optional
        What items may have in common: texts or lists of texts. By default those of `genres`,
        `directors`, `cast`, `authors`, `tags`, `brand` and `category` that there are.
    most : int, default 2
        Most items of the history, and most values of a column, that are told.
    max_new_tokens : int, default 60
        Most tokens that are written; an unfinished sentence is dropped.
    cache_dir, progress
        As in `ItemDescriber`.

    Examples
    --------
    >>> import numpy as np
    >>> items = pd.DataFrame(
    ...     {"item": [1, 2], "title": ["Alien (1979)", "Aliens (1986)"], "genres": [["Horror"]] * 2}
    ... )
    >>> why = Explanation("ann", 2, 0.5, "history", np.array([1]), np.array([1.0]), np.array([0.5]))
    >>> Explainer(None, items).explain(why).text
    'We recommend Aliens because you chose Alien. Shared genres: Horror.'
    """

    _COMMON = ("genres", "directors", "cast", "authors", "tags", "brand", "category")

    def __init__(
        self,
        model: LanguageModel | None,
        items: pd.DataFrame,
        *,
        noun: str = "item",
        verb: str = "chose",
        columns: Sequence[str] | None = None,
        most: int = 2,
        max_new_tokens: int = 60,
        cache_dir: str | os.PathLike[str] | Literal[False] | None = None,
        progress: bool | None = None,
    ) -> None:
        positive_int("most", most)
        held = checked_columns(items, ["item", "title", *(columns or [])])
        wanted = [name for name in self._COMMON if name in held] if columns is None else [*columns]
        if verb not in roles.DONE:
            raise ValueError(f"verb must be one of {', '.join(sorted(roles.DONE))}, got {verb!r}.")
        self.noun = checked_noun(noun)
        self.verb = verb
        self.columns = wanted
        self.most = most
        told_of = [name for name in held if name in ("item", "title", "year", *wanted)]
        rows = rows_of(items[told_of])
        self._rows: dict[Any, dict[str, Any]] = {
            row["item"]: with_readable_title(row) for row in rows
        }
        shown = [
            (
                told({name.replace("{verb}", verb): value for name, value in facts.items()}),
                text.replace("{verb}", verb),
            )
            for facts, text in _EXAMPLES
        ]
        self._writer = Writer(
            model,
            Prompting(_SYSTEM.format(noun=noun), shown, max_new_tokens),
            cache_dir=cache_dir,
            progress=progress,
        )

    def explain(self, explanation: Explanation) -> Writing:
        """Put one explanation into words; see `explain_all`."""
        return self.explain_all([explanation])[0]

    def explain_all(self, explanations: Sequence[Explanation]) -> list[Writing]:
        """Put explanations into words, several at a time.

        Parameters
        ----------
        explanations : sequence of Explanation
            What `Recommender.explain` returns. Where the sources are other users or the parts of a
            hybrid, there is no item to name, and the template says so.

        Returns
        -------
        list of Writing
            Each of at most two sentences.

        Raises
        ------
        ValueError
            An item is not among `items`, or has no title.
        """
        facts = [self.facts(one) for one in explanations]
        asked = [row for row, one in enumerate(facts) if self.verb in one]
        completions = [""] * len(facts)
        written = self._writer.completions([told(facts[row]) for row in asked])
        for row, completion in zip(asked, written, strict=True):
            completions[row] = completion
        return [
            judged(
                completion,
                {"noun": self.noun, **one},
                partial(_template, one, self.verb, explanation.kind),
                _SENTENCES,
            )
            for completion, one, explanation in zip(completions, facts, explanations, strict=True)
        ]

    def facts(self, explanation: Explanation) -> _Told:
        """What is told: the item, the history's items that speak for it, what all of these share.

        Fewer items are told where those have more in common with the item: the first alone, rather
        than several that share nothing.
        """
        item = self._row(explanation.item)
        found = {"recommended": [item["title"]]}
        if explanation.kind != "history":
            return found
        speaking = explanation.source[explanation.share > 0].tolist()[: self.most]
        sources = [self._row(one) for one in speaking if one != explanation.item]
        if any(one["title"] == item["title"] for one in sources):
            item, *sources = (_dated(one) for one in (item, *sources))
            found = {"recommended": [item["title"]]}
            sources = [one for one in sources if one["title"] != item["title"]]
        if not sources:
            return found
        for count in range(len(sources), 0, -1):
            shared = self._shared([item, *sources[:count]])
            if shared:
                return {self.verb: [one["title"] for one in sources[:count]]} | shared | found
        return {self.verb: [one["title"] for one in sources]} | found

    def _row(self, item: Any) -> dict[str, Any]:
        if item not in self._rows:
            raise ValueError(f"items has no item {item!r}, which the explanation names.")
        row = self._rows[item]
        title = fact_texts(row["title"])
        if not title:
            raise ValueError(f"item {item!r} has no title in items; an explanation names it.")
        return row | {"title": title[0]}

    def _shared(self, rows: Sequence[dict[str, Any]]) -> _Told:
        """What each row has, by column, in the order of the first."""
        first, *others = (column_facts(row, self.columns) for row in rows)
        found = {
            f"shared {name}": [
                one for one in texts if all(one in row.get(name, ()) for row in others)
            ]
            for name, texts in first.items()
        }
        return {name: texts[: self.most] for name, texts in found.items() if texts}


def _dated(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its year in the title, where it has one."""
    year = fact_texts(row["year"])
    return row | {"title": f"{row['title']} ({year[0]})"} if year else row


def _template(facts: _Told, verb: str, kind: str) -> str:
    """The same without a model: the reason, and the first of what is shared."""
    begin = f"We recommend {facts['recommended'][0]}"
    if kind == "neighbour":
        return f"{begin} because people whose histories are like yours took it."
    if verb not in facts:
        return f"{begin}."
    reason = f"{begin} because you {verb} {joined(facts[verb])}."
    shared = [name for name in facts if name.startswith("shared ")]
    if not shared:
        return reason
    return f"{reason} {spelled(shared[0])}: {joined(facts[shared[0]])}."
