"""Networks that read a history in its order, and how they learn to foretell what comes next.

Of a history's item vectors x_1 .. x_t a network makes states h_1 .. h_t, each of the items so far.
The score of an item i as the next one is f_i = h_t · x_i + b_i, and three losses learn it:

    "softmax"   -log(e^f_y / Σ_i e^f_i)                        y the item that came
    "sampled"   the same over y and m drawn items, f_j less log(m q_j) for each drawn j
    "binary"    -log σ(f_y - log m q_y) - Σ_j log σ(log m q_j - f_j)   over the m drawn, none is y

with q the chance that an item is drawn. The corrections undo the drawing: e^f / Σ e^f of the second
and σ(f) of the third estimate the chance that an item is the next one, whatever q is. As a history
has an item once, the third leaves out drawn items that are in it already, as far as it is read.

Sources: W.-C. Kang and J. McAuley, Self-attentive sequential recommendation, ICDM 2018 (attention);
B. Hidasi et al., Session-based recommendations with recurrent neural networks, ICLR 2016 (GRU);
Y. Bengio and J.-S. Senécal, Adaptive importance sampling to accelerate training of a neural
probabilistic language model, IEEE TNN 19(4), 2008 (sampled softmax); R. Prentice and R. Pyke,
Logistic disease incidence models and case-control studies, Biometrika 66(3), 1979 (the offset).
"""

from __future__ import annotations

import torch
import xxhash
from torch import Tensor, nn
from torch.nn.functional import (
    cross_entropy,
    logsigmoid,
    scaled_dot_product_attention,
)
from torch.utils.checkpoint import checkpoint

from llmrec_kernels.recommenders.sequence_windows import HeldOut, Sequences

NETWORKS = ("attention", "gru", "lstm")
OBJECTIVES = ("softmax", "sampled", "binary")

_SCORES_AT_ONCE = 1 << 24  # 64 MB: of more scores of a batch, parts are worked out twice instead
_BESIDE_TEXTS = 0.02  # deviation of what is learned of an item at first, where its text has 1
_FLATTENED = 0.75  # power of an item's count by which it is drawn


class SequenceNetwork(nn.Module):
    """States of histories, of vectors in the order of time.

    Parameters
    ----------
    kind : str
        One of `NETWORKS`.
    dim, layers, heads : int
        Dimensions of vectors and states, layers, and heads of attention in each.
    max_length : int
        Most items of a history.
    dropout : float
        Of inputs and of what each layer adds.
    """

    def __init__(
        self, kind: str, dim: int, layers: int, heads: int, max_length: int, dropout: float
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)
        self.described = f"{kind}, layers={layers}, dim={dim}, heads={heads}, dropout={dropout}"
        self.recurrent: nn.GRU | nn.LSTM | None = None
        if kind == "attention":
            self.positions = nn.Parameter(torch.randn(max_length, dim) * 0.02)
            self.blocks = nn.ModuleList(Block(dim, heads, dropout) for _ in range(layers))
        else:
            made = nn.GRU if kind == "gru" else nn.LSTM
            between = dropout if layers > 1 else 0.0
            self.recurrent = made(dim, dim, layers, batch_first=True, dropout=between)

    def forward(self, inputs: Tensor) -> Tensor:
        """States, [B, T, d], of vectors, [B, T, d]; each of those before it and its own."""
        if self.recurrent is not None:
            states: Tensor = self.dropout(self.recurrent(self.dropout(inputs))[0])
        else:
            states = self.dropout(inputs + self.positions[: inputs.shape[1]])
            for block in self.blocks:
                states = block(states)
        normed: Tensor = self.norm(states)
        return normed


class Block(nn.Module):
    """Attention to what came before, and a layer at each place; both add to their input."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim)])
        self.asked = nn.Linear(dim, 3 * dim)
        self.told = nn.Linear(dim, dim)
        self.layer = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """States after the block, [B, T, d]."""
        parts = self.asked(self.norms[0](states)).unflatten(2, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # [B, heads, T, d / heads] each
        share = self.dropout.p if self.training else 0.0
        seen = scaled_dot_product_attention(query, key, value, dropout_p=share, is_causal=True)
        states = states + self.dropout(self.told(seen.transpose(1, 2).flatten(2)))
        more: Tensor = self.dropout(self.layer(self.norms[1](states)))
        return states + more


class ItemTable(nn.Module):
    """Vectors of items: a linear map of their texts', and what is learned of each beside it.

    Parameters
    ----------
    texts : Tensor, [N, e] float32
        Vectors of texts, which stay; e is 0 where there are none, and all is learned.
    dim : int
        Dimensions of the vectors.
    """

    texts: Tensor

    def __init__(self, texts: Tensor, dim: int) -> None:
        super().__init__()
        self.register_buffer("texts", texts, persistent=False)
        size = _BESIDE_TEXTS if texts.shape[1] else dim**-0.5
        self.own = nn.Parameter(torch.randn(len(texts), dim) * size)
        self.bias = nn.Parameter(torch.zeros(len(texts)))
        self.slope = nn.Parameter(principal(texts, dim))

    def forward(self) -> Tensor:
        """The vectors, [N, d]."""
        return self.own + self.texts @ self.slope


def principal(texts: Tensor, dim: int) -> Tensor:
    """The map [e, dim] onto the principal axes, after which vectors have a mean square of 1."""
    exact, slope = texts.double(), torch.zeros(texts.shape[1], dim)
    axes = torch.linalg.eigh(exact.T @ exact)[1].flip(1)[:, :dim]
    size = (exact @ axes).square().sum(dim=1).mean().sqrt()
    if size > 0:
        slope[:, : axes.shape[1]] = axes / size
    return slope


class NextItem:
    """The task of foretelling each item of a sequence from those before it.

    Parameters
    ----------
    table, states : ItemTable, SequenceNetwork
        What is learned.
    sequences : Sequences
        What it is learned from.
    held_out : HeldOut or None
        What it is validated on, by the mean of -log(e^f_y / Σ e^f).
    length : int
        Most items of a history.
    objective : str
        One of `OBJECTIVES`.
    negatives : int
        m: items drawn for a batch, where the objective draws.
    """

    def __init__(
        self,
        table: ItemTable,
        states: SequenceNetwork,
        sequences: Sequences,
        held_out: HeldOut | None,
        *,
        length: int,
        objective: str,
        negatives: int,
    ) -> None:
        self.network: nn.Module = nn.ModuleDict({"table": table, "states": states})
        self.size = len(sequences.first)
        self._table, self._states = table, states
        self._sequences, self._held_out, self._length = sequences, held_out, length
        self._objective, self._negatives = objective, negatives
        count = torch.bincount(sequences.items, minlength=len(table.bias)).double() + 1
        with torch.no_grad():
            table.bias.copy_((count / count.sum()).log())
        self._chance = (count**_FLATTENED / (count**_FLATTENED).sum()).float()
        self._usual = sequences.targets / self.size

    def loss(self, examples: Tensor) -> Tensor:
        """The sum over the targets of some windows, by as many as so many windows usually have.

        Not by their own: each target counts alike, whatever is drawn with it.
        """
        inputs, targets, there = self._sequences.batch(examples, self._length)
        vectors = self._table()
        states, targets = self._states(vectors[inputs])[there], targets[there]
        count = self._usual * len(examples)
        if self._objective == "softmax":
            return softmax_loss(states, targets, vectors, self._table.bias) / count
        drawn = torch.multinomial(self._chance, self._negatives, replacement=True)
        corrected = self._table.bias - (self._chance * self._negatives).log()
        came = (states * vectors[targets]).sum(dim=1) + corrected[targets]
        others = torch.addmm(corrected[drawn], states, vectors[drawn].T)
        others = others.masked_fill(targets[:, None] == drawn, -torch.inf)
        if self._objective == "binary":
            had = (inputs[:, :, None] == drawn).cumsum(dim=1, dtype=torch.uint8)[there] > 0
            others = others.masked_fill(had, -torch.inf)
        if self._objective == "sampled":
            every = torch.cat([came[:, None], others], dim=1)
            total: Tensor = (every.logsumexp(dim=1) - came).sum()
        else:
            total = -(logsigmoid(came).sum() + logsigmoid(-others).sum())
        return total / count

    def validate(self) -> float | None:
        """The mean loss of held-out items among all."""
        if self._held_out is None:
            return None
        vectors, total = self._table(), 0.0
        for inputs, last, targets in zip(*(one.split(64) for one in self._held_out), strict=True):
            states = self._states(vectors[inputs])[torch.arange(len(last)), last]
            total += float(softmax_loss(states, targets, vectors, self._table.bias))
        return total / len(self._held_out.targets)

    def identity(self) -> dict[str, str | int | float]:
        """What a checkpoint must have alike."""
        digest = xxhash.xxh3_64()
        for one in (*self._sequences, *(self._held_out or ()), self._table.texts):
            digest.update(one.contiguous().numpy())
        return {
            "items": len(self._table.bias),
            "architecture": self._states.described,
            "max_length": self._length,
            "objective": self._objective,
            "negatives": 0 if self._objective == "softmax" else self._negatives,
            "interactions": digest.hexdigest(),
        }


def softmax_loss(states: Tensor, targets: Tensor, vectors: Tensor, bias: Tensor) -> Tensor:
    """The sum over states, [P, d], of -log(e^f_y / Σ e^f); the scores of all are never held."""
    rows = max(1, _SCORES_AT_ONCE // len(vectors))
    if len(states) <= rows:
        return _softmax_loss(states, targets, vectors, bias)
    total = states.new_zeros(())
    for some, wanted in zip(states.split(rows), targets.split(rows), strict=True):
        part: Tensor = checkpoint(_softmax_loss, some, wanted, vectors, bias, use_reentrant=False)
        total = total + part
    return total


def _softmax_loss(states: Tensor, targets: Tensor, vectors: Tensor, bias: Tensor) -> Tensor:
    scores = torch.addmm(bias, states, vectors.T)
    return cross_entropy(scores, targets, reduction="sum")
