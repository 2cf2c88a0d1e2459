"""Tokens through a causal language model: what begins alike is read once.

Prompts that are asked together often begin with the same instruction and the same examples. What
they share runs once and its keys and values are kept, for the next batch too: on a CPU, where
reading a prompt takes longer than writing a sentence, this is most of the time.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmrec_kernels.language.loading import Loaded


class Running:
    """A loaded model, with the keys and values of what it read last.

    Parameters
    ----------
    loaded : Loaded
        Tokenizer and model.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self._begun: _Begun | None = None

    def write(self, rows: list[list[int]], new: int, stop: Sequence[str]) -> list[str]:
        """Completions of tokenized prompts, padded on the left after what they share."""
        loaded, begun = self.loaded, self._shared(rows)
        device = loaded.model.device
        start = len(begun.tokens)
        cache = begun.repeated(len(rows))
        width = max(map(len, rows)) - start
        ids = torch.full((len(rows), width), loaded.start, device=device)
        mask = torch.zeros(len(rows), start + width, dtype=torch.long, device=device)
        mask[:, :start] = 1
        for place, row in enumerate(rows):
            ids[place, width - (len(row) - start) :] = torch.tensor(row[start:])
            mask[place, start + width - (len(row) - start) :] = 1
        written: list[list[int]] = [[] for _ in rows]
        texts: list[str | None] = [None] * len(rows)
        with torch.inference_mode():
            for _ in range(new):
                logits = loaded.logits(ids, mask, cache, last=1)[:, -1]
                chosen = logits.argmax(dim=-1)
                for place, token in enumerate(chosen.tolist()):
                    if texts[place] is None:
                        written[place].append(token)
                        texts[place] = self._ended(written[place], stop)
                if all(text is not None for text in texts):
                    break
                ids = chosen.unsqueeze(1)
                mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        return [
            (self._text(tokens) if text is None else text).strip()
            for tokens, text in zip(written, texts, strict=True)
        ]

    def likelihoods(self, prompt: list[int], rows: list[list[int]]) -> Tensor:
        """Sums of log p of continuations [b], padded on the right, each at least one token."""
        begun, last = self._read(prompt[:-1]), prompt[-1]
        device = self.loaded.model.device
        width = max(map(len, rows))
        targets = torch.full((len(rows), width), last, device=device)
        given = torch.zeros(len(rows), width, dtype=torch.bool, device=device)
        for place, row in enumerate(rows):
            targets[place, : len(row)] = torch.tensor(row)
            given[place, : len(row)] = True
        # Each token is said by the one before it: the first by the last of the prompt.
        before = torch.full((len(rows), 1), last, device=device)
        ids = torch.cat([before, targets[:, :-1]], dim=1)
        seen = len(begun.tokens)
        mask = torch.ones(len(rows), seen + width, dtype=torch.long, device=device)
        mask[:, seen + 1 :] = given[:, :-1]
        with torch.inference_mode():
            logits = self.loaded.logits(ids, mask, begun.repeated(len(rows)))
            said = logits.float().log_softmax(dim=-1).gather(2, targets.unsqueeze(2)).squeeze(2)
            total: Tensor = said.masked_fill(~given, 0.0).sum(dim=1)
        return total.cpu()

    def _read(self, tokens: list[int]) -> _Begun:
        """Keys and values of tokens that begin a sequence; those read last are kept."""
        if self._begun is not None and self._begun.tokens == tokens:
            return self._begun
        from transformers import DynamicCache

        cache = DynamicCache(config=self.loaded.model.config)
        if tokens:
            ids = torch.tensor([tokens], device=self.loaded.model.device)
            with torch.inference_mode():
                self.loaded.logits(ids, torch.ones_like(ids), cache, last=1)
        self._begun = _Begun(tokens, cache)
        return self._begun

    def _shared(self, rows: list[list[int]]) -> _Begun:
        """What all rows begin with, read: what was read before where it does nearly as well."""
        low, high = min(rows), max(rows)
        most = min(len(low), len(high)) - 1
        common = next((n for n in range(most) if low[n] != high[n]), most)
        common = min(common, min(map(len, rows)) - 1)
        kept = self._begun
        if kept is None or len(kept.tokens) <= common // 2:
            return self._read(low[:common])
        fits = kept.tokens == low[:common][: len(kept.tokens)]
        return kept if fits else self._read(low[:common])

    def _ended(self, tokens: list[int], stop: Sequence[str]) -> str | None:
        """The text, once its last token is the end or completes a stop text."""
        if tokens[-1] in self.loaded.ends:
            return self._text(tokens[:-1])
        if stop:
            text = self._text(tokens)
            places = [place for one in stop if (place := text.find(one)) >= 0]
            if places:
                return text[: min(places)]
        return None

    def _text(self, tokens: list[int]) -> str:
        return str(self.loaded.tokenizer.decode(tokens, skip_special_tokens=True))


class _Begun(NamedTuple):
    """Tokens that begin a sequence, with their keys and values."""

    tokens: list[int]
    cache: Any

    def repeated(self, rows: int) -> Any:
        """A copy for a batch; the kept one stays as it is."""
        cache = copy.deepcopy(self.cache)
        if self.tokens:
            cache.batch_repeat_interleave(rows)
        return cache
