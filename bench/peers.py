"""Who is timed: what users call today, each in its best configuration, and ourselves.

A peer is given unit items once and then answers unit queries with ids. Every import of a peer's
library is inside its class: what is not installed is left out, by name.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from threadpoolctl import threadpool_info
from torch import Tensor
from turns import seconds_of

from llmrec_kernels import _library, cosine_topk, explain, pack
from llmrec_kernels.benchmarks import memory

_SPARE = 2**30  # bytes that stay free


@dataclass(frozen=True)
class Size:
    """What is asked of a peer: B queries, N items of d dimensions, k results."""

    queries: int
    items: int
    dim: int
    k: int

    @property
    def scores(self) -> int:
        """Entries of the whole score matrix."""
        return self.queries * self.items

    @property
    def elements(self) -> int:
        return self.items * self.dim


class Peer:
    """One way to find the top K.

    `exact` peers rank by a float32 score or better; of the others the recall is the news.
    """

    name: ClassVar[str]
    exact: ClassVar[bool] = True
    module: ClassVar[str | None] = None  # what must be installed, as it is imported
    package: ClassVar[str | None] = None  # and what pip calls it

    def __init__(self) -> None:
        self.configuration = ""

    def memory(self, size: Size) -> int:
        """Bytes that it needs beside the items, while it searches."""
        raise NotImplementedError

    def too_long(self, size: Size) -> str | None:
        """Why nobody would wait for it, if so."""
        return None

    def refusal(self, size: Size) -> str | None:
        """Why it cannot take part, in a sentence; None if it can."""
        if self.module is not None and importlib.util.find_spec(self.module) is None:
            return f"it is not installed: pip install {self.package}"
        free, needed = memory.free("cpu"), self.memory(size) + _SPARE
        if free is not None and free < needed:
            return f"it needs {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are available"
        return self.too_long(size)

    def prepare(self, items: Tensor) -> None:
        """Build what a user would build once. The items are not to be changed."""
        raise NotImplementedError

    def tune(self, queries: Tensor, k: int) -> None:
        """Choose the best configuration for such queries."""

    def search(self, queries: Tensor, k: int) -> Any:
        """Ids [B, k], best first, as NumPy or torch has them."""
        raise NotImplementedError


class Llmrec(Peer):
    """This package, packed once."""

    name = "llmrec"
    precision: ClassVar[str] = "exact"
    backend: ClassVar[str | None] = None

    def memory(self, size: Size) -> int:
        # The items again, their int8 codes, what a row needs besides, and the results' workspace.
        return 5 * size.elements + 32 * size.items + 64 * size.queries * size.k

    def prepare(self, items: Tensor) -> None:
        self._packed = pack(items)
        chosen = explain("cosine_topk", items, backend=self.backend)
        self.configuration = f"level {chosen.level}" if chosen.level else f"backend {chosen.chosen}"

    def search(self, queries: Tensor, k: int) -> Any:
        return cosine_topk(
            queries, self._packed, k, precision=self.precision, backend=self.backend
        ).ids


class LlmrecFast(Llmrec):
    """This package where the low-precision scan may decide."""

    name = "llmrec-fast"
    exact = False
    precision = "fast"


class LlmrecReference(Llmrec):
    """The readable definition in plain torch."""

    name = "llmrec-reference"
    backend = "reference"

    def too_long(self, size: Size) -> str | None:
        if size.scores * size.dim <= 20e9:
            return None
        return "it is plain torch, kept to judge the kernels: small cells are enough for its time"


class Faiss(Peer):
    """`IndexFlatIP` with the matrix product that is faster: its own, or that of BLAS."""

    name = "faiss-flat"
    module = "faiss"
    package = "faiss-cpu"

    def memory(self, size: Size) -> int:
        return 4 * size.elements + 16 * size.queries * size.k + 2**28

    def prepare(self, items: Tensor) -> None:
        with openblas_core():
            import faiss
        faiss.omp_set_num_threads(torch.get_num_threads())
        self._threshold = faiss.cvar.distance_compute_blas_threshold
        self._faiss = faiss
        self._index = faiss.IndexFlatIP(items.shape[1])
        self._index.add(items.numpy())

    def tune(self, queries: Tensor, k: int) -> None:
        """Try both sides of the threshold; BLAS gains with the batch, so some queries tell."""
        some = queries[:64]
        seconds = {}
        for threshold in (1, 10**9):  # always, and never
            self._threshold = threshold
            seconds[threshold] = min(seconds_of(lambda: self.search(some, k)) for _ in range(3))
        self._threshold = min(seconds, key=seconds.__getitem__)
        product = blas_of("faiss") if self._threshold == 1 else "its own product"
        self.configuration = f"{product}, BLAS threshold {self._threshold:,}"

    def search(self, queries: Tensor, k: int) -> Any:
        self._faiss.cvar.distance_compute_blas_threshold = self._threshold
        return self._index.search(queries.numpy(), k)[1]


class TorchFloat32(Peer):
    """A matrix product and `topk`."""

    name = "torch-float32"

    def memory(self, size: Size) -> int:
        return 4 * size.scores

    def prepare(self, items: Tensor) -> None:
        self._transposed = items.T

    def search(self, queries: Tensor, k: int) -> Any:
        return torch.topk(queries @ self._transposed, k).indices


class TorchBfloat16(TorchFloat32):
    """The same in bfloat16, for which processors have faster units."""

    name = "torch-bfloat16"
    exact = False

    def memory(self, size: Size) -> int:
        return 2 * size.elements + 2 * size.scores

    def prepare(self, items: Tensor) -> None:
        super().prepare(items.bfloat16())

    def search(self, queries: Tensor, k: int) -> Any:
        return super().search(queries.bfloat16(), k)


class Numpy(Peer):
    """A matrix product, `argpartition`, and a sort of what it leaves; some queries at a time."""

    name = "numpy"
    _ENTRIES = 2**26  # of the score matrix at a time

    def memory(self, size: Size) -> int:
        return 12 * max(self._ENTRIES, size.items)  # scores, and ids of 64 bits for all of them

    def prepare(self, items: Tensor) -> None:
        self._transposed = items.numpy().T
        self.configuration = blas_of("numpy")

    def search(self, queries: Tensor, k: int) -> Any:
        batch = max(1, self._ENTRIES // self._transposed.shape[1])
        return np.concatenate([self._some(rows.numpy(), k) for rows in queries.split(batch)])

    def _some(self, queries: np.ndarray, k: int) -> np.ndarray:
        scores = queries @ self._transposed
        best = np.argpartition(scores, -k, axis=1)[:, -k:]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
        return np.take_along_axis(best, order, axis=1)


class Usearch(Peer):
    """Exact search, with no index to build."""

    name = "usearch-exact"
    module = "usearch"
    package = "usearch"

    def memory(self, size: Size) -> int:
        return 2**28 + 64 * size.queries * size.k

    def prepare(self, items: Tensor) -> None:
        self._items = items.numpy()

    def too_long(self, size: Size) -> str | None:
        if size.scores * size.dim <= 40e9:
            return None
        return "its time grows with the queries, and would be most of the run; smaller cells tell"

    def search(self, queries: Tensor, k: int) -> Any:
        from usearch.index import MetricKind, search

        found = search(
            self._items,
            self.encoded(queries),
            k,
            MetricKind.IP,
            exact=True,
            threads=torch.get_num_threads(),
        )
        return np.atleast_2d(found.keys)

    def encoded(self, queries: Tensor) -> np.ndarray:
        return queries.numpy()


class UsearchInt8(Usearch):
    """The same over int8 codes with one scale, and nothing to make up for the rounding."""

    name = "usearch-int8"
    exact = False

    def memory(self, size: Size) -> int:
        return super().memory(size) + 9 * size.elements  # the codes, while they are made

    def prepare(self, items: Tensor) -> None:
        self._items = self.encoded(items)

    def encoded(self, queries: Tensor) -> np.ndarray:
        return (queries * (127 / queries.abs().max())).round().to(torch.int8).numpy()


class Hnswlib(Peer):
    """A graph index: approximate, and built first."""

    name = "hnswlib"
    exact = False
    module = "hnswlib"
    package = "hnswlib (from source, with a C++ compiler)"

    def memory(self, size: Size) -> int:
        return 4 * size.elements + 200 * size.items

    def too_long(self, size: Size) -> str | None:
        if size.elements <= 10_000_000:
            return None
        return f"it would be minutes before its graph of {size.items:,} items is built"

    def prepare(self, items: Tensor) -> None:
        import hnswlib

        self._index = hnswlib.Index("ip", items.shape[1])
        self._index.init_index(len(items), M=16, ef_construction=200)
        self._index.set_num_threads(torch.get_num_threads())
        self._built = seconds_of(lambda: self._index.add_items(items.numpy()))

    def tune(self, queries: Tensor, k: int) -> None:
        breadth = max(2 * k, 50)
        self._index.set_ef(breadth)
        self.configuration = f"M 16, ef {breadth}, built in {self._built:.0f} s"

    def search(self, queries: Tensor, k: int) -> Any:
        return self._index.knn_query(queries.numpy(), k)[0].astype(np.int64)


PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        Llmrec,
        LlmrecFast,
        LlmrecReference,
        Faiss,
        TorchFloat32,
        TorchBfloat16,
        Usearch,
        UsearchInt8,
        Numpy,
        Hnswlib,
    )
}


def blas_of(package: str) -> str:
    """The BLAS inside a package, and the processor that it works for."""
    for library in threadpool_info():
        if library["user_api"] == "blas" and package in library["filepath"]:
            core = library.get("architecture", "an unnamed processor")
            return f"{library['internal_api']} {library['version']} for {core}"
    return "a BLAS of its own"


@contextmanager
def openblas_core() -> Iterator[None]:
    """Help an OpenBLAS that is older than the processor, such as the one inside faiss.

    It falls back to SSE3 where it does not know the model, and is three times slower for it. What
    the processor can do it is told by a variable, which it reads once, while it is loaded.
    """
    refused = _library.build_info().get("refused_levels", {"avx512": "", "avx2": ""})
    core = next((core for level, core in _CORES if level not in refused), None)
    before = os.environ.get(_CORE_TYPE)
    if core is not None:
        os.environ[_CORE_TYPE] = core
    try:
        yield
    finally:
        os.environ.pop(_CORE_TYPE, None)
        if before is not None:
            os.environ[_CORE_TYPE] = before


_CORE_TYPE = "OPENBLAS_CORETYPE"
_CORES = (("avx512", "SkylakeX"), ("avx2", "Haswell"))
