"""The cost formulas against implementations that count what they do, number by number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from llmrec_kernels import (
    Ragged,
    candidate_scores,
    cosine_topk,
    embedding_bag,
    pack,
    quantize,
)
from llmrec_kernels.cost import Cost
from llmrec_kernels.profiler import CostCounter

ELEMENT = {"float32": 32, "float16": 16, "bfloat16": 16, "int8": 8, "int4": 4, "fp8_e4m3": 8}
METADATA = {"int8": 8, "int4": 4, "fp8_e4m3": 4}  # bytes of a row's scale and, but for fp8, bias
STORAGES = st.sampled_from(list(ELEMENT))


@dataclass
class Tally:
    """Operations, and the places that were read; a place that is read twice is one place."""

    flops: int = 0
    places: set[tuple[Any, ...]] = field(default_factory=set)
    bits: dict[str, int] = field(default_factory=dict)
    repeated: int = 0  # bytes of reads that count each time

    def read(self, tensor: str, *place: int) -> float:
        self.places.add((tensor, *place))
        return 1.0

    def multiply_add(self, total: float, a: float, b: float) -> float:
        self.flops += 2
        return total + a * b

    def bytes_read(self, rows: dict[str, int]) -> int:
        """Each place once; the rows of a tensor begin at whole bytes: `rows` gives their bits."""
        by_row: dict[tuple[str, int], int] = {}
        for tensor, row, *_ in self.places:
            by_row[tensor, row] = by_row.get((tensor, row), 0) + rows[tensor]
        return sum(-(-bits // 8) for bits in by_row.values()) + self.repeated


def stored(count: int, dim: int, storage: str) -> Any:
    rows = torch.randn(count, dim)
    if storage in METADATA:
        return quantize(rows, storage)
    return rows.to(getattr(torch, storage))


def cost_of(name: str, call: Any) -> Cost:
    with CostCounter() as counter:
        call()
    return counter.by_op[f"llmrec.{name}"].cost


@st.composite
def searches(draw: Any) -> dict[str, Any]:
    width = draw(st.integers(1, 12))
    ids = st.permutations(range(width)).flatmap(
        lambda every: st.integers(0, width).map(lambda size: sorted(every[:size]))
    )
    count = draw(st.integers(1, 4))
    return {
        "B": count,
        "N": width,
        "d": draw(st.integers(1, 9)),
        "k": draw(st.integers(1, width)),
        "storage": draw(STORAGES),
        "bias": draw(st.booleans()),
        "exclude": draw(st.none() | st.lists(ids, min_size=count, max_size=count)),
        "allow": draw(st.none() | ids | st.lists(ids, min_size=count, max_size=count)),
    }


def lists_of(value: Sequence[Any], count: int) -> tuple[list[list[int]], int, int]:
    """Ids for each query, how many are stored, and the bytes of what holds them."""
    if value and isinstance(value[0], list):
        stored_ids = sum(map(len, value))
        return [list(each) for each in value], stored_ids, 8 * stored_ids + 8 * (count + 1)
    return [list(value)] * count, len(value), 8 * len(value)


@given(searches())
def test_a_search_multiplies_each_query_with_each_item_it_may_return(case: dict[str, Any]) -> None:
    count, width, dim = case["B"], case["N"], case["d"]
    tally = Tally()
    allowed, named = [list(range(width))] * count, width
    if case["exclude"] is not None:
        tally.repeated += lists_of(case["exclude"], count)[2]
    if case["allow"] is not None:
        allowed, named, size = lists_of(case["allow"], count)
        tally.repeated += size
    for query, items in enumerate(allowed):
        for item in items:
            total = 0.0
            for j in range(dim):
                a, b = tally.read("queries", query, j), tally.read("items", item, j)
                total = tally.multiply_add(total, a, b)
            if case["bias"]:
                tally.read("bias", item)
            if case["storage"] in METADATA:
                tally.read("metadata", item)
    for query in range(count):  # a query without items is read too
        for j in range(dim):
            tally.read("queries", query, j)
    options: dict[str, Any] = {}
    if case["bias"]:
        options["item_bias"] = torch.zeros(width)
    if case["exclude"] is not None:
        options["exclude"] = Ragged.of(case["exclude"])
    if case["allow"] is not None:
        per_query = isinstance(case["allow"][0], list) if case["allow"] else False
        options["allow"] = Ragged.of(case["allow"]) if per_query else case["allow"]
    items = stored(width, dim, case["storage"])
    queries = torch.randn(count, dim)
    found = cost_of("cosine_topk", lambda: cosine_topk(queries, items, case["k"], **options))
    assert found.flops == tally.flops
    assert found.bytes_written == count * case["k"] * (4 + 8)
    bits = {
        "queries": 32, "items": ELEMENT[case["storage"]], "bias": 32,
        "metadata": 8 * METADATA.get(case["storage"], 0),
    }  # fmt: skip
    distinct = len({item for items in allowed for item in items})
    if distinct == min(width, named):
        assert found.bytes_read == tally.bytes_read(bits)
    else:  # lists that share items: that they do is not looked at
        assert found.bytes_read >= tally.bytes_read(bits)


@given(st.integers(1, 60), st.integers(1, 70), st.data())
def test_a_search_over_packed_items_reads_codes_and_the_rows_that_it_returns(
    width: int, dim: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, width))
    items, query = pack(torch.randn(width, dim)), torch.randn(1, dim)
    found = cost_of("cosine_topk", lambda: cosine_topk(query, items, k))
    codes = width * (-(-dim // 4) * 4 + 4 + 4)  # whole groups of four, unit scale and residual
    returned = k * (4 * dim + 8)  # the row, and one over its norm
    assert found == Cost(2 * width * dim, 0, 4 * dim + codes + returned, k * (4 + 8))


@given(
    st.lists(st.lists(st.integers(0, 6), max_size=5), min_size=1, max_size=4),
    st.integers(1, 9), STORAGES, st.booleans(),
)  # fmt: skip
def test_a_bag_widens_weights_and_adds_each_element_it_names(
    bags: list[list[int]], dim: int, storage: str, weighted: bool
) -> None:
    flops = size = 0
    row_bytes = -(-dim * ELEMENT[storage] // 8) + METADATA.get(storage, 0)
    for bag in bags:
        for _ in bag:
            size += 8 + row_bytes + (4 if weighted else 0)
            for _ in range(dim):
                flops += 2 if storage in METADATA else 0  # scale times code, plus bias
                flops += 1 if weighted else 0
                flops += 1  # into the sum
    table, lists = stored(7, dim, storage), Ragged.of(bags)
    options: dict[str, Any] = {"include_last_offset": True}
    if weighted:
        options["per_sample_weights"] = torch.ones(lists.values.shape[0])
    found = cost_of(
        "embedding_bag", lambda: embedding_bag(table, lists.values, lists.offsets, **options)
    )
    assert found == Cost(flops, 0, size + 8 * (len(bags) + 1), len(bags) * dim * 4)


@given(
    st.lists(st.lists(st.integers(0, 6), max_size=5), min_size=1, max_size=4),
    st.integers(1, 9), STORAGES, st.none() | st.integers(1, 3),
)  # fmt: skip
def test_candidates_are_multiplied_pair_by_pair(
    lists: list[list[int]], dim: int, storage: str, k: int | None
) -> None:
    flops = size = 0
    row_bytes = -(-dim * ELEMENT[storage] // 8) + METADATA.get(storage, 0)
    for each in lists:
        for _ in each:
            flops += 2 * dim
            size += 8 + row_bytes
    pairs = sum(map(len, lists))
    items, queries = stored(7, dim, storage), torch.randn(len(lists), dim)
    found = cost_of(
        "candidate_scores", lambda: candidate_scores(queries, items, Ragged.of(lists), k=k)
    )
    written = 4 * pairs if k is None else len(lists) * k * (4 + 8)
    assert found == Cost(flops, 0, size + 4 * dim * len(lists) + 8 * (len(lists) + 1), written)


@given(st.integers(1, 20), st.integers(1, 9), st.sampled_from(["int8", "int4", "float16"]))
def test_quantization_reads_each_element_once(rows: int, dim: int, storage: str) -> None:
    flops = 0
    for _ in range(rows * dim):
        flops += 2  # is it the least, the largest?
        flops += 3  # less the bias, by the scale, rounded
    weight = torch.randn(rows, dim)
    found = cost_of("quantize", lambda: quantize(weight, storage))
    row = -(-dim * ELEMENT[storage] // 8) + METADATA.get(storage, 0)
    assert found == Cost(flops, 0, 4 * rows * dim, rows * row)
