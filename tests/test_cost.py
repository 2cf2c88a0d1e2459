"""What a call costs is computed from its real arguments, and PyTorch's own counter agrees."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import random
from torch.utils.flop_counter import FlopCounterMode

from llmrec_kernels import (
    Ragged,
    candidate_scores,
    cosine_topk,
    cost,
    embedding_bag,
    pack,
    quantize,
)
from llmrec_kernels.cost import Cost

B, N, D = 3, 50, 16
Q, X = random(B, D), random(N, D, seed=1)
LISTS = Ragged.of([[1, 2], [], [9, 3, 1]])  # 5 pairs
INDICES, OFFSETS = torch.tensor([0, 3, 9, 9]), torch.tensor([0, 1])

# What a person counts: two flops for each multiply-add of a similarity.
CALLS: dict[str, tuple[Callable[[str], Any], int]] = {
    "cosine_topk": (lambda b: cosine_topk(Q, X, 4, backend=b), 2 * 3 * 50 * 16),
    "cosine_topk, dot": (
        lambda b: cosine_topk(Q, X, 4, metric="dot", exclude=[1], backend=b),
        2 * 3 * 50 * 16,
    ),
    "cosine_topk, no queries": (lambda b: cosine_topk(Q[:0], X, 4, backend=b), 0),
    "candidate_scores": (lambda b: candidate_scores(Q, X, LISTS, backend=b), 2 * 5 * 16),
    "candidate_scores, k": (lambda b: candidate_scores(Q, X, LISTS, k=2, backend=b), 2 * 5 * 16),
    "embedding_bag": (lambda b: embedding_bag(X, INDICES, OFFSETS, backend=b), 4 * 16),
    "embedding_bag, weighted": (
        lambda b: embedding_bag(X, INDICES, OFFSETS, per_sample_weights=torch.ones(4), backend=b),
        2 * 4 * 16,
    ),
    "pack": (lambda b: pack(X, backend=b), 9 * 50 * 16),
    "quantize": (lambda b: quantize(X, backend=b), 5 * 50 * 16),
}


def counted(call: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("name", CALLS)
def test_the_flops_that_torch_counts_are_those_of_the_definition(backend: str, name: str) -> None:
    call, flops = CALLS[name]
    assert counted(lambda: call(backend)) == flops


def test_calls_add_up_and_nothing_is_counted_twice(backend: str) -> None:
    table = quantize(X, backend=backend)

    def both() -> None:
        cosine_topk(Q, X, 4, backend=backend)
        cosine_topk(Q, table, 4, backend=backend)
        Q @ X.T

    assert counted(both) == 3 * 2 * 3 * 50 * 16


def test_a_backward_pass_is_counted_besides(backend: str) -> None:
    queries, items = Q.clone().requires_grad_(), X.clone().requires_grad_()
    forward, backward = 2 * 5 * 16, 4 * 5 * 16
    assert (
        counted(lambda: candidate_scores(queries, items, LISTS, backend=backend).sum().backward())
        == forward + backward
    )
    table = X.clone().requires_grad_()
    forward, backward = 4 * 16, 2 * 4 * 16
    assert (
        counted(lambda: embedding_bag(table, INDICES, OFFSETS, backend=backend).sum().backward())
        == forward + backward
    )


def test_flops_do_not_depend_on_how_plain_torch_cuts_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = importlib.import_module("llmrec_kernels.ops.cosine_topk.reference")
    monkeypatch.setattr(module, "TILE_SCORES", 10)
    assert counted(lambda: cosine_topk(Q, X, 4, backend="reference")) == 2 * 3 * 50 * 16


# ---- bytes: what must move at least once ----


def cost_of(name: str, *arguments: Any, **options: Any) -> Cost:
    op = getattr(torch.ops.llmrec, name)
    formula = cost.formula(op)
    assert formula is not None
    return formula.count(*arguments, out=op(*arguments, **options))


def topk_arguments(data: torch.Tensor, k: int, **rest: Any) -> list[Any]:
    names = ("scale", "bias", "inverse_norms", "codes", "unit_scale", "residual", "bits")
    head = [Q, data, *[rest.get(name, 0 if name == "bits" else None) for name in names], k, 0]
    filters = ("item_bias", "item_scale", "exclude_ids", "exclude_offsets", "allow_mask")
    filters += ("allow_ids", "allow_offsets")
    return [*head, *[rest.get(name) for name in filters], True]


def test_bytes_of_a_search() -> None:
    results = B * 4 * (4 + 8)
    found = cost_of("cosine_topk", *topk_arguments(X, 4))
    assert found == Cost(2 * B * N * D, 0, 4 * D * (B + N), results)
    found = cost_of("cosine_topk", *topk_arguments(X.half(), 4, item_bias=torch.zeros(N)))
    assert found.bytes_read == 4 * D * B + 2 * D * N + 4 * N
    rows = quantize(X, "int4").rows()
    parts = {"scale": rows.scale, "bias": rows.bias, "bits": 4}
    found = cost_of("cosine_topk", *topk_arguments(rows.data, 4, **parts))
    assert found.bytes_read == 4 * D * B + N * (D // 2 + 2 + 2)
    rows = pack(X.half()).rows()
    assert rows.sketch is not None
    parts = {"inverse_norms": rows.inverse_norms, **rows.sketch._asdict()}
    found = cost_of("cosine_topk", *topk_arguments(rows.data, 4, **parts))
    # Of the items themselves only those that are returned: a row and its inverse norm.
    assert found == Cost(
        2 * B * N * D, 0, 4 * D * B + N * (D + 4 + 4) + B * 4 * (2 * D + 8), results
    )
    seen = {"exclude_ids": LISTS.values, "exclude_offsets": LISTS.offsets}
    seen["allow_mask"] = torch.ones(N, dtype=torch.bool)
    found = cost_of("cosine_topk", *topk_arguments(X, 4, **seen))
    assert found.bytes_read == 4 * D * (B + N) + 8 * 5 + 8 * 4 + N


def test_bytes_of_candidates_are_those_of_the_rows_they_name() -> None:
    arguments = [Q, X, None, None, None, 0, LISTS.values, LISTS.offsets, 0, None, None, 0.0]
    found = cost_of("candidate_scores", *arguments, None, None)
    assert found == Cost(2 * 5 * D, 0, 4 * D * B + 8 * 5 + 8 * 4 + 5 * 4 * D, 5 * 4)


def test_bytes_of_a_pooled_lookup_are_those_of_the_rows_it_names() -> None:
    bounds = torch.tensor([0, 1, 4])
    found = cost_of("embedding_bag", X, None, None, 0, D, INDICES, bounds, 0, None, -1, False, 0)
    assert found == Cost(4 * D, 0, 4 * 4 * D + 8 * (4 + 3), 2 * D * 4)
    rows = quantize(X).rows()
    found = cost_of(
        "embedding_bag", rows.data, rows.scale, rows.bias, 8, D, INDICES, bounds, 0, None, -1,
        False, 1,
    )  # fmt: skip
    # Widening a code is a multiply and an add, pooling one more.
    assert found == Cost(3 * 4 * D, 0, 4 * (D + 4 + 4) + 8 * (4 + 3), 2 * D * 2)


def test_bytes_of_packing_and_quantizing() -> None:
    found = cost_of("pack", X, None, None, 0, D)
    # 50 rows of codes are four blocks of 16.
    assert found == Cost(9 * N * D, 0, 4 * N * D, N * (4 * D + 8 + 8) + 64 * D)
    found = cost_of("quantize", X, 1, False)  # int4
    assert found == Cost(5 * N * D, 0, 4 * N * D, N * (D // 2 + 2 + 2))


# ---- the registry ----


def test_costs_add_up() -> None:
    total = sum([Cost(1, 2, 3, 4), Cost(10, 20, 30, 40)], Cost())
    assert total == Cost(11, 22, 33, 44)
    assert total.bytes == 33 + 44


@pytest.mark.parametrize(
    "name",
    [
        "cosine_topk", "candidate_scores", "embedding_bag", "quantize", "pack",
        "candidate_scores_backward", "embedding_bag_backward",
    ],
)  # fmt: skip
def test_every_operator_has_a_formula(name: str) -> None:
    plain = cost.formula(getattr(torch.ops.llmrec, name))
    assert plain is not None
    assert cost.formula(getattr(torch.ops.llmrec, f"{name}_reference")) is plain
    assert cost.formula(torch.ops.aten.mm) is None
