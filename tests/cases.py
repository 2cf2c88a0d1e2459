"""Inputs, and ways to run torch, that several test files share."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import oracle
import pytest
import torch

from llmrec_kernels import TopK, cosine_topk, explain, quantize

STORAGES = ("float32", "float16", "bfloat16", "float64", "int8", "int8-symmetric", "int4")
STORAGES += ("int4-symmetric", "fp8_e4m3")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stored(vectors: torch.Tensor, storage: str) -> Any:
    if storage.startswith(("int", "fp8")):
        dtype, _, scheme = storage.partition("-")
        return quantize(vectors, dtype, scheme=scheme or "affine")
    return vectors.to(getattr(torch, storage))


def fuses(backend: str) -> bool:
    """Whether this backend's bags are fused multiply-adds, as its instruction set has them."""
    return explain("embedding_bag", backend=backend).level not in (None, "scalar")


def check_topk(
    backend: str, queries: Any, items: Any, k: int, may: Any = None, **options: Any
) -> TopK:
    """Call `cosine_topk`, compare it with the oracle bit for bit, and hand the result on."""
    result = cosine_topk(queries, items, k, backend=backend, **options)
    formula = {"item_bias": np.zeros(len(items), dtype=np.float32)}  # the default is to add 0
    formula |= {n: options[n] for n in ("metric", "item_bias", "item_scale") if n in options}
    scores, ids = oracle.best(oracle.scores(queries, items, **formula), k, may)
    oracle.assert_same_bits(result.ids, ids)
    oracle.assert_same_bits(result.scores, scores)
    return result


@contextmanager
def tiles(scores: int, elements: int = 1 << 24, queries: int = 1024) -> Iterator[None]:
    """Shrink what plain torch handles at a time, so that a small problem takes many steps."""
    reference = importlib.import_module("llmrec_kernels.ops.cosine_topk.reference")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "TILE_SCORES", scores)
        patch.setattr(reference, "TILE_ELEMENTS", elements)
        patch.setattr(reference, "QUERY_BLOCK", queries)
        patch.setattr(reference, "RESCORE_ELEMENTS", 64)
        yield


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def matmul_precision(setting: str) -> Iterator[None]:
    torch.set_float32_matmul_precision(setting)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


@contextmanager
def mkldnn_precision(setting: str) -> Iterator[None]:
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = setting
    try:
        yield
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SETTINGS: dict[str, Any] = {
    "one thread": lambda: threads(1),
    "two threads": lambda: threads(2),
    "five threads": lambda: threads(5),
    "matmul precision high": lambda: matmul_precision("high"),
    "matmul precision medium": lambda: matmul_precision("medium"),
    "oneDNN in bfloat16": lambda: mkldnn_precision("bf16"),
    "bfloat16 autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float16 autocast": lambda: torch.autocast("cpu", torch.float16),
    "float64 by default": lambda: default_dtype(torch.float64),
    "deterministic algorithms": deterministic,
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "small tiles": lambda: tiles(scores=2000, elements=50000, queries=9),
}
