"""Indexes to be saved, what they hold, and what is in their folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import llmrec_kernels
from llmrec_kernels import ItemIndex
from llmrec_kernels.index import disk, manifest

EXTREMES = [-(2**63), 2**63 - 1]


def said_by(script: str, *words: str) -> Any:
    """What a script says in JSON: in a process of its own, which has one thread to fork."""
    process = subprocess.run(
        [sys.executable, script, *words],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(llmrec_kernels.__file__).parents[1]),
        },
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


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


def opened(folder: Path, **options: Any) -> ItemIndex:
    """The same, saved and opened."""
    filled(**options).save(folder)
    return ItemIndex.open(folder)


def change(index: ItemIndex) -> None:
    """The change that follows the version that an index has: 2 rows come, 3 change, or 2 go."""
    seed, ids = index.version, list(index)
    if seed % 3 == 0:
        index.add([1000 + 2 * seed, 1001 + 2 * seed], numbers(2, index.dim, seed=seed))
    elif seed % 3 == 1:
        index.update(ids[:3], numbers(3, index.dim, seed=seed), bias=numbers(3, seed=seed))
    else:
        index.remove(ids[1:3])


def every_change(index: ItemIndex) -> Iterator[None]:
    """Each kind of change of an index of dimension 5 that has the ids 30 to 40, one at a time."""
    for act in (
        lambda: (
            index.add([9, 7, *EXTREMES], numbers(4, 5, seed=1), bias=numbers(4, seed=2))
            if EXTREMES[0] not in index
            else index.update(EXTREMES, numbers(2, 5, seed=1), bias=numbers(2, seed=2))
        ),
        lambda: index.update([38, 30], numbers(2, 5, seed=3)),
        lambda: index.update([34, 36], bias=numbers(2, seed=4)),
        lambda: index.update([36], numbers(1, 5, seed=5), scale=numbers(1, seed=6)),
        lambda: index.add([], torch.empty(0, 5)),
        lambda: index.remove([34, -(2**63)]),
        lambda: index.update([], bias=torch.empty(0)),
        lambda: index.add(range(10_000, 10_040), numbers(40, 5, seed=7), scale=numbers(40, seed=8)),
        lambda: index.remove([]),
        lambda: index.add([34], torch.zeros(1, 5)),
        lambda: index.remove(range(10_000, 10_040, 2)),
    ):
        act()
        yield


def broken_off_save(index: ItemIndex, folder: Path) -> None:
    """A save that ends before the manifest names what it wrote, as if by Ctrl-C."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            index.save(folder)


def files(folder: Path) -> dict[str, bytes]:
    """What is in a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def journal_of(folder: Path) -> Path:
    """The journal that the manifest names."""
    return folder / f"journal-{manifest.read(folder).journal}.log"


def known_files(folder: Path) -> set[str]:
    """The names that a folder should have: the manifest, and what it names."""
    return manifest.read(folder).files


def rewrite_manifest(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change what a manifest says, and have its checksum agree, as a stranger might."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content.pop("checksum")
    content = edit(content) or content
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    path.write_text(json.dumps({**content, "checksum": disk.checksum(text.encode())}))
