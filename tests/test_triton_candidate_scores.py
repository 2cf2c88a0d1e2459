"""The Triton scores of candidates, every access checked, against the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
import torch
from cases import random, stored
from torch import Tensor
from triton_rooms import KEPT, room

from llmrec_kernels import Ragged, pack
from llmrec_kernels.ops.rows import Rows, rows_of

pytestmark = pytest.mark.usefixtures("races")
ROOM = room("candidate_scores")

TERMS = (random(5, seed=2), random(30, seed=3), 0.25, random(5, seed=4), random(30, seed=5))
LISTS = [[3, 0, 29, 3], [], [7], list(range(30)), [5, 5, 5, 4]]


def of_candidates(
    queries: Tensor, rows: Rows, lists: list[list[int]], metric: str, terms: Any, *k: int
) -> Any:
    ragged = Ragged.of(lists)
    return torch.ops.llmrec.candidate_scores_triton(
        queries, rows.data, rows.scale, rows.bias, rows.inverse_norms, rows.bits, ragged.values,
        ragged.offsets, ("cosine", "dot").index(metric), *terms, *k,
    )  # fmt: skip


def expected_candidates(queries: Tensor, items: Any, metric: str, terms: Any) -> np.ndarray:
    names = ("query_bias", "item_bias", "offset", "query_scale", "item_scale")
    options = {n: t for n, t in zip(names, terms, strict=True) if t is not None}
    table = oracle.scores(queries, items, metric=metric, **options)
    rows = [table[query, ids] for query, ids in enumerate(LISTS)]
    return np.concatenate([*rows])


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("storage", KEPT)
def test_candidates_have_the_reference_score(storage: str, packed: bool, metric: str) -> None:
    queries, vectors = random(5, 11), random(30, 11, seed=1)
    queries[4], vectors[5] = 0, 0
    items = stored(vectors, storage)
    items = pack(items) if packed else items
    for terms in (TERMS, (None, None, 0.0, None, None)):
        scores = of_candidates(queries, rows_of("items", items), LISTS, metric, terms)
        want = expected_candidates(queries, items, metric, terms)
        oracle.assert_same_bits(scores, want)


@pytest.mark.parametrize("k", [1, 3, 40, 300])
def test_the_best_candidates_with_ties_by_id(k: int) -> None:
    queries, items = random(5, 6), random(6, 6, seed=1).repeat(5, 1)
    rows = rows_of("items", items)
    scores, ids = of_candidates(queries, rows, LISTS, "cosine", (None, None, 0.0, None, None), k)
    values = of_candidates(queries, rows, LISTS, "cosine", (None, None, 0.0, None, None)).numpy()
    start = 0
    for row, listed in enumerate(LISTS):
        mine = values[start : start + len(listed)]
        order = np.lexsort((listed, -mine))[:k] if listed else []
        padding = k - len(order)
        assert ids[row].tolist() == [*(listed[entry] for entry in order), *[-1] * padding]
        assert scores[row].tolist() == [*(float(mine[e]) for e in order), *[-np.inf] * padding]
        start += len(listed)


def test_long_lists_are_shared_by_several_programs() -> None:
    queries, items = random(2, 3), random(50, 3, seed=1)
    entries = torch.randint(50, (9000,), generator=torch.Generator().manual_seed(2)).tolist()
    plain = (None, None, 0.0, None, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ROOM, "PART", 700)
        found = of_candidates(queries, rows_of("items", items), [entries, [1, 2]], "dot", plain, 5)
    values = oracle.scores(queries, items, metric="dot")
    order = np.lexsort((entries, -values[0, entries]))[:5]
    assert found[1][0].tolist() == [entries[place] for place in order]
    assert found[1][1].tolist()[2:] == [-1] * 3


def test_offsets_that_slipped_through_read_nothing_outside() -> None:
    rows, plain = rows_of("items", random(30, 4, seed=1)), (None, None, 0.0, None, None)
    candidates = torch.arange(8)
    for bad in (
        [-5, 3, 2, 2**40],
        [9, 9, -(2**40), 0],
        [0, 8, 8, 9],
        [2**63 - 1, -(2**63), 0, 8],
    ):
        arguments = (random(3, 4), rows.data, None, None, None, 0, candidates, torch.tensor(bad))
        for k in ((), (2,), (300,)):
            found = torch.ops.llmrec.candidate_scores_triton(*arguments, 0, *plain, *k)
            assert not (found[0] if k else found).isnan().any()


def test_candidates_that_slipped_through_have_no_score() -> None:
    items = random(30, 4, seed=1)
    items[3, 1], items[4, 0] = torch.nan, torch.inf
    lists, plain = [[0, -1, 30, 3, 4, 2**40, 1]], (None, None, 0.0, None, None)
    for metric in ("cosine", "dot"):
        scores = of_candidates(random(1, 4), rows_of("items", items), lists, metric, plain)
        assert scores.isfinite().tolist() == [True, False, False, False, False, False, True]
        assert not scores.isnan().any()
        _, ids = of_candidates(random(1, 4), rows_of("items", items), lists, metric, plain, 4)
        assert sorted(ids[0].tolist()) == [-1, -1, 0, 1]
        bias = torch.zeros(30)
        bias[1], bias[2], bias[6] = torch.nan, torch.inf, -torch.inf
        terms = (None, bias, 0.0, None, None)
        _, ids = of_candidates(
            random(1, 4), rows_of("items", items), [[1, 2, 6, 7]], metric, terms, 4
        )
        assert ids[0].tolist() == [7, -1, -1, -1]


@pytest.mark.parametrize("storage", ["int4", "int4-symmetric"])
def test_half_a_byte_behind_an_odd_row_is_not_read(storage: str) -> None:
    queries, table = random(5, 7), stored(random(30, 7, seed=1), storage)
    plain = (None, None, 0.0, None, None)
    want = expected_candidates(queries, table, "cosine", plain)
    table.codes[:, -1] |= 0xF0
    scores = of_candidates(queries, rows_of("items", table), LISTS, "cosine", plain)
    oracle.assert_same_bits(scores, want)


@pytest.mark.parametrize("k", [2, 300])
def test_no_queries_have_no_results(k: int) -> None:
    plain, rows = (None, None, 0.0, None, None), rows_of("items", random(30, 4))
    for entries in (torch.arange(5), torch.arange(0)):
        arguments = (random(0, 4), rows.data, None, None, None, 0, entries, torch.zeros(1).long())
        scores, ids = torch.ops.llmrec.candidate_scores_triton(*arguments, 0, *plain, k)
        assert scores.shape == ids.shape == (0, k)


def test_terms_need_not_lie_side_by_side() -> None:
    queries, items = random(5, 6), random(30, 6, seed=1)
    columns, plain = random(30, 3, seed=2), (None, None, 0.0, None, None)
    strided = (columns[:5, 1], columns[:, 2], 0.5, torch.ones(1).expand(5), columns[:, 0])
    scores = of_candidates(queries, rows_of("items", items), LISTS, "dot", strided)
    oracle.assert_same_bits(scores, expected_candidates(queries, items, "dot", strided))
    wide = random(10, 6)[::2]
    scores = of_candidates(wide, rows_of("items", items[:, :6]), LISTS, "cosine", plain)
    oracle.assert_same_bits(scores, expected_candidates(wide, items, "cosine", plain))


def test_scores_beyond_float32_still_rank() -> None:
    queries, items = torch.full((1, 2), 1e25), torch.tensor([[-1.0], [1], [-2]]) * 1e25
    plain = (None, None, 0.0, None, None)
    for k in (3, 300):
        scores, ids = of_candidates(
            queries, rows_of("items", items.repeat(1, 2)), [[2, 1, 0]], "dot", plain, k
        )
        assert scores[0, :3].tolist() == [np.inf, -np.inf, -np.inf]
        assert ids[0, :3].tolist() == [1, 0, 2]
