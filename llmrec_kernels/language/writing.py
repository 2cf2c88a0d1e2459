"""What the writers share: facts told, completions asked for and kept, sentences that stand."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
from tqdm import tqdm

from llmrec_kernels._cache import cache_folder
from llmrec_kernels.language.cache import CompletionCache
from llmrec_kernels.language.facts import supported_part
from llmrec_kernels.language.models import LanguageModel
from llmrec_kernels.language.values import Facts, fact_texts
from llmrec_kernels.language.words import sentences
from llmrec_kernels.ops.checks import positive_int

# Enters the name of the cache file: raised when what a completion means changes.
_CACHE_FORMAT = 1
# Beginnings of words whose first sound is another than their first letter's.
_MUTE = ("hour", "heir", "honest", "honour", "honor")
_CONSONANTS = ("uni", "use", "usual", "utility", "euro", "one", "once", "ukulele")


class Writing(NamedTuple):
    """A text, who wrote it, and what the model had written.

    Parameters
    ----------
    text : str
        What may be shown: each of its sentences was checked, or is the template's.
    source : {"model", "template", "text"}
        Who wrote it; "text" where a text was short enough to be left as it is.
    completion : str
        All that the model wrote; empty without one.
    refused : tuple of str
        Words of the completion that the facts do not support.

    Examples
    --------
    >>> Writing("Alien is a film.", "model", "Alien is a film. It won.", ("won",)).source
    'model'
    """

    text: str
    source: Literal["model", "template", "text"]
    completion: str
    refused: tuple[str, ...]


class Prompting(NamedTuple):
    """How a model is asked.

    Parameters
    ----------
    system : str
        What it is told beforehand.
    examples : sequence of (str, str)
        Facts and the text that was made of them.
    max_new_tokens : int
        Most tokens of a completion.
    """

    system: str
    examples: Sequence[tuple[str, str]]
    max_new_tokens: int


class Writer:
    """A language model with a way of asking and a cache on disk; without a model, nothing.

    Parameters
    ----------
    model : LanguageModel or None
        What writes.
    prompting : Prompting
        How it is asked.
    cache_dir : path or False, optional
        Folder for completions; False keeps none. By default `$LLMREC_CACHE/completions`, else
        `~/.cache/llmrec_kernels/completions`.
    progress : bool, optional
        Show a bar. By default when there is more than one batch and stderr is a terminal.
    """

    def __init__(
        self,
        model: LanguageModel | None,
        prompting: Prompting,
        *,
        cache_dir: str | os.PathLike[str] | Literal[False] | None,
        progress: bool | None,
    ) -> None:
        if model is not None and not hasattr(model, "generate"):
            raise TypeError(f"model must be a LanguageModel or None, got {model!r}.")
        positive_int("max_new_tokens", prompting.max_new_tokens)
        self.model = model
        self.prompting = prompting
        self._cache_dir = cache_dir
        self._progress = progress

    def completions(self, prompts: Sequence[str]) -> list[str]:
        """One for each prompt, each distinct one written once, batch by batch, kept at once.

        An interrupted run loses the batch that it is at, and goes on after those before it.
        """
        if self.model is None:
            return [""] * len(prompts)
        key_of = {prompt: self._key(prompt) for prompt in prompts}
        cache = self._cache
        kept = {} if cache is None else cache.read(list(key_of.values()))
        texts = {prompt: kept[key] for prompt, key in key_of.items() if key in kept}
        missing = sorted((one for one in key_of if one not in texts), key=len, reverse=True)
        size = self.model.batch_size
        with self._bar(len(missing), size) as bar:
            for start in range(0, len(missing), size):
                batch = missing[start : start + size]
                written = self.model.generate(
                    batch,
                    max_new_tokens=self.prompting.max_new_tokens,
                    system=self.prompting.system,
                    examples=self.prompting.examples,
                )
                new = dict(zip(batch, written, strict=True))
                if cache is not None:
                    cache.write({key_of[prompt]: text for prompt, text in new.items()})
                texts |= new
                bar.update(len(batch))
        return [texts[prompt] for prompt in prompts]

    def _key(self, prompt: str) -> bytes:
        return hashlib.sha256(json.dumps([*self.prompting, prompt]).encode()).digest()

    @cached_property
    def _cache(self) -> CompletionCache | None:
        if self._cache_dir is False or self.model is None:
            return None
        named = self._cache_dir
        folder = cache_folder("completions") if named is None else Path(named).expanduser()
        meaning = json.dumps({"format": _CACHE_FORMAT, "model": self.model.identity()})
        digest = hashlib.sha256(meaning.encode()).hexdigest()
        return CompletionCache(folder / f"{digest[:32]}.sqlite")

    def _bar(self, total: int, size: int) -> tqdm[Any]:
        shown = self._progress
        if shown is None:
            shown = total > size and sys.stderr.isatty()
        return tqdm(total=total, desc="writing", unit="text", disable=not (shown and total))


def judged(
    completion: str, facts: Facts, template: Callable[[], str], most: int | None = None
) -> Writing:
    """The sentences of a completion that stand, at most so many; the template where none does."""
    text, refused = supported_part(completion, facts)
    if most is not None:
        text = " ".join(sentences(text)[:most])
    if text:
        return Writing(text, "model", completion, tuple(refused))
    return Writing(template(), "template", completion, tuple(refused))


def told(facts: Facts) -> str:
    """Facts as a prompt: a line each.

    Examples
    --------
    >>> print(told({"title": "Alien", "genres": ["Horror", "Sci-Fi"]}))
    Title: Alien
    Genres: Horror, Sci-Fi
    """
    lines = {name: ", ".join(fact_texts(value)) for name, value in facts.items()}
    return "\n".join(f"{spelled(name)}: {text}" for name, text in lines.items() if text)


def spelled(name: str) -> str:
    """The name of a column as words: a capital first, blanks for underscores.

    Examples
    --------
    >>> spelled("page_count")
    'Page count'
    """
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def joined(names: Sequence[str]) -> str:
    """Names in a sentence.

    Examples
    --------
    >>> joined(["a"]), joined(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def article(noun: str) -> str:
    """The noun with its article.

    Examples
    --------
    >>> article("film"), article("item"), article("hour"), article("university course")
    ('a film', 'an item', 'an hour', 'a university course')
    """
    vowel = noun[:1].lower() in "aeiou" and not noun.lower().startswith(_CONSONANTS)
    return f"{'an' if vowel or noun.lower().startswith(_MUTE) else 'a'} {noun}"


def checked_noun(noun: str) -> str:
    """Refuse a noun that is no text."""
    if not isinstance(noun, str) or not noun.strip():
        raise ValueError(f"noun must be a word such as 'film', got {noun!r}.")
    return noun


def column_facts(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, list[str]]:
    """What columns say of an item, as texts; what is missing is left out."""
    found = {name: _texts(row, name) for name in columns}
    return {name: texts for name, texts in found.items() if texts}


def checked_columns(items: pd.DataFrame, wanted: Sequence[str]) -> list[str]:
    """The columns of items, among which these must be, and none twice."""
    if not isinstance(items, pd.DataFrame):
        raise TypeError(f"items must be a pandas DataFrame, got {type(items).__name__}.")
    held = list(items.columns)
    for name in wanted:
        if name not in held:
            raise ValueError(f"items has no column {name!r}; its columns are {held}.")
    if len(set(held)) < len(held):
        raise ValueError(f"items has two columns of one name; its columns are {held}.")
    return held


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame by the names of its columns.

    Examples
    --------
    >>> rows_of(pd.DataFrame({"item": ["a"]}))
    [{'item': 'a'}]
    """
    rows = frame.to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _texts(row: Mapping[str, Any], name: str) -> list[str]:
    try:
        return fact_texts(row[name])
    except TypeError as error:
        raise TypeError(f"column {name!r} of item {row.get('item')!r}: {error}") from None
