"""What tests have a process do with little memory: `python index_memory.py ACT FOLDER BYTES`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from llmrec_kernels import ItemIndex

DIM, PIECE, PIECES = 256, 8_192, 20
ROWS = PIECE * PIECES
K, THREADS = 50, 2


def vectors(number: int) -> torch.Tensor:
    """The rows of one piece, of which the ids are the numbers from PIECE * number on."""
    generator = torch.Generator().manual_seed(number)
    return torch.randn(PIECE, DIM, generator=generator)


def queries() -> torch.Tensor:
    return torch.randn(4, DIM, generator=torch.Generator().manual_seed(-1))


def gone() -> list[int]:
    """Ids that are removed in the end: a twentieth, all over the index."""
    return list(range(7, ROWS, 20))


def known() -> list[int]:
    """Ids whose vectors are asked for."""
    return list(range(0, ROWS, ROWS // 200 // 20 * 20))


def build(folder: Path) -> dict[str, Any]:
    """Make an index piece by piece, of which no two are in memory."""
    ItemIndex(DIM).save(folder)
    with ItemIndex.open(folder, mmap=True) as index:
        for number in range(PIECES):
            ids = torch.arange(PIECE * number, PIECE * (number + 1))
            index.add(ids, vectors(number))
            index.save(folder)
        index.remove(gone())
        index.save(folder)
        return index.stats()._asdict()


def search(folder: Path) -> dict[str, Any]:
    """Search what is mapped, look at some of it, and change it."""
    index = ItemIndex.load(folder, mmap=True)
    scores, ids = index.search(queries(), K)
    allowed = index.search(queries(), K, allow=known()).ids
    found = {
        "scores": scores.tolist(),
        "ids": ids.tolist(),
        "allowed": allowed.tolist(),
        "vectors": index.vectors(known()).double().sum(1).tolist(),
        "count": sum(1 for _ in index),
    }
    best = ids[:, 0].tolist()
    index.remove(best)
    index.update([1], queries()[:1])
    found["after"] = index.search(queries(), 2).ids.tolist()
    return found


def read(folder: Path) -> dict[str, Any]:
    """Load all of it into memory."""
    try:
        index = ItemIndex.load(folder)
    except MemoryError as error:
        return {"error": str(error), "mapped": len(ItemIndex.load(folder, mmap=True))}
    return {"error": "", "mapped": len(index)}


def status(name: str) -> int:
    """Bytes of memory of one kind, as the system counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def forget(folder: Path) -> None:
    """Have the system cache nothing of these files: what it cached is no burden of ours."""
    for path in folder.iterdir():
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def main(act: str, folder: str, limit: str) -> None:
    """Do it with so many bytes of memory of its own, or, if limit is a folder, in that cgroup."""
    torch.set_num_threads(THREADS)
    # What the first search of a process takes for good is no part of it.
    first = ItemIndex(DIM)
    first.add(range(64), vectors(0)[:64])
    first.search(queries(), 3)
    if limit.isdigit():
        import resource  # which not every system has

        most = status("VmData") + int(limit)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    else:
        forget(Path(folder))
        (Path(limit) / "cgroup.procs").write_text(str(os.getpid()))
    found = globals()[act](Path(folder))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
