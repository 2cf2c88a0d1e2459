"""Indexes to be saved, what they hold, and what is in their folders."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from llmrec_kernels import ItemIndex
from llmrec_kernels.index import disk, manifest

EXTREMES = [-(2**63), 2**63 - 1]


class Contents(NamedTuple):
    """All that an index answers, to be compared bit for bit."""

    version: int
    kind: tuple[int, str, str]
    ids: list[int]
    vectors: bytes
    scores: bytes
    found: list[list[int]]


def contents(index: ItemIndex) -> Contents:
    """What an index holds: its ids, its vectors, and the order of all of them in searches."""
    ids = list(index)
    queries = numbers(3, index.dim, seed=0)
    scores, found = index.search(queries, len(ids) + 2)
    return Contents(
        index.version,
        (index.dim, index.metric, index.storage),
        ids,
        index.vectors(ids).numpy().tobytes(),
        scores.numpy().tobytes(),
        found.tolist(),
    )


def numbers(*shape: int, seed: int) -> torch.Tensor:
    """Normal numbers that are the same each time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(
    *,
    dim: int = 5,
    storage: str = "float32",
    metric: str = "cosine",
    given: tuple[str, ...] = (),
    removed: bool = False,
    seed: int = 0,
) -> ItemIndex:
    """An index of 60 rows, or 49 where some are removed; `given` names bias and scale.

    With a tail of 16 rows it has two segments, the first of which has neither bias nor scale.
    """
    index = ItemIndex(dim, metric=metric, storage=storage)
    index.add(range(30, 70, 2), numbers(20, dim, seed=seed + 1))
    more = {name: numbers(30, seed=seed + 2 + len(name)) for name in given}
    index.add([*range(-28, 28, 2), *EXTREMES], numbers(30, dim, seed=seed + 10), **more)
    index.add(range(1, 21, 2), numbers(10, dim, seed=seed + 11))
    if removed:
        index.remove([64, 32, -28, 5, 2**63 - 1])
        index.remove([0, 2, 4, 44, 19, 1])
    return index


def files(folder: Path) -> dict[str, bytes]:
    """What is in a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def known_files(folder: Path) -> set[str]:
    """The names that a folder should have: the manifest, and what it names."""
    return manifest.read(folder).files


def rewrite_manifest(folder: Path, change) -> None:
    """Change what a manifest says, and have its checksum agree, as a stranger might."""
    import json

    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content.pop("checksum")
    content = change(content) or content
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    path.write_text(json.dumps({**content, "checksum": disk.checksum(text.encode())}))
