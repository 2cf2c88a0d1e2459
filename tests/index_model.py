"""What an `ItemIndex` promises: the operator over all its vectors, in the order of their ids."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import torch

from llmrec_kernels import cosine_topk, quantize
from llmrec_kernels.index import intake, search, store
from llmrec_kernels.index.tail import Prefix

METRICS = ("cosine", "dot")

# Vector, bias and scale by id. A change makes another dictionary.
Contents = dict[int, tuple[list[float], float, float]]


# Few different numbers make many equal scores. A row is drawn as one number, for speed.
NUMBERS = (-1.0, 0.0, 0.5, 1.0)


def row_of(number: int) -> tuple[list[float], float, float]:
    """One of 256 rows: vector, bias and scale."""
    one, two, bias, scale = (NUMBERS[number // 4**n % 4] for n in range(4))
    return [one, two], bias, scale


def columns_of(rows: Contents) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    vectors, bias, scale = ([each[n] for each in rows.values()] for n in range(3))
    return torch.tensor(vectors).reshape(-1, 2), torch.tensor(bias), torch.tensor(scale)


class State(NamedTuple):
    """All that an index says of one version of itself."""

    version: int
    ids: list[int]
    vectors: list[list[float]]
    answers: list[list[list[tuple[float, int]]]]  # to PROBES, in which biases and scales show


PROBES = torch.tensor([[1.0, 0.0], [0.5, -1.0]])


@dataclasses.dataclass
class Model:
    """What an index of these rows answers."""

    metric: str
    storage: str
    rows: Contents

    def items(self) -> Any:
        vectors = torch.tensor([self.rows[one][0] for one in sorted(self.rows)])
        vectors = vectors.reshape(len(self.rows), -1)
        if self.storage in ("int8", "int4"):
            return quantize(vectors, self.storage)
        return vectors.to(getattr(torch, self.storage))

    def vectors(self) -> torch.Tensor:
        """As they are kept, in the order of their ids."""
        items = self.items()
        return (items if isinstance(items, torch.Tensor) else items.dequantize()).float()

    def search(self, queries, k, exclude=None, allow=None) -> list[list[tuple[float, int]]]:
        """Scores and external ids; `exclude` and `allow` are lists per query, or None."""
        ids = sorted(self.rows)
        if not ids:
            return [[(-np.inf, -1)] * k] * len(queries)
        place = {one: i for i, one in enumerate(ids)}
        hidden = None
        if exclude is not None:
            hidden = [[place[one] for one in row if one in place] for row in exclude]
        shown = None if allow is None else [[place[one] for one in row] for row in allow]
        scores, found = cosine_topk(
            queries,
            self.items(),
            k,
            metric=self.metric,
            item_bias=torch.tensor([self.rows[one][1] for one in ids]),
            item_scale=torch.tensor([self.rows[one][2] for one in ids]),
            exclude=hidden,
            allow=shown,
            backend="reference",
        )
        return [
            [(score, ids[i] if i >= 0 else -1) for score, i in zip(*row, strict=True)]
            for row in zip(scores.tolist(), found.tolist(), strict=True)
        ]

    def state(self, version: int) -> State:
        """Of an index of two dimensions that has seen so many changes."""
        vectors = self.vectors().tolist() if self.rows else []
        answers = [self.search(PROBES, k) for k in (2, len(self.rows) + 1)]
        return State(version, sorted(self.rows), vectors, answers)


def state_of(index: Any) -> State:
    """The same of an index or a snapshot."""
    ids = list(index)
    vectors = index.vectors(ids).tolist()
    answers = [pairs(index.search(PROBES, k)) for k in (2, len(ids) + 1)]
    return State(index.version, ids, vectors, answers)


def pairs(topk) -> list[list[tuple[float, int]]]:
    return [
        list(zip(*row, strict=True))
        for row in zip(topk.scores.tolist(), topk.ids.tolist(), strict=True)
    ]


# Changes that are refused, of an id that is known and one that is not.
REFUSED = {
    "an id twice": (lambda i, known, new: i.add([new, new], torch.ones(2, 2)), ValueError),
    "a known id": (lambda i, known, new: i.add([new, known], torch.ones(2, 2)), ValueError),
    "NaN": (lambda i, known, new: i.add([new], torch.full((1, 2), torch.nan)), ValueError),
    "other columns": (lambda i, known, new: i.add([new], torch.ones(1, 3)), ValueError),
    "update of an unknown id": (
        lambda i, known, new: i.update([known, new], torch.ones(2, 2)),
        IndexError,
    ),
    "update with NaN": (
        lambda i, known, new: i.update([known], bias=torch.full((1,), torch.nan)),
        ValueError,
    ),
    "an unknown id": (lambda i, known, new: i.remove([known, new]), IndexError),
}


# Constants so small that a dozen rows are sealed, merged, split and written anew.
SMALL = {"TAIL": 4, "FAN": 2, "MERGED": 12, "LARGEST": 16, "WORTH": 2}
ODD = {"TAIL": 5, "FAN": 3, "MERGED": 40, "LARGEST": 18, "WORTH": 2}
CONSTANTS = {
    "small": (SMALL, {"MORE": 0, "FIRST": 2, "BLOCK": 6}),  # each tie at the cut is looked at twice
    "odd": (ODD, {"MORE": 0, "FIRST": 1, "BLOCK": 4}),
    "as they are": ({}, {}),
}


def lowered(monkeypatch, name: str) -> None:
    """Have an index use these."""
    sizes, looks = CONSTANTS[name]
    for constant, value in sizes.items():
        monkeypatch.setattr(store, constant, value)
    monkeypatch.setattr(intake, "LARGEST", store.LARGEST)
    for constant, value in looks.items():
        monkeypatch.setattr(search, constant, value)


# What `counted` counts.
SELF = (
    *("merge", "seal", "rewrite", "split", "new tail with rows", "second look"),
    "compact to several",
)


def counted(monkeypatch, happened: Counter[str]) -> None:
    """Count what the index does by itself, so that nobody takes it for tested who never saw it."""

    def merged(pieces, real=store.merged):
        tail = isinstance(pieces[0][0], Prefix)
        happened["merge" if len(pieces) > 1 else "seal" if tail else "rewrite"] += 1
        return real(pieces)

    def pieces_of(ids, real=intake._pieces):
        found = real(ids)
        happened["split"] += len(found) > 1
        return found

    def start_tail(self, parts, kept=None, real=store.Store._start_tail):
        happened["new tail with rows"] += kept is not None
        return real(self, parts, kept)

    def at(self, cut, needed, real=search.PartSearch._at):
        happened["second look"] += 1
        return real(self, cut, needed)

    def compact(self, keep, real=store.Store.compact):
        real(self, keep)
        happened["compact to several"] += len(self.version.parts) > 2

    monkeypatch.setattr(store, "merged", merged)
    monkeypatch.setattr(intake, "_pieces", pieces_of)
    monkeypatch.setattr(store.Store, "_start_tail", start_tail)
    monkeypatch.setattr(search.PartSearch, "_at", at)
    monkeypatch.setattr(store.Store, "compact", compact)
