"""`exclude` and `allow` decide what `cosine_topk` may return, in every form they can be given."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from cases import check_topk as check
from cases import random
from scipy.sparse import csr_array

from llmrec_kernels import Ragged, cosine_topk

OPS = ("cosine_topk", "pack", "quantize")

COUNT, WIDTH = 3, 40
FLAT = [7, 3, 3, 0, 39, 7, 21]
LISTS = [[5, 1, 5, 39], [], list(range(WIDTH, -1, -1))[1:]]
UNKNOWN = [40, -1, 10**12, -(2**63), 2**63 - 1]


def csr(lists: list[list[int]], width: int = WIDTH) -> csr_array:
    columns = list(itertools.chain.from_iterable(lists))
    bounds = np.cumsum([0, *map(len, lists)])
    return csr_array((np.ones(len(columns)), columns, bounds), shape=(len(lists), width))


def torch_csr(lists: list[list[int]]) -> torch.Tensor:
    return torch.from_numpy(oracle.permitted(len(lists), WIDTH, allow=lists)).to_sparse_csr()


LIST_KINDS: dict[str, Any] = {
    "list of lists": lambda lists: lists,
    "tuple of sets": lambda lists: tuple(set(row) for row in lists),
    "list of arrays": lambda lists: [np.array(row, dtype=np.int64) for row in lists],
    "list of tensors": lambda lists: [torch.tensor(row, dtype=torch.int32) for row in lists],
    "Ragged": Ragged.of,
    "SciPy CSR": csr,
    "torch CSR": torch_csr,
    "torch CSR of floats": lambda lists: torch_csr(lists).float(),
}
FLAT_KINDS: dict[str, Any] = {
    "list": lambda ids: ids,
    "tuple": tuple,
    "tensor": torch.tensor,
    "int32 tensor": lambda ids: torch.tensor(ids, dtype=torch.int32),
    "strided tensor": lambda ids: torch.tensor(ids).repeat_interleave(2)[::2],
    "array": np.array,
    "reversed array": lambda ids: np.array(ids)[::-1],
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("name", ["exclude", "allow"])
@pytest.mark.parametrize("kind", LIST_KINDS)
def test_a_list_for_each_query_filters_that_query(backend: str, kind: str, name: str) -> None:
    may = oracle.permitted(COUNT, WIDTH, **{name: LISTS})
    queries, items = random(COUNT, 6), random(WIDTH, 6, seed=1)
    check(backend, queries, items, 38, may, **{name: LIST_KINDS[kind](LISTS)})


@pytest.mark.parametrize("name", ["exclude", "allow"])
@pytest.mark.parametrize("kind", FLAT_KINDS)
def test_one_dimensional_ids_filter_all_queries(backend: str, kind: str, name: str) -> None:
    may = oracle.permitted(COUNT, WIDTH, **{name: [FLAT] * COUNT})
    queries, items = random(COUNT, 6), random(WIDTH, 6, seed=1)
    check(backend, queries, items, 38, may, **{name: FLAT_KINDS[kind](FLAT)})


def test_unknown_ids_in_exclude_are_ignored(backend: str) -> None:
    queries, items = random(COUNT, 6), random(WIDTH, 6, seed=1)
    may = oracle.permitted(COUNT, WIDTH, exclude=[FLAT] * COUNT)
    check(backend, queries, items, 9, may, exclude=torch.tensor([*UNKNOWN, *FLAT]))
    check(backend, queries, items, 9, may, exclude=[[*UNKNOWN, *FLAT, *UNKNOWN]] * COUNT)
    check(backend, queries, random(0, 6), 2, exclude=[UNKNOWN] * COUNT)


def test_a_mask_allows_items_for_all_queries_or_for_each(backend: str) -> None:
    queries, items = random(COUNT, 6), random(WIDTH, 6, seed=1)
    each = torch.rand(COUNT, WIDTH, generator=torch.Generator().manual_seed(3)) < 0.3
    check(backend, queries, items, 20, each.numpy(), allow=each)
    check(backend, queries, items, 20, each.numpy(), allow=each.numpy())
    check(backend, queries, items, 20, each.numpy(), allow=each.T.contiguous().T)
    same = each[:1].expand(COUNT, WIDTH)
    check(backend, queries, items, 20, same.numpy(), allow=same)
    check(backend, queries, items, 20, same.numpy(), allow=each[0])
    wide = each[0].repeat_interleave(3)
    check(backend, queries, items, 20, same.numpy(), allow=wide[::3])


def test_what_is_allowed_and_excluded_is_excluded(backend: str) -> None:
    queries, items = random(COUNT, 6), random(WIDTH, 6, seed=1)
    mask = torch.arange(WIDTH) % 2 == 0
    even = [range(0, WIDTH, 2)] * COUNT
    for shown, allow in ((even, mask), (even, mask.expand(COUNT, -1)), (LISTS, LISTS)):
        for hidden, exclude in (([FLAT] * COUNT, FLAT), ([[1, 2, 0, 38]] * 3, [[0, 38, 2, 1]] * 3)):
            may = oracle.permitted(COUNT, WIDTH, exclude=hidden, allow=shown)
            check(backend, queries, items, 7, may, allow=allow, exclude=exclude)


def test_a_row_with_nothing_left_is_all_padding(backend: str) -> None:
    queries, items = random(2, 6), random(WIDTH, 6, seed=1)
    for options in (
        {"exclude": list(range(WIDTH))},
        {"exclude": [range(WIDTH)] * 2},
        {"allow": []},
        {"allow": [[], []]},
        {"allow": torch.zeros(WIDTH, dtype=torch.bool)},
        {"allow": [3], "exclude": [[3], [3, 3]]},
    ):
        scores, ids = cosine_topk(queries, items, 3, backend=backend, **options)
        assert ids.tolist() == [[-1] * 3] * 2
        assert scores.tolist() == [[-float("inf")] * 3] * 2


def test_empty_filters_of_what_to_exclude_hide_nothing(backend: str) -> None:
    for exclude in ([], torch.empty(0, dtype=torch.int64), [[]] * COUNT):
        check(backend, random(COUNT, 6), random(WIDTH, 6, seed=1), 3, exclude=exclude)
    check(backend, random(0, 6), random(WIDTH, 6), 3, exclude=Ragged.of([]))


def test_an_item_that_is_not_finite_is_refused_even_where_nobody_may_have_it(backend: str) -> None:
    items = random(5000, 8, seed=3)
    items[4321, 2] = float("nan")
    for allow in ([50], None):
        with pytest.raises(ValueError, match=r"items holds NaN or Inf in row 4321"):
            cosine_topk(random(2, 8), items, 1, allow=allow, backend=backend)
