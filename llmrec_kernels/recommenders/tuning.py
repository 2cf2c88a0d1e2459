"""A language model that is trained with what stands on it: all its weights, or adapters beside.

LoRA leaves a matrix W as it is and learns B A beside it, of rank 8: fewer numbers to train and to
save, by a hundred times or so.

Source: E. Hu et al., LoRA: low-rank adaptation of large language models, ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from llmrec_kernels.encoders import TextEncoder
from llmrec_kernels.encoders.pooling import pool
from llmrec_kernels.ops import checks
from llmrec_kernels.recommenders.answering import UnsupportedError
from llmrec_kernels.recommenders.records import Absent
from llmrec_kernels.recommenders.space import Reader

TUNINGS = ("frozen", "full", "lora")
_RATES = {"full": 2e-3, "lora": 5e-2}  # of the towers' learning rate: 2e-5 and 5e-4 of their 1e-2
_RANK = 8
_AT_ONCE = 64  # texts


class Language(nn.Module):
    """The transformer of a `TextEncoder`, with weights of its own.

    Parameters
    ----------
    encoder : TextEncoder
        Whose model it is; it stays as it is.
    tune : "full" or "lora"
        Which weights are trained.

    Raises
    ------
    ImportError
        For "lora", if there is no `peft`.
    """

    def __init__(self, encoder: TextEncoder, tune: str) -> None:
        super().__init__()
        self.rate = _RATES[tune]
        self._pooling = encoder.pooling
        self._network = encoder.trainable()
        self.model: nn.Module = self._network.model
        self._width = encoder.dim
        if tune == "lora":
            _adapt(self.model)
        for name, one in self.model.named_parameters():
            if name.startswith("pooler."):  # makes another output than the hidden states
                one.requires_grad_(False)
        self._tokens: list[dict[str, list[int]]] = []
        self._mean: Tensor | None = None

    def read(self, texts: Sequence[str], mean: Tensor) -> None:
        """Keep the texts of the items, and the mean that centres their vectors."""
        self._tokens, self._mean = self._network.tokenize(texts), mean

    def tuned(self) -> dict[str, nn.Parameter]:
        """The weights that are trained, by name."""
        return {name: one for name, one in self.model.named_parameters() if one.requires_grad}

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Take over weights that were trained."""
        with torch.no_grad():
            for name, one in self.tuned().items():
                one.copy_(weights[name])

    def forward(self, places: Tensor) -> Tensor:
        """The centred vectors of the texts of items, [n, d] float32."""
        assert self._mean is not None
        unit = self._unit([self._tokens[place] for place in places.tolist()])
        return normalize(torch.where(unit.any(dim=1, keepdim=True), unit - self._mean, unit), dim=1)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors of texts, [n, d] float32, of length 1."""
        tokens = self._network.tokenize(texts)
        order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]["input_ids"]))
        vectors = torch.zeros(len(tokens), self._width)
        for start in range(0, len(order), _AT_ONCE):
            rows = order[start : start + _AT_ONCE]
            vectors[rows] = self._unit([tokens[row] for row in rows])
        return vectors

    def _unit(self, tokens: list[dict[str, list[int]]]) -> Tensor:
        """Vectors of length 1, on the CPU; 0 for a text without a token."""
        there = [row for row, one in enumerate(tokens) if one["input_ids"]]
        if not there:
            return torch.zeros(len(tokens), self._width)
        hidden, mask = self._network.hidden_states([tokens[row] for row in there])
        unit = normalize(pool(hidden, mask, self._pooling), dim=1).cpu()
        return unit.new_zeros(len(tokens), self._width).index_put((torch.tensor(there),), unit)


def reader(reader: Reader, tune: str, weights: Mapping[str, Tensor]) -> Reader:
    """The reader whose encoder has the weights that were trained, where any were."""
    if not weights or not isinstance(reader.encoder, TextEncoder):
        return reader
    return reader._replace(encoder=TunedEncoder(reader.encoder, tune, weights))


class TunedEncoder:
    """Encodes texts as the language model does that was trained; it is loaded when first asked.

    Parameters
    ----------
    encoder : TextEncoder
        Whose model was trained.
    tune : "full" or "lora"
        How.
    weights : mapping of str to Tensor
        What was trained, as `Language.tuned` names it.
    """

    def __init__(self, encoder: TextEncoder, tune: str, weights: Mapping[str, Tensor]) -> None:
        self._encoder, self._tune, self._weights = encoder, tune, weights
        self._language: Language | None = None

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors of texts, [n, d] float32."""
        if self._language is None:
            language = Language(self._encoder, self._tune).eval()
            try:
                language.put(self._weights)
            except (KeyError, RuntimeError) as error:
                raise UnsupportedError(
                    f"the weights that were trained do not fit this encoder ({error}); load the "
                    "model with the encoder it was fitted with"
                ) from error
            self._language = language
        return self._language.encode(texts)


def check(tune: str, encoder: Any, embeddings: Any) -> None:
    """Refuse to tune what is no language model, or what nobody looks at."""
    checks.choice("tune", tune, TUNINGS)
    if tune == "frozen":
        return
    if not isinstance(encoder, TextEncoder | Absent):
        given = "embeddings" if encoder is None else f"a {type(encoder).__name__}"
        raise ValueError(
            f"tune is {tune!r} but there is {given}; expected a TextEncoder as encoder, whose "
            "language model can be trained"
        )
    if embeddings is not None:
        raise ValueError(
            f"tune is {tune!r} but embeddings are given, which no training changes; leave them out"
        )


def _adapt(model: nn.Module) -> None:
    """Put adapters beside the matrices of a model, which alone are trained."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError(
            "tune='lora' needs peft, which is not installed: pip install 'llmrec-kernels[train]'"
        ) from error
    if not any(isinstance(one, nn.Linear) for one in model.modules()):
        raise UnsupportedError(
            "tune='lora' puts adapters beside linear layers of torch, of which a "
            f"{type(model).__name__} has none; use tune='full'"
        )
    linear = [
        name
        for name, one in model.named_modules()
        if isinstance(one, nn.Linear) and not name.startswith("pooler.")
    ]
    inject_adapter_in_model(LoraConfig(r=_RANK, lora_alpha=2 * _RANK, target_modules=linear), model)
