"""Long texts made short enough for an encoder, which would cut off what is beyond its window.

A text is taken apart at its sentences into parts of a window's length; a model says each part in
one or two sentences, and these are checked against the part (`facts`). Where none stands, the
part's first sentence is taken. What has come out goes round again until it fits.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import accumulate
from typing import Literal, Protocol

from torch import Tensor

from llmrec_kernels.language.models import LanguageModel, texts_of
from llmrec_kernels.language.words import sentences
from llmrec_kernels.language.writing import Prompting, Writer, Writing, judged
from llmrec_kernels.ops.checks import positive_int

_ROUNDS = 4  # a window of 256 tokens and parts cut to a fifth: texts of 150,000 tokens
_SENTENCES = 2
_SYSTEM = "Shorten the text to one or two sentences. Use only words of the text."
_EXAMPLES = (
    (
        "A lighthouse keeper on a small island finds a letter in a bottle. He reads it night after "
        "night. In spring he sails out to look for the woman who wrote it, and a storm takes his "
        "boat.",
        "A lighthouse keeper on a small island finds a letter in a bottle. In spring he sails out "
        "to look for the woman who wrote it.",
    ),
    (
        "The truck with the gold never arrived. Its driver, who had retired that day, is asked to "
        "find it before the morning. What he finds on the road is his own brother.",
        "The truck with the gold never arrived. Its driver is asked to find it before the morning.",
    ),
)


class Windowed(Protocol):
    """An encoder that reads so many tokens of a text, such as a TextEncoder."""

    @property
    def window(self) -> int | None:
        """Tokens of a text that are read, special tokens included."""

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens included."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors of texts, [n, d]."""


class Summarizer:
    """Shorten texts that are longer than an encoder's window, and leave the others as they are.

    Parameters
    ----------
    model : LanguageModel or None
        What writes; None takes sentences of the text.
    encoder : TextEncoder
        Whose tokens and window count.
    window : int, optional
        Most tokens of a text, special tokens included. By default the encoder's window.
    max_new_tokens : int, default 60
        Most tokens that are written of a part; an unfinished sentence is dropped.
    cache_dir, progress
        As in `ItemDescriber`.

    Raises
    ------
    ValueError
        `window` is more than the encoder reads.

    Examples
    --------
    >>> from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path
    >>> short = Summarizer(None, TextEncoder(bundled_encoder_path()), window=20)
    >>> text = "A signal wakes the crew. They land, all seven of them. Something is on board."
    >>> short.summarize([text])[0].text
    'A signal wakes the crew. Something is on board.'
    """

    def __init__(
        self,
        model: LanguageModel | None,
        encoder: Windowed,
        *,
        window: int | None = None,
        max_new_tokens: int = 60,
        cache_dir: str | os.PathLike[str] | Literal[False] | None = None,
        progress: bool | None = None,
    ) -> None:
        if not hasattr(encoder, "token_counts"):
            raise TypeError(f"encoder must count tokens, as a TextEncoder does, got {encoder!r}.")
        if window is not None:
            positive_int("window", window)
        self.encoder = encoder
        self._window = window
        self._writer = Writer(
            model,
            Prompting(_SYSTEM, _EXAMPLES, max_new_tokens),
            cache_dir=cache_dir,
            progress=progress,
        )

    @property
    def window(self) -> int | None:
        """Most tokens of a text; None where nothing limits them."""
        most = self.encoder.window
        if self._window is not None and most is not None and self._window > most:
            raise ValueError(f"window is {self._window}, but the encoder reads {most} tokens.")
        return most if self._window is None else self._window

    def summarize(self, texts: Sequence[str]) -> list[Writing]:
        """Shorten each text that does not fit the window.

        Parameters
        ----------
        texts : sequence of str
            Any lengths.

        Returns
        -------
        list of Writing
            Texts of at most `window` tokens, save where one sentence alone is longer. `source` is
            "model" where a sentence of the model's is in it, "template" where all are the text's
            own, and "text" where nothing was shortened.
        """
        given = texts_of("texts", texts)
        done = [Writing(text, "text", "", ()) for text in given]
        window = self.window
        if window is None:
            return done
        settled: set[int] = set()
        for _ in range(_ROUNDS):
            long = [row for row in self._too_long(done, window) if row not in settled]
            parts = [self._parts(done[row].text, window) for row in long]
            # A part of one sentence is as short as it gets; a small model would not leave it so.
            asked = [one for some in parts for one in some if len(sentences(one)) > 1]
            completions = dict(zip(asked, self._writer.completions(asked), strict=True))
            for row, some in zip(long, parts, strict=True):
                said = [_said(one, completions.get(one, "")) for one in some]
                shorter = _together(done[row], said)
                if shorter.text == done[row].text:
                    settled.add(row)
                done[row] = shorter
        for row in self._too_long(done, window):
            done[row] = done[row]._replace(text=self._cut(done[row].text, window))
        return done

    def _too_long(self, done: Sequence[Writing], window: int) -> list[int]:
        counts = self.encoder.token_counts([one.text for one in done])
        return [row for row, count in enumerate(counts) if count > window]

    def _parts(self, text: str, window: int) -> list[str]:
        """A text in parts of whole sentences, each within the window where its sentences are."""
        parts: list[list[str]] = [[]]
        room = window
        split = sentences(text)
        for sentence, count in zip(split, self.encoder.token_counts(split), strict=True):
            if count > room and parts[-1]:
                parts.append([])
                room = window
            parts[-1].append(sentence)
            room -= count
        return [" ".join(part) for part in parts]

    def _cut(self, text: str, window: int) -> str:
        """The first sentences of a text that fit, at least one."""
        split = sentences(text)
        starts = list(accumulate(split, "{} {}".format))
        counts = self.encoder.token_counts(starts)
        fitting = sum(count <= window for count in counts)
        return starts[max(fitting, 1) - 1]


class SummarizingEncoder:
    """An encoder for texts of any length: the long ones are summarised, then all are encoded.

    Parameters
    ----------
    encoder : TextEncoder
        What encodes.
    model : LanguageModel or None
        What summarises; None takes sentences of the text.
    window, max_new_tokens, cache_dir, progress
        As in `Summarizer`.

    Examples
    --------
    >>> from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path
    >>> encoder = SummarizingEncoder(TextEncoder(bundled_encoder_path()), None)
    >>> encoder.encode(["A crew wakes from sleep. " * 90]).shape
    torch.Size([1, 384])
    """

    def __init__(
        self,
        encoder: Windowed,
        model: LanguageModel | None,
        *,
        window: int | None = None,
        max_new_tokens: int = 60,
        cache_dir: str | os.PathLike[str] | Literal[False] | None = None,
        progress: bool | None = None,
    ) -> None:
        self.encoder = encoder
        self.summarizer = Summarizer(
            model,
            encoder,
            window=window,
            max_new_tokens=max_new_tokens,
            cache_dir=cache_dir,
            progress=progress,
        )

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors of texts, [n, d] float32, row i for text i."""
        return self.encoder.encode([one.text for one in self.summarizer.summarize(texts)])


def _said(part: str, completion: str) -> Writing:
    return judged(completion, {"text": part}, lambda: sentences(part)[0], _SENTENCES)


def _together(before: Writing, said: Sequence[Writing]) -> Writing:
    """The parts' summaries as one text, with what the model wrote in this round and before."""
    sources = {before.source, *(one.source for one in said)}
    return Writing(
        " ".join(one.text for one in said),
        "model" if "model" in sources else "template",
        "\n".join(one.completion for one in (before, *said) if one.completion),
        tuple(dict.fromkeys(word for one in (before, *said) for word in one.refused)),
    )
