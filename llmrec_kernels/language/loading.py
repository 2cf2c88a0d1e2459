"""A causal language model, loaded: token ids in, logits out; models of other kinds refused."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmrec_kernels.encoders.gguf import unpacked
from llmrec_kernels.encoders.models import ModelFiles
from llmrec_kernels.encoders.network import reading
from llmrec_kernels.encoders.pooling import read_json


class WrongModelError(ValueError):
    """The model is of another kind than what is asked of it.

    Examples
    --------
    >>> raise WrongModelError("model 'x' is a BertModel ...")
    Traceback (most recent call last):
    llmrec_kernels.language.loading.WrongModelError: model 'x' is a BertModel ...
    """


@dataclass(frozen=True)
class Loaded:
    """What `load` returns.

    Parameters
    ----------
    tokenizer
        A Hugging Face tokenizer.
    model
        A Hugging Face model with a language-modelling head, in evaluation mode, on its device.
    name : str
        The model's name, for errors.
    takes
        Names of the model's inputs.
    start : int
        Token that may begin a sequence.
    ends : collection of int
        Tokens that end one.
    """

    tokenizer: Any
    model: Any
    name: str
    takes: Collection[str]
    start: int
    ends: Collection[int]

    def logits(self, ids: Tensor, mask: Tensor, cache: Any, *, last: int | None = None) -> Tensor:
        """Logits [B, L, V] of tokens [B, L] after what is in `cache`, which they enter.

        Parameters
        ----------
        ids : Tensor
            [B, L] int64.
        mask : Tensor
            [B, P + L] int64, 0 for padding, with the P places of the cache.
        cache
            Keys and values of a transformers model.
        last : int, optional
            Only of the last so many tokens, which saves most of the memory.
        """
        options: dict[str, Any] = {}
        if "position_ids" in self.takes:
            options["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if last is not None and "logits_to_keep" in self.takes:
            options["logits_to_keep"] = last
        found: Tensor = self.model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **options
        ).logits
        if not torch.isfinite(found).all():
            raise ValueError(
                f"model {self.name!r} returns NaN or infinity in {found.dtype}; "
                "use dtype=torch.float32 or torch.bfloat16."
            )
        return found


def check_kind(files: ModelFiles) -> None:
    """Refuse a folder whose configuration names a model of another kind, before any weight is read.

    Raises
    ------
    WrongModelError
        The model is not a causal language model, or does not say what it is.
    """
    if files.gguf is not None:
        return
    config = read_json(files.folder / "config.json", dict)
    names = [str(name) for name in config.get("architectures") or []]
    if any("CausalLM" in name or "LMHead" in name for name in names):
        return
    kind = names[0] if names else f"model of type {config.get('model_type')!r} without a head"
    raise WrongModelError(
        f"model {files.name!r} is a {kind}, which cannot write text; expected a causal language "
        "model, whose config.json names an architecture such as LlamaForCausalLM. "
        "(Encoders are for TextEncoder.)"
    )


def load(files: ModelFiles, *, device: torch.device, dtype: torch.dtype) -> Loaded:
    """Load tokenizer and weights.

    Raises
    ------
    ModelNotFoundError
        When the weights are not there and cannot be fetched.
    OSError
        When transformers cannot read the files, with its reason.
    WrongModelError
        When the files lack weights that are used, such as those of the head.
    """
    files.fetch_weights()
    with reading(files):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        files = unpacked(files)
        options = {**files.load_options(), "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(files.folder, **options)
        causal: Any = AutoModelForCausalLM
        model, report = causal.from_pretrained(
            files.folder, dtype=dtype, output_loading_info=True, **options
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise WrongModelError(
            f"the weights of model {files.name!r} in {files.folder} lack {len(missing)} tensors "
            f"({', '.join(missing[:3])}), which would be random numbers: it is no whole causal "
            "language model."
        )
    model.eval().to(device)
    own = model.generation_config.eos_token_id
    ends = {*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id} - {None}
    starts = (tokenizer.bos_token_id, tokenizer.eos_token_id, 0)
    return Loaded(
        tokenizer=tokenizer,
        model=model,
        name=files.name,
        takes=inspect.signature(model.forward).parameters,
        start=next(token for token in starts if token is not None),
        ends=frozenset(ends),
    )
