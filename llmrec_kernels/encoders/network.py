"""A tokenizer and a network, loaded: lists of token ids in, hidden states out."""

from __future__ import annotations

import inspect
import io
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from llmrec_kernels.encoders.gguf import unpacked
from llmrec_kernels.encoders.models import ModelFiles
from llmrec_kernels.encoders.pooling import read_json

_IDS = "input_ids"
_TOKEN_TYPES = "token_type_ids"


@dataclass(frozen=True)
class Network:
    """What `load` returns.

    Parameters
    ----------
    tokenizer
        A Hugging Face tokenizer.
    model
        A Hugging Face model without head, in evaluation mode, on its device.
    max_length
        Tokens of a text that are read, special tokens included; None where nothing limits them.
    takes
        Names of the model's inputs: a tokenizer may offer more of them.
    """

    tokenizer: Any
    model: Any
    max_length: int | None
    takes: Collection[str]

    def tokenize(self, texts: Sequence[str]) -> list[dict[str, list[int]]]:
        """Token ids (and token types, where the tokenizer has them) of each text, cut to length."""
        encoded = self.tokenizer(
            list(texts),
            truncation=self.max_length is not None,
            max_length=self.max_length,
            return_attention_mask=False,
        )
        names = [name for name in (_IDS, _TOKEN_TYPES) if name in encoded and name in self.takes]
        return [{name: encoded[name][row] for name in names} for row in range(len(texts))]

    def hidden_states(self, batch: Sequence[dict[str, list[int]]]) -> tuple[Tensor, Tensor]:
        """Last hidden states [B, L, d] and mask [B, L] of tokenized texts, each with a token.

        Padding goes to the right whatever the tokenizer prefers: there it moves no position and,
        under a causal mask, is seen by no token. A decoder's tokenizer often has no padding token;
        its end token fills then.
        """
        tokenizer, device = self.tokenizer, self.model.device
        end = tokenizer.eos_token_id or 0
        fill = {
            _IDS: end if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
            _TOKEN_TYPES: tokenizer.pad_token_type_id,
        }
        inputs = {
            name: pad_sequence(
                [torch.tensor(text[name]) for text in batch],
                batch_first=True,
                padding_value=fill[name],
            ).to(device)
            for name in batch[0]
        }
        lengths = torch.tensor([len(text[_IDS]) for text in batch], device=device)
        places = torch.arange(inputs[_IDS].shape[1], device=device)
        mask = (places < lengths.unsqueeze(1)).long()
        return self.model(**inputs, attention_mask=mask).last_hidden_state, mask


def load(
    files: ModelFiles, *, device: torch.device | None, dtype: torch.dtype, max_length: int | None
) -> Network:
    """Load tokenizer and weights from a model's folder, or from its GGUF file.

    What a GGUF file holds in fewer bits is spread out to `dtype`.

    Raises
    ------
    ModelNotFoundError
        When the weights are not there and cannot be fetched.
    OSError
        When transformers cannot read the files, with its reason.
    ValueError
        When `max_length` is more than the model reads, or the files lack weights that are used.
    """
    files.fetch_weights()
    with reading(files):
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        files = unpacked(files)
        options = {**files.load_options(), "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(files.folder, **options)
        # Given, or a GGUF file would be parsed once more for it, which takes seconds.
        config = AutoConfig.from_pretrained(files.folder, **options)
        model, report = AutoModel.from_pretrained(
            files.folder, config=config, dtype=dtype, output_loading_info=True, **options
        )
    words = int(model.config.get_text_config().vocab_size)
    if len(tokenizer) < words // 2:
        # Without its files, transformers makes up a tokenizer that knows no word.
        raise ValueError(
            f"model {files.name!r} has {words} words but its tokenizer {len(tokenizer)}: "
            "the folder lacks the tokenizer's files."
        )
    used = _used_part(model, report["missing_keys"], files)
    used.config.use_cache = False  # A text is read once; keys and values are not needed again.
    used.eval().to(device if device is not None else _best_device())
    return Network(
        tokenizer=tokenizer,
        model=used,
        max_length=_limit(files, tokenizer, used.config, max_length),
        takes=inspect.signature(used.forward).parameters,
    )


def output_dim(files: ModelFiles) -> int:
    """Length of the vectors, from the model's configuration, no weights loaded."""
    with reading(files):
        from transformers import AutoConfig

        files = unpacked(files)
        options = {**files.load_options(), "trust_remote_code": False}
        config = AutoConfig.from_pretrained(files.folder, **options)
    return int(config.get_text_config().hidden_size)


def _used_part(model: Any, missing: Sequence[str], files: ModelFiles) -> Any:
    """Take the part that reads text, model or encoder; refuse one whose weights are random."""
    if model.config.is_encoder_decoder:
        used, prefixes = model.get_encoder(), ("encoder.", "shared.")
        missing = [key for key in missing if key.startswith(prefixes)]
    else:
        # The pooler makes another output than the hidden states, and many checkpoints leave it out.
        used, missing = model, [key for key in missing if not key.startswith("pooler.")]
    if missing:
        raise ValueError(
            f"the weights of model {files.name!r} in {files.folder} lack {len(missing)} tensors "
            f"({', '.join(sorted(missing)[:3])}, ...), which would be random numbers. "
            "Save the whole model there."
        )
    return used


def _limit(files: ModelFiles, tokenizer: Any, config: Any, asked: int | None) -> int | None:
    """Tokens to read: as asked, else as the model's sentence-transformers file or itself says."""
    positions = getattr(config, "max_position_embeddings", None)
    # A tokenizer that knows no limit says 10^30.
    limits = [n for n in (positions, tokenizer.model_max_length) if n is not None and n < 10**9]
    most = min(limits, default=None)
    if asked is not None:
        if most is not None and asked > most:
            raise ValueError(
                f"max_length is {asked}, but model {files.name!r} reads at most {most} tokens."
            )
        special = tokenizer.num_special_tokens_to_add()
        if asked <= special:
            raise ValueError(
                f"max_length is {asked}, but {special} special tokens stand around each text; "
                f"give at least {special + 1}."
            )
        return asked
    own = files.folder / "sentence_bert_config.json"
    if files.gguf is None and own.is_file():
        length = read_json(own, dict).get("max_seq_length")
        if length is not None:
            return int(length) if most is None else min(int(length), most)
    return most


def _best_device() -> torch.device:
    found = torch.accelerator.current_accelerator(check_available=True)
    return torch.device("cpu") if found is None else found


@contextmanager
def _silent(*names: str) -> Iterator[None]:
    """Let these loggers say nothing below an error."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


@contextmanager
def reading(files: ModelFiles) -> Iterator[None]:
    """Silence the bars and reports of transformers, and name the model in what it raises."""
    from transformers.utils import logging as transformers_logging

    own: Any = transformers_logging
    verbosity, bars = own.get_verbosity(), own.is_progress_bar_enabled()
    own.set_verbosity_error()
    if bars:
        own.disable_progress_bar()
    # The bar of the conversion from GGUF heeds none of these settings.
    quiet = nullcontext() if files.gguf is None else redirect_stderr(io.StringIO())
    try:
        # transformers imports torchao where it is, which tells what it could not load for GPUs.
        with quiet, _silent("torchao", "torch.utils._pytree"):
            yield
    # safetensors, tokenizers and transformers share no class of error.
    except Exception as error:
        raise OSError(
            f"model {files.name!r} in {files.folder} could not be loaded: "
            f"{' '.join(str(error).split())} (Code that comes with a model is never run.)"
        ) from error
    finally:
        own.set_verbosity(verbosity)
        if bars:
            own.enable_progress_bar()
