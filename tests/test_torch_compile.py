"""The operators are citizens of torch: opcheck, torch.compile without graph breaks, export."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import random
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.export import Dim, export

from llmrec_kernels import (
    Ragged,
    candidate_scores,
    cosine_topk,
    embedding_bag,
    pack,
    quantize,
)

B, N, D = 3, 12, 8
Q, X = random(B, D), random(N, D, seed=1)
LISTS = Ragged.of([[1, 2], [], [9, 3, 1]])
INDICES, BOUNDS = torch.tensor([0, 3, 9, 9]), torch.tensor([0, 1, 4])
SUFFIXES = ("", "_reference")


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()


# ---- opcheck: schema, fake kernel, autograd registration, dynamic shapes ----


def topk_arguments(**changes: Any) -> tuple[Any, ...]:
    arguments: dict[str, Any] = {
        "queries": Q, "data": X, "scale": None, "bias": None, "inverse_norms": None,
        "codes": None, "unit_scale": None, "residual": None, "bits": 0, "k": 4, "metric": 0,
        "item_bias": None, "item_scale": None, "exclude_ids": None, "exclude_offsets": None,
        "allow_mask": None, "allow_ids": None, "allow_offsets": None, "exact": True,
    }  # fmt: skip
    return tuple({**arguments, **changes}.values())


ROWS = {dtype: quantize(X, dtype).rows() for dtype in ("int8", "int4")}
PACKED = pack(X.half()).rows()
assert PACKED.sketch is not None
TOPK = {
    "plain": topk_arguments(),
    "padded": topk_arguments(k=20, metric=1),
    "int4": topk_arguments(
        data=ROWS["int4"].data, scale=ROWS["int4"].scale, bias=ROWS["int4"].bias, bits=4
    ),
    "packed": topk_arguments(
        data=PACKED.data, inverse_norms=PACKED.inverse_norms, **PACKED.sketch._asdict()
    ),
    "filtered": topk_arguments(
        item_bias=random(N), item_scale=random(N), exclude_ids=LISTS.values,
        exclude_offsets=LISTS.offsets, allow_mask=torch.ones(N, dtype=torch.bool),
    ),
    "allowed": topk_arguments(exclude_ids=LISTS.values, allow_ids=LISTS.values),
}  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", TOPK)
def test_opcheck_of_cosine_topk(suffix: str, name: str) -> None:
    op = getattr(torch.ops.llmrec, f"cosine_topk{suffix}").default
    torch.library.opcheck(op, TOPK[name])


def leaf(tensor: Tensor) -> Tensor:
    return tensor.clone().requires_grad_()


def candidate_arguments(kind: str, metric: int = 0) -> tuple[Any, ...]:
    rest = (LISTS.values, LISTS.offsets, metric)
    if kind == "float":
        biases = [leaf(random(B, seed=2)), leaf(random(N, seed=3))]
        terms = (*biases, 0.5, random(B, seed=4), random(N, seed=5))
        return (leaf(Q), leaf(X), None, None, None, 0, *rest, *terms)
    rows = ROWS["int8"]
    return (leaf(Q), rows.data, rows.scale, rows.bias, None, 8, *rest, None, None, 0.0, None, None)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("metric", [0, 1])
@pytest.mark.parametrize("kind", ["float", "int8"])
def test_opcheck_of_candidate_scores(suffix: str, kind: str, metric: int) -> None:
    packet = getattr(torch.ops.llmrec, f"candidate_scores{suffix}")
    torch.library.opcheck(packet.default, candidate_arguments(kind, metric))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["float", "int8"])
def test_opcheck_of_the_best_candidates(suffix: str, kind: str) -> None:
    packet = getattr(torch.ops.llmrec, f"candidate_scores{suffix}")
    arguments = [a.detach() if isinstance(a, Tensor) else a for a in candidate_arguments(kind)]
    torch.library.opcheck(packet.topk, (*arguments, 2))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["float", "int8"])
def test_opcheck_of_the_gradient_of_candidate_scores(suffix: str, kind: str) -> None:
    op = getattr(torch.ops.llmrec, f"candidate_scores_backward{suffix}").default
    arguments = [a.detach() if isinstance(a, Tensor) else a for a in candidate_arguments(kind)]
    queries, data, scale, bias, _, bits, candidates, offsets, metric = arguments[:9]
    rows = (queries, data, scale, bias, bits, candidates, offsets, metric, *arguments[12:])
    torch.library.opcheck(op, (random(5, seed=7), *rows))


def bag_arguments(kind: str, mode: int) -> tuple[Any, ...]:
    weights = leaf(random(4, seed=6)) if mode < 2 else None
    rows = ROWS["int4"]
    table = (leaf(X), None, None, 0) if kind == "float" else (rows.data, rows.scale, rows.bias, 4)
    return (*table, D, INDICES, BOUNDS, mode, weights, 3, mode == 1, 0)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("kind", ["float", "int4"])
def test_opcheck_of_embedding_bag(suffix: str, kind: str, mode: int) -> None:
    op = getattr(torch.ops.llmrec, f"embedding_bag{suffix}").default
    torch.library.opcheck(op, bag_arguments(kind, mode))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("kind", ["float", "int4"])
def test_opcheck_of_the_gradient_of_embedding_bag(suffix: str, kind: str, mode: int) -> None:
    op = getattr(torch.ops.llmrec, f"embedding_bag_backward{suffix}").default
    arguments = [a.detach() if isinstance(a, Tensor) else a for a in bag_arguments(kind, mode)]
    torch.library.opcheck(op, (random(2, D, seed=7), *arguments[:-1]))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", range(5))
@pytest.mark.parametrize("symmetric", [False, True])
def test_opcheck_of_quantize(suffix: str, dtype: int, symmetric: bool) -> None:
    op = getattr(torch.ops.llmrec, f"quantize{suffix}").default
    torch.library.opcheck(op, (random(5, 7), dtype, symmetric))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["float", "int8", "int4"])
def test_opcheck_of_pack(suffix: str, dtype: str) -> None:
    op = getattr(torch.ops.llmrec, f"pack{suffix}").default
    rows = ROWS.get(dtype)
    table = (X.T.contiguous().T, None, None, 0, D) if rows is None else rows[:5]
    torch.library.opcheck(op, tuple(table))


# ---- torch.compile ----

GRID = torch.tensor([[1, 2], [3, 3]])
FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "search": (lambda q, x, b: cosine_topk(q, x, 2, backend=b), (Q, X)),
    "search with everything": (
        lambda q, x, bias, seen, starts, mask, b: cosine_topk(
            q, x, 3, metric="dot", item_bias=bias, exclude=Ragged(seen, starts), allow=mask,
            backend=b,
        ),
        (Q, X, random(N), LISTS.values, LISTS.offsets, torch.arange(N) > 2),
    ),
    "search with lists": (
        lambda q, x, b: cosine_topk(q, x, 2, exclude=[[1], [], [0, 3]], allow=[5, 1, 7], backend=b),
        (Q, X),
    ),
    "search of a pack": (lambda q, x, b: cosine_topk(q, pack(x, backend=b), 2, backend=b), (Q, X)),
    "search of int4": (
        lambda q, x, b: cosine_topk(q, quantize(x, "int4", backend=b), 2, backend=b),
        (Q, X),
    ),
    "candidates": (
        lambda q, x, ids, starts, b: candidate_scores(q, x, Ragged(ids, starts), backend=b),
        (Q, X, LISTS.values, LISTS.offsets),
    ),
    "best candidates": (
        lambda q, x, ids, starts, b: candidate_scores(q, x, Ragged(ids, starts), k=2, backend=b),
        (Q, X, LISTS.values, LISTS.offsets),
    ),
    "bags": (
        lambda x, i, o, b: embedding_bag(x, i, o, mode="mean", padding_idx=0, backend=b),
        (X, INDICES, BOUNDS[:-1]),
    ),
    "grid of bags": (
        lambda x, i, b: embedding_bag(x, i, mode="max", normalize=True, backend=b),
        (X, GRID),
    ),
    "quantized bags": (
        lambda x, i, b: embedding_bag(quantize(x, backend=b), i, backend=b),
        (X, GRID),
    ),
}  # fmt: skip


def tensors_of(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_whole_graph_is_compiled_and_gives_the_same_bits(
    backend: str, name: str, compiler: str
) -> None:
    function, inputs = FUNCTIONS[name]
    compiled = torch.compile(function, backend=compiler, fullgraph=True)
    for got, want in zip(
        tensors_of(compiled(*inputs, backend)), tensors_of(function(*inputs, backend)), strict=True
    ):
        assert torch.equal(got, want)


def test_inductor_compiles_the_graph_around_a_search() -> None:
    def recommend(q: Tensor, x: Tensor) -> Tensor:
        return cosine_topk(q * 2 + 1, x, 2, backend="reference").ids + 1

    assert torch.equal(torch.compile(recommend, fullgraph=True)(Q, X), recommend(Q, X))


def test_a_new_number_of_items_or_queries_compiles_nothing_new(backend: str) -> None:
    def recommend(q: Tensor, x: Tensor, indices: Tensor, offsets: Tensor) -> Any:
        users = q + embedding_bag(x, indices, offsets, mode="mean", backend=backend)
        items = pack(x, backend=backend)
        top = cosine_topk(users, items, 2, item_bias=x[:, 0], backend=backend)
        lists = Ragged(top.ids.flatten(), torch.arange(users.shape[0] + 1) * 2)
        return (*top, candidate_scores(users, x, lists, backend=backend))

    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(recommend, backend=counter, fullgraph=True)
    # From seventeen rows on: torch compiles a size of 1 apart, and sixteen are one block of codes.
    for count, width in ((3, 17), (4, 18), (5, 40), (17, 57), (40, 300)):
        indices = torch.arange(2 * count) % width
        inputs = (random(count, D), random(width, D), indices, torch.arange(count) * 2)
        for got, want in zip(compiled(*inputs), recommend(*inputs), strict=True):
            assert torch.equal(got, want)
    assert counter.frame_count <= 2  # once for the first shapes, once for any


def test_a_new_k_does_not_compile_each_time(backend: str) -> None:
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(
        lambda q, x, k: cosine_topk(q, x, k, backend=backend), backend=counter, fullgraph=True
    )
    for k in (2, 3, 5, 7, 20):
        assert torch.equal(compiled(Q, X, k).ids, cosine_topk(Q, X, k).ids)
    assert counter.frame_count <= 3


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_gradients_flow_through_a_compiled_graph(backend: str, compiler: str) -> None:
    def loss(q: Tensor, x: Tensor, bias: Tensor, weights: Tensor) -> Tensor:
        users = q + embedding_bag(
            x, INDICES, torch.tensor([0, 1, 2]), mode="mean", per_sample_weights=weights,
            normalize=True, backend=backend,
        )  # fmt: skip
        scores = candidate_scores(users, x, LISTS, query_bias=bias, backend=backend)
        return (scores * torch.arange(5.0)).sum()

    gradients = []
    for run in (torch.compile(loss, backend=compiler, fullgraph=True), loss):
        leaves = [leaf(t) for t in (Q, X, random(B, seed=2), random(4, seed=6).abs() + 0.1)]
        gradients.append(torch.autograd.grad(run(*leaves), leaves))
    for got, want in zip(*gradients, strict=True):
        torch.testing.assert_close(got, want)


def test_a_compiled_search_sees_the_changes_of_a_pack(backend: str) -> None:
    items = pack(X, backend=backend)
    search = torch.compile(
        lambda q: cosine_topk(q, items, 4, backend=backend), backend="aot_eager", fullgraph=True
    )
    for seed, count in enumerate((0, 1, 1, 20, 1)):
        items.append(random(count, D, seed=seed), backend=backend)
        items.replace([seed], random(1, D, seed=9 + seed), backend=backend)
        want = cosine_topk(Q, items.data.clone(), 4, backend=backend)
        assert torch.equal(search(Q).ids, want.ids)
        assert torch.equal(search(Q).scores, want.scores)


# ---- torch.export ----


class Recommender(torch.nn.Module):
    """A profile pooled from history, then a search that leaves the history out."""

    def __init__(self, backend: str) -> None:
        super().__init__()
        self.items = torch.nn.Parameter(X.clone())
        self.backend = backend

    def forward(self, history: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor]:
        users = embedding_bag(
            self.items, history, bounds, mode="mean", include_last_offset=True,
            backend=self.backend,
        )  # fmt: skip
        top = cosine_topk(
            users, self.items, 3, exclude=Ragged(history, bounds), backend=self.backend
        )
        return top.scores, top.ids


def test_a_module_is_exported_with_dynamic_shapes(backend: str) -> None:
    module = Recommender(backend)
    # From two of each on: torch itself compiles 0 and 1 apart.
    shapes = {"history": {0: Dim("entries", min=2)}, "bounds": {0: Dim("bounds", min=3)}}
    program = export(module, (INDICES, BOUNDS), dynamic_shapes=shapes)
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    suffix = "" if backend == "cpu" else f"_{backend}"
    called = {name for name in names if name.startswith("llmrec.")}
    assert called == {f"llmrec.{op}{suffix}.default" for op in ("cosine_topk", "embedding_bag")}
    history, bounds = torch.tensor([4, 2, 0, 11, 5, 5]), torch.tensor([0, 2, 2, 5, 6])
    for got, want in zip(program.module()(history, bounds), module(history, bounds), strict=True):
        assert torch.equal(got, want)


class Packer(torch.nn.Module):
    """A search among items that come with the queries."""

    def __init__(self, backend: str) -> None:
        super().__init__()
        self.backend = backend

    def forward(self, queries: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        top = cosine_topk(queries, pack(items, backend=self.backend), 3, backend=self.backend)
        return top.scores, top.ids


def test_packing_is_exported_with_dynamic_shapes(backend: str) -> None:
    module = Packer(backend)
    shapes = {"queries": {0: Dim("queries", min=2)}, "items": {0: Dim("items", min=17)}}
    program = export(module, (Q, random(20, D)), dynamic_shapes=shapes)
    inputs = (random(5, D, seed=3), random(77, D, seed=4))
    for got, want in zip(program.module()(*inputs), module(*inputs), strict=True):
        assert torch.equal(got, want)
