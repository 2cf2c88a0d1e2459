"""The int8 scan proposes and the reference score decides: no data makes it lose an item.

Inputs are large enough that cuts, samples, buffers and strips of the scan all come into play, and
each is made to be hard for one of them. Results are compared with plain torch's bit for bit, which
proposes by other means, and with float64 scores that know neither.
"""

from __future__ import annotations

from collections.abc import Callable

import hypothesis
import hypothesis.strategies as st
import oracle
import pytest
import torch
import torch.nn.functional as F
from cases import STORAGES, random, stored, threads

from llmrec_kernels import PackedItems, cosine_topk, pack

OPS = ("cosine_topk", "pack", "quantize")
pytestmark = pytest.mark.usefixtures("compiled")
Tensor = torch.Tensor


def outlier_dimension(rows: Tensor) -> Tensor:
    rows[:, 3] *= 1e4
    return rows


def norms_of_all_sizes(rows: Tensor) -> Tensor:
    return rows * 10.0 ** torch.linspace(-30, 30, len(rows))[:, None]


def a_few_huge_rows(rows: Tensor) -> Tensor:
    rows[::97] *= 1e35
    return rows


def zero_rows(rows: Tensor) -> Tensor:
    rows[::3] = 0
    return rows


def duplicates(rows: Tensor) -> Tensor:
    return rows[torch.arange(len(rows)) % max(1, len(rows) // 1000)]


def one_row_many_times(rows: Tensor) -> Tensor:
    rows[200:-200] = rows[200]
    return rows


def nearly_equal(rows: Tensor) -> Tensor:
    return rows[:1] + 1e-4 * rows


def denormals(rows: Tensor) -> Tensor:
    return rows * 1e-41


def sparse(rows: Tensor) -> Tensor:
    return rows * (rows > 1.5)


def one_hot(rows: Tensor) -> Tensor:
    return F.one_hot(rows.abs().sum(1).mul(1e3).long() % rows.shape[1], rows.shape[1]).float()


def signs(rows: Tensor) -> Tensor:
    return rows.sign()


def clustered(rows: Tensor) -> Tensor:
    return F.normalize(rows[torch.arange(len(rows)) % 40] + 0.5 * rows)


HARD: tuple[Callable[[Tensor], Tensor], ...] = (
    outlier_dimension,
    norms_of_all_sizes,
    a_few_huge_rows,
    zero_rows,
    duplicates,
    one_row_many_times,
    nearly_equal,
    denormals,
    sparse,
    one_hot,
    signs,
    clustered,
)


def assert_exact(queries: Tensor, items: object, k: int, **options: object) -> None:
    """The compiled scan finds what plain torch finds, packed and not."""
    expected = cosine_topk(queries, items, k, backend="reference", **options)
    for source in (items, pack(items)):
        found = cosine_topk(queries, source, k, backend="cpu", **options)
        oracle.assert_same_bits(found.ids, expected.ids.numpy())
        oracle.assert_same_bits(found.scores, expected.scores.numpy())


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("make", HARD, ids=lambda make: make.__name__)
def test_hard_data_loses_no_item(make: Callable[[Tensor], Tensor], metric: str) -> None:
    items = make(random(6000, 40, seed=1))
    queries = torch.cat([random(20, 40), items[:20] + 0.01 * random(20, 40, seed=2)])
    queries[7] = 0
    for k in (1, 10, 700):
        assert_exact(queries, items, k, metric=metric)


@pytest.mark.parametrize("make", HARD, ids=lambda make: make.__name__)
def test_hard_data_is_ranked_as_in_float64(make: Callable[[Tensor], Tensor]) -> None:
    """By tie-set: the k-th score is the k-th largest, and whatever lies clear of it is there."""
    items, queries, k = make(random(6000, 40, seed=1)), random(20, 40), 50
    found = cosine_topk(queries, pack(items), k)
    truth = F.normalize(queries.double()) @ F.normalize(items.double(), eps=1e-300).T
    edge = truth.topk(k).values[:, -1:]
    torch.testing.assert_close(found.scores[:, -1:].double(), edge, atol=1e-6, rtol=0)
    chosen = torch.zeros_like(truth, dtype=torch.bool).scatter_(1, found.ids, True)
    assert bool((chosen | (truth <= edge + 1e-6)).all())
    assert bool((~chosen | (truth >= edge - 1e-6)).all())


@pytest.mark.parametrize("rising", [True, False])
def test_items_sorted_by_score_defeat_no_sample(rising: bool) -> None:
    items, query = random(20_000, 24, seed=1), random(1, 24)
    order = (F.normalize(items) @ query[0]).argsort(descending=not rising)
    queries = query + 0.05 * random(40, 24, seed=2)
    assert_exact(queries, items[order], 100)


def test_a_sample_of_the_best_items_alone_loses_no_item() -> None:
    """The first cut is a bet that a sample has its share of the best: here it has them all.

    csrc/cosine_topk/plan.h samples one strip of 32 items in 16, evenly spaced: 39 of these 625.
    """
    items, query = random(20_000, 24, seed=1), random(1, 24)
    by_score = (F.normalize(items) @ query[0]).argsort(descending=True)
    sampled = torch.zeros(625, 32, dtype=torch.bool)
    sampled[torch.arange(39) * 625 // 39] = True
    order = torch.empty(20_000, dtype=torch.int64)
    order[sampled.flatten()] = by_score[: 39 * 32]
    order[~sampled.flatten()] = by_score[39 * 32 :]
    queries = query + 0.001 * random(40, 24, seed=2)
    for k in (50, 100, 200):
        assert_exact(queries, items[order], k)


@pytest.mark.parametrize("count", [1, 2, 8, 16, 17, 32, 33, 64, 100])
def test_any_number_of_queries(count: int) -> None:
    assert_exact(random(count, 72), random(5000, 72, seed=1), 60)


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5, 15, 63, 64, 65, 127, 130, 1030, 2100])
def test_any_number_of_dimensions(dim: int) -> None:
    assert_exact(random(35, dim), random(1500, dim, seed=1), 20)


@pytest.mark.parametrize("k", [1, 15, 16, 17, 100, 999, 2999, 3000, 3001, 4000])
def test_any_k(k: int) -> None:
    assert_exact(random(20, 16), random(3000, 16, seed=1), k)


@pytest.mark.parametrize("width", [0, 1, 31, 33])
def test_hardly_any_items(width: int) -> None:
    for dim in (0, 1, 4, 64):
        assert_exact(random(40, dim), random(width, dim, seed=1), 3)


@pytest.mark.parametrize("storage", STORAGES)
def test_any_storage(storage: str) -> None:
    assert_exact(random(40, 50), stored(random(4000, 50, seed=1), storage), 80)


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("magnitude", [0.0, 1e-40, 1e-3, 1.0, 1e6, 1e20, 3e38])
def test_biases_and_scales_of_any_magnitude(magnitude: float, metric: str) -> None:
    items = random(5000, 24, seed=1)
    bias, scale = random(5000, seed=2) / 5 * magnitude, random(5000, seed=3)
    queries = random(40, 24)
    assert_exact(queries, items, 30, metric=metric, item_bias=bias)
    assert_exact(queries, items, 30, metric=metric, item_scale=scale * max(magnitude / 5, 1e-40))
    assert_exact(queries, items, 30, metric=metric, item_bias=bias, item_scale=scale)


def test_lengths_and_scales_whose_product_vanishes_still_count() -> None:
    items, scale = random(3000, 16, seed=1) * 1e-22, random(3000, seed=2) * 1e-24
    bias = random(3000, seed=3) * 1e-30
    queries = random(40, 16) * 1e17
    assert_exact(queries, items, 5, metric="dot", item_scale=scale, item_bias=bias)
    items[7], scale[7] = 2.0**-149, 0.25
    assert_exact(queries * 1e20, items, 5, metric="dot", item_scale=scale, item_bias=bias)


def test_scores_that_overflow_are_ties_in_the_order_of_ids() -> None:
    items = random(5000, 8, seed=1) * 1e30
    queries = random(40, 8) * 1e30
    assert_exact(queries, items, 3000, metric="dot")
    assert_exact(queries * 1e-45, items * 1e-38, 3000, metric="dot")


def test_rows_that_overlap_in_memory_are_searched_as_others() -> None:
    for items in (random(1, 16).expand(1000, 16), random(1, 5000)[0].unfold(0, 64, 1)):
        parts = pack(items)
        held = PackedItems(items, None, None, 0, parts.dim, parts.inverse_norms, parts.sketch)
        for queries in (random(1, parts.dim, seed=2), random(3, parts.dim, seed=3)):
            assert_exact(queries, held, 5)


def test_filters_reach_into_the_scan() -> None:
    queries, items = random(40, 32), random(6000, 32, seed=1)
    packed, k = pack(items), 50
    best = cosine_topk(queries, items, 300, backend="reference").ids
    generator = torch.Generator().manual_seed(5)
    filters = {
        "the best are excluded": {"exclude": [row.tolist() for row in best]},
        "different numbers are excluded": {
            "exclude": [row[: 9 * n % 300].tolist() for n, row in enumerate(best)]
        },
        "only the worst are allowed": {"allow": ~torch.zeros(6000, dtype=torch.bool)},
        "one in a hundred is allowed": {"allow": torch.arange(7, 6000, 100)},
        "few are allowed to each": {"allow": [row[250:].tolist() for row in best]},
        "many are allowed to each": {"allow": [list(range(n, 6000, 2)) for n in range(40)]},
        "a mask shows few": {"allow": torch.rand(40, 6000, generator=generator) < 0.01},
        "a mask shows most": {"allow": torch.rand(40, 6000, generator=generator) < 0.9},
        "a mask shows none": {"allow": torch.zeros(40, 6000, dtype=torch.bool)},
        "lists and exclusions": {
            "allow": [row[200:].tolist() for row in best],
            "exclude": [row[::2].tolist() for row in best],
        },
    }
    filters["only the worst are allowed"]["allow"][best.flatten()] = False
    for options in filters.values():
        for part in (slice(None), slice(3, 4)):
            chosen = {
                name: value[part] if isinstance(value, list) or value.dim() == 2 else value
                for name, value in options.items()
            }
            expected = cosine_topk(queries[part], items, k, backend="reference", **chosen)
            for source in (items, packed):
                found = cosine_topk(queries[part], source, k, **chosen)
                oracle.assert_same_bits(found.ids, expected.ids.numpy())
                oracle.assert_same_bits(found.scores, expected.scores.numpy())


def test_neither_threads_nor_batches_change_a_bit() -> None:
    queries, items = clustered(random(150, 64)), clustered(random(9000, 64, seed=1))
    packed = pack(items)
    for precision in ("exact", "fast"):
        for bias in (None, random(9000, seed=2)):
            whole = cosine_topk(queries, packed, 40, precision=precision, item_bias=bias)
            for number in (1, 2, 3, 7):
                for size in (1, 11, 32, 150):
                    with threads(number):
                        parts = [
                            cosine_topk(part, packed, 40, precision=precision, item_bias=bias)
                            for part in queries[:96].split(size)
                        ]
                    found = torch.cat([part.ids for part in parts])
                    oracle.assert_same_bits(found, whole.ids[:96].numpy())
                    found = torch.cat([part.scores for part in parts])
                    oracle.assert_same_bits(found, whole.scores[:96].numpy())


@hypothesis.settings(max_examples=60)
@hypothesis.given(data=st.data())
def test_any_search_is_exact(data: st.DataObject) -> None:
    draw = data.draw
    seed = draw(st.integers(0, 10_000), label="seed")
    count = draw(st.sampled_from([1, 3, 17, 40]), label="queries")
    width = draw(st.integers(1, 4000), label="items")
    dim = draw(st.integers(1, 80), label="dim")
    make = draw(st.sampled_from(HARD[:1] + HARD[3:]), label="kind") if dim > 3 else signs
    items = random(width, dim, seed=seed)
    items = make(items) if width > 500 else items
    queries = random(count, dim, seed=seed + 1)
    options: dict[str, object] = {"metric": draw(st.sampled_from(["cosine", "dot"]))}
    if draw(st.booleans(), label="bias"):
        options["item_bias"] = random(width, seed=seed + 2)
    if draw(st.booleans(), label="scale"):
        options["item_scale"] = random(width, seed=seed + 3)
    if draw(st.booleans(), label="exclude"):
        best = cosine_topk(queries, items, 30, backend="reference").ids
        options["exclude"] = [row.tolist() for row in best]
    assert_exact(queries, items, draw(st.integers(1, width + 5), label="k"), **options)
