"""Texts of items, written from their columns: for encoders that read sentences better than lists.

A model is told the columns of an item and shown two examples; each sentence that it writes is
checked against these columns (`facts`). Where none stands, a template says the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import pandas as pd

from llmrec_kernels.language.models import LanguageModel
from llmrec_kernels.language.titles import with_readable_title
from llmrec_kernels.language.values import Facts, fact_texts
from llmrec_kernels.language.words import is_whole, sentences
from llmrec_kernels.language.writing import (
    Prompting,
    Writer,
    Writing,
    article,
    checked_columns,
    checked_noun,
    column_facts,
    judged,
    rows_of,
    spelled,
    told,
)
from llmrec_kernels.ops.checks import positive_int

_LONG = 600  # characters of a text that are told: a small model loses the thread of more
WRITTEN = ("described_by", "completion", "refused")  # columns that are never an item's own
_SYSTEM = "Describe the {noun} in two or three sentences. Use only the facts that are given."
# Of films that there are not: what a model takes from an example is no fact of the item's.
_EXAMPLES: tuple[tuple[dict[str, Any], str], ...] = (
    (
        {
            "title": "Night Convoy",
            "year": 1987,
            "genres": ["Action"],
            "directors": ["Paul Orr"],
            "cast": ["Sam Dray"],
            "plot": "A retired driver has one night to find a truck with stolen gold.",
        },
        "Night Convoy is an Action {noun} released in 1987. It was directed by Paul Orr and stars "
        "Sam Dray. A retired driver has one night to find a truck with stolen gold.",
    ),
    (
        {
            "title": "The Glass Harbour",
            "year": 1962,
            "genres": ["Musical", "Western"],
            "directors": ["Ada Kessler"],
            "cast": ["Leo Marsh", "Nina Holt"],
            "plot": "A lighthouse keeper finds a letter in a bottle and falls for the woman who "
            "wrote it.",
        },
        "The Glass Harbour is a Musical and Western {noun} released in 1962. It was directed by "
        "Ada Kessler and stars Leo Marsh and Nina Holt. A lighthouse keeper finds a letter in a "
        "bottle and falls for the woman who wrote it.",
    ),
    (
        {
            "title": "Apple Street",
            "year": 2004,
            "genres": ["Mystery"],
            "directors": ["Jon Alder", "Mia Voss"],
            "cast": ["Eve Lund", "Carl Finch", "Rosa Stein"],
            "plot": "Three bakers look for the man who sold them the same shop.",
        },
        "Apple Street is a Mystery {noun} released in 2004. It was directed by Jon Alder and Mia "
        "Voss and stars Eve Lund, Carl Finch and Rosa Stein. Three bakers look for the man who "
        "sold them the same shop.",
    ),
)


class ItemDescriber:
    """Write a description of each item from its columns, and from nothing else.

    Parameters
    ----------
    model : LanguageModel or None
        What writes; None takes the template for all.
    noun : str, default "item"
        What the items are, such as "film" or "book".
    columns : sequence of str, optional
        What may be told of an item. By default each column but `item` and `text`.
    most : int, default 3
        Most values of a list, such as actors, that are told.
    examples : sequence of (mapping, str), optional
        Facts and the description that was written of them, two or so. By default of films.
    max_new_tokens : int, default 90
        Most tokens that are written; an unfinished sentence is dropped.
    cache_dir : path or False, optional
        Folder for what the model wrote; False keeps nothing. By default
        `$LLMREC_CACHE/completions`, else `~/.cache/llmrec_kernels/completions`. An interrupted run
        goes on from there.
    progress : bool, optional
        Show a bar with the time left. By default when there is more than one batch and stderr is a
        terminal.

    Examples
    --------
    >>> items = pd.DataFrame({"item": [1], "title": ["Alien (1979)"], "genres": [["Horror"]]})
    >>> ItemDescriber(None, noun="film").describe(items)["description"].item()
    'Alien is a film of 1979. Genres: Horror.'
    """

    def __init__(
        self,
        model: LanguageModel | None,
        *,
        noun: str = "item",
        columns: Sequence[str] | None = None,
        most: int = 3,
        examples: Sequence[tuple[Facts, str]] | None = None,
        max_new_tokens: int = 90,
        cache_dir: str | os.PathLike[str] | Literal[False] | None = None,
        progress: bool | None = None,
    ) -> None:
        positive_int("most", most)
        if isinstance(columns, str):
            raise TypeError(f"columns must be a sequence of names, got {columns!r}.")
        self.noun = checked_noun(noun)
        self.columns = None if columns is None else list(columns)
        self.most = most
        shown = [(facts, text.replace("{noun}", noun)) for facts, text in examples or _EXAMPLES]
        self._writer = Writer(
            model,
            Prompting(
                _SYSTEM.format(noun=noun),
                [(told(facts), text) for facts, text in shown],
                max_new_tokens,
            ),
            cache_dir=cache_dir,
            progress=progress,
        )

    def describe(self, items: pd.DataFrame) -> pd.DataFrame:
        """Describe each item.

        Parameters
        ----------
        items : pandas.DataFrame
            A row an item, with a column `item` and others that hold texts, numbers or lists of
            texts. A title such as "Usual Suspects, The (1995)" is told as people write it.

        Returns
        -------
        pandas.DataFrame
            With the index of `items` and the columns `item`; `text`, the item's own text, where it
            has one, followed by the description: what to encode; `description`; `described_by`,
            "model" or "template"; `completion`, all that the model wrote; and `refused`, the words
            of it that the columns do not support.

        Raises
        ------
        ValueError, TypeError
            A column is not there, holds something else, or has the name of one of the last three:
            what a model wrote is no fact, so described items are not described again.
        """
        self._check(items)
        rows = rows_of(items)
        facts = [self.facts(row) for row in rows]
        completions = self._writer.completions([told(one) for one in facts])
        made = [
            judged(completion, {"noun": self.noun, **one}, partial(self.template, one))
            for completion, one in zip(completions, facts, strict=True)
        ]
        return pd.DataFrame(
            {
                "item": items["item"],
                "text": [_richer(row, one) for row, one in zip(rows, made, strict=True)],
                "description": [one.text for one in made],
                "described_by": [one.source for one in made],
                "completion": [one.completion for one in made],
                "refused": [one.refused for one in made],
            },
            index=items.index,
        )

    def facts(self, row: Mapping[str, Any]) -> dict[str, list[str]]:
        """What is told of an item: its columns, lists and long texts cut."""
        columns = self.columns or [name for name in row if name not in ("item", "text")]
        full = with_readable_title(row)
        if "title" in columns and "year" not in row:
            columns = [*columns, "year"]
        found = column_facts({"year": None, **full}, columns)
        return {
            name: [_shortened(one) for one in texts[: self.most]] for name, texts in found.items()
        }

    def template(self, facts: Facts) -> str:
        """A description without a model.

        Examples
        --------
        >>> ItemDescriber(None, noun="book").template({"title": "Emma", "author": "Jane Austen"})
        'Emma is a book. Author: Jane Austen.'
        """
        rest = {name: fact_texts(value) for name, value in facts.items()}
        title, year = (" ".join(rest.pop(name, [])) for name in ("title", "year"))
        kind = article(self.noun) + (f" of {year}" if year else "")
        parts = [f"{title or 'This'} is {kind}."]
        for name, texts in rest.items():
            prose = len(texts) == 1 and is_whole(texts[0])
            parts.append(texts[0] if prose else f"{spelled(name)}: {', '.join(texts)}.")
        return " ".join(parts)

    def _check(self, items: pd.DataFrame) -> None:
        held = checked_columns(items, ["item"])
        missing = [name for name in self.columns or [] if name not in held]
        if missing:
            raise ValueError(f"columns has {missing[0]!r}, but the columns of items are {held}.")
        written = [name for name in WRITTEN if name in held]
        if written:
            raise ValueError(
                f"items has a column {written[0]!r}, as described items have; describe the items "
                "that these were made of, or give your own column another name."
            )


def _richer(row: Mapping[str, Any], made: Writing) -> str:
    own = row.get("text")
    return f"{own.strip()} {made.text}" if isinstance(own, str) and own.strip() else made.text


def _shortened(text: str) -> str:
    """A long text up to the last sentence that has room; a longer sentence up to there."""
    kept = ""
    for sentence in sentences(text):
        if kept and len(kept) + len(sentence) >= _LONG:
            break
        kept = f"{kept} {sentence}".strip()
    return kept[:_LONG]
