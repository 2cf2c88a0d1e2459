"""`candidate_scores` scores each query's own list with the reference score, and differentiates."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from cases import SETTINGS, STORAGES, random, stored, threads
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from torch import Tensor

from llmrec_kernels import Ragged, TopK, candidate_scores, cosine_topk, pack, quantize

OPS = ("candidate_scores", "cosine_topk", "pack", "quantize")

COUNT, WIDTH, DIM = 5, 30, 11
LISTS = [[3, 0, 29, 3], [], [7], list(range(WIDTH)), [5, 5, 5, 4]]
TERMS = {
    "query_bias": random(COUNT, seed=2),
    "item_bias": random(WIDTH, seed=3),
    "query_scale": random(COUNT, seed=4),
    "item_scale": random(WIDTH, seed=5),
    "offset": 3.25,
}


def expected(queries: Any, items: Any, lists: list[list[int]], **options: Any) -> np.ndarray:
    table = oracle.scores(queries, items, **{"offset": 0.0, **options})
    rows = [table[query, ids] for query, ids in enumerate(lists)]
    return np.concatenate([*rows, np.empty(0, dtype=np.float32)])


# ---- the score ----


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("storage", STORAGES)
def test_every_storage_gives_the_reference_score(
    backend: str, storage: str, packed: bool, metric: str
) -> None:
    queries, items = random(COUNT, DIM), stored(random(WIDTH, DIM, seed=1), storage)
    items = pack(items, backend=backend) if packed else items
    scores = candidate_scores(queries, items, LISTS, metric=metric, backend=backend)
    oracle.assert_same_bits(scores, expected(queries, items, LISTS, metric=metric))


@pytest.mark.parametrize("dim", [0, 1, 7, 8, 9, 64, 383])
def test_any_dimension_gives_the_reference_score(backend: str, dim: int) -> None:
    queries, items = random(COUNT, dim), random(WIDTH, dim, seed=1)
    scores = candidate_scores(queries, items, LISTS, backend=backend)
    oracle.assert_same_bits(scores, expected(queries, items, LISTS))


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("names", [[name] for name in TERMS] + [[], list(TERMS)])
def test_scales_multiply_then_biases_add(backend: str, names: list[str], metric: str) -> None:
    queries, items = random(COUNT, DIM), random(WIDTH, DIM, seed=1)
    options = {"metric": metric, **{name: TERMS[name] for name in names}}
    scores = candidate_scores(queries, items, LISTS, backend=backend, **options)
    oracle.assert_same_bits(scores, expected(queries, items, LISTS, **options))


def test_the_user_bias_of_embedding_recommenders_multiplies(backend: str) -> None:
    query, item = torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    options = {"query_scale": [0.5], "query_bias": [1.0], "item_bias": [10.0]}
    options = {name: torch.tensor(value) for name, value in options.items()}
    score = candidate_scores(query, item, [[0]], offset=100.0, backend=backend, **options)
    assert score.tolist() == [pytest.approx(0.6 * 0.5 + 1 + 10 + 100)]


@pytest.mark.filterwarnings("ignore:Sparse")
def test_lists_may_be_ragged_csr_or_sequences(backend: str) -> None:
    queries, items = random(2, DIM), random(WIDTH, DIM, seed=1)
    lists = [[1, 4], [0, 2, 29]]
    want = expected(queries, items, lists)
    bounds, columns = [0, 2, 5], [1, 4, 0, 2, 29]
    for candidates in (
        lists,
        [np.array(row) for row in lists],
        Ragged.of(lists),
        csr_array((np.ones(5), columns, bounds), shape=(2, WIDTH)),
        torch.sparse_csr_tensor(bounds, columns, torch.ones(5), (2, WIDTH)),
    ):
        scores = candidate_scores(queries, items, candidates, backend=backend)
        oracle.assert_same_bits(scores, want)


def test_no_queries_and_empty_lists_give_no_scores(backend: str) -> None:
    assert candidate_scores(random(0, 3), random(4, 3), [], backend=backend).shape == (0,)
    assert candidate_scores(random(2, 3), random(0, 3), [[], []], backend=backend).shape == (0,)
    scores, ids = candidate_scores(random(0, 3), random(4, 3), [], k=2, backend=backend)
    assert scores.shape == ids.shape == (0, 2)
    scores, ids = candidate_scores(random(2, 3), random(0, 3), [[], []], k=2, backend=backend)
    assert ids.tolist() == [[-1, -1]] * 2
    assert scores.tolist() == [[-float("inf")] * 2] * 2


def test_memory_layout_changes_nothing(backend: str) -> None:
    queries, items = random(COUNT, DIM), random(WIDTH, DIM, seed=1)
    want = expected(queries, items, LISTS)
    ragged = Ragged.of(LISTS)
    strided = Ragged(ragged.values.repeat_interleave(2)[::2], ragged.offsets)
    for left, right in (
        (queries.T.contiguous().T, items.repeat_interleave(2, dim=0)[::2]),
        (torch.cat([queries[:1], queries])[1:], items.T.contiguous().T),
        (queries.numpy()[::-1].copy()[::-1], items.flip(0).numpy()[::-1]),
    ):
        scores = candidate_scores(left, right, strided, backend=backend)
        oracle.assert_same_bits(torch.as_tensor(scores), want)


@pytest.mark.parametrize("setting", [name for name in SETTINGS if name != "small tiles"])
def test_no_setting_of_torch_changes_a_bit(backend: str, setting: str) -> None:
    queries, items = random(40, 65), random(300, 65, seed=1)
    lists = [list(range(query, 300, query + 1)) for query in range(40)]
    with SETTINGS[setting]():
        scores = candidate_scores(queries, items, lists, backend=backend)
        top = candidate_scores(queries, items, lists, k=3, backend=backend)
    oracle.assert_same_bits(scores, expected(queries, items, lists))
    may = oracle.permitted(40, 300, allow=lists)
    oracle.assert_same_bits(top.ids, oracle.best(oracle.scores(queries, items), 3, may)[1])


@settings(max_examples=60)
@given(
    lists=st.lists(
        st.lists(st.integers(0, WIDTH - 1), max_size=12), min_size=COUNT, max_size=COUNT
    ),
    names=st.sets(st.sampled_from(list(TERMS))),
    metric=st.sampled_from(["cosine", "dot"]),
    storage=st.sampled_from(STORAGES),
    k=st.integers(1, 14),
)
def test_any_lists_give_the_reference_scores_and_their_best(
    backend: str, lists: list[list[int]], names: set[str], metric: str, storage: str, k: int
) -> None:
    queries = random(COUNT, DIM)
    items = stored(random(6, DIM, seed=1).repeat(5, 1), storage)  # five of each: ties
    options = {"metric": metric, **{name: TERMS[name] for name in names}}
    values = expected(queries, items, lists, **options)
    scores = candidate_scores(queries, items, lists, backend=backend, **options)
    oracle.assert_same_bits(scores, values)
    top = candidate_scores(queries, items, lists, k=k, backend=backend, **options)
    start = 0
    for row, ids in enumerate(lists):
        mine = values[start : start + len(ids)]
        order = np.lexsort((ids, -mine))[:k] if ids else []
        padding = k - len(order)
        assert top.ids[row].tolist() == [ids[entry] for entry in order] + [-1] * padding
        want = np.array([*mine[order], *[-np.inf] * padding], dtype=np.float32)
        oracle.assert_same_bits(top.scores[row], want)
        start += len(ids)


# ---- the best of each list ----


def test_the_best_of_a_list_are_those_that_cosine_topk_is_allowed(backend: str) -> None:
    queries, items = random(COUNT, DIM), random(6, DIM, seed=1).repeat(5, 1)
    lists = [sorted(set(ids), reverse=True) for ids in LISTS]
    options = {"item_bias": TERMS["item_bias"], "item_scale": TERMS["item_scale"]}
    for k in (1, 3, 40):
        top = candidate_scores(queries, items, lists, k=k, backend=backend, **options)
        search = cosine_topk(queries, items, k, allow=lists, backend=backend, **options)
        assert isinstance(top, TopK)
        oracle.assert_same_bits(top.ids, search.ids.numpy())
        oracle.assert_same_bits(top.scores, search.scores.numpy())


def test_scores_have_the_bits_of_cosine_topk(backend: str) -> None:
    queries = random(COUNT, DIM)
    items = random(WIDTH, DIM, seed=1) * 10.0 ** torch.arange(-20, 10).view(WIDTH, 1)
    everything = [list(range(WIDTH))] * COUNT
    options = {"item_bias": TERMS["item_bias"], "item_scale": TERMS["item_scale"]}
    for metric in ("cosine", "dot"):
        options |= {"metric": metric, "backend": backend}
        search = cosine_topk(queries, items, WIDTH, **options)
        scores = candidate_scores(queries, items, everything, **options)
        gathered = scores.view(COUNT, WIDTH).gather(1, search.ids)
        oracle.assert_same_bits(gathered, search.scores.numpy())


def test_a_candidate_that_comes_twice_is_returned_twice(backend: str) -> None:
    top = candidate_scores(torch.ones(1, 2), torch.ones(4, 2), [[2, 1, 2]], k=4, backend=backend)
    assert top.ids.tolist() == [[1, 2, 2, -1]]


@pytest.mark.parametrize("threads_in_use", [1, 3])
@pytest.mark.parametrize("k", [1, 7, 513, 5_000, 40_000])
def test_short_and_long_lists_are_merged_whole(backend: str, k: int, threads_in_use: int) -> None:
    lengths = [0, 0, 30_000, 1, 511, 512, 513, 0, 9_000, *[2] * 300, 1_200, 0]
    generator = torch.Generator().manual_seed(6)
    values = torch.randint(2_000, (sum(lengths),), generator=generator)
    lists = Ragged(values, torch.tensor([0, *np.cumsum(lengths)]))
    queries, items = random(len(lengths), 3), random(40, 3, seed=1).repeat(50, 1)  # many ties
    with threads(threads_in_use):
        top = candidate_scores(queries, items, lists, k=k, backend=backend)
    scores = candidate_scores(queries, items, lists, backend=backend).numpy()
    for row, (start, length) in enumerate(zip(lists.offsets.tolist(), lengths, strict=False)):
        ids, mine = values[start : start + length].numpy(), scores[start : start + length]
        order = np.lexsort((ids, -mine))[:k]
        padding = k - len(order)
        assert top.ids[row].tolist() == [*ids[order].tolist(), *[-1] * padding]
        assert top.scores[row].tolist() == [*mine[order].tolist(), *[-np.inf] * padding]


@pytest.mark.parametrize("lists", [[[]] * 40, [list(range(700)), *[[]] * 300]])
def test_nothing_behind_the_queries_is_read(backend: str, lists: list[list[int]]) -> None:
    longer = torch.full((len(lists) + 1, 3), torch.inf)
    queries = longer[:-1]
    queries[:] = random(len(lists), 3)
    top = candidate_scores(queries, random(700, 3, seed=1), lists, k=2, backend=backend)
    assert top.ids[-1].tolist() == [-1, -1]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize("k", [None, 10])
def test_less_than_a_megabyte_is_needed_beside_the_output(compiled: str, k: int | None) -> None:
    code = f"""
import re
from pathlib import Path
import torch
from llmrec_kernels import Ragged, candidate_scores, pack

def memory(what):
    return int(re.search(what + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

queries, items = torch.randn(256, 384), pack(torch.randn(20_000, 384))
lists = Ragged(torch.randint(20_000, (256 * 500,)), torch.arange(257) * 500)
candidate_scores(queries[:2], items, [[0], [1]], k={k})
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from now on
before = memory("VmRSS")
found = candidate_scores(queries, items, lists, k={k})
output = found.nbytes if {k} is None else found.scores.nbytes + found.ids.nbytes
print(memory("VmHWM") - before - output)
"""
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(run.stdout) < 1 << 20


# ---- gradients ----


def formula(
    queries: torch.Tensor, items: torch.Tensor, lists: Ragged, metric: str, **terms: Any
) -> torch.Tensor:
    """The definition in differentiable float64; the gradient of a zero vector is 0."""
    owner = torch.repeat_interleave(torch.arange(len(lists)), lists.offsets.diff())
    left, right = queries.double()[owner], items.double()[lists.values]
    total = (left * right).sum(1)
    if metric == "cosine":
        for rows in (left, right):
            square = (rows * rows).sum(1)
            total = total * torch.where(square == 0, 0.0, square.where(square > 0, 1.0) ** -0.5)
    total = total * terms["query_scale"][owner] * terms["item_scale"][lists.values]
    return total + terms["query_bias"][owner] + terms["item_bias"][lists.values]


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradients_are_those_of_the_formula(backend: str, dtype: torch.dtype, metric: str) -> None:
    lists = Ragged.of(LISTS)
    terms = {name: value for name, value in TERMS.items() if name != "offset"}
    queries, items = random(COUNT, DIM), random(WIDTH, DIM, seed=1)
    queries[4] = 0
    items[5] = 0
    items[7] *= 1e-6
    leaves = [queries.to(dtype), items.to(dtype), terms["query_bias"], terms["item_bias"]]
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    options = {**terms, "query_bias": leaves[2], "item_bias": leaves[3]}
    weights = random(lists.values.shape[0], seed=9)
    scores = candidate_scores(
        leaves[0], leaves[1], lists, metric=metric, backend=backend, **options
    )
    actual = torch.autograd.grad((scores * weights).sum(), leaves)
    wanted = torch.autograd.grad(
        (formula(leaves[0], leaves[1], lists, metric, **options) * weights).sum(), leaves
    )
    tolerance = 1e-2 if dtype == torch.bfloat16 else 2e-5
    for got, want in zip(actual, wanted, strict=True):
        assert got.dtype == want.dtype
        scale = want.double().abs().amax(-1, keepdim=True) + 1e-6
        torch.testing.assert_close(
            got.double() / scale, want.double() / scale, atol=tolerance, rtol=tolerance
        )


@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_gradients_are_those_of_differences(backend: str, metric: str) -> None:
    lists, names = [[2, 0, 3], [], [1, 1, 4]], ("query_scale", "item_scale", "item_bias")
    inputs = [random(3, 4), random(5, 4, seed=1), random(3, seed=2), *[random(5, seed=3)] * 2]

    def score(queries: Tensor, items: Tensor, *terms: Tensor) -> Tensor:
        options: dict[str, Any] = dict(zip(names, terms, strict=True))
        return candidate_scores(queries, items, lists, metric=metric, backend=backend, **options)

    # Scores are rounded to float32, so that smaller differences would be nothing but rounding.
    leaves = [values.double().requires_grad_() for values in inputs]
    assert torch.autograd.gradcheck(score, leaves, eps=2**-7, atol=2e-3, rtol=2e-3)


def test_gradients_of_tiny_and_huge_vectors_are_finite_where_they_can_be(backend: str) -> None:
    for norm in (1e-42, 1e-30, 1e30, 1e38):
        queries = torch.tensor([[norm, 0.0]], requires_grad=True)
        items = torch.tensor([[3.0, 4.0]], requires_grad=True)
        candidate_scores(queries, items, [[0]], backend=backend).sum().backward()
        # d cos / d x = (q' - cos x') / |x|, whatever the length of q
        torch.testing.assert_close(items.grad, torch.tensor([[0.128, -0.096]]))


def test_only_what_asks_for_a_gradient_gets_one(backend: str) -> None:
    items = random(WIDTH, DIM, seed=1).requires_grad_()
    queries = random(COUNT, DIM)
    candidate_scores(queries, items, LISTS, backend=backend).sum().backward()
    assert items.grad is not None
    assert queries.grad is None
    bias = torch.zeros(COUNT, requires_grad=True)
    scores = candidate_scores(queries, items, LISTS, query_bias=bias, backend=backend)
    (gradient,) = torch.autograd.grad(scores.sum(), bias)
    assert gradient.tolist() == [4.0, 0.0, 1.0, 30.0, 4.0]


def test_quantized_items_have_no_gradient_but_queries_do(backend: str) -> None:
    queries = random(COUNT, DIM).requires_grad_()
    table = quantize(random(WIDTH, DIM, seed=1), backend=backend)
    candidate_scores(queries, table, LISTS, backend=backend).sum().backward()
    through_table = queries.grad
    queries.grad = None
    candidate_scores(queries, table.dequantize(), LISTS, backend=backend).sum().backward()
    assert through_table is not None
    torch.testing.assert_close(through_table, queries.grad)


def test_packed_items_are_a_copy_and_take_no_gradient(backend: str) -> None:
    queries, source = random(COUNT, DIM), random(WIDTH, DIM, seed=1).requires_grad_()
    scores = candidate_scores(queries, pack(source, backend=backend), LISTS, backend=backend)
    assert not scores.requires_grad


def test_gradients_flow_to_scales(backend: str) -> None:
    queries, items = random(COUNT, DIM), random(WIDTH, DIM, seed=1)
    similarity = candidate_scores(queries, items, LISTS, metric="dot", backend=backend)
    owner = torch.repeat_interleave(torch.arange(COUNT), torch.tensor([len(x) for x in LISTS]))
    item = torch.tensor([one for ids in LISTS for one in ids])
    for name, index, length in (("query_scale", owner, COUNT), ("item_scale", item, WIDTH)):
        scale = torch.ones(length, requires_grad=True)
        options = {name: scale, "metric": "dot", "backend": backend}
        candidate_scores(queries, items, LISTS, **options).sum().backward()
        expected = torch.zeros(length).index_add(0, index, similarity)
        torch.testing.assert_close(scale.grad, expected)


def test_a_gradient_of_a_gradient_is_refused_and_not_dropped(backend: str) -> None:
    queries = random(COUNT, DIM).requires_grad_()
    scores = candidate_scores(queries, random(WIDTH, DIM, seed=1), LISTS, backend=backend)
    (gradient,) = torch.autograd.grad(scores.sum(), queries, create_graph=True)
    assert gradient.requires_grad
    with pytest.raises(NotImplementedError, match="no second derivative"):
        gradient.sum().backward()
