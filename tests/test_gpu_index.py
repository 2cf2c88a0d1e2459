"""An index on a GPU gives the answers of one on the CPU: `pytest -m gpu`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cases import random
from gpu_dry_run import DEVICE, needs_gpu

from llmrec_kernels import ItemIndex
from llmrec_kernels.index import STORAGES

pytestmark = needs_gpu


@pytest.mark.parametrize("storage", STORAGES)
def test_the_same_changes_give_the_same_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, storage: str
) -> None:
    monkeypatch.setattr("llmrec_kernels.index.store.TAIL", 32)  # so that there are segments
    vectors, queries = random(300, 24), random(5, 24, seed=1)
    vectors[100:110] = vectors[0]  # equal scores
    ids = torch.randperm(300, generator=torch.Generator().manual_seed(2)) - 150
    indexes = [ItemIndex(24, storage=storage, device=each) for each in ("cpu", DEVICE)]
    for index in indexes:
        for start in range(0, 300, 20):
            part = slice(start, start + 20)
            bias = torch.linspace(-1, 1, 20) if start % 60 == 0 else None
            index.add(ids[part], vectors[part], bias=bias)
        index.remove(ids[:250:7])
        index.update(ids[1:30:7], vectors[:5], scale=torch.full((5,), 0.5))
        index.save(tmp_path / index.device.type)
    again = [
        ItemIndex.load(tmp_path / index.device.type, device=other.device)
        for index, other in zip(indexes, reversed(indexes), strict=True)
    ]
    left = sorted(set(ids.tolist()) - set(ids[:250:7].tolist()))
    filters = {"exclude": [left[:9], [], left[5:7], [], []], "allow": left[3:200]}
    want, narrow = indexes[0].search(queries, 12), indexes[0].search(queries, 12, **filters)
    for index in (indexes[1], *again):
        there = queries.to(index.device)
        for found, of_cpu in (
            (index.search(there, 12), want),
            (index.search(there, 12, **filters), narrow),
        ):
            assert torch.equal(found.ids.cpu(), of_cpu.ids)
            assert torch.equal(found.scores.cpu(), of_cpu.scores)
        assert torch.equal(index.vectors(left).cpu(), indexes[0].vectors(left))
        assert index.vectors(torch.tensor(left).numpy()).shape == (len(left), 24)
        assert list(index) == left
