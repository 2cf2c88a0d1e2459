"""Other wordings of texts, to learn from more than there is: for small data.

A tower that sees each text in several wordings cannot lean on a single word of it. `TokenDropout`
leaves words out; `llmrec_kernels.language.Paraphraser` has a language model say the same in other
words. Both give `views`, which recommenders take as `augment=`. Whether it helps is for a
measurement to say: docs/results.md has one.

Source: J. Wei and K. Zou, EDA: easy data augmentation techniques for boosting performance on text
classification tasks, EMNLP 2019 (random deletion).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from llmrec_kernels.ops import checks


class Augments(Protocol):
    """What makes other wordings of texts."""

    def views(self, texts: Sequence[str]) -> list[list[str]]:
        """Other wordings of each text, of some perhaps none."""
        ...


class TokenDropout:
    """Texts with words left out at random.

    Parameters
    ----------
    rate : float
        The part of the words that is left out, above 0 and below 1; one word always stays.
    copies : int
        Wordings of each text.
    seed : int
        Of what is drawn. A text's wordings depend on it and on the text's place.

    Examples
    --------
    >>> TokenDropout(0.4, copies=2).views(["a film about stars and ships"])
    [['a and ships', 'a film about stars and']]
    """

    def __init__(self, rate: float = 0.15, *, copies: int = 4, seed: int = 0) -> None:
        self.rate = checks.finite_number("rate", rate)
        if not 0 < self.rate < 1:
            raise ValueError(f"rate is {rate}; expected more than 0 and less than 1")
        self.copies = checks.positive_int("copies", copies)
        self.seed = checks.integer("seed", seed)
        if self.seed < 0:
            raise ValueError(f"seed is {seed}; expected at least 0")

    def views(self, texts: Sequence[str]) -> list[list[str]]:
        """`copies` wordings of each text; none of a text without words.

        Parameters
        ----------
        texts : sequence of str
            What to say otherwise.
        """
        draw = np.random.default_rng(self.seed)
        return [
            [self._thinned(words, draw) for _ in range(self.copies if words else 0)]
            for words in (text.split() for text in texts)
        ]

    def _thinned(self, words: list[str], draw: np.random.Generator) -> str:
        chances = draw.random(len(words))
        kept = chances >= min(self.rate, chances.max())
        return " ".join(word for word, stays in zip(words, kept, strict=True) if stays)
