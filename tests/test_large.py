"""Tables of more than 2^31 elements: every offset into them is 64-bit."""

import pytest
import torch

from llmrec_kernels import QuantizedTable, Ragged, candidate_scores, cosine_topk, embedding_bag

DIM = 512
ROWS = 2**31 // DIM + 1_000
LAST = 500  # rows at the far end, where a 32-bit offset would have wrapped


@pytest.fixture(scope="module")
def table():
    codes = torch.zeros(ROWS, DIM, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    codes[-LAST:] = torch.randint(256, (LAST, DIM), dtype=torch.uint8, generator=generator)
    scale = torch.rand(ROWS, generator=generator) / 100
    return QuantizedTable(codes, scale, -128 * scale, "int8", DIM)


@pytest.fixture(scope="module")
def end(table):
    """The same rows as a table of their own."""
    return QuantizedTable(table.codes[-LAST:], table.scale[-LAST:], table.bias[-LAST:], "int8", DIM)


@pytest.fixture(scope="module")
def queries():
    return torch.randn(2, DIM, generator=torch.Generator().manual_seed(1))


def test_the_last_rows_are_found(backend, table, end, queries):
    allowed = torch.arange(ROWS - LAST, ROWS)
    found = cosine_topk(queries, table, 5, allow=allowed, backend=backend)
    expected = cosine_topk(queries, end, 5, backend=backend)
    assert torch.equal(found.ids, expected.ids + ROWS - LAST)
    assert torch.equal(found.scores, expected.scores)


def test_the_last_rows_are_scored(backend, table, end, queries):
    lists = Ragged.of([[0, 7, LAST - 1], [3]])
    moved = Ragged(lists.values + ROWS - LAST, lists.offsets)
    found = candidate_scores(queries, table, moved, backend=backend)
    assert torch.equal(found, candidate_scores(queries, end, lists, backend=backend))


def test_the_last_rows_are_pooled(backend, table, end):
    indices = torch.tensor([[0, 1, LAST - 1], [7, 7, 2]])
    found = embedding_bag(table, indices + ROWS - LAST, backend=backend)
    assert torch.equal(found, embedding_bag(end, indices, backend=backend))
